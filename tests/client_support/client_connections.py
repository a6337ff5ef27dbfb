"""What a firewall daemon answers about connections and counters, for tests of the client."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import grpc

from hostler.api.firewall.v1 import (
    connection_pb2,
    connection_pb2_grpc,
    counter_pb2,
    counter_pb2_grpc,
    ruleset_pb2,
)

if TYPE_CHECKING:
    from client_doors import Host


class Connections(connection_pb2_grpc.ConnectionServiceServicer):
    def __init__(self, host: Host) -> None:
        self.host = host

    def ListConnections(self, request: Any, context: Any) -> Any:
        self.host.note("ListConnections", request, context)
        one = connection_pb2.Connection(
            protocol_number=6,
            protocol="tcp",
            original={"source": "fd00::1", "source_port": 4000, "destination": "fd00::2"},
            reply={"source": "10.0.0.2", "source_port": 22, "destination": "10.0.0.1"},
            tcp_state="ESTABLISHED",
            replied=True,
            assured=True,
        )
        return connection_pb2.ListConnectionsResponse(connections=[one], total=7)

    def CountConnections(self, request: Any, context: Any) -> Any:
        self.host.note("CountConnections", request, context)
        count = connection_pb2.ConnectionCount(protocol="tcp", tcp_state="SYN_SENT", connections=3)
        return connection_pb2.CountConnectionsResponse(
            total=3, counts=[count], table_connections=12, table_limit=4096
        )

    def FlushConnections(self, request: Any, context: Any) -> Any:
        self.host.note("FlushConnections", request, context)
        change = self.host.change(request.change, [("CutConnections", "cut connections")], context)
        return connection_pb2.FlushConnectionsResponse(change=change, connections=3)


class RuleCounters(counter_pb2_grpc.RuleCounterServiceServicer):
    def __init__(self, host: Host) -> None:
        self.host = host

    def ListRuleCounters(self, request: Any, context: Any) -> Any:
        self.host.note("ListRuleCounters", request, context)
        first = int(request.page_token or 0)
        counter = ruleset_pb2.RuleCounter(rule=f"web/{first}", packets=5, bytes=420)
        token = "" if first else "1"
        return counter_pb2.ListRuleCountersResponse(counters=[counter], next_page_token=token)

    def WatchRuleCounters(self, request: Any, context: Any) -> Iterator[Any]:
        """Three readings, and a cut as an idle exit makes one."""
        self.host.note("WatchRuleCounters", request, context)
        for seq in range(request.after_seq + 1, request.after_seq + 4):
            counter = ruleset_pb2.RuleCounter(rule="web/ssh", packets=5 * seq)
            rate = counter_pb2.RuleRate(counter=counter, packets_per_second=2_500)
            yield counter_pb2.WatchRuleCountersResponse(
                seq=seq,
                dropped=request.after_seq,
                time={"seconds": 1000 + seq},
                rules=[rate],
                sets=[{"address_set": "bad", "packets": 4 * seq, "packets_per_second": 2_400}],
            )
            time.sleep(self.host.pause_s)
        context.abort(grpc.StatusCode.UNAVAILABLE, "the daemon has ended")


def add_to(server: grpc.Server, host: Host) -> None:
    """Serve them."""
    connection_pb2_grpc.add_ConnectionServiceServicer_to_server(Connections(host), server)
    counter_pb2_grpc.add_RuleCounterServiceServicer_to_server(RuleCounters(host), server)
