"""What every door of the client's tests answers: the host, its audit log, its counters."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import grpc

from hostler.api.common.v1 import audit_pb2, audit_pb2_grpc, host_pb2, host_pb2_grpc
from hostler.api.netns.v1 import counter_pb2, counter_pb2_grpc

if TYPE_CHECKING:
    from client_doors import Host


class Counters(counter_pb2_grpc.CounterServiceServicer):
    def __init__(self, host: Host) -> None:
        self.host = host

    def GetCounters(self, request: Any, context: Any) -> Any:
        self.host.note("GetCounters", request, context)
        link = counter_pb2.LinkCounters(ifname="eth0", layer="L2 frame without FCS", rx_bytes=5)
        return counter_pb2.GetCountersResponse(links=[link])

    def WatchCounters(self, request: Any, context: Any) -> Iterator[Any]:
        self.host.note("WatchCounters", request, context)
        for seq in range(1, request.count + 1):
            reading = counter_pb2.LinkReading(counters=counter_pb2.LinkCounters(ifname="eth0"))
            if seq > 1:
                reading.rates.rx_bits_per_second = 1_500_000
                reading.rates.tcp4_payload_share = 1460 / 1538
            yield counter_pb2.WatchCountersResponse(seq=seq, links=[reading])


class Common(host_pb2_grpc.HostServiceServicer, audit_pb2_grpc.AuditServiceServicer):
    def __init__(self, host: Host, domain: str) -> None:
        self.host, self.domain = host, domain

    def GetHost(self, request: Any, context: Any) -> Any:
        self.host.note("GetHost", request, context)
        names = context.auth_context().get("x509_subject_alternative_name", [b"local"])
        missing = host_pb2.Capability(name="macvlan", available=False, reason="no such link type")
        return host_pb2.GetHostResponse(
            host=host_pb2.Host(
                domain=self.domain,
                version="0.1.0",
                hostname=self.host.name,
                capabilities=[missing],
                caller=names[0].decode(),
            )
        )

    def ListAuditRecords(self, request: Any, context: Any) -> Any:
        self.host.note("ListAuditRecords", request, context)
        records = [
            audit_pb2.AuditRecord(seq=seq, kind="outcome", identity="x", method="/a.S/M")
            for seq in range(request.after_seq + 1, 4)
        ]
        end = audit_pb2.AuditPosition(seq=3)
        return audit_pb2.ListAuditRecordsResponse(records=records, end=end)

    def FollowAuditRecords(self, request: Any, context: Any) -> Iterator[Any]:
        """Tell of one record, cut the stream as an idle exit does, and tell of the next one."""
        self.host.note("FollowAuditRecords", request, context)
        seq = request.after_seq + 1
        record = audit_pb2.AuditRecord(seq=seq, kind="outcome", identity="x", method="/a.S/M")
        yield audit_pb2.FollowAuditRecordsResponse(records=[record], seq=seq)
        if seq >= 5:
            while context.is_active():
                time.sleep(0.05)
        context.abort(grpc.StatusCode.UNAVAILABLE, "the daemon has ended")
