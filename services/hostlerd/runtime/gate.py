"""The gate: the chain of stages that every call passes, in the one order there is.

identity → revocation → deadline and size → authorization → audit intent → idempotency → handler →
error mapping → audit outcome. Domain code sees none of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.message import Message

from hostler.api.common.v1 import change_pb2
from hostlerd.runtime import call as call_context
from hostlerd.runtime import redact
from hostlerd.runtime.access import Method, resources
from hostlerd.runtime.audit import Anchor
from hostlerd.runtime.authz import Authorizer
from hostlerd.runtime.call import Call
from hostlerd.runtime.errors import Code, DomainError, StepFailed
from hostlerd.runtime.idempotency import RetryKeys
from hostlerd.runtime.identity import connection_of, identify
from hostlerd.runtime.log import get_log
from hostlerd.runtime.record import Recorder
from hostlerd.runtime.relay import Relay
from hostlerd.runtime.status import CODES, room_of, trailer
from hostlerd.runtime.streams import Streams

log = get_log("runtime.gate")

Handler = Callable[..., Any]


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
    """What the gate lets through: bytes of a request, seconds of a read."""

    request_bytes: int
    read_s: float


class Gate(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]
    """Wraps the handler of every method in the chain."""

    def __init__(
        self,
        methods: Mapping[str, Method],
        relay: Relay,
        authorizer: Authorizer,
        recorder: Recorder,
        bounds: GateBounds,
    ) -> None:
        self._methods = methods
        self._relay = relay
        self._authorizer = authorizer
        self._recorder = recorder
        self._bounds = bounds
        self._retries = RetryKeys()
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

        async def answer(request: Message, context: Any) -> Message:
            return await self._unary(method, handler.unary_unary, request, context)

        return grpc.unary_unary_rpc_method_handler(
            answer, handler.request_deserializer, handler.response_serializer
        )

    def _wrap_stream(self, handler: Any, method: Method) -> Any:
        if handler.request_streaming:
            make: Any = grpc.stream_stream_rpc_method_handler
            behaviour = handler.stream_stream
        else:
            make, behaviour = grpc.unary_stream_rpc_method_handler, handler.unary_stream

        async def answer(request: Any, context: Any) -> AsyncIterator[Message]:
            async for message in self._stream(method, behaviour, request, context):
                yield message

        return make(answer, handler.request_deserializer, handler.response_serializer)

    async def _unary(
        self, method: Method, behaviour: Handler, request: Message, context: Any
    ) -> Message:
        call: Call | None = None
        try:
            with self._connected(context) as connection:
                call = identify(context, connection, method)
                self._admit(call, request)
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

    def _admit(self, call: Call, request: Message) -> None:
        """Let a request pass revocation, size and authorization, or raise why not."""
        call_context.enter(call)
        self._authorizer.check_identity(call)
        size = request.ByteSize()
        if size > self._bounds.request_bytes:
            raise RequestTooLarge(
                f"the request has {size} bytes; at most {self._bounds.request_bytes} are taken",
                size_bytes=size,
                most_bytes=self._bounds.request_bytes,
            )
        call.resources = resources(request, call.method.resource_fields)
        self._authorizer.authorize(call)

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
        options: change_pb2.ChangeOptions = request.change
        request_id = "" if options.validate_only else options.request_id
        return await self._retries.once(
            call.caller.identity,
            call.method.name,
            request_id,
            request,
            lambda: self._recorded(call, behaviour, request, context),
        )

    async def _recorded(
        self, call: Call, behaviour: Handler, request: Any, context: Any
    ) -> Message:
        if request.change.validate_only:
            planned: Message = await behaviour(request, context)
            self._recorder.read(call, "OUTCOME_PLANNED")
            return planned
        call.request_json = redact.to_json(request)
        await self._recorder.intent(call)
        try:
            response: Any = await behaviour(request, context)
        except Exception as e:
            await self._recorder.failed(call, as_domain_error(e))
            raise
        anchor: Anchor = await self._recorder.changed(call, response.change)
        response.change.audit.seq, response.change.audit.head = anchor.seq, anchor.head
        result: Message = response
        return result

    async def _stream(
        self, method: Method, behaviour: Handler, request: Any, context: Any
    ) -> AsyncIterator[Message]:
        call: Call | None = None
        try:
            with self._connected(context) as connection:
                call = identify(context, connection, method)
                self._authorizer.check_identity(call)
                self._relay.mark_authenticated(connection)
                if isinstance(request, Message):
                    await self._open(call, request)
                    inbound: Any = request
                else:
                    inbound = self._streams.inbound(call, request, self._open)
                async for message in self._streams.supervised(call, behaviour(inbound, context)):
                    yield message
                await self._recorder.ended(call)
        except asyncio.CancelledError:
            if call is not None:
                self._recorder.cancelled(call)
            raise
        except Exception as e:
            await self._refuse(context, method, call, e)
            raise

    async def _open(self, call: Call, request: Message) -> None:
        """Admit the message that opens a stream; what it will change is on record first."""
        self._admit(call, request)
        if call.method.changes:
            call.request_json = redact.to_json(request)
            await self._recorder.intent(call)

    async def _refuse(
        self, context: Any, method: Method, call: Call | None, error: Exception
    ) -> None:
        """Answer an error with its code, message and details; record it if nobody has yet."""
        if isinstance(error, grpc.aio.AbortError):
            return
        mapped = as_domain_error(error)
        if isinstance(mapped, Internal):
            log.error("internal error", method=method.name, error=repr(error))
        if call is not None:
            await self._recorder.refused(call, mapped)
        else:
            log.warning("call refused", method=method.name, reason=mapped.reason)
        room_bytes = room_of(context.invocation_metadata() or ())
        await context.abort(CODES[mapped.code], mapped.message, trailer(mapped, room_bytes))


def as_domain_error(error: Exception) -> DomainError:
    """Answer the error as the caller shall see it."""
    if isinstance(error, DomainError):
        return error
    if isinstance(error, OSError):
        return StepFailed(
            f"{error.strerror or error}", errno=error.errno, path=error.filename or ""
        )
    return Internal("internal error; the host's journal has the details")
