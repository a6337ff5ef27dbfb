"""One host's doors, kept open between calls, and the retry that belongs to them."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Self

import grpc
import grpc.aio

from hostler.api.common.v1 import host_pb2
from hostler.channel import METADATA, Connector, Rpc, accepts, rpc
from hostler.fleet import Host
from hostler.results import CallFailed, HostError, from_rpc_error
from hostler.resume import OPENED, Outage, Resume
from hostler.skew import explained

DEFAULT_TIMEOUT_S = 30.0
_RETRIED = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
_MAX_PAGES = 10_000
# gRPC tells these failures apart in words only. Trying again would not help.
_TLS_WORDS = ("Ssl handshake failed", "Verification Check failed", "CERTIFICATE_VERIFY_FAILED")
# gRPC's words for a call that waited for a connection and got none, so was never sent.
_NEVER_SENT = ("failed to connect to all addresses", "DNS resolution failed")
# What the transport says when a connection ends under a call that was sent.
_LOST = frozenset({"UNAVAILABLE", "CANCELLED", "UNKNOWN", "INTERNAL"})
_UNDECIDED = (grpc.ChannelConnectivity.IDLE, grpc.ChannelConnectivity.CONNECTING)
# The reasons that this client gives itself, where the daemon gave none.
_TRANSPORT = ("", "UNAVAILABLE", "UNREACHABLE", "TLS_HANDSHAKE_FAILED")
# Failures of our own certificates: with others, a call can be made again. None was carried out.
_OURS = frozenset({"TLS_HANDSHAKE_FAILED", "CERTIFICATE_UNTRUSTED", "CERTIFICATE_EXPIRED"})
_RUN_KEY = "hostler-run"
_GET_HOST = rpc(host_pb2, "HostService", "GetHost")
# How long the kernel of a host may take to accept a connection.
_PROBE_S = 1.0
# How long a daemon that has just refused a call may take to tell its version: it looks at its host.
_VERSION_S = 10.0


@dataclass(frozen=True, slots=True)
class Retry:
    """When a call is made again: on UNAVAILABLE and CANCELLED, within the call's deadline.

    A daemon that idles out or restarts costs a kept channel one such answer. A host that cannot be
    reached at all is given up after `connect_s`, so that a dead host is named soon; one that takes
    connections, for a daemon that starts slowly, after `start_s`. Pauses double from
    `first_pause_s` to `longest_pause_s`, each drawn between half and the whole of it. A stream that
    was open and is cut is tried again for `resume_s`, long enough for a host to boot.
    """

    attempts: int = 8
    connect_s: float = 3.0
    start_s: float = 20.0
    resume_s: float = 120.0
    first_pause_s: float = 0.1
    longest_pause_s: float = 2.0

    def pause_s(self, attempt: int) -> float:
        """How long to wait after an attempt, counted from 1."""
        pause = min(self.longest_pause_s, self.first_pause_s * 2.0 ** (attempt - 1))
        return pause * random.uniform(0.5, 1.0)  # noqa: S311 - spreads load, keeps no secret


NO_RETRY = Retry(attempts=1, resume_s=0.0)


@dataclass(frozen=True, slots=True)
class Terms:
    """On which terms changes are made in a session; `hostler.plans` puts them into requests.

    `run` goes with every call, so that the host's audit log names the run it belongs to. With
    `confirm_within_s` a change joins the host's pending group `group`, and is taken back after
    that time unless it is confirmed. `as_job` has it done as a job.
    """

    run: str = ""
    confirm_within_s: float | None = None
    group: str = ""
    as_job: bool = False


class Session:
    """The doors of one host. Channels are opened at the first call and closed by `close`.

    Not for use by two loops. Every failure is a CallFailed.
    """

    def __init__(
        self,
        host: Host,
        connector: Connector,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        retry: Retry | None = None,
        terms: Terms | None = None,
    ) -> None:
        self.host = host
        self.timeout_s = timeout_s
        self.terms = terms or Terms()
        self._connector = connector
        self._retry = retry or Retry()
        self._channels: dict[str, grpc.aio.Channel] = {}
        # By which files of the context each was opened, and those that others have replaced.
        self._opened_by: dict[str, object] = {}
        self._left: list[grpc.aio.Channel] = []
        run = self.terms.run
        self._metadata = (*METADATA, (_RUN_KEY, run)) if run else METADATA

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close every channel. Calls in flight end as CANCELLED."""
        channels = (*self._channels.values(), *self._left)
        self._channels, self._left = {}, []
        for channel in channels:
            await channel.close(None)

    def beside(self, host: Host) -> Session:
        """A session with another host, as the same caller and in the same run; to be closed."""
        terms = Terms(self.terms.run)
        return Session(host, self._connector, self.timeout_s, self._retry, terms)

    def channel(self, domain: str) -> grpc.aio.Channel:
        """The channel to a domain's door, for use with a generated stub. Opened if need be."""
        if domain not in self._channels:
            self._opened_by[domain] = self._connector.follow()
            self._channels[domain] = self._connector.open(self.host, domain)
        return self._channels[domain]

    async def _renew(self, domain: str) -> bool:
        """Leave a channel whose certificates are others by now; answers whether it was one.

        What goes on in it is not cut off.
        """
        if domain not in self._channels or self.host.is_local:
            return False
        if self._opened_by[domain] == self._connector.follow():
            return False
        channel = self._channels.pop(domain)
        if channel.get_state() is grpc.ChannelConnectivity.READY:
            self._left.append(channel)
        else:
            # It would try for ever to connect with what is not taken any more.
            await channel.close(None)
        return True

    async def call(self, rpc: Rpc, request: Any, *, timeout_s: float | None = None) -> Any:
        """Call a method and answer its response. Retries as `Retry` says.

        The request is sent as it is each time: its request_id makes a change happen once. A
        failure is uncertain if an attempt was sent and none was answered after it.
        """
        loop = asyncio.get_running_loop()
        start = loop.time()
        deadline = start + (self.timeout_s if timeout_s is None else timeout_s)
        attempt = 0
        lost = False
        while True:
            attempt += 1
            await self._connect(rpc.domain, deadline, lost=lost)
            try:
                return await self._once(rpc, request, max(0.001, deadline - loop.time()))
            except grpc.aio.AioRpcError as error:
                pause = self._retry.pause_s(attempt)
                in_time = loop.time() + pause < deadline
                failure = self._judge(rpc.domain, error)
                lost = _is_lost(failure, before=lost)
                again = await self._again(rpc.domain, error, failure, attempt, loop.time() - start)
                if failure.reason in _OURS or again:
                    again = await self._renew(rpc.domain) or again
                if not in_time or not again:
                    failure = await self._explained(rpc, failure)
                    raise CallFailed(replace(failure, uncertain=lost)) from error
            await asyncio.sleep(pause)

    async def list_all(self, rpc: Rpc, request: Any, *, timeout_s: float | None = None) -> Any:
        """Call a List method until its last page; answers one response that has all of them."""
        page = rpc.request_type()
        page.CopyFrom(request)
        whole = rpc.response_type()
        for _ in range(_MAX_PAGES):
            response = await self.call(rpc, page, timeout_s=timeout_s)
            whole.MergeFrom(response)
            if not response.next_page_token:
                break
            page.page_token = response.next_page_token
        whole.next_page_token = ""
        return whole

    async def stream(
        self,
        rpc: Rpc,
        request: Any,
        *,
        timeout_s: float | None = None,
        resume: Resume | None = None,
    ) -> AsyncIterator[Any]:
        """Call a method that streams responses.

        With `resume` a stream that is cut is opened again, however often: the function is given
        the request, a copy of the caller's, and each response, and has the request ask for what
        comes after it, as `after_seq` does. A daemon that restarts is waited for as `Retry` says.
        """
        loop = asyncio.get_running_loop()
        ask = rpc.request_type()
        ask.CopyFrom(request)
        outage = Outage(self._retry, loop.time(), timeout_s)
        while True:
            call = self._method(rpc, "unary_stream")(
                ask, timeout=outage.left_s(loop.time()), metadata=self._metadata
            )
            try:
                headers: Any = await call.initial_metadata()
                if OPENED in tuple(headers or ()):
                    outage.over()
                async for response in call:
                    if resume is not None:
                        resume(ask, response)
                    yield response
                return
            except grpc.aio.AioRpcError as error:
                failure = self._judge(rpc.domain, error)
                starts = await self._is_starting(rpc.domain, failure)
                pause = outage.pause_s(failure, loop.time(), starts=starts)
                if await self._renew(rpc.domain) and failure.reason in _OURS:
                    pause = self._retry.pause_s(1)
                if resume is None or pause is None:
                    raise CallFailed(await self._explained(rpc, failure)) from error
            finally:
                # A caller that looks no further leaves nothing open behind it.
                call.cancel()
            await asyncio.sleep(pause)

    async def converse(self, rpc: Rpc, requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
        """Call a method that streams both ways. Not retried: what it started may not be twice."""
        try:
            async for response in self._method(rpc, "stream_stream")(
                requests, metadata=self._metadata
            ):
                yield response
        except grpc.aio.AioRpcError as error:
            failure = await self._explained(rpc, self._judge(rpc.domain, error))
            raise CallFailed(failure) from error

    async def _once(self, rpc: Rpc, request: Any, timeout_s: float) -> Any:
        return await self._method(rpc, "unary_unary")(
            request, timeout=timeout_s, metadata=self._metadata
        )

    async def _connect(self, domain: str, deadline: float, *, lost: bool) -> None:
        """Wait until a door is reached, or is known not to be, which the call itself then tells.

        Raises CallFailed at the deadline: what was not sent cannot have been done.
        """
        channel = self.channel(domain)
        try:
            async with asyncio.timeout_at(deadline):
                while (state := channel.get_state(try_to_connect=True)) in _UNDECIDED:
                    await channel.wait_for_state_change(state)
        except TimeoutError:
            message = "no connection in time"
            raise CallFailed(
                HostError("DEADLINE_EXCEEDED", "TIMEOUT", message, uncertain=lost)
            ) from None

    def _method(self, rpc: Rpc, kind: str) -> Any:
        return getattr(self.channel(rpc.domain), kind)(
            rpc.path,
            request_serializer=rpc.request_type.SerializeToString,
            response_deserializer=rpc.response_type.FromString,
        )

    def _judge(self, domain: str, error: grpc.aio.AioRpcError) -> HostError:
        """Decode an error; tell a door that could not be reached from one that refused."""
        failure = from_rpc_error(error)
        state = self.channel(domain).get_state()
        if failure.code != "UNAVAILABLE" or failure.reason != "UNAVAILABLE":
            return failure
        if any(words in failure.message for words in _TLS_WORDS):
            return HostError(failure.code, "TLS_HANDSHAKE_FAILED", failure.message)
        if state is grpc.ChannelConnectivity.TRANSIENT_FAILURE:
            return HostError(failure.code, "UNREACHABLE", failure.message)
        return failure

    async def _explained(self, rpc: Rpc, failure: HostError) -> HostError:
        """Answer a failure in words that say what to do about it; see `hostler.skew`."""

        async def daemon_version() -> str:
            asked = _GET_HOST.at(rpc.domain)
            try:
                answer = await self._once(asked, asked.request_type(), _VERSION_S)
            except grpc.aio.AioRpcError:
                return ""
            return str(answer.host.version)

        return await explained(rpc, failure, daemon_version)

    async def _again(
        self,
        domain: str,
        error: grpc.aio.AioRpcError,
        failure: HostError,
        attempt: int,
        elapsed_s: float,
    ) -> bool:
        if error.code() not in _RETRIED or failure.reason == "TLS_HANDSHAKE_FAILED":
            return False
        if attempt >= self._retry.attempts:
            return False
        if failure.reason != "UNREACHABLE" or elapsed_s < self._retry.connect_s:
            return True
        return elapsed_s < self._retry.start_s and await self._is_starting(domain, failure)

    async def _is_starting(self, domain: str, failure: HostError) -> bool:
        """Answer whether a door was not reached although its host takes connections for it."""
        return failure.reason == "UNREACHABLE" and await accepts(self.host, domain, _PROBE_S)


def _is_lost(failure: HostError, *, before: bool) -> bool:
    """Whether a request may have been carried out although this attempt has failed.

    `before` says so of the attempts before it; only a daemon's own word on this one settles that.
    """
    if failure.code == "DEADLINE_EXCEEDED":
        return True
    if failure.code not in _LOST or failure.reason not in _TRANSPORT:
        return False
    if failure.reason == "TLS_HANDSHAKE_FAILED" or failure.message.startswith(_NEVER_SENT):
        return before
    return True
