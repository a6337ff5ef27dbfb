"""The gate: the chain of stages that every call passes, in the one order there is.

identity → revocation → deadline and size → authorization → what this version does not know → audit
intent → idempotency → handler → error mapping → audit outcome. Domain code sees none of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar

import grpc
from google.protobuf.message import Message

from hostler.api.common.v1 import change_pb2
from hostlerd.runtime import call as call_context
from hostlerd.runtime import events, redact
from hostlerd.runtime.access import Method, resources
from hostlerd.runtime.answers import Answers, answer_of
from hostlerd.runtime.audit import Anchor
from hostlerd.runtime.authz import Authorizer
from hostlerd.runtime.call import Call
from hostlerd.runtime.errors import Code, DomainError, StepFailed
from hostlerd.runtime.guard import Guard
from hostlerd.runtime.idempotency import RetryKeys, key_of
from hostlerd.runtime.identity import connection_of, identify
from hostlerd.runtime.job_accept import Jobs
from hostlerd.runtime.journal import Journals
from hostlerd.runtime.log import get_log
from hostlerd.runtime.readable import Unreadable, reading, require_times
from hostlerd.runtime.record import Recorder
from hostlerd.runtime.relay import Relay
from hostlerd.runtime.status import CODES, room_of, trailer
from hostlerd.runtime.streams import OPENED, Stream, Streams
from hostlerd.runtime.taking import Room, only_message
from hostlerd.runtime.unknown import refuse_unknown

log = get_log("runtime.gate")

Handler = Callable[..., Any]
T = TypeVar("T")

_LAST_WORD_S = 5.0


class RequestTooLarge(DomainError):
    """The request has more bytes than this daemon takes."""

    code, reason = Code.RESOURCE_EXHAUSTED, "REQUEST_TOO_LARGE"


class DeadlineExceeded(DomainError):
    """A read took longer than its caller, or this daemon, wants to wait."""

    code, reason = Code.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED"


class Internal(DomainError):
    """A fault of ours; the journal has the whole story."""

    code, reason = Code.INTERNAL, "INTERNAL"


@dataclass(frozen=True, slots=True)
class GateBounds:
    """What the gate lets through: bytes of a request, seconds of a read, calls in flight."""

    request_bytes: int
    read_s: float
    calls: int = 256


class Keeping(Protocol):
    """Where the gate keeps what a restart must not forget; see domain.Runtime."""

    journals: Journals
    answers: Answers

    def blocking(self, work: Callable[..., Any], /, *args: Any) -> Awaitable[Any]:
        """Run blocking work in the bounded pool."""
        ...


class Gate(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]
    """Wraps the handler of every method in the chain."""

    def __init__(
        self,
        methods: Mapping[str, Method],
        relay: Relay,
        authorizer: Authorizer,
        recorder: Recorder,
        bounds: GateBounds,
        guard: Guard,
        jobs: Jobs,
        keeping: Keeping,
    ) -> None:
        self._methods = methods
        self._relay = relay
        self._authorizer = authorizer
        self._recorder = recorder
        self._bounds = bounds
        self._room = Room(bounds.calls)
        self._guard = guard
        self._jobs = jobs
        self._blocking = keeping.blocking
        self._journals = keeping.journals
        self._retries = RetryKeys(keeping.answers, keeping.blocking)
        self._streams = Streams(authorizer)
        self._changes: set[asyncio.Task[Message]] = set()

    @property
    def busy(self) -> bool:
        """Whether a change is going on, its caller still there or not."""
        return bool(self._changes)

    async def settle(self) -> None:
        """Wait until every change that is going on has ended."""
        while self._changes:
            await asyncio.wait(set(self._changes))

    def end_streams(self) -> None:
        """End the streams that only read, before the daemon exits: their callers come again."""
        self._streams.stop()

    async def intercept_service(
        self, continuation: Any, handler_call_details: grpc.HandlerCallDetails
    ) -> Any:
        """Answer the method's handler behind the chain; see grpc.aio.ServerInterceptor."""
        handler = await continuation(handler_call_details)
        method = self._methods.get(handler_call_details.method)
        if handler is None or method is None:
            return None
        if handler.response_streaming:
            return self._wrap_stream(handler, method)
        return self._wrap_unary(handler, method)

    def _wrap_unary(self, handler: Any, method: Method) -> Any:
        if handler.request_streaming:
            raise TypeError(f"{method.name}: a stream in with one answer is not served")

        async def answer(messages: Any, context: Any) -> Message:
            return await self._unary(method, handler.unary_unary, messages, context)

        # On the wire there is no difference; see taking.
        return grpc.stream_unary_rpc_method_handler(
            answer, reading(handler.request_deserializer), handler.response_serializer
        )

    def _wrap_stream(self, handler: Any, method: Method) -> Any:
        single = not handler.request_streaming
        behaviour = handler.unary_stream if single else handler.stream_stream

        # A coroutine that writes, not a generator: so that what ends a stream in the middle of a
        # write ends in this chain, too.
        async def serve(messages: Any, context: Any) -> None:
            await self._stream(method, behaviour, messages, context, single=single)

        return grpc.stream_stream_rpc_method_handler(
            serve, reading(handler.request_deserializer), handler.response_serializer
        )

    async def _unary(
        self, method: Method, behaviour: Handler, messages: Any, context: Any
    ) -> Message:
        call: Call | None = None
        try:
            with self._connected(context) as connection:
                call = identify(context, connection, method)
                self._authorizer.check_identity(call)
                with self._room.taken(call.caller.identity) as turn:
                    sent = await only_message(messages, turn)
                    request = self._admit(call, sent)
                    self._relay.mark_authenticated(connection)
                    if method.changes:
                        return await self._change(call, behaviour, request, context)
                    return await self._read(call, behaviour, request, context)
        except Exception as e:
            # Here and for streams all is caught: what no domain raised is a bug of ours.
            await self._refuse(context, method, call, e)
            raise

    @contextmanager
    def _connected(self, context: Any) -> Any:
        connection = connection_of(context, self._relay)
        self._relay.call_begins(connection)
        try:
            yield connection
        finally:
            self._relay.call_ends(connection)

    def _admit(self, call: Call, sent: Message | Unreadable) -> Message:
        """Let a request pass revocation, size, authorization and its own types, or raise why not.

        What cannot be read is judged as if nothing were set: who may not call learns no more.
        """
        call_context.enter(call)
        self._authorizer.check_identity(call)
        request = sent.empty if isinstance(sent, Unreadable) else sent
        self._check_size(request)
        call.resources = resources(request, call.method.resource_fields)
        call.validate_only = _validate_only(request)
        self._authorizer.authorize(call)
        if isinstance(sent, Unreadable):
            raise sent.error()
        require_times(request)
        refuse_unknown(request, changes=call.method.changes)
        log.debug("call let in", method=call.method.name, resources=",".join(call.resources[:10]))
        return request

    def _check_size(self, request: Message) -> None:
        size = request.ByteSize()
        if size > self._bounds.request_bytes:
            raise RequestTooLarge(
                f"the request has {size} bytes; at most {self._bounds.request_bytes} are taken",
                size_bytes=size,
                most_bytes=self._bounds.request_bytes,
            )

    async def _read(
        self, call: Call, behaviour: Handler, request: Message, context: Any
    ) -> Message:
        remaining = context.time_remaining()
        limit = self._bounds.read_s if remaining is None else min(remaining, self._bounds.read_s)
        try:
            async with asyncio.timeout(limit):
                response: Message = await behaviour(request, context)
        except TimeoutError as e:
            raise DeadlineExceeded(f"not answered within {limit:.1f} s") from e
        self._recorder.read(call)
        return response

    async def _change(
        self, call: Call, behaviour: Handler, request: Message, context: Any
    ) -> Message:
        """Run a change in a task of its own: the caller may leave, the change goes on."""
        task = asyncio.create_task(self._once(call, behaviour, request, context))
        self._changes.add(task)
        task.add_done_callback(self._changes.discard)
        # The caller may have left by the time it fails; then the audit log has the error.
        task.add_done_callback(lambda t: t.cancelled() or t.exception())
        return await asyncio.shield(task)

    async def _once(self, call: Call, behaviour: Handler, request: Any, context: Any) -> Message:
        """Run a change, or answer what its request id was answered before, across restarts."""

        def recorded() -> Awaitable[Message]:
            return self._recorded(call, behaviour, request, context)

        options: change_pb2.ChangeOptions = request.change
        if options.validate_only or not options.request_id:
            return await self._answered(call, recorded())
        key = key_of(call.caller.identity, call.method.name, options.request_id, request)
        call.body_sha256 = key.body
        once = self._retries.once(
            key, answer_of(call.method.name), recorded, lambda done: self._lasts(call, done)
        )
        answer, own = await self._answered(call, once)
        if not own:
            self._recorder.read(call, "REPEATED")
        return answer

    async def _answered(self, call: Call, work: Awaitable[T]) -> T:
        """Wait for a change; what it is answered is on disk then, and its journal can go."""
        try:
            return await work
        finally:
            if call.change_id:
                await self._blocking(self._journals.answered, call.change_id)

    def _lasts(self, call: Call, answer: Any) -> bool:
        """Whether what a change did, and so its answer, outlives a boot."""
        if call.change_id:
            return self._journals.lasts(call.change_id)
        change: change_pb2.Change = answer.change
        return change.changed or change.outcome != change_pb2.OUTCOME_APPLIED

    async def _recorded(
        self, call: Call, behaviour: Handler, request: Any, context: Any
    ) -> Message:
        if request.change.job:
            self._jobs.check(call, request.change)
        if request.change.validate_only:
            planned: Message = await behaviour(request, context)
            self._recorder.read(call, "OUTCOME_PLANNED")
            return planned
        call.request_json = redact.to_json(request)
        call.request_id = request.change.request_id
        await self._recorder.intent(call)
        try:
            if request.change.job:
                response: Any = await self._jobs.start(call, request)
            else:
                response = await behaviour(request, context)
        except Exception as e:
            await self._recorder.failed(call, as_domain_error(e))
            raise
        anchor: Anchor = await self._recorder.changed(call, response.change)
        response.change.audit.seq, response.change.audit.head = anchor.seq, anchor.head
        result: Message = response
        return result

    async def _stream(
        self, method: Method, behaviour: Handler, messages: Any, context: Any, *, single: bool
    ) -> None:
        call: Call | None = None
        stream: Stream | None = None
        try:
            with self._connected(context) as connection:
                call = identify(context, connection, method)
                self._authorizer.check_identity(call)
                with self._room.taken(call.caller.identity) as turn:
                    self._relay.mark_authenticated(connection)
                    inbound = messages
                    if single:
                        inbound = await self._open(call, await only_message(messages, turn))
                    with self._streams.opened(call) as stream:
                        if single:
                            stream.admitted = True
                            await context.send_initial_metadata(OPENED)
                        else:
                            inbound = stream.inbound(messages, self._open, self._admit_next)
                        await stream.outbound(behaviour(inbound, context), context.write)
                await self._recorder.ended(call)
        except (asyncio.CancelledError, grpc.aio.InternalError) as e:
            # The second is how a write learns first that its caller has left.
            if call is not None:
                self._recorder.cancelled(call)
            raise asyncio.CancelledError from e
        except Exception as e:
            if call is not None and stream is not None and stream.admitted and not call.ended:
                # It was let in: however it ends is its outcome, not a refusal.
                await self._recorder.failed(call, as_domain_error(e))
            await self._last_word(context, method, call, e)
            raise

    async def _open(self, call: Call, sent: Message | Unreadable) -> Message:
        """Admit the message that opens a stream; what it will change is on record first."""
        request = self._admit(call, sent)
        if call.method.changes:
            call.request_json = redact.to_json(request)
            await self._recorder.intent(call)
            if call.approval_needed:
                await asyncio.to_thread(self._guard.admit_stream, call, request)
        return request

    def _admit_next(self, call: Call, request: Message | Unreadable) -> None:
        """Let a further message of a stream pass; one that names something else is judged anew."""
        if isinstance(request, Unreadable):
            raise request.error()
        self._check_size(request)
        require_times(request)
        named = resources(request, call.method.resource_fields)
        more = tuple(n for n in named if n.strip("/") and n not in call.resources)
        refuse_unknown(request, changes=call.method.changes)
        if more:
            judged = replace(call, resources=more)
            self._authorizer.authorize(judged)
            self._guard.admit_stream(judged, request)
            call.resources += more

    async def _last_word(
        self, context: Any, method: Method, call: Call | None, error: Exception
    ) -> None:
        try:
            # A caller that does not read keeps even the last word from being sent.
            async with asyncio.timeout(_LAST_WORD_S):
                await self._refuse(context, method, call, error)
        except TimeoutError:
            log.info("last word not sent", method=method.name)

    async def _refuse(
        self, context: Any, method: Method, call: Call | None, error: Exception
    ) -> None:
        """Answer an error with its code, message and details; record it if nobody has yet."""
        if isinstance(error, grpc.aio.AbortError):
            return
        mapped = as_domain_error(error)
        if isinstance(mapped, Internal):
            log.error(
                "internal error",
                event=events.INTERNAL_ERROR,
                method=method.name,
                error=repr(error),
            )
        if call is not None and not call.ended:
            await self._recorder.refused(call, mapped)
        elif call is None:
            log.warning(
                "call refused", event=events.CALL_REFUSED, method=method.name, reason=mapped.reason
            )
        room_bytes = room_of(context.invocation_metadata() or ())
        await context.abort(CODES[mapped.code], mapped.message, trailer(mapped, room_bytes))


def _validate_only(request: Any) -> bool:
    return "change" in request.DESCRIPTOR.fields_by_name and bool(request.change.validate_only)


def as_domain_error(error: Exception) -> DomainError:
    """Answer the error as the caller shall see it."""
    if isinstance(error, DomainError):
        return error
    if isinstance(error, OSError):
        return StepFailed(
            f"{error.strerror or error}", errno=error.errno, path=error.filename or ""
        )
    return Internal("internal error; the host's journal has the details")
