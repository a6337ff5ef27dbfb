"""Several rulesets in one change: all or nothing, and what the caller is told before."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from firewall_in_place import InPlace
from firewall_topology import Host, Router, address, hosts, join
from journal_backing import backed

from hostler.api.common.v1 import change_pb2
from hostler.api.firewall.v1 import ruleset_pb2 as pb
from hostlerd.firewall.errors import (
    FindingRefused,
    NameInUse,
    NameUnknown,
    PolicyInUse,
    PortInUse,
)
from hostlerd.firewall.service.ruleset import RulesetService
from hostlerd.runtime import call
from hostlerd.runtime.access import Method
from hostlerd.runtime.call import Call, Caller
from hostlerd.runtime.errors import DomainError, EtagMismatch, InvalidRequest

pytestmark = pytest.mark.kernel

NO_CONTEXT: Any = None
METHOD = Method("hostler.api.firewall.v1.RulesetService/ApplyRulesets", "CHANGE")
REMOTE = "192.0.2.7"


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


def ask(router: Router, service: RulesetService, request: Any, remote: str = "") -> Any:
    """Call the service as somebody from elsewhere, or as local root."""
    caller = Caller("spiffe://lab/user/a", f"{remote}:40000" if remote else "uid=0", not remote)

    async def work() -> Any:
        call.enter(Call(METHOD, caller))
        method = type(request).__name__.removesuffix("Request")
        return await getattr(service, method)(request, NO_CONTEXT)

    return router.run(lambda: asyncio.run(work()))


def apply(
    router: Router,
    service: RulesetService,
    *rulesets: pb.Ruleset,
    delete: tuple[str, ...] = (),
    remote: str = "",
    force: bool = False,
    **options: Any,
) -> Any:
    request = pb.ApplyRulesetsRequest(
        rulesets=rulesets,
        delete_names=delete,
        force=force,
        change=change_pb2.ChangeOptions(**options),
    )
    return ask(router, service, request, remote)


def accept(port: int, **more: Any) -> pb.Rule:
    return pb.Rule(
        hook=pb.HOOK_INPUT,
        action=pb.ACTION_ACCEPT,
        protocol=pb.PROTOCOL_TCP,
        destination_ports=[pb.PortRange(first=port, last=port)],
        sources=["192.0.2.0/24"],
        **more,
    )


BASE = pb.Ruleset(
    name="base",
    input_policy=pb.ACTION_DROP,
    address_sets=[pb.AddressSet(name="office", elements=["10.0.0.0/8", "fd00::/8"])],
    zones=[pb.Zone(name="lan", ifnames=["br*"])],
    rules=[accept(22, id="ssh")],
)
WEB = pb.Ruleset(name="web", priority=100, rules=[accept(443, id="https")])
DB = pb.Ruleset(
    name="db",
    priority=100,
    rules=[
        pb.Rule(
            hook=pb.HOOK_INPUT,
            action=pb.ACTION_ACCEPT,
            services=["postgresql"],
            source_sets=["office"],
            log=pb.RuleLog(rate=pb.Rate(packets=5, unit=pb.RATE_UNIT_MINUTE)),
            limit=None,
        )
    ],
)


def test_rulesets_come_and_go_together(router: Router, service: RulesetService) -> None:
    planned = apply(router, service, BASE, WEB, DB, validate_only=True)
    assert planned.change.outcome == change_pb2.OUTCOME_PLANNED
    assert router.nft_rules() == []
    done = apply(router, service, BASE, WEB, DB, plan_hash=planned.change.plan.hash)
    assert [r.name for r in done.rulesets] == ["base", "web", "db"]
    assert set(router.labels()) == {"base/ssh", "web/https", "db/rule-1"}
    again = apply(router, service, BASE, WEB, DB, etag=done.change.etag)
    assert not again.change.changed
    assert not again.change.plan.steps
    listed = ask(router, service, pb.ListRulesetsRequest())
    assert listed.etag == done.change.etag
    assert [r.name for r in listed.rulesets] == ["base", "db", "web"]
    for sent, found in ((BASE, listed.rulesets[0]), (DB, listed.rulesets[1])):
        found.ClearField("etag")
        found.ClearField("update_time")
        wanted = pb.Ruleset()
        wanted.CopyFrom(sent)
        if wanted.rules[0].HasField("log"):
            wanted.rules[0].log.rate.burst_packets = 5
        assert found == wanted
    apply(router, service, WEB, delete=("db", "base", "never-there"))
    assert router.labels() == ["web/https"]
    with pytest.raises(EtagMismatch):
        apply(router, service, WEB, etag=done.change.etag)


@pytest.mark.parametrize(
    ("rulesets", "delete", "error", "field"),
    [
        ([WEB, WEB], (), InvalidRequest, "rulesets[1].name"),
        ([WEB], ("web",), InvalidRequest, "delete_names[0]"),
        ([], (), InvalidRequest, "rulesets"),
        ([DB], (), NameUnknown, "rulesets[0].rules[0].source_sets[0]"),
        (
            [BASE, pb.Ruleset(name="other", input_policy=pb.ACTION_ACCEPT)],
            (),
            PolicyInUse,
            "rulesets[0].input_policy",
        ),
        (
            [BASE, pb.Ruleset(name="zz", zones=[pb.Zone(name="lan", ifnames=["x"])])],
            (),
            NameInUse,
            "rulesets[1].zones[0].name",
        ),
        (
            [
                pb.Ruleset(
                    name=name,
                    forwards=[
                        pb.Forward(protocol=pb.PROTOCOL_TCP, port=80, target_address="10.0.0.2")
                    ],
                )
                for name in ("a", "b")
            ],
            (),
            PortInUse,
            "rulesets[1].forwards[0].port",
        ),
        (
            [WEB, pb.Ruleset(name="x", rules=[accept(80), pb.Rule(hook=9, action=7)])],
            (),
            InvalidRequest,
            "rulesets[1].rules[1].hook",
        ),
        (
            [pb.Ruleset(name="x", closes_management=True)],
            (),
            InvalidRequest,
            "rulesets[0].closes_management",
        ),
    ],
)
def test_one_bad_ruleset_changes_nothing(
    router: Router,
    service: RulesetService,
    rulesets: list[pb.Ruleset],
    delete: tuple[str, ...],
    error: type[DomainError],
    field: str,
) -> None:
    with pytest.raises(error) as refused:
        apply(router, service, *rulesets, delete=delete)
    assert field in [v.field for v in refused.value.violations]
    assert router.exec("/usr/sbin/nft", "list", "ruleset") == ""
    assert not ask(router, service, pb.ListRulesetsRequest()).rulesets


def test_what_others_use_is_not_taken_away(router: Router, service: RulesetService) -> None:
    apply(router, service, BASE, DB)
    with pytest.raises(NameInUse, match="db uses what would be gone with base"):
        ask(router, service, pb.DeleteRulesetRequest(name="base"))
    without = pb.Ruleset(name="base", rules=[accept(22)])
    with pytest.raises(NameInUse, match="db uses what this would take away"):
        apply(router, service, without)
    apply(router, service, delete=("base", "db"))
    assert router.labels() == []


def test_what_shuts_out_the_caller_is_refused(router: Router, service: RulesetService) -> None:
    closing = pb.Ruleset(
        name="mine",
        rules=[
            pb.Rule(id="all", hook=pb.HOOK_INPUT, action=pb.ACTION_DROP, sources=[f"{REMOTE}/32"])
        ],
    )
    with pytest.raises(FindingRefused) as refused:
        apply(router, service, closing, remote=REMOTE)
    assert refused.value.metadata["code"] == "CALLER_CUT_OFF"
    assert [v.field for v in refused.value.violations] == ["rulesets[0].rules[0]"]
    assert router.nft_rules() == []
    # Somebody else, and local root, may.
    assert apply(router, service, closing, remote="203.0.113.9", validate_only=True).change.changed
    assert apply(router, service, closing, validate_only=True).change.changed
    with pytest.raises(InvalidRequest) as needs:
        apply(router, service, closing, remote=REMOTE, force=True)
    assert [v.field for v in needs.value.violations] == ["force"]
    forced = apply(router, service, closing, remote=REMOTE, force=True, validate_only=True)
    assert forced.touches_caller
    assert forced.rulesets[0].closes_management
    assert next(iter(forced.findings)).code == "CALLER_CUT_OFF"
    assert next(iter(forced.findings)).refused


def test_findings_and_touches(router: Router, service: RulesetService) -> None:
    twice = pb.Ruleset(name="web", rules=[accept(80), accept(80)])
    told = apply(router, service, twice, remote=REMOTE)
    assert [(f.code, f.rule, f.field) for f in told.findings] == [
        ("RULE_DUPLICATE", "web/rule-2", "rulesets[0].rules[1]")
    ]
    assert not told.touches_caller
    ours = pb.Ruleset(name="ours", rules=[accept(7443)])
    assert apply(router, service, ours, remote=REMOTE).touches_caller
    one = pb.ApplyRulesetRequest(ruleset=twice)
    assert ask(router, service, one, REMOTE).findings[0].field == "ruleset.rules[1]"


@pytest.mark.parametrize("cut", [True, False])
def test_blocking_cuts_what_is_established_if_asked(
    router: Router, service: RulesetService, tmp_path: Path, cut: bool
) -> None:
    """A stream that goes on although its sender is blocked, or stops."""
    apply(router, service, pb.Ruleset(name="base", rules=[accept(22)]))
    blocking = pb.Ruleset(
        name="block",
        rules=[
            pb.Rule(
                hook=pb.HOOK_INPUT,
                action=pb.ACTION_DROP,
                protocol=pb.PROTOCOL_TCP,
                destination_ports=[pb.PortRange(first=7000, last=7000)],
            )
        ],
    )
    request = pb.ApplyRulesetsRequest(rulesets=[blocking], cut_established=cut)
    with hosts("client") as names:
        client = Host(names[0])
        join(router, "eth0", client, "eth0")
        address(router, "eth0", "198.51.100.1/24")
        address(client, "eth0", "198.51.100.2/24")
        listening = router.run(lambda: socket.create_server(("198.51.100.1", 7000)))
        with listening:
            talking = client.run(lambda: socket.create_connection(("198.51.100.1", 7000), 5))
            heard, _ = listening.accept()
            with talking, heard:
                heard.settimeout(1)
                talking.sendall(b"before")
                assert heard.recv(100) == b"before"
                done = ask(router, service, request)
                kinds = [step.kind for step in done.change.plan.steps]
                assert ("CutConnections" in kinds) is cut
                talking.sendall(b"after")
                if cut:
                    with pytest.raises(TimeoutError):
                        heard.recv(100)
                else:
                    assert heard.recv(100) == b"after"
    assert not ask(router, service, request).change.changed
