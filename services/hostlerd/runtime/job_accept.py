"""Jobs as the gate sees them: a change that is taken on instead of being carried out.

What a job needs beside the leave to make it, an approval or a destroy token, is asked for and used
up now; it is admitted for the plan of this moment and does that one alone.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from hostler.api.common.v1 import change_pb2
from hostlerd.runtime.call import Call
from hostlerd.runtime.changes import Blocking
from hostlerd.runtime.domain import Service
from hostlerd.runtime.errors import InvalidRequest, Violation
from hostlerd.runtime.guard import ACCEPTING, Accepting, Admitted, Guard
from hostlerd.runtime.job import Record
from hostlerd.runtime.jobs import JobStore
from hostlerd.runtime.steps import fingerprint


@dataclass(frozen=True, slots=True)
class Known:
    """A unary method of the domain: what carries it out, and the classes of its messages."""

    behaviour: Callable[[Any, Any], Any]
    request: type[Message]
    response: type[Message]


def known_methods(services: Iterable[Service]) -> Mapping[str, Known]:
    """Answer the unary methods of services by full name."""
    return {
        f"/{service.descriptor.full_name}/{method.name}": _known(service.servicer, method)
        for service in services
        for method in service.descriptor.methods
        if not method.client_streaming and not method.server_streaming
    }


def _known(servicer: Any, method: MethodDescriptor) -> Known:
    return Known(
        getattr(servicer, method.name),
        GetMessageClass(method.input_type),
        GetMessageClass(method.output_type),
    )


class Jobs:
    """Takes jobs on."""

    def __init__(
        self, store: JobStore, guard: Guard, services: Iterable[Service], blocking: Blocking
    ) -> None:
        self._store = store
        self._guard = guard
        self._known = known_methods(services)
        self._blocking = blocking

    def check(self, call: Call, options: change_pb2.ChangeOptions) -> None:
        """Raise InvalidRequest for what no job can be."""
        words = ""
        if call.method.name not in self._known:
            words = "this method is not run as a job"
        elif options.validate_only:
            words = "a plan is answered at once: ask for it without job"
        elif options.HasField("confirm"):
            words = "nobody would be there to confirm it: ask for one of job and confirm"
        if words:
            raise InvalidRequest.of([Violation("change.job", words)])

    async def start(self, call: Call, request: Any) -> Any:
        """Take a job on; it is on disk when this answers, with OUTCOME_STARTED and its name.

        The same request under the same request id is the same job. Raises TooManyJobs, what
        planning raises if the job has to be admitted for a plan, and OSError.
        """
        known = self._known[call.method.name]
        job_id = _job_id(call, request)
        if await self._blocking(self._store.place, job_id) is None:
            admitted = await self._admit(call, request, known)
            await self._blocking(self._store.put, _record(job_id, call, admitted), _stored(request))
        call.job = f"jobs/{job_id}"
        response: Any = known.response()
        response.change.outcome = change_pb2.OUTCOME_STARTED
        response.change.job = call.job
        return response

    async def _admit(self, call: Call, request: Any, known: Known) -> Admitted | None:
        """Use up what the job needs, for the plan of this moment."""
        if not self._guard.needs_admission(call):
            return None
        accepting = Accepting(request.change)
        planned = known.request()
        planned.CopyFrom(request)
        change: Any = planned
        change.change.job, change.change.validate_only = False, True
        token = ACCEPTING.set(accepting)
        try:
            await known.behaviour(planned, Nobody())
        finally:
            ACCEPTING.reset(token)
        if accepting.admitted is None:
            raise InvalidRequest.of([Violation("change.job", "this method is not run as a job")])
        return accepting.admitted


class Nobody:
    """Stands in for the context of an RPC where there is none: nobody waits, nobody leaves."""

    def time_remaining(self) -> None:
        """No deadline."""

    def invocation_metadata(self) -> tuple[()]:
        """Nothing was sent along."""
        return ()


def _job_id(call: Call, request: Any) -> str:
    request_id = request.change.request_id
    if not request_id:
        return secrets.token_hex(16)
    body = hashlib.sha256(request.SerializeToString(deterministic=True)).hexdigest()
    return fingerprint([call.caller.identity, call.method.name, request_id, body])[:32]


def _record(job_id: str, call: Call, admitted: Admitted | None) -> Record:
    caller = call.caller
    return Record(
        id=job_id,
        method=call.method.name,
        identity=caller.identity,
        certificate_serial=caller.certificate_serial,
        peer=caller.peer,
        local=caller.local,
        outside=call.outside,
        run=call.run,
        resources=call.resources,
        request_id=call.request_id,
        intent_seq=call.intent_seq,
        created=time.time(),
        plan_hash=admitted.plan_hash if admitted else "",
        bindings_hash=admitted.bindings_hash if admitted else "",
    )


def _stored(request: Any) -> bytes:
    """Answer the request as the job's process carries it out: at once, and admitted already."""
    stored = type(request)()
    stored.CopyFrom(request)
    stored.change.job = False
    stored.change.destroy_token = ""
    data: bytes = stored.SerializeToString(deterministic=True)
    return data
