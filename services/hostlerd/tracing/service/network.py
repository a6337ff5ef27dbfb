"""The gRPC edge of how busy links and connections are."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any

import grpc.aio

from hostler.api.tracing.v1 import network_pb2 as pb
from hostlerd.runtime.domain import Runtime
from hostlerd.runtime.watching import MOST, Readings
from hostlerd.tracing.kernel import Kernel
from hostlerd.tracing.model.connection import (
    ConnectionRate,
    ConnectionReading,
    ProcessNetRate,
    by_process,
)
from hostlerd.tracing.model.connection import rates as connection_rates
from hostlerd.tracing.model.evidence import Process
from hostlerd.tracing.model.link import LinkRate, rates
from hostlerd.tracing.model.socket import STATES, joined
from hostlerd.tracing.service import convert

Context = grpc.aio.ServicerContext[Any, Any]


class NetworkService:
    """Serves hostler.api.tracing.v1.NetworkService."""

    def __init__(self, runtime: Runtime, kernel: Kernel) -> None:
        self._runtime = runtime
        self._kernel = kernel
        self._readings = Readings(runtime, kernel.links)
        self._connections = Readings(runtime, kernel.connections)

    async def WatchLinks(
        self, request: pb.WatchLinksRequest, context: Context
    ) -> AsyncIterator[pb.WatchLinksResponse]:
        """Stream readings."""
        async for tick in self._readings.watch(request):
            yield pb.WatchLinksResponse(
                seq=tick.seq,
                dropped=tick.dropped,
                time=tick.time,
                links=map(_link, rates(tick.before, tick.now, request.top or MOST)),
            )

    async def WatchConnections(
        self, request: pb.WatchConnectionsRequest, context: Context
    ) -> AsyncIterator[pb.WatchConnectionsResponse]:
        """Stream readings."""
        async for tick in self._connections.watch(request):
            found, processes = await self._runtime.blocking(
                _busiest, tick.before, tick.now, request.top or MOST
            )
            pids = {pid for each in found for pid in each.pids} | {each.pid for each in processes}
            named = await self._runtime.blocking(self._kernel.named, sorted(pids))
            yield pb.WatchConnectionsResponse(
                seq=tick.seq,
                dropped=tick.dropped,
                time=tick.time,
                connections=[_connection(each, named) for each in found],
                processes=[_process(each, named[each.pid]) for each in processes],
                hidden=tick.now.hidden,
                left_out=tick.now.left_out,
            )


def _busiest(
    before: ConnectionReading | None, now: ConnectionReading, top: int
) -> tuple[list[ConnectionRate], list[ProcessNetRate]]:
    # Of a hundred thousand connections this takes a while.
    found = connection_rates(before, now)
    return found[:top], by_process(found)[:top]


def _connection(rate: ConnectionRate, named: Mapping[int, Process]) -> pb.ConnectionLoad:
    count = rate.count
    return pb.ConnectionLoad(
        local=joined(count.local, count.local_port),
        peer=joined(count.peer, count.peer_port),
        state=STATES.get(count.state, str(count.state)),
        rx_bits_per_second=rate.rx_bits,
        tx_bits_per_second=rate.tx_bits,
        retransmits_per_second=rate.retransmits,
        rx_bytes=count.rx_bytes,
        tx_bytes=count.tx_bytes,
        round_trip_microseconds=count.round_trip_us,
        processes=[convert.process(named[pid]) for pid in rate.pids],
    )


def _process(rate: ProcessNetRate, named: Process) -> pb.ProcessNetworkLoad:
    return pb.ProcessNetworkLoad(
        process=convert.process(named),
        connections=rate.connections,
        rx_bits_per_second=rate.rx_bits,
        tx_bits_per_second=rate.tx_bits,
    )


def _link(rate: LinkRate) -> pb.LinkLoad:
    return pb.LinkLoad(
        ifname=rate.count.ifname,
        rx_bits_per_second=rate.rx_bits,
        tx_bits_per_second=rate.tx_bits,
        rx_packets_per_second=rate.rx_packets,
        tx_packets_per_second=rate.tx_packets,
        lost_packets_per_second=rate.lost,
        rx_bytes=rate.count.rx_bytes,
        tx_bytes=rate.count.tx_bytes,
    )
