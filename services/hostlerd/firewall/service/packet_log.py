"""The gRPC edge of the packet log."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc.aio
from google.protobuf.timestamp_pb2 import Timestamp

from hostler.api.firewall.v1 import packet_log_pb2 as pb
from hostler.core.packet_filter import FilterInvalid, compile_filter
from hostlerd.firewall.errors import PacketLogUnavailable
from hostlerd.firewall.kernel.packet_log import PacketLog, Reader
from hostlerd.firewall.kernel.packet_ring import Taken
from hostlerd.firewall.model.packet import NAMES, Values, unpack
from hostlerd.runtime.domain import Runtime
from hostlerd.runtime.errors import InvalidRequest, Violation

_BATCH_PACKETS = 512
# Packets wait for others: a message for each would cost more than they do.
_LOOK_S = 0.05
# Who is told of no packet is told how far the log has come.
_TELL_S = 1.0

Context = grpc.aio.ServicerContext[Any, Any]
Passes = Callable[[Values], bool]


class PacketLogService:
    """Serves hostler.api.firewall.v1.PacketLogService."""

    def __init__(self, runtime: Runtime, packet_log: PacketLog) -> None:
        self.runtime = runtime
        self.packet_log = packet_log

    async def FollowPacketLog(
        self, request: pb.FollowPacketLogRequest, context: Context
    ) -> AsyncIterator[pb.FollowPacketLogResponse]:
        """Stream what rules log, from where the caller was."""
        passes = _passes(request)
        await self.runtime.blocking(self.packet_log.open)
        with self.packet_log.followed() as reader:
            async for answer in _batches(reader, _place(request, reader), passes):
                yield answer

    async def GetPacketLogState(
        self, request: pb.GetPacketLogStateRequest, context: Context
    ) -> pb.GetPacketLogStateResponse:
        """Get how the reader stands."""
        reader, followers, problem = await self.runtime.blocking(self.packet_log.state)
        answer = pb.GetPacketLogStateResponse(followers=followers, problem=problem)
        if reader is not None:
            answer.reader = reader.name
            answer.last_seq, answer.first_seq, answer.lost = reader.ring.state
        return answer


async def _batches(
    reader: Reader, seq: int, passes: Passes | None
) -> AsyncIterator[pb.FollowPacketLogResponse]:
    yield _answer(reader, [], Taken((), (), (), seq, 0, 0))
    told, told_s = seq, time.monotonic()
    while True:
        taken = reader.ring.take(seq, _BATCH_PACKETS)
        records = _records(taken, passes)
        now_s = time.monotonic()
        if records or taken.lost or (taken.seq > told and now_s - told_s > _TELL_S):
            yield _answer(reader, records, taken)
            told, told_s = taken.seq, now_s
        seq = taken.seq
        if reader.problem and not taken.packed:
            raise PacketLogUnavailable(reader.problem)
        if len(taken.packed) < _BATCH_PACKETS:
            await asyncio.sleep(_LOOK_S)
        else:
            # Others have their turn even if nothing was sent.
            await asyncio.sleep(0)


def _answer(
    reader: Reader, records: list[pb.PacketRecord], taken: Taken
) -> pb.FollowPacketLogResponse:
    at = Timestamp()
    at.GetCurrentTime()
    return pb.FollowPacketLogResponse(
        reader=reader.name,
        records=records,
        seq=taken.seq,
        lost=taken.lost,
        lost_at_socket=taken.lost_at_socket,
        time=at,
    )


def _records(taken: Taken, passes: Passes | None) -> list[pb.PacketRecord]:
    made = []
    for seq, origin, packed in zip(taken.numbers, taken.origins, taken.packed, strict=True):
        values = unpack(origin, packed)
        if passes is None or passes(values):
            made.append(_record(seq, *values))
    return made


def _record(
    seq: int, rule: str, action: str, in_ifname: str, out_ifname: str, physin_ifname: str,
    physout_ifname: str, time_unix_ns: int, ether_type: int, protocol_number: int,
    source_port: int, destination_port: int, length_bytes: int, tcp_flags: int,
    connection_state: int, mark: int, source: bytes, destination: bytes, source_mac: bytes,
    destination_mac: bytes,
) -> pb.PacketRecord:  # fmt: skip
    return pb.PacketRecord(
        seq=seq,
        rule=rule,
        action=action,
        in_ifname=in_ifname,
        out_ifname=out_ifname,
        physin_ifname=physin_ifname,
        physout_ifname=physout_ifname,
        time_unix_ns=time_unix_ns,
        ether_type=ether_type,
        protocol_number=protocol_number,
        source_port=source_port,
        destination_port=destination_port,
        length_bytes=length_bytes,
        tcp_flags=tcp_flags,
        connection_state=connection_state,
        mark=mark,
        source=source,
        destination=destination,
        source_mac=source_mac,
        destination_mac=destination_mac,
    )


def _passes(request: pb.FollowPacketLogRequest) -> Passes | None:
    """Answer the filter, None if all passes. Raises InvalidRequest."""
    faults = []
    passes = None
    if request.after_seq < -1:
        faults.append(Violation("after_seq", "must be a record's number, 0, or -1"))
    try:
        if request.where.strip():
            passes = compile_filter(request.where, _read)
    except FilterInvalid as e:
        faults.append(Violation("where", str(e)))
    if faults:
        raise InvalidRequest.of(faults)
    return passes


def _read(name: str) -> Callable[[Any], Any]:
    place = NAMES.index(name)
    return lambda values: values[place]


def _place(request: pb.FollowPacketLogRequest, reader: Reader) -> int:
    """Answer the number that the caller goes on after."""
    last, _, _ = reader.ring.state
    if request.after_seq == -1:
        return last
    if request.reader not in ("", reader.name):
        return 0
    return min(request.after_seq, last)
