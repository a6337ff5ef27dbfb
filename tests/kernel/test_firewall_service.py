"""The service on a real kernel: messages in, messages out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
from firewall_in_place import InPlace
from firewall_topology import Router, hosts
from journal_backing import backed

from hostler.api.common.v1 import change_pb2
from hostler.api.firewall.v1 import ruleset_pb2 as pb
from hostlerd.firewall.errors import RulesetNotFound
from hostlerd.firewall.model.state import BRIDGE_CALLS
from hostlerd.firewall.service.ruleset import RulesetService
from hostlerd.runtime.errors import EtagMismatch, InvalidRequest

pytestmark = pytest.mark.kernel

T = TypeVar("T")

FULL = pb.Ruleset(
    name="web",
    priority=7,
    input_policy=pb.ACTION_DROP,
    forward_policy=pb.ACTION_REJECT,
    rules=[
        pb.Rule(
            id="ssh",
            hook=pb.HOOK_INPUT,
            action=pb.ACTION_ACCEPT,
            protocol=pb.PROTOCOL_TCP,
            sources=["10.0.0.0/8"],
            destinations=["10.0.0.1/32"],
            destination_ports=[pb.PortRange(first=22, last=23)],
            in_ifname="eth0",
            comment="for us",
        )
    ],
    masquerades=[pb.Masquerade(source="10.213.0.0/24", uplink="lo")],
    forwards=[
        pb.Forward(
            protocol=pb.PROTOCOL_UDP,
            port=53,
            addresses=["198.51.100.1"],
            target_address="10.213.0.2",
            target_port=5353,
            sources=["198.51.100.0/24"],
        )
    ],
    isolated_networks=["10.213.0.0/24", "fd13::/64"],
    persistent=True,
)


@pytest.fixture
def router(tmp_path: Path) -> Iterator[Router]:
    with hosts("router") as names:
        made = Router(names[0])
        made.install(tmp_path / "state", tmp_path / "run")
        yield made


@pytest.fixture
def service(router: Router, tmp_path: Path) -> RulesetService:
    runtime: Any = InPlace()
    changes = backed(router.kernel, tmp_path / "backing", runtime.blocking)
    return RulesetService(runtime, router.kernel, changes)


def call(router: Router, made: Callable[[], Coroutine[Any, Any, T]]) -> T:
    return router.run(lambda: asyncio.run(made()))


def apply(router: Router, service: RulesetService, ruleset: pb.Ruleset, **options: Any) -> Any:
    request = pb.ApplyRulesetRequest(ruleset=ruleset, change=change_pb2.ChangeOptions(**options))
    context: Any = None
    return call(router, lambda: service.ApplyRuleset(request, context))


def test_a_whole_life(router: Router, service: RulesetService) -> None:
    context: Any = None
    planned = apply(router, service, FULL, validate_only=True)
    assert planned.change.outcome == change_pb2.OUTCOME_PLANNED
    assert router.nft_rules() == []
    done = apply(router, service, FULL, plan_hash=planned.change.plan.hash)
    assert done.change.changed
    assert done.change.etag == done.ruleset.etag == planned.ruleset.etag
    assert done.ruleset.update_time.seconds > 1_700_000_000
    again = apply(router, service, FULL, etag=done.change.etag)
    assert not again.change.changed
    assert again.ruleset == done.ruleset

    found = call(router, lambda: service.GetRuleset(pb.GetRulesetRequest(name="web"), context))
    assert found.ruleset == done.ruleset
    plain = pb.Ruleset()
    plain.CopyFrom(found.ruleset)
    plain.ClearField("etag")
    plain.ClearField("update_time")
    assert plain == FULL

    table = call(router, lambda: service.GetTable(pb.GetTableRequest(), context))
    assert "chain filter_input" in table.nft_text
    assert [c.rule for c in table.counters] == [
        "web/forward-udp-53",
        "web/isolated-1",
        "web/isolated-2",
        "web/masquerade-1",
        "web/ssh",
    ]
    sysctls = dict(table.sysctls)
    assert {n for n in sysctls if n.startswith("net.bridge.")} <= set(BRIDGE_CALLS)
    forwarding = {n: v for n, v in sysctls.items() if n not in BRIDGE_CALLS}
    assert forwarding == {"net.ipv4.ip_forward": "1", "net.ipv6.conf.all.forwarding": "1"}
    assert not table.drift
    router.exec("/usr/sbin/nft", "table ip theirs; flush table inet hostler")
    table = call(router, lambda: service.GetTable(pb.GetTableRequest(), context))
    assert list(table.foreign_tables) == ["ip theirs"]
    assert table.drift[0] == "table inet hostler was changed from outside"
    assert len(table.drift) > 1

    gone = pb.DeleteRulesetRequest(name="web")
    assert call(router, lambda: service.DeleteRuleset(gone, context)).change.changed
    assert not call(router, lambda: service.DeleteRuleset(gone, context)).change.changed
    with pytest.raises(RulesetNotFound):
        call(router, lambda: service.GetRuleset(pb.GetRulesetRequest(name="web"), context))
    table = call(router, lambda: service.GetTable(pb.GetTableRequest(), context))
    assert (table.nft_text, list(table.counters), list(table.drift)) == ("", [], [])


def test_a_stale_etag_changes_nothing(router: Router, service: RulesetService) -> None:
    first = apply(router, service, FULL)
    other = pb.Ruleset(name="web", priority=8)
    apply(router, service, other)
    with pytest.raises(EtagMismatch):
        apply(router, service, FULL, etag=first.change.etag)
    assert router.nft_rules() == []


def test_bad_messages_are_told_by_field(router: Router, service: RulesetService) -> None:
    bad = pb.Ruleset(name="Web", input_policy=9, rules=[pb.Rule(hook=7)])  # type: ignore[arg-type]
    with pytest.raises(InvalidRequest) as refused:
        apply(router, service, bad)
    assert [v.field for v in refused.value.violations] == [
        "ruleset.name",
        "ruleset.input_policy",
        "ruleset.rules[0].hook",
        "ruleset.rules[0].action",
    ]
    context: Any = None
    for fields in ({"page_size": -1}, {"page_token": "x"}):
        request = pb.ListRulesetsRequest(**fields)  # type: ignore[arg-type]
        with pytest.raises(InvalidRequest):
            call(router, lambda r=request: service.ListRulesets(r, context))  # type: ignore[misc]
    with pytest.raises(InvalidRequest):
        call(router, lambda: service.GetRuleset(pb.GetRulesetRequest(name=""), context))


def test_pages_follow_each_other_in_order(router: Router, service: RulesetService) -> None:
    context: Any = None
    for name, priority in (("c", 1), ("a", 2), ("b", 1), ("d", 0)):
        apply(router, service, pb.Ruleset(name=name, priority=priority))
    token, found = "", []
    while True:
        request = pb.ListRulesetsRequest(page_size=2, page_token=token)
        page = call(router, lambda r=request: service.ListRulesets(r, context))  # type: ignore[misc]
        found.append([r.name for r in page.rulesets])
        token = page.next_page_token
        if not token:
            break
    assert found == [["d", "b"], ["c", "a"]]


def test_tables_of_others_are_shown_if_asked_for(router: Router, service: RulesetService) -> None:
    context: Any = None
    router.exec("/usr/sbin/nft", "add table ip theirs; add chain ip theirs mine-not")

    def told(**asked: Any) -> Any:
        return call(router, lambda: service.GetTable(pb.GetTableRequest(**asked), context))

    assert told().foreign_nft_text == ""
    assert list(told().foreign_tables) == ["ip theirs"]
    assert "chain mine-not" in told(include_foreign=True).foreign_nft_text
    for number in range(60):
        name = f"big{number}"
        elements = ", ".join(f"10.{number}.{n >> 8}.{n & 255}" for n in range(2000))
        filled = f"{{ type ipv4_addr; elements = {{ {elements} }}; }}"
        router.exec("/usr/sbin/nft", f"add table ip {name}; add set ip {name} s {filled}")
    cut = told(include_foreign=True).foreign_nft_text
    assert len(cut.encode()) <= (1 << 20) + 100
    assert cut.endswith("# there is more\n")
