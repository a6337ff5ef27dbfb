"""The gRPC edge of connections that the kernel tracks."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc.aio

from hostler.api.firewall.v1 import connection_pb2 as pb
from hostlerd.firewall.kernel import conntrack
from hostlerd.firewall.model import connection as model
from hostlerd.firewall.plan import connection as plan
from hostlerd.firewall.service.convert import from_proto
from hostlerd.runtime.changes import Changes
from hostlerd.runtime.domain import Runtime
from hostlerd.runtime.errors import InvalidRequest, Violation
from hostlerd.runtime.steps import Plan

_PAGE_DEFAULT, _PAGE_MOST = 1000, 10_000

Context = grpc.aio.ServicerContext[Any, Any]


class ConnectionService:
    """Serves hostler.api.firewall.v1.ConnectionService."""

    def __init__(self, runtime: Runtime, changes: Changes) -> None:
        self.runtime = runtime
        self.changes = changes
        # A table can have a million entries: one is read at a time, whoever asks.
        self._turn = asyncio.Lock()

    async def ListConnections(
        self, request: pb.ListConnectionsRequest, context: Context
    ) -> pb.ListConnectionsResponse:
        """Answer some of the connections, and how many there are."""
        wanted = model.parse_filter(from_proto(request.filter))
        if not 0 <= request.page_size <= _PAGE_MOST:
            fault = Violation("page_size", f"must be from 0 to {_PAGE_MOST}")
            raise InvalidRequest.of([fault])
        async with self._turn:
            found, total = await self.runtime.blocking(
                conntrack.listed, wanted, request.page_size or _PAGE_DEFAULT
            )
        return pb.ListConnectionsResponse(connections=map(_connection, found), total=total)

    async def CountConnections(
        self, request: pb.CountConnectionsRequest, context: Context
    ) -> pb.CountConnectionsResponse:
        """Answer how many there are."""
        wanted = model.parse_filter(from_proto(request.filter))
        async with self._turn:
            counts = await self.runtime.blocking(conntrack.counts, wanted)
            held, most = await self.runtime.blocking(conntrack.size)
        return pb.CountConnectionsResponse(
            total=counts.total(),
            counts=[
                pb.ConnectionCount(
                    protocol=model.protocol_name(protocol) or str(protocol),
                    tcp_state=model.tcp_state_name(state),
                    connections=number,
                )
                for (protocol, state), number in counts.most_common()
            ],
            table_connections=held,
            table_limit=most,
        )

    async def FlushConnections(
        self, request: pb.FlushConnectionsRequest, context: Context
    ) -> pb.FlushConnectionsResponse:
        """Cut connections."""

        def make_plan() -> Plan:
            wanted = model.parse_filter(from_proto(request.filter))
            plan.check(wanted, request.all)
            return plan.flush(wanted, request.all, conntrack.counts(wanted).total())

        done = await self.changes.carry_out(request.change, make_plan)
        return pb.FlushConnectionsResponse(change=done.change, connections=done.plan.result)


def _connection(found: model.Connection) -> pb.Connection:
    message = pb.Connection(
        id=found.id,
        protocol_number=found.protocol,
        protocol=model.protocol_name(found.protocol),
        original=_direction(found.original),
        reply=_direction(found.reply),
        tcp_state=found.tcp_state,
        replied=bool(found.status & model.SEEN_REPLY),
        assured=bool(found.status & model.ASSURED),
        mark=found.mark,
    )
    message.timeout.FromSeconds(found.timeout_s)
    return message


def _direction(said: model.Direction) -> pb.Direction:
    return pb.Direction(
        source=str(said.source),
        destination=str(said.destination),
        source_port=said.source_port,
        destination_port=said.destination_port,
        packets=said.packets,
        bytes=said.bytes,
    )
