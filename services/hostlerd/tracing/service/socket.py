"""The gRPC edge of sockets."""

from __future__ import annotations

from typing import Any

import grpc.aio

from hostler.api.tracing.v1 import socket_pb2 as pb
from hostlerd.runtime.domain import Runtime
from hostlerd.runtime.errors import InvalidRequest, Violation
from hostlerd.tracing.kernel import Kernel
from hostlerd.tracing.model.socket import Entry, Selection, select
from hostlerd.tracing.service import convert

_PAGE_MOST, _PAGE_DEFAULT = 10_000, 1000
_PROTOCOLS = frozenset(
    ("", "tcp", "udp", "udplite", "raw", "unix", "unix-stream", "unix-dgram", "unix-seqpacket")
)

Context = grpc.aio.ServicerContext[Any, Any]


class SocketService:
    """Serves hostler.api.tracing.v1.SocketService."""

    def __init__(self, runtime: Runtime, kernel: Kernel) -> None:
        self._runtime = runtime
        self._kernel = kernel

    async def ListSockets(
        self, request: pb.ListSocketsRequest, context: Context
    ) -> pb.ListSocketsResponse:
        """Answer a page of the sockets."""
        after = _check(request)
        entries, unseen = await self._runtime.blocking(self._kernel.sockets)
        wanted = Selection(request.protocol, request.listening, request.pid)
        size = request.page_size or _PAGE_DEFAULT
        found = select(entries, wanted, after)
        page = found[:size]
        named = await self._runtime.blocking(
            self._kernel.named, sorted({pid for each in page for pid in each.pids})
        )
        return pb.ListSocketsResponse(
            sockets=[_entry(each, named) for each in page],
            next_page_token=f"{page[-1].protocol}/{page[-1].inode}" if len(found) > size else "",
            warnings=[convert.warning(each) for each in unseen],
        )


def _check(request: pb.ListSocketsRequest) -> tuple[str, int]:
    """Answer after which socket to go on. Raises InvalidRequest."""
    faults = []
    protocol, _, inode = request.page_token.partition("/")
    if request.page_token and not (
        protocol in _PROTOCOLS and inode.isascii() and inode.isdigit() and len(inode) < 20
    ):
        faults.append(Violation("page_token", "is not a token of ListSockets"))
    if not 0 <= request.page_size <= _PAGE_MOST:
        faults.append(Violation("page_size", f"must be from 0 to {_PAGE_MOST}"))
    if request.protocol not in _PROTOCOLS:
        faults.append(Violation("protocol", f"is none of: {', '.join(sorted(_PROTOCOLS - {''}))}"))
    if request.pid < 0:
        faults.append(Violation("pid", "must not be negative"))
    if faults:
        raise InvalidRequest.of(faults)
    return (protocol, int(inode)) if request.page_token else ("", 0)


def _entry(of: Entry, named: Any) -> pb.SocketEntry:
    return pb.SocketEntry(
        protocol=of.protocol,
        state=of.state,
        local=of.local,
        peer=of.peer,
        receive_queue=of.receive_queue,
        send_queue=of.send_queue,
        inode=of.inode,
        processes=[convert.process(named[pid]) for pid in of.pids],
    )
