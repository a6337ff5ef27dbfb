"""The gRPC edge of what the firewall would do: a packet explained, and the shadow."""

from __future__ import annotations

import time
from ipaddress import ip_address
from typing import Any

import grpc.aio

from hostler.api.firewall.v1 import explain_pb2 as pb
from hostler.api.firewall.v1 import ruleset_pb2
from hostlerd.firewall.errors import ScratchUnavailable
from hostlerd.firewall.kernel import explain as observed
from hostlerd.firewall.model.document import parse_all
from hostlerd.firewall.model.explain import Explanation, Met, Packet
from hostlerd.firewall.plan import change, explain_tables, explain_words
from hostlerd.firewall.plan.explain_walk import explain
from hostlerd.firewall.service.convert import from_proto
from hostlerd.firewall.service.shadow import ShadowMethods
from hostlerd.runtime.errors import InvalidRequest, Violation

_SOURCE_PORT = 49152
_WITH_PORTS = ("tcp", "udp", "sctp")

Context = grpc.aio.ServicerContext[Any, Any]


class PreviewService(ShadowMethods):
    """Serves hostler.api.firewall.v1.PreviewService."""

    async def ExplainPacket(
        self, request: pb.ExplainPacketRequest, context: Context
    ) -> pb.ExplainPacketResponse:
        """Answer what becomes of a packet, now and with other rulesets."""
        packet = packet_of(request.packet)
        answer: pb.ExplainPacketResponse = await self.runtime.blocking(
            self._explain, request, packet
        )
        return answer

    def _explain(
        self, request: pb.ExplainPacketRequest, packet: Packet
    ) -> pb.ExplainPacketResponse:
        tables = explain_tables.read(observed.tables())
        routes = observed.routes(packet.version)
        answer = pb.ExplainPacketResponse(now=_message(explain(tables, routes, packet)))
        if request.rulesets or request.delete_names:
            wanted = parse_all([from_proto(r) for r in request.rulesets], request.delete_names)
            state = self.kernel.observe()
            # Judged as if it were applied, so that what would be refused is refused here as well.
            change.apply_all(wanted, request.delete_names, state)
            after = {n: r for n, r in state.rulesets.items() if n not in request.delete_names}
            after |= {want.name: want for want in wanted.values()}
            text = change.tables(after, state)
            try:
                ours = explain_tables.read(observed.scratch_tables(text))
            except ScratchUnavailable as e:
                # What nft makes of a text is read from nft alone, and nowhere else can it be asked.
                answer.then_unknown = e.message
                return answer
            planned = explain_tables.with_ours(tables, ours, observed.dynamic_sets(text))
            answer.then.CopyFrom(_message(explain(planned, routes, packet)))
        return answer


def packet_of(given: pb.Packet) -> Packet:
    """Answer the packet of a message. Raises InvalidRequest."""
    faults: list[Violation] = []
    addresses = [_address(given, name, faults) for name in ("source", "destination")]
    for name in ("source_port", "destination_port"):
        if getattr(given, name) > 0xFFFF:
            faults.append(Violation(f"packet.{name}", "must be at most 65535"))
    for name in ("in_ifname", "out_ifname"):
        if len(getattr(given, name).encode()) > 15:
            faults.append(Violation(f"packet.{name}", "must be at most 15 bytes long"))
    known = explain_words.PROTOCOLS
    protocol = _word(ruleset_pb2.Protocol, given.protocol, "packet.protocol", faults)
    state = _word(
        ruleset_pb2.ConnectionState, given.connection_state, "packet.connection_state", faults
    )
    if not protocol and (given.destination_port or given.source_port):
        protocol = "tcp"
    source, destination = addresses
    if source and destination and source.version != destination.version:
        faults.append(Violation("packet.destination", "must be of the family of the source"))
    six = source is not None and source.version == 6
    kinds = explain_words.ICMPV6_TYPES if six else explain_words.ICMP_TYPES
    kind = given.icmp_type or "echo-request"
    if kind not in kinds:
        faults.append(Violation("packet.icmp_type", "is not a type that nft knows by this name"))
    if faults or source is None or destination is None:
        raise InvalidRequest.of(faults)
    if protocol == "icmp":
        protocol = "icmpv6" if six else "icmp"
    ports = protocol in _WITH_PORTS
    return Packet(
        source=source,
        destination=destination,
        protocol=known.get(protocol),
        source_port=(given.source_port or _SOURCE_PORT) if ports else None,
        destination_port=(given.destination_port or None) if ports else None,
        icmp_type=kinds[kind] if protocol.startswith("icmp") else None,
        state=state or "new",
        in_ifname=given.in_ifname,
        out_ifname=given.out_ifname,
        now_unix_s=int(time.time()),
    )


def _address(given: pb.Packet, name: str, faults: list[Violation]) -> Any:
    try:
        if "%" not in getattr(given, name):
            return ip_address(getattr(given, name))
    except ValueError:
        pass
    faults.append(Violation(f"packet.{name}", "must be an IP address"))
    return None


def _word(enum: Any, number: int, path: str, faults: list[Violation]) -> str:
    known = enum.DESCRIPTOR.values_by_number.get(number)
    if known is None:
        faults.append(Violation(path, "is not a known value"))
        return ""
    prefix = enum.DESCRIPTOR.values[0].name.removesuffix("UNSPECIFIED")
    word = str(known.name).removeprefix(prefix).lower()
    return "" if word == "unspecified" else word


def _message(found: Explanation) -> pb.Explanation:
    return pb.Explanation(
        verdict=f"VERDICT_{found.verdict.name}",
        decided_by=_met(found.decided_by),
        met=[_met(each) for each in found.met],
        rewritten_destination=found.rewritten_destination,
        rewritten_source=found.rewritten_source,
        path=found.path,
        in_ifname=found.in_ifname,
        out_ifname=found.out_ifname,
    )


def _met(found: Met) -> pb.Met:
    return pb.Met(
        table=found.table,
        chain=found.chain,
        rule=found.rule,
        text=found.text,
        does=found.does,
        unknown=found.unknown,
    )
