"""The preview of a firewall, as the CLI meets it."""

from __future__ import annotations

from typing import Any

from hostler.api.firewall.v1 import explain_pb2, explain_pb2_grpc


class Previews(explain_pb2_grpc.PreviewServiceServicer):
    """Lets everything pass now, and would drop it with rulesets."""

    def __init__(self, host: Any) -> None:
        self.host = host

    def ExplainPacket(self, request: Any, context: Any) -> Any:
        """Answer with the name of the first ruleset."""
        self.host.note("ExplainPacket", request, context)
        now = explain_pb2.Explanation(
            verdict="VERDICT_ACCEPT",
            path="input",
            in_ifname=request.packet.in_ifname or "eth0",
            decided_by=explain_pb2.Met(table="inet x", chain="y", does="accept"),
        )
        answer = explain_pb2.ExplainPacketResponse(now=now)
        for ruleset in request.rulesets:
            by = explain_pb2.Met(rule=f"{ruleset.name}/ssh", does="drop")
            answer.then.CopyFrom(explain_pb2.Explanation(verdict="VERDICT_DROP", decided_by=by))
        for name in request.delete_names:
            answer.then_unknown = f"no scratch namespace to try {name} in"
        return answer
