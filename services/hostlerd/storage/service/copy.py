"""The gRPC edge of copies."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import Any

import grpc.aio

from hostler.api.common.v1 import change_pb2
from hostler.api.storage.v1 import copy_pb2 as pb
from hostler.core.copying.parts import Have, Part
from hostlerd.runtime.call import PROGRESS
from hostlerd.runtime.changes import Changes, Done
from hostlerd.runtime.domain import Runtime
from hostlerd.runtime.errors import InvalidRequest, Violation
from hostlerd.runtime.steps import Plan
from hostlerd.storage.kernel import copy_streams
from hostlerd.storage.kernel.changing import Changing
from hostlerd.storage.kernel.copies import Copies
from hostlerd.storage.model.copies import Outcome
from hostlerd.storage.model.copy_steps import COPIER, BeginCopy
from hostlerd.storage.plan import copies as plan
from hostlerd.storage.service import copy_convert as convert
from hostlerd.storage.service import copy_parts

Context = grpc.aio.ServicerContext[Any, Any]


class CopyService:
    """Serves hostler.api.storage.v1.CopyService."""

    def __init__(self, runtime: Runtime, changing: Changing, changes: Changes) -> None:
        self._runtime = runtime
        self._changing = changing
        self._changes = changes
        self._copies = Copies(changing.doors[COPIER])
        self._path = changing.doors[COPIER].path

    async def CopyFiles(
        self, request: pb.CopyFilesRequest, context: Context
    ) -> pb.CopyFilesResponse:
        """Copy a file or a tree within the host."""

        def make_plan() -> Plan:
            plan.check(request.source, request.target)
            seen = self._copies.see(request.source, request.target, request.manifest)
            return plan.copy(request.source, request.target, request.manifest, seen)

        change, outcome = await self._begin(request, make_plan)
        return pb.CopyFilesResponse(change=change, outcome=convert.copied(outcome))

    async def VerifyFiles(
        self, request: pb.VerifyFilesRequest, context: Context
    ) -> pb.VerifyFilesResponse:
        """Compare a copy with its manifest."""

        def make_plan() -> Plan:
            plan.check_verify(request.manifest, request.root)
            return plan.verify(request.manifest, request.root)

        change, outcome = await self._begin(request, make_plan)
        return pb.VerifyFilesResponse(change=change, outcome=convert.verified(outcome))

    async def BurnIn(self, request: pb.BurnInRequest, context: Context) -> pb.BurnInResponse:
        """Put the filesystem of a folder to work."""
        wanted = request.folder, request.size_bytes, request.rounds

        def make_plan() -> Plan:
            plan.check_burn_in(*wanted)
            return plan.burn_in(*wanted)

        change, outcome = await self._begin(request, make_plan)
        return pb.BurnInResponse(change=change, outcome=convert.burnt(outcome))

    async def ReadFiles(
        self, request: pb.ReadFilesRequest, context: Context
    ) -> AsyncIterator[pb.ReadFilesResponse]:
        """Stream a file or a tree."""
        plan.check_read(request.source, request.have.entries, request.have.offset)
        have, seq = Have(request.have.entries, request.have.offset), 0
        async with aclosing(copy_streams.read(self._path, request.source, have)) as parts:
            async for part in parts:
                seq += 1
                yield pb.ReadFilesResponse(seq=seq, part=copy_parts.to_proto(part))

    async def WriteFiles(
        self, requests: AsyncIterator[pb.WriteFilesRequest], context: Context
    ) -> AsyncIterator[pb.WriteFilesResponse]:
        """Write a file or a tree as it comes."""
        start = await _first(requests)
        plan.check_write(start.target, start.source)
        begun = copy_streams.writing(self._path, start.target, start.source, start.manifest)
        async with begun as writing:
            have = pb.FileHave(entries=writing.have.entries, offset=writing.have.offset)
            yield pb.WriteFilesResponse(seq=1, have=have)
            outcome = await writing.write(_parts(requests))
        yield pb.WriteFilesResponse(seq=2, outcome=convert.copied(outcome))

    async def _begin(
        self, request: Any, make_plan: Callable[[], Plan]
    ) -> tuple[change_pb2.Change, Outcome | None]:
        """Plan, begin, and follow it to its end. No lock is held meanwhile."""
        done = await self._changes.carry_out(request.change, make_plan)
        if request.change.validate_only or not done.plan.steps:
            return done.change, None
        return done.change, await self._runtime.blocking(self._follow, done)

    def _follow(self, done: Done) -> Outcome | None:
        (step,) = done.plan.steps
        begun, progress = self._changing.take_answer(step), PROGRESS.get()
        if "run" not in begun:
            return None
        again = "the same request begins anew"
        if isinstance(step, BeginCopy):
            again = f"there is no {step.target}; the same request goes on with what it left"
        if progress is not None:
            words = f"goes on without this job: {step.describe()}; after a boot {again}"
            progress.follow("bytes", words, "")
        tell = progress.step if progress is not None else lambda done, total, activity: None
        return self._copies.follow(str(begun["run"]), tell, again)


async def _first(requests: AsyncIterator[pb.WriteFilesRequest]) -> pb.WriteFilesStart:
    async for request in requests:
        if request.WhichOneof("input") == "start":
            return request.start
        break
    raise InvalidRequest.of([Violation("start", "comes first")])


async def _parts(requests: AsyncIterator[pb.WriteFilesRequest]) -> AsyncIterator[Part]:
    async for request in requests:
        if request.WhichOneof("input") != "part":
            raise InvalidRequest.of([Violation("start", "comes once")])
        yield copy_parts.from_proto(request.part)
