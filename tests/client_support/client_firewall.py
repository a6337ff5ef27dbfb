"""The firewall's door of a test's host: what it keeps, and what it answers as it was told to."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import client_preview
import grpc
from client_errors import refuse, rich

from hostler.api.firewall.v1 import (
    address_set_pb2,
    address_set_pb2_grpc,
    explain_pb2,
    explain_pb2_grpc,
    ruleset_pb2,
    ruleset_pb2_grpc,
)

if TYPE_CHECKING:
    from client_doors import Host


def add_firewall_to(server: grpc.Server, host: Host) -> None:
    """Add the services of the domain to a server."""
    ruleset_pb2_grpc.add_RulesetServiceServicer_to_server(Rulesets(host), server)
    address_set_pb2_grpc.add_AddressSetServiceServicer_to_server(AddressSets(host), server)
    explain_pb2_grpc.add_PreviewServiceServicer_to_server(Previews(host), server)


class Rulesets(ruleset_pb2_grpc.RulesetServiceServicer):
    def __init__(self, host: Host) -> None:
        self.host = host

    def GetRuleset(self, request: Any, context: Any) -> Any:
        self.host.note("GetRuleset", request, context)
        if request.name not in self.host.rulesets:
            refuse(context, rich(grpc.StatusCode.NOT_FOUND, "RULESET_NOT_FOUND", "not there"))
        return ruleset_pb2.GetRulesetResponse(ruleset=self.host.rulesets[request.name])

    def ListRulesets(self, request: Any, context: Any) -> Any:
        self.host.note("ListRulesets", request, context)
        return ruleset_pb2.ListRulesetsResponse(rulesets=self.host.rulesets.values())

    def ApplyRuleset(self, request: Any, context: Any) -> Any:
        self.host.note("ApplyRuleset", request, context)
        name = request.ruleset.name
        same = self.host.rulesets.get(name) == request.ruleset
        steps = [] if same else [("ReplaceTable", f"replace table for {name}")]
        change = self.host.change(request.change, steps, context)
        if not request.change.validate_only:
            self.host.rulesets[name] = request.ruleset
        return ruleset_pb2.ApplyRulesetResponse(ruleset=request.ruleset, change=change)

    def ApplyRulesets(self, request: Any, context: Any) -> Any:
        self.host.note("ApplyRulesets", request, context)
        new = [r for r in request.rulesets if self.host.rulesets.get(r.name) != r]
        gone = [name for name in request.delete_names if name in self.host.rulesets]
        steps = [("ReplaceTable", f"replace table for {r.name}") for r in new]
        steps += [("DeleteRuleset", f"delete ruleset {name}") for name in gone]
        change = self.host.change(request.change, steps, context)
        if not request.change.validate_only:
            self.host.rulesets |= {r.name: r for r in new}
            for name in gone:
                del self.host.rulesets[name]
        return ruleset_pb2.ApplyRulesetsResponse(
            rulesets=request.rulesets,
            change=change,
            findings=self.host.findings,
            touches_caller=self.host.touches_caller,
        )

    def DeleteRuleset(self, request: Any, context: Any) -> Any:
        self.host.note("DeleteRuleset", request, context)
        there = request.name in self.host.rulesets
        steps = [("DeleteRuleset", f"delete ruleset {request.name}")] if there else []
        change = self.host.change(request.change, steps, context)
        if not request.change.validate_only:
            self.host.rulesets.pop(request.name, None)
        return ruleset_pb2.DeleteRulesetResponse(change=change)

    def GetTable(self, request: Any, context: Any) -> Any:
        self.host.note("GetTable", request, context)
        return ruleset_pb2.GetTableResponse(
            nft_text="table inet hostler {\n}\n", sysctls={"net.ipv4.ip_forward": "1"}
        )


class AddressSets(address_set_pb2_grpc.AddressSetServiceServicer):
    """Keeps elements as they come; `host.sets` has those of each set by address."""

    def __init__(self, host: Host) -> None:
        self.host = host

    def ListAddressSets(self, request: Any, context: Any) -> Any:
        self.host.note("ListAddressSets", request, context)
        answer = address_set_pb2.ListAddressSetsResponse()
        for name, elements in sorted(self.host.sets.items()):
            six = sum(":" in address for address in elements)
            answer.address_sets.add(
                name=name,
                ruleset="base",
                dynamic=True,
                ipv4_elements=len(elements) - six,
                ipv6_elements=six,
                used_by=["base/block"],
            )
        return answer

    def ListElements(self, request: Any, context: Any) -> Any:
        self.host.note("ListElements", request, context)
        elements = list(self._set(request.name, context).values())
        first, size = int(request.page_token or 0), request.page_size or 2
        token = str(first + size) if first + size < len(elements) else ""
        return address_set_pb2.ListElementsResponse(
            elements=elements[first : first + size], next_page_token=token
        )

    def AddElements(self, request: Any, context: Any) -> Any:
        self.host.note("AddElements", request, context)
        there = self._set(request.name, context)
        new = {e.address: e for e in request.elements if there.get(e.address) != e}
        change = self._change(request, [f"add {a}" for a in new], {**there, **new}, context)
        return address_set_pb2.AddElementsResponse(change=change)

    def RemoveElements(self, request: Any, context: Any) -> Any:
        self.host.note("RemoveElements", request, context)
        there = self._set(request.name, context)
        gone = [a for a in request.addresses if a in there]
        kept = {a: e for a, e in there.items() if a not in gone}
        change = self._change(request, [f"remove {a}" for a in gone], kept, context)
        return address_set_pb2.RemoveElementsResponse(change=change)

    def ReplaceElements(self, request: Any, context: Any) -> Any:
        self.host.note("ReplaceElements", request, context)
        there = self._set(request.name, context)
        wanted = {e.address: e for e in request.elements}
        steps = [] if wanted == there else [f"replace {len(there)} by {len(wanted)} elements"]
        change = self._change(request, steps, wanted, context)
        return address_set_pb2.ReplaceElementsResponse(change=change)

    def _set(self, name: str, context: Any) -> dict[str, Any]:
        if name not in self.host.sets:
            refuse(context, rich(grpc.StatusCode.NOT_FOUND, "ADDRESS_SET_NOT_FOUND", "not there"))
        return self.host.sets[name]

    def _change(self, request: Any, steps: list[str], then: dict[str, Any], context: Any) -> Any:
        change = self.host.change(request.change, [("Elements", s) for s in steps], context)
        if not request.change.validate_only:
            self.host.sets[request.name] = then
        return change


class Previews(client_preview.Previews):
    """Keeps one shadow, which has counted a packet for each rule."""

    def __init__(self, host: Host) -> None:
        self.host = host

    def StartShadow(self, request: Any, context: Any) -> Any:
        self.host.note("StartShadow", request, context)
        names = ", ".join(each.name for each in request.rulesets)
        change = self.host.change(request.change, [("StartShadow", f"shadow {names}")], context)
        if not request.change.validate_only:
            self.host.shadow = request
        answer = explain_pb2.StartShadowResponse(change=change)
        after = timedelta(seconds=request.duration.seconds or 600)
        answer.expire_time.FromDatetime((datetime.now(UTC) + after).replace(tzinfo=None))
        return answer

    def GetShadow(self, request: Any, context: Any) -> Any:
        self.host.note("GetShadow", request, context)
        answer = explain_pb2.GetShadowResponse(running=self.host.shadow is not None)
        if answer.running:
            answer.expire_time.FromJsonString("2030-01-02T03:04:05Z")
            for ruleset in self.host.shadow.rulesets:
                for rule in ruleset.rules:
                    answer.counters.add(rule=f"{ruleset.name}/{rule.id}", packets=1, bytes=60)
        return answer

    def StopShadow(self, request: Any, context: Any) -> Any:
        self.host.note("StopShadow", request, context)
        steps = [] if self.host.shadow is None else [("StopShadow", "stop the shadow")]
        change = self.host.change(request.change, steps, context)
        if not request.change.validate_only:
            self.host.shadow = None
        return explain_pb2.StopShadowResponse(change=change)
