"""Copies of files from one host to another, relayed part by part as fast as the slower one goes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hostler.api.storage.v1 import copy_pb2 as pb
from hostler.channel import rpc
from hostler.fleet import Host
from hostler.results import CallFailed, HostError
from hostler.session import Session

if TYPE_CHECKING:
    from hostler.aio import Client

READ = rpc(pb, "CopyService", "ReadFiles")
WRITE = rpc(pb, "CopyService", "WriteFiles")
_RESUME_S = 120.0
_PAUSE_S = 1.0

#: Is told of how many bytes were relayed, of how many; those that were there already are none.
Say = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Between:
    """What is to be copied: a path of the source, and where to on the target."""

    source: str
    target: str
    manifest: bool = False


class FileRelay:
    """One try to copy from a host to another one. What it had when it was cut, the next one has."""

    def __init__(self, source: Session, target: Session, wanted: Between, say: Say) -> None:
        self._source = source
        self._target = target
        self._wanted = wanted
        self._say = say
        self._have: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._failed: Exception | None = None
        self._digest = ""
        self._total = 0
        self.relayed_bytes = 0

    async def run(self) -> Any:
        """Copy; answer the CopyOutcome. Raises CallFailed: then there is no target."""
        outcome = None
        try:
            async for answer in self._target.converse(WRITE, self._requests()):
                if answer.WhichOneof("output") == "have":
                    self._have.set_result(answer.have)
                else:
                    outcome = answer.outcome
        except CallFailed as failed:
            # The source's own words, where it was the source that failed.
            raise (self._failed or failed) from failed
        finally:
            self._have.cancel()
        if outcome is None:
            raise CallFailed(HostError("UNKNOWN", "STREAM_ENDED", "the target did not say how"))
        if outcome.digest != self._digest:
            words = "source and target have another digest over all"
            raise CallFailed(HostError("DATA_LOSS", "COPY_NOT_EQUAL", words))
        return outcome

    async def _requests(self) -> AsyncIterator[Any]:
        wanted = self._wanted
        origin = f"{self._source.host.name}:{wanted.source}"
        start = pb.WriteFilesStart(target=wanted.target, source=origin, manifest=wanted.manifest)
        yield pb.WriteFilesRequest(start=start)
        try:
            ask = pb.ReadFilesRequest(source=wanted.source, have=await self._have)
            async for answer in self._source.stream(READ, ask):
                self._count(answer.part)
                yield pb.WriteFilesRequest(part=answer.part)
        except CallFailed as failed:
            # The stream ends without its end: the target keeps what it has.
            self._failed = failed

    def _count(self, part: Any) -> None:
        kind = part.WhichOneof("part")
        if kind == "data":
            self.relayed_bytes += len(part.data.data)
        elif kind == "begin":
            self._total = part.begin.size_bytes
        elif kind == "end":
            self._digest = part.end.digest
        if kind in ("begin", "data"):
            self._say(self.relayed_bytes, self._total)


async def copy_between(
    client: Client, hosts: Sequence[Host], wanted: Between, say: Say, resume: bool = False
) -> Any:
    """Copy from the first host to the second; answer the CopyOutcome. Raises CallFailed.

    With `resume` one that was cut, as by a host that boots, is gone on with, for as long as each
    next try relays something, or for two minutes.
    """
    loop = asyncio.get_running_loop()
    last = loop.time()
    while True:
        relay = None
        try:
            async with client.session(hosts[0]) as source, client.session(hosts[1]) as target:
                relay = FileRelay(source, target, wanted, say)
                return await relay.run()
        except CallFailed as failed:
            if relay is not None and relay.relayed_bytes:
                last = loop.time()
            if not resume or not _is_cut(failed) or loop.time() - last > _RESUME_S:
                raise
        await asyncio.sleep(_PAUSE_S)


def _is_cut(failed: CallFailed) -> bool:
    """Whether a failure says nothing about the files."""
    error = failed.error
    return error.code in ("UNAVAILABLE", "CANCELLED", "UNKNOWN") or error.reason == "COPY_CUT_OFF"
