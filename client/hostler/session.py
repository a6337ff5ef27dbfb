"""One host's doors, kept open between calls, and the retry that belongs to them."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import grpc
import grpc.aio

from hostler.channel import METADATA, Connector, Rpc
from hostler.fleet import Host
from hostler.results import CallFailed, HostError, from_rpc_error

DEFAULT_TIMEOUT_S = 30.0
_RETRIED = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
_MAX_PAGES = 10_000
# gRPC tells these failures apart in words only. Trying again would not help.
_TLS_WORDS = ("Ssl handshake failed", "Verification Check failed", "CERTIFICATE_VERIFY_FAILED")


@dataclass(frozen=True, slots=True)
class Retry:
    """When a call is made again: on UNAVAILABLE and CANCELLED, within the call's deadline.

    A daemon that idles out or restarts costs a kept channel one such answer. A host that cannot be
    reached at all is given up after `connect_s`, so that a dead host is named soon. Pauses double
    from `first_pause_s` to `longest_pause_s`, each drawn between half and the whole of it.
    """

    attempts: int = 8
    connect_s: float = 3.0
    first_pause_s: float = 0.1
    longest_pause_s: float = 2.0

    def pause_s(self, attempt: int) -> float:
        """How long to wait after an attempt, counted from 1."""
        pause = min(self.longest_pause_s, self.first_pause_s * 2.0 ** (attempt - 1))
        return pause * random.uniform(0.5, 1.0)  # noqa: S311 - spreads load, keeps no secret


NO_RETRY = Retry(attempts=1)


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
    ) -> None:
        self.host = host
        self.timeout_s = timeout_s
        self._connector = connector
        self._retry = retry or Retry()
        self._channels: dict[str, grpc.aio.Channel] = {}

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
        channels, self._channels = self._channels, {}
        for channel in channels.values():
            await channel.close(None)

    def channel(self, domain: str) -> grpc.aio.Channel:
        """The channel to a domain's door, for use with a generated stub. Opened if need be."""
        if domain not in self._channels:
            self._channels[domain] = self._connector.open(self.host, domain)
        return self._channels[domain]

    async def call(self, rpc: Rpc, request: Any, *, timeout_s: float | None = None) -> Any:
        """Call a method and answer its response. Retries as `Retry` says.

        The request is sent as it is each time: its request_id makes a change happen once.
        """
        loop = asyncio.get_running_loop()
        start = loop.time()
        deadline = start + (self.timeout_s if timeout_s is None else timeout_s)
        attempt = 0
        while True:
            attempt += 1
            try:
                return await self._once(rpc, request, max(0.001, deadline - loop.time()))
            except grpc.aio.AioRpcError as error:
                pause = self._retry.pause_s(attempt)
                in_time = loop.time() + pause < deadline
                failure = self._judge(rpc.domain, error)
                if not in_time or not self._again(error, failure, attempt, loop.time() - start):
                    raise CallFailed(failure) from error
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
        self, rpc: Rpc, request: Any, *, timeout_s: float | None = None
    ) -> AsyncIterator[Any]:
        """Call a method that streams responses. Not retried: the caller knows where to go on."""
        try:
            async for response in self._method(rpc, "unary_stream")(
                request, timeout=timeout_s, metadata=METADATA
            ):
                yield response
        except grpc.aio.AioRpcError as error:
            raise CallFailed(self._judge(rpc.domain, error)) from error

    async def converse(self, rpc: Rpc, requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
        """Call a method that streams both ways. Not retried: what it started may not be twice."""
        try:
            async for response in self._method(rpc, "stream_stream")(requests):
                yield response
        except grpc.aio.AioRpcError as error:
            raise CallFailed(self._judge(rpc.domain, error)) from error

    async def _once(self, rpc: Rpc, request: Any, timeout_s: float) -> Any:
        return await self._method(rpc, "unary_unary")(request, timeout=timeout_s, metadata=METADATA)

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

    def _again(
        self, error: grpc.aio.AioRpcError, failure: HostError, attempt: int, elapsed_s: float
    ) -> bool:
        if error.code() not in _RETRIED or failure.reason == "TLS_HANDSHAKE_FAILED":
            return False
        if attempt >= self._retry.attempts:
            return False
        return failure.reason != "UNREACHABLE" or elapsed_s < self._retry.connect_s
