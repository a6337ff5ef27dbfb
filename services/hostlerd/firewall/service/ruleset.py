"""The gRPC edge of rulesets and of the table they make."""

from __future__ import annotations

from typing import Any

import grpc.aio

from hostler.api.firewall.v1 import ruleset_pb2 as pb
from hostlerd.firewall.errors import ScratchUnavailable
from hostlerd.firewall.kernel import Kernel
from hostlerd.firewall.model.document import parse, parse_all
from hostlerd.firewall.model.fields import name_fault
from hostlerd.firewall.model.ruleset import Ruleset
from hostlerd.firewall.model.steps import ReplaceTable
from hostlerd.firewall.plan import change
from hostlerd.firewall.plan.table import in_order
from hostlerd.firewall.service.asked import Told
from hostlerd.firewall.service.convert import finding, from_proto, sums, to_proto
from hostlerd.runtime.changes import Changes
from hostlerd.runtime.domain import Runtime
from hostlerd.runtime.errors import InvalidRequest, Violation
from hostlerd.runtime.steps import Notice, Plan

_PAGE_MOST = 1000
# A page ends before it is larger than what gRPC's clients take by default.
_PAGE_BYTES = 3 << 20
_FOREIGN_BYTES = 1 << 20

Context = grpc.aio.ServicerContext[Any, Any]


class RulesetService:
    """Serves hostler.api.firewall.v1.RulesetService."""

    def __init__(self, runtime: Runtime, kernel: Kernel, changes: Changes) -> None:
        self.runtime = runtime
        self.kernel = kernel
        self.changes = changes

    async def GetRuleset(
        self, request: pb.GetRulesetRequest, context: Context
    ) -> pb.GetRulesetResponse:
        """Answer a ruleset as it was applied."""
        _check_name(request.name)
        rulesets, times = await self.runtime.blocking(self.kernel.saved)
        found = change.get(request.name, rulesets)
        return pb.GetRulesetResponse(ruleset=to_proto(found, times[found.name]))

    async def ListRulesets(
        self, request: pb.ListRulesetsRequest, context: Context
    ) -> pb.ListRulesetsResponse:
        """Answer a page of the rulesets in the order they take effect."""
        if request.page_size < 0:
            raise InvalidRequest.of([Violation("page_size", "must not be negative")])
        after = _from_token(request.page_token)
        most = min(request.page_size or _PAGE_MOST, _PAGE_MOST)
        page: pb.ListRulesetsResponse = await self.runtime.blocking(self._page, after, most)
        return page

    async def ApplyRuleset(
        self, request: pb.ApplyRulesetRequest, context: Context
    ) -> pb.ApplyRulesetResponse:
        """Make the host have this ruleset."""
        told = Told(
            force=request.force,
            options=request.change,
            cut_established=request.cut_established,
        )

        def make_plan() -> Plan:
            want = parse(from_proto(request.ruleset))
            state = self.kernel.observe()
            wanted = told.look({"ruleset": want}, (), state)
            plan = self._checked(change.apply(wanted["ruleset"], state))
            return told.with_cutting(plan, wanted, state)

        done = await self.changes.carry_out(request.change, make_plan)
        _, times = await self.runtime.blocking(self.kernel.saved)
        want: Ruleset = done.plan.result
        return pb.ApplyRulesetResponse(
            ruleset=to_proto(want, times.get(want.name)),
            change=done.change,
            findings=[finding(f) for f in told.findings],
            touches_caller=told.touches_caller,
        )

    async def ApplyRulesets(
        self, request: pb.ApplyRulesetsRequest, context: Context
    ) -> pb.ApplyRulesetsResponse:
        """Make the host have these rulesets, and not have those to be deleted."""
        told = Told(
            force=request.force,
            options=request.change,
            cut_established=request.cut_established,
        )

        def make_plan() -> Plan:
            wanted = parse_all([from_proto(r) for r in request.rulesets], request.delete_names)
            state = self.kernel.observe()
            wanted = told.look(wanted, request.delete_names, state)
            plan = self._checked(change.apply_all(wanted, request.delete_names, state))
            return told.with_cutting(plan, wanted, state)

        done = await self.changes.carry_out(request.change, make_plan)
        _, times = await self.runtime.blocking(self.kernel.saved)
        return pb.ApplyRulesetsResponse(
            rulesets=[to_proto(r, times.get(r.name)) for r in done.plan.result],
            change=done.change,
            findings=[finding(f) for f in told.findings],
            touches_caller=told.touches_caller,
        )

    async def DeleteRuleset(
        self, request: pb.DeleteRulesetRequest, context: Context
    ) -> pb.DeleteRulesetResponse:
        """Delete a ruleset."""
        _check_name(request.name)
        told = Told(force=False, options=request.change)

        def make_plan() -> Plan:
            state = self.kernel.observe()
            told.look({}, (request.name,), state)
            return self._checked(change.delete(request.name, state))

        done = await self.changes.carry_out(request.change, make_plan)
        return pb.DeleteRulesetResponse(change=done.change)

    async def GetTable(self, request: pb.GetTableRequest, context: Context) -> pb.GetTableResponse:
        """Read back what the kernel has."""
        table: pb.GetTableResponse = await self.runtime.blocking(
            self._read_table, request.include_foreign
        )
        return table

    def _page(self, after: tuple[int, str], most: int) -> pb.ListRulesetsResponse:
        rulesets, times = self.kernel.saved()
        page, size = pb.ListRulesetsResponse(etag=change.etag_of_all(rulesets)), 0
        for r in in_order(rulesets.values()):
            if r.order <= after:
                continue
            message = to_proto(r, times[r.name])
            size += message.ByteSize()
            if page.rulesets and (len(page.rulesets) == most or size > _PAGE_BYTES):
                last = page.rulesets[-1]
                page.next_page_token = f"{last.priority}/{last.name}"
                break
            page.rulesets.append(message)
        return page

    def _read_table(self, include_foreign: bool) -> pb.GetTableResponse:
        state = self.kernel.observe()
        return pb.GetTableResponse(
            nft_text=self.kernel.table_text(),
            counters=sums(self.kernel.rule_counters()),
            foreign_tables=self.kernel.foreign_tables(),
            sysctls={n: v for n, v in state.sysctls.items() if change.is_shown(n, state)},
            drift=change.drift(state),
            foreign_nft_text=self.kernel.foreign_text(_FOREIGN_BYTES) if include_foreign else "",
        )

    def _checked(self, plan: Plan) -> Plan:
        """Try the table of a plan in a scratch namespace before anything is done."""
        text = next((s.text for s in plan.steps if isinstance(s, ReplaceTable)), None)
        if text is None:
            return plan
        try:
            self.kernel.check(text)
        except ScratchUnavailable as e:
            notice = Notice("SCRATCH_UNAVAILABLE", e.message, "inet hostler")
            return change.with_notice(plan, notice.with_context("nft checks it as it is applied"))
        return plan


def _check_name(name: str) -> None:
    fault = name_fault(name)
    if fault is not None:
        raise InvalidRequest.of([Violation("name", fault)])


def _from_token(token: str) -> tuple[int, str]:
    """Answer the place of the last ruleset of the page before. Raises InvalidRequest."""
    if not token:
        return -1, ""
    priority, _, name = token.partition("/")
    if not (priority.isascii() and priority.isdigit() and len(priority) <= 4) or name_fault(name):
        raise InvalidRequest.of([Violation("page_token", "is not a token of ListRulesets")])
    return int(priority), name
