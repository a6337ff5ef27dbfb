"""Applying, repairing and putting back, on a real kernel, with nft and sysctl as witnesses."""

from __future__ import annotations

import json
import shutil
import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from firewall_generated import NAMES_GIVEN, rulesets
from firewall_topology import Host, Router, address, hosts, join
from hypothesis import HealthCheck, given, settings

from hostlerd.firewall.__main__ import restore
from hostlerd.firewall.errors import NftRejected
from hostlerd.firewall.kernel import nft
from hostlerd.firewall.model.document import parse
from hostlerd.firewall.model.ruleset import Ruleset
from hostlerd.firewall.model.state import EVERYWHERE
from hostlerd.firewall.plan import change
from hostlerd.firewall.plan.table import compile_table
from hostlerd.runtime.errors import InvalidRequest

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(300)]

PUBLISHED: dict[str, Any] = {
    "name": "web",
    "forwards": [
        {"protocol": "tcp", "port": 8080, "target_address": "10.213.0.2", "target_port": 80},
        {"protocol": "tcp", "port": 8080, "target_address": "fd13::2", "target_port": 80},
    ],
    "masquerades": [{"source": "10.213.0.0/24", "uplink": "eth0"}],
    "isolated_networks": ["10.213.0.0/24", "fd13::/64"],
}
FORWARDING = ("net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding")
FOREIGN = "table ip theirs { chain f { type filter hook forward priority 0; policy drop; }; }"


@pytest.fixture
def router(tmp_path: Path) -> Iterator[Router]:
    with hosts("router", "client") as names:
        made = Router(names[0])
        made.install(tmp_path / "state", tmp_path / "run")
        join(made, "eth0", Host(names[1]), "eth0")
        yield made


def everything(router: Router) -> tuple[str, list[str]]:
    """What the host has, by its own tools."""
    names = [*FORWARDING, "net.ipv4.conf.all.accept_redirects", "net.ipv6.conf.eth0.accept_ra"]
    names += ["net.ipv4.conf.eth0.forwarding", "net.ipv6.conf.eth0.forwarding"]
    return router.exec("/usr/sbin/nft", "list", "ruleset"), [router.sysctl(n) for n in names]


@pytest.mark.parametrize("redirects", ["0", "1"])
def test_apply_twice_and_delete_leave_the_host_as_it_was(router: Router, redirects: str) -> None:
    router.sysctl("net.ipv4.conf.all.accept_redirects", redirects)
    router.sysctl("net.ipv4.conf.eth0.forwarding", "1")
    router.exec("/usr/sbin/nft", FOREIGN)
    before = everything(router)
    plan = router.apply(**PUBLISHED)
    assert [type(s).__name__ for s in plan.steps] == [
        "SaveRuleset",
        "ReplaceTable",
        "SetSysctl",
        "SetSysctl",
    ]
    assert {n.code for n in plan.notices} == {"FOREIGN_DROP"}
    assert [router.sysctl(n) for n in FORWARDING] == ["1", "1"]
    assert "web/forward-tcp-8080" in router.labels()
    again = router.apply(**PUBLISHED)
    assert again.steps == ()
    assert again.etag == plan.etag_after
    router.apply(name="other", rules=[{"hook": "input", "action": "accept"}])
    router.delete("web")
    # The other needs no forwarding.
    assert [router.sysctl(n) for n in FORWARDING] == ["0", "0"]
    assert router.labels() == ["other/rule-1"]
    router.delete("other")
    assert everything(router) == before
    assert router.delete("other").steps == ()


def test_each_way_back_leads_back(router: Router) -> None:
    router.apply(name="base", rules=[{"hook": "input", "action": "drop", "protocol": "udp"}])
    before = everything(router)
    plan = router.run(lambda: change.apply(parse(PUBLISHED), router.kernel.observe()))

    def there_and_back() -> None:
        with router.kernel.applying() as apply:
            for step in plan.steps:
                apply(step)
            for step in reversed(plan.steps):
                inverse = step.inverse()
                if inverse:
                    apply(inverse)

    router.run(there_and_back)
    assert everything(router) == before
    state = router.run(router.kernel.observe)
    assert list(state.rulesets) == ["base"]
    assert change.drift(state) == ()


@pytest.mark.parametrize(
    "harm",
    [
        "flush ruleset",
        "delete table inet hostler",
        "add rule inet hostler filter_forward accept",
        "flush chain inet hostler isolation",
    ],
)
def test_drift_is_told_and_put_right(router: Router, harm: str) -> None:
    router.apply(**PUBLISHED)
    right = router.nft_rules()
    router.exec("/usr/sbin/nft", harm)
    router.sysctl("net.ipv4.ip_forward", "0")
    words = change.drift(router.run(router.kernel.observe))
    assert words[-1] == "net.ipv4.ip_forward is 0 and should be 1"
    assert words[0].startswith("table inet hostler ")
    assert len(words) > 2 or "flush ruleset" in harm or "delete" in harm
    plan = router.apply(**PUBLISHED)
    assert [type(s).__name__ for s in plan.steps] == ["ReplaceTable", "SetSysctl"]
    plain = [r["expr"] for r in router.nft_rules()]
    assert plain == [r["expr"] for r in right]
    assert change.drift(router.run(router.kernel.observe)) == ()
    assert router.apply(**PUBLISHED).steps == ()


def test_counters_survive_a_replace(router: Router) -> None:
    rule = {"id": "pings", "hook": "input", "action": "accept", "protocol": "icmp"}
    address(router, "eth0", "198.51.100.1/24")
    router.apply(name="base", rules=[rule])
    client = Host(router.name.replace("router", "client"))
    address(client, "eth0", "198.51.100.2/24")
    client.exec("/usr/bin/ping", "-c3", "-i0.2", "-W2", "198.51.100.1")
    first = _packets(router, "base/pings")
    assert first >= 1
    router.apply(name="other", rules=[{"hook": "input", "action": "drop", "protocol": "udp"}])
    assert _packets(router, "base/pings") == first
    told = {k.label: c.packets for k, c in router.run(router.kernel.rule_counters).items()}
    assert told == {"base/pings": first, "other/rule-1": 0}


def _packets(router: Router, label: str) -> int:
    rule = next(r for r in router.nft_rules() if r.get("comment") == label)
    return int(next(e["counter"]["packets"] for e in rule["expr"] if "counter" in e))


def test_boot_brings_back_what_is_persistent(router: Router, tmp_path: Path) -> None:
    router.apply(**PUBLISHED, persistent=True)
    router.apply(name="gone", rules=[{"hook": "input", "action": "drop", "protocol": "udp"}])
    shutil.rmtree(tmp_path / "run")
    router.exec("/usr/sbin/nft", "flush ruleset")
    for name in FORWARDING:
        router.sysctl(name, "0")
    # Before the network is up, links are missing: that is no reason to leave anything out.
    router.ip("link", "del", "eth0")
    router.run(restore, router.kernel)
    assert {label.split("/")[0] for label in router.labels()} == {"web"}
    assert [router.sysctl(n) for n in FORWARDING] == ["1", "1"]
    state = router.run(router.kernel.observe)
    assert list(state.rulesets) == ["web"]
    assert change.restore(state.rulesets, state).steps == ()


def test_boot_leaves_out_what_it_cannot_read_and_says_so(router: Router, tmp_path: Path) -> None:
    router.apply(**PUBLISHED, persistent=True)
    (tmp_path / "state/rulesets/torn.json").write_text('{"name": "to')
    router.exec("/usr/sbin/nft", "flush ruleset")
    with pytest.raises(SystemExit) as exit_:
        router.run(restore, router.kernel)
    assert exit_.value.code == 1
    assert {label.split("/")[0] for label in router.labels()} == {"web"}
    # The table was repaired; but nothing is changed around a hole, only the hole itself closed.
    with pytest.raises(Exception, match="torn cannot be read"):
        router.apply(name="more")
    router.delete("torn")
    assert router.apply(name="more").steps


def test_persistence_can_be_given_and_taken(router: Router, tmp_path: Path) -> None:
    for persistent in (False, True, False):
        router.apply(**PUBLISHED, persistent=persistent)
        found = [str(p.relative_to(tmp_path)) for p in tmp_path.rglob("web.json")]
        assert found == [f"{'state' if persistent else 'run'}/rulesets/web.json"]
        assert (tmp_path / found[0]).stat().st_mode & 0o777 == 0o600


def test_half_done_change_is_put_right_by_the_next(router: Router) -> None:
    """A daemon killed after any of its steps."""
    for steps_done in range(4):
        plan = router.run(lambda: change.apply(parse(PUBLISHED), router.kernel.observe()))
        steps = plan.steps[:steps_done]

        def cut_off(steps: Any = steps) -> None:
            with router.kernel.applying() as apply:
                for step in steps:
                    apply(step)

        router.run(cut_off)
        if steps_done % 2:
            router.apply(**PUBLISHED)
            assert router.apply(**PUBLISHED).steps == ()
        router.delete("web")
        assert router.nft_rules() == []
        assert [router.sysctl(n) for n in FORWARDING] == ["0", "0"]
        state = router.run(router.kernel.observe)
        assert state.found == {}
        assert state.rulesets == {}


def test_unknown_uplink_is_refused(router: Router) -> None:
    with pytest.raises(InvalidRequest, match="no link eth7") as refused:
        router.apply(
            name="web",
            masquerades=[
                {"source": "10.0.0.0/24", "uplink": "eth0"},
                {"source": "10.0.1.0/24", "uplink": "eth7"},
            ],
        )
    assert [v.field for v in refused.value.violations] == ["ruleset.masquerades[1].uplink"]
    assert router.run(router.kernel.observe).rulesets == {}


def test_router_advertisements_still_count_on_the_uplink(router: Router) -> None:
    client = Host(router.name.replace("router", "client"))
    router.ip("link", "add", "guest", "type", "bridge")
    client.run(_advertise)
    for _ in range(50):
        if _advertised(router):
            break
        time.sleep(0.1)
    assert _advertised(router) == ["eth0"]
    router.apply(**PUBLISHED)
    assert _advertised(router) == ["eth0"]
    assert router.sysctl("net.ipv6.conf.eth0.accept_ra") == "2"
    assert router.sysctl("net.ipv6.conf.guest.accept_ra") == "1"
    router.delete("web")
    assert _advertised(router) == ["eth0"]
    assert router.sysctl("net.ipv6.conf.eth0.accept_ra") == "1"


def _advertised(router: Router) -> list[str]:
    routes = json.loads(router.ip("-6", "-j", "route", "show", "default"))
    return [r["dev"] for r in routes if r.get("protocol") == "ra"]


def _advertise() -> None:
    """Send a router advertisement. Source: RFC 4861, section 4.2."""
    with socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6) as s:
        s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
        index = socket.if_nametoindex("eth0")
        advertisement = struct.pack("!BBHBBHII", 134, 0, 0, 64, 0, 1800, 0, 0)
        for _ in range(30):
            try:
                s.sendto(advertisement, ("ff02::1", 0, 0, index))
                return
            except OSError:  # no link-local address yet
                time.sleep(0.1)


@pytest.mark.parametrize("piece_bytes", [20_000, 1_000_000])
def test_scratch_check_names_the_rule_and_touches_nothing(
    router: Router, monkeypatch: pytest.MonkeyPatch, piece_bytes: int
) -> None:
    # A piece that is too long for one message is tried in smaller ones.
    monkeypatch.setattr(nft, "PIECE_BYTES", piece_bytes)
    text = compile_table([_many(3000)], EVERYWHERE)
    # nft itself finds nothing wrong with it; the kernel allows it in postrouting only.
    bad = text.replace("10.0.7.9/32 counter drop", "10.0.7.9/32 counter masquerade")
    assert bad != text
    router.run(nft.check, text)
    with pytest.raises(NftRejected) as refused:
        router.run(nft.check, bad)
    assert refused.value.metadata["rule"] == "many/rule-1802"
    assert "masquerade" in refused.value.metadata["rule_text"]
    assert router.nft_rules() == []


def _many(count: int) -> Ruleset:
    rules = [
        {"hook": "forward", "action": "drop", "sources": [f"10.0.{i >> 8}.{i & 255}/32"]}
        for i in range(count)
    ]
    return parse({"name": "many", "rules": rules})


def test_ten_thousand_rules_and_large_sets(router: Router) -> None:
    wide = {
        "hook": "forward",
        "action": "accept",
        "protocol": "tcp",
        "sources": [f"fd00:{i * 2:x}::/64" for i in range(500)],
        "destinations": [f"fd01:{i * 2:x}::/64" for i in range(500)],
        "destination_ports": [{"first": i * 3 + 1, "last": i * 3 + 2} for i in range(100)],
    }
    forwards = [
        {"protocol": "udp", "port": i + 1, "target_address": f"10.9.{i >> 8}.{i & 255}"}
        for i in range(1200)
    ]
    router.apply(name="wide", rules=[wide], forwards=forwards)
    rules = [{"hook": "forward", "action": "drop", "sources": [f"10.{i >> 8}.{i & 255}.0/24"]}
             for i in range(10_000)]  # fmt: skip
    started = time.monotonic()
    router.apply(name="many", rules=rules)
    took_s = time.monotonic() - started
    assert len(router.labels()) == 10_001 + 2 * 1200
    assert router.apply(name="many", rules=rules).steps == ()
    print(f"10,000 rules: planned, checked, applied in {took_s:.2f} s")


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(ruleset=rulesets())
def test_nft_takes_whatever_the_model_takes(router: Router, ruleset: Ruleset) -> None:
    router.run(nft.check, compile_table([ruleset, NAMES_GIVEN], EVERYWHERE))
