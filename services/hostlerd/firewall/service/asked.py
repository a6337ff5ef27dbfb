"""What a caller is told about rulesets before they are planned; some of it needs force."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from ipaddress import ip_address

from hostler.api.common.v1 import change_pb2
from hostlerd.firewall.errors import FindingRefused
from hostlerd.firewall.model.connection import CutConnections
from hostlerd.firewall.model.ruleset import Address, Ruleset
from hostlerd.firewall.model.state import State
from hostlerd.firewall.plan import cutting, lint, reach
from hostlerd.runtime import call
from hostlerd.runtime.errors import InvalidRequest, Violation
from hostlerd.runtime.steps import Plan


class Told:
    """What one request asks for beside its rulesets, and what its caller is to be told."""

    def __init__(
        self, *, force: bool, options: change_pb2.ChangeOptions, cut_established: bool = False
    ) -> None:
        self.findings: tuple[lint.Finding, ...] = ()
        self.touches_caller = False
        self._force = force
        self._cut_established = cut_established
        self._options = options

    def look(
        self, wanted: Mapping[str, Ruleset], gone: Collection[str], state: State
    ) -> dict[str, Ruleset]:
        """Answer the rulesets as they are to be applied. Raises FindingRefused, InvalidRequest."""
        self._judge_force(wanted)
        left = {n: r for n, r in state.rulesets.items() if n not in gone}
        after = [*{**left, **{r.name: r for r in wanted.values()}}.values()]
        caller = _caller()
        shut = reach.refused(wanted, state.rulesets.values(), after, state.management, caller)
        self.findings = (*shut, *lint.findings(wanted, after))
        if shut and not self._force:
            raise FindingRefused(
                f"{shut[0].message}; --force does it, and the host takes it back unless confirmed",
                violations=[Violation(f.field, f.message) for f in shut],
                rule=shut[0].rule,
                code=shut[0].code,
            )
        chosen = {path: reach.closing(want, shut) for path, want in wanted.items()}
        after = [*{**left, **{r.name: r for r in chosen.values()}}.values()]
        self.touches_caller = reach.touches(state.rulesets.values(), after, caller)
        return chosen

    def with_cutting(self, plan: Plan, wanted: Mapping[str, Ruleset], state: State) -> Plan:
        """Answer the plan with the cutting of connections, if that was asked for and is of use."""
        if not self._cut_established or not plan.steps:
            return plan
        after = [*{**state.rulesets, **{r.name: r for r in wanted.values()}}.values()]
        filters = cutting.filters(wanted, state.rulesets, after)
        if not filters:
            return plan
        return replace(plan, steps=(*plan.steps, CutConnections(filters)))

    def _judge_force(self, wanted: Mapping[str, Ruleset]) -> None:
        faults = []
        if self._force and not (self._options.HasField("confirm") or self._options.validate_only):
            faults.append(
                Violation("force", "needs change.confirm: the host must find its way back")
            )
        faults += [
            Violation(f"{path}.closes_management", "is taken only with force")
            for path, want in wanted.items()
            if want.closes_management and not self._force
        ]
        if faults:
            raise InvalidRequest.of(faults)


def _caller() -> Address | None:
    """Answer the address that the caller calls from; None for a local one."""
    try:
        caller = call.current().caller
    except LookupError:
        return None
    try:
        return ip_address(caller.address)
    except ValueError:
        return None
