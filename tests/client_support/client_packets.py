"""A host's packet log in the client's tests: a list of records that a seed makes, told as said."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

import grpc

from hostler.api.firewall.v1 import packet_log_pb2, packet_log_pb2_grpc
from hostler.core.packet_filter import by_attribute, compile_filter

if TYPE_CHECKING:
    from client_doors import Host

RULES = (("web/ssh", "drop"), ("web/http", "accept"), ("base/rest", "reject"))
HOUR_NS = 3600 * 10**9


def made_records(count: int, seed: int = 0, first: int = 1, start_ns: int | None = None) -> Any:
    """Records numbered from `first` on, over six hours up to now, or from `start_ns` on."""
    chance = random.Random(seed)  # noqa: S311
    start_ns = time.time_ns() - 6 * HOUR_NS if start_ns is None else start_ns
    records = []
    for number in range(count):
        rule, action = chance.choice(RULES)
        v6 = chance.random() < 0.2
        base = "2001:db8::" if v6 else "192.0.2.0"
        udp = chance.random() < 0.3
        records.append(
            packet_log_pb2.PacketRecord(
                seq=first + number,
                time_unix_ns=start_ns + number * 6 * HOUR_NS // max(1, count),
                rule=rule,
                action=action,
                in_ifname="eth0",
                source=(ip_address(base) + int(chance.expovariate(0.1)) % 250).packed,
                destination=(ip_address(base) + 250).packed,
                source_mac=b"\2\0\0\0\0\1",
                protocol_number=17 if udp else 6,
                source_port=chance.randrange(1024, 65536),
                destination_port=chance.choice((22, 80, 443, 53)),
                length_bytes=chance.choice((40, 60, 1500)),
                tcp_flags=0 if udp else 2,
                connection_state=3,
                ether_type=0x86DD if v6 else 0x0800,
            )
        )
    return records


@dataclass
class PacketLog:
    """What a host has logged.

    `losses` says how many were lost right before the record of a number, (in all, at the socket).
    """

    reader: str = "r1"
    records: list[Any] = field(default_factory=list)
    losses: dict[int, tuple[int, int]] = field(default_factory=dict)
    batch: int = 256
    pause_s: float = 0.0
    cut_after: int | None = None
    ends: bool = False
    problem: str = ""


class PacketLogs(packet_log_pb2_grpc.PacketLogServiceServicer):
    def __init__(self, host: Host) -> None:
        self.host = host

    def GetPacketLogState(self, request: Any, context: Any) -> Any:
        self.host.note("GetPacketLogState", request, context)
        log = self.host.packets
        last = log.records[-1].seq if log.records else 0
        return packet_log_pb2.GetPacketLogStateResponse(
            reader=log.reader, last_seq=last, problem=log.problem
        )

    def FollowPacketLog(self, request: Any, context: Any) -> Iterator[Any]:
        self.host.note("FollowPacketLog", request, context)
        context.send_initial_metadata((("hostler-stream", "open"),))
        holds = compile_filter(request.where, by_attribute)
        log = self.host.packets
        reader, told = log.reader, 0
        if request.after_seq < 0:
            place = len(log.records)
        else:
            after = request.after_seq if request.reader == reader else 0
            place = next((i for i, r in enumerate(log.records) if r.seq > after), len(log.records))
        while context.is_active() and self.host.packets is log:
            part = log.records[place : place + log.batch]
            if not part:
                if log.ends:
                    return
                time.sleep(0.02)
                continue
            place += len(part)
            lost = [log.losses[r.seq] for r in part if r.seq in log.losses]
            yield packet_log_pb2.FollowPacketLogResponse(
                reader=reader,
                records=[r for r in part if holds(r)],
                seq=part[-1].seq,
                lost=sum(each[0] for each in lost),
                lost_at_socket=sum(each[1] for each in lost),
            )
            told += len(part)
            if log.cut_after is not None and told >= log.cut_after:
                log.cut_after = None
                context.abort(grpc.StatusCode.UNAVAILABLE, "going away")
            time.sleep(log.pause_s)
        if context.is_active():
            context.abort(grpc.StatusCode.UNAVAILABLE, "another reader")
