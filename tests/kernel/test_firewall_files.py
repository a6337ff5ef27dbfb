"""Files against the daemon's own service on a real kernel: there and back, and where faults are."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from firewall_topology import Router, hosts
from journal_backing import backed

from hostler.api.common.v1 import change_pb2
from hostler.api.firewall.v1 import ruleset_pb2 as pb
from hostler.desired_text import to_toml
from hostler.firewall_apply import placed
from hostler.firewall_files import RulesetFile, load_rulesets
from hostler.firewall_iptables import import_iptables
from hostler.results import HostError
from hostlerd.firewall.service.ruleset import RulesetService
from hostlerd.runtime.errors import DomainError

pytestmark = pytest.mark.kernel

SAVED = """\
*filter
:INPUT DROP [0:0]
:FORWARD DROP [0:0]
:OUTPUT ACCEPT [0:0]
-A INPUT -i lo -j ACCEPT
-A INPUT -m state --state INVALID -j DROP
-A INPUT -s 198.51.100.0/24 -p tcp -m tcp --dport 22 -m comment --comment "ours" -j ACCEPT
-A INPUT -i veth+ -p udp -m multiport --dports 53,60:62 -j ACCEPT
-A INPUT -p udp --sport 67 --dport 68 -j ACCEPT
-A INPUT -p icmp -m icmp --icmp-type 8 -m limit --limit 5/sec --limit-burst 9 -j ACCEPT
-A INPUT -m iprange --src-range 10.0.0.1-10.0.0.6 -p tcp -j REJECT --reject-with tcp-reset
-A INPUT -m limit --limit 5/min -j LOG --log-prefix "in: "
-A FORWARD -s 10.213.0.0/24 -o eth0 -j ACCEPT
COMMIT
*nat
:PREROUTING ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
-A PREROUTING -d 198.51.100.1/32 -p tcp -m tcp --dport 8080 -j DNAT --to-destination 10.213.0.2:80
-A PREROUTING -i eth0 -p tcp -m tcp --dport 80 -j REDIRECT --to-ports 8080
-A POSTROUTING -s 10.213.0.0/24 -o eth0 -j MASQUERADE
-A POSTROUTING -s 10.214.0.0/24 -o eth0 -j SNAT --to-source 198.51.100.1
COMMIT
"""


class InPlace:
    """A runtime that blocks: work has to stay in the thread that is in the namespace."""

    async def blocking(self, work: Callable[..., Any], /, *args: Any) -> Any:
        return work(*args)


class Door:
    """The service of a router, asked in the router's namespace."""

    def __init__(self, router: Router, folder: Path) -> None:
        runtime: Any = InPlace()
        changes = backed(router.kernel, folder / "backing", runtime.blocking)
        self._router = router
        self._service = RulesetService(runtime, router.kernel, changes)

    def ask(self, method: str, request: Any) -> Any:
        serve = getattr(self._service, method)
        return self._router.run(lambda: asyncio.run(serve(request, None)))

    def apply(self, files: tuple[RulesetFile, ...], **options: Any) -> Any:
        request = pb.ApplyRulesetsRequest(
            rulesets=[each.ruleset for each in files],
            change=change_pb2.ChangeOptions(**options),
        )
        return self.ask("ApplyRulesets", request)

    def refused(self, files: tuple[RulesetFile, ...]) -> HostError:
        """The error of files, as it reaches the operator."""
        with pytest.raises(DomainError) as caught:
            self.apply(files, validate_only=True)
        error = caught.value
        key = "field" if error.code.name == "INVALID_ARGUMENT" else "subject"
        violations = [{key: v.field, "description": v.description} for v in error.violations]
        metadata = {name: str(value) for name, value in error.metadata.items()}
        told = HostError(error.code.name, error.reason, error.message, metadata, tuple(violations))
        return placed(told, files)


@pytest.fixture
def door(tmp_path: Path) -> Iterator[Door]:
    with hosts("router") as names:
        router = Router(names[0])
        # A masquerade's uplink has to be there.
        router.ip("link", "add", "eth0", "type", "bridge")
        router.install(tmp_path / "state", tmp_path / "run")
        yield Door(router, tmp_path)


def test_an_import_is_exported_as_it_was_applied(door: Door, tmp_path: Path) -> None:
    for exact in (False, True):
        first, second = tmp_path / "first.toml", tmp_path / "second.toml"
        first.write_text(import_iptables(SAVED, "imported", exact=exact).to_toml())
        assert door.apply(load_rulesets([first])).change.changed
        (there,) = door.ask("ListRulesets", pb.ListRulesetsRequest()).rulesets
        second.write_text(to_toml(there, without=("etag", "update_time")))
        again = door.apply(load_rulesets([second]), validate_only=True)
        assert [step.description for step in again.change.plan.steps] == []
        door.apply(load_rulesets([second]))
        (still,) = door.ask("ListRulesets", pb.ListRulesetsRequest()).rulesets
        assert to_toml(still, without=("etag", "update_time")) == second.read_text()


def many(count: int, **changed: str) -> str:
    """A file of many rules; rule N may have other lines than the rest."""
    rules = []
    for number in range(1, count + 1):
        body = changed.get(f"rule{number}", 'sources = ["192.0.2.0/24"]')
        rules.append(
            f'[[rules]]\nid = "r{number}"\nhook = "input"\naction = "accept"\n'
            f'protocol = "tcp"\ndestination_ports = [{number}]\n{body}\n'
        )
    return "".join(rules)


def test_one_bad_rule_of_five_hundred_is_named(door: Door, tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text('name = "a"\n')
    path = tmp_path / "b.toml"
    bad = 'sources = [\n  "192.0.2.0/24",\n  "192.0.2.1/24",\n]\ncomment = "' + "x" * 70 + '"'
    path.write_text('name = "b"\n' + many(500, rule317=bad))
    at = path.read_text().splitlines().index('  "192.0.2.1/24",') + 1
    error = door.refused(load_rulesets([tmp_path / "a.toml", path]))
    assert [each["place"] for each in error.violations] == [
        f"{path}:{at}: rule r317: rules[316].sources[1]",
        f"{path}:{at + 2}: rule r317: rules[316].comment",
    ]
    assert str(error).startswith(
        f"INVALID_ARGUMENT INVALID_REQUEST: {path}:{at}: rule r317: rules[316].sources[1]: "
    )
    assert "rulesets[1]" not in str(error)


def test_what_nft_does_not_take_is_named(door: Door, tmp_path: Path) -> None:
    path = tmp_path / "b.toml"
    path.write_text(
        'name = "b"\n' + many(3) + '[[fragments]]\nid = "f"\nplace = "input_before"\n'
        'nft_rules = "tcp dport nonsense accept"\n'
    )
    error = door.refused(load_rulesets([path]))
    line = path.read_text().splitlines().index("[[fragments]]") + 1
    assert (error.reason, error.metadata["place"]) == (
        "NFT_REJECTED",
        f"{path}:{line}: rule fragment-f",
    )
    assert str(error).startswith(
        f"FAILED_PRECONDITION NFT_REJECTED: {path}:{line}: rule fragment-f"
    )


def test_what_shuts_hostler_out_is_named(door: Door, tmp_path: Path) -> None:
    path = tmp_path / "b.toml"
    path.write_text(
        'name = "b"\n' + many(1) + '[[rules]]\nid = "shut"\nhook = "input"\naction = "drop"\n'
        'protocol = "tcp"\ndestination_ports = ["7000-8000"]\n'
    )
    error = door.refused(load_rulesets([path]))
    line = path.read_text().splitlines().index('id = "shut"')
    assert error.reason == "FINDING_REFUSED"
    assert f"{path}:{line}: rule shut: rules[1]" in str(error)
