"""Bad rulesets over the real door of a real host: field and reason named, nothing changed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hosts_client import APPLY_RULESET, DELETE_RULESET, ask, fields, refusal
from hosts_witness import network, untouched

from hostler.api.firewall.v1 import ruleset_pb2
from hostler.lab.host import Host
from hostler.lab.lab import Lab

pytestmark = [pytest.mark.hosts, pytest.mark.timeout(300)]


def forward(port: int, **more: Any) -> dict[str, Any]:
    return {
        "protocol": ruleset_pb2.PROTOCOL_TCP,
        "port": port,
        "target_address": "10.96.0.2",
        "target_port": 80,
        **more,
    }


def request(name: str, **more: Any) -> Any:
    return ruleset_pb2.ApplyRulesetRequest(ruleset=ruleset_pb2.Ruleset(name=name, **more))


@pytest.fixture(scope="module")
def occupied(lab: Lab) -> Iterator[Host]:
    """A host with a ruleset, which is what it was after."""
    host = lab.host("h1")
    if host.leader() is None:
        lab.boot(host.name)
    with untouched(host):
        ask(lab, APPLY_RULESET, request("there", forwards=[forward(8443)]))
        try:
            with untouched(host):
                yield host
        finally:
            ask(lab, DELETE_RULESET, ruleset_pb2.DeleteRulesetRequest(name="there"))


@pytest.fixture
def there(occupied: Host) -> Iterator[None]:
    """Each refusal by itself leaves the network as it is; the whole is compared once, at last."""
    before = network(occupied)
    yield
    assert network(occupied) == before


RULE = {"hook": ruleset_pb2.HOOK_INPUT, "action": ruleset_pb2.ACTION_DROP}
BAD: dict[str, tuple[dict[str, Any], str]] = {
    "name": ({"name": "Bad;"}, "ruleset.name"),
    "long name": ({"name": "n" * 33}, "ruleset.name"),
    "taken port": ({"forwards": [forward(8443)]}, "ruleset.forwards[0].port"),
    "port twice": ({"forwards": [forward(81), forward(81)]}, "ruleset.forwards[1]"),
    "port 0": ({"forwards": [forward(0)]}, "ruleset.forwards[0].port"),
    "port 70000": ({"forwards": [forward(70000)]}, "ruleset.forwards[0].port"),
    "target": ({"forwards": [forward(81, target_address="x")]}, "ruleset.forwards[0]"),
    "family": ({"forwards": [forward(81, addresses=["fd00::1"])]}, "ruleset.forwards[0]"),
    "our own door": ({"forwards": [forward(7441)]}, "ruleset.forwards[0].port"),
    "uplink": (
        {"masquerades": [{"source": "10.96.0.0/24", "uplink": "no0"}]},
        "ruleset.masquerades[0].uplink",
    ),
    "source": ({"masquerades": [{"source": "10.96.0.1/24"}]}, "ruleset.masquerades[0].source"),
    "network": ({"isolated_networks": ["10.96.0.0/99"]}, "ruleset.isolated_networks[0]"),
    "no hook": ({"rules": [{"action": ruleset_pb2.ACTION_DROP}]}, "ruleset.rules[0].hook"),
    "no action": ({"rules": [{"hook": ruleset_pb2.HOOK_INPUT}]}, "ruleset.rules[0].action"),
    "comment": ({"rules": [{**RULE, "comment": "x" * 65}]}, "ruleset.rules[0].comment"),
    "injection": (
        {"rules": [{**RULE, "in_ifname": 'x" accept; #'}]},
        "ruleset.rules[0].in_ifname",
    ),
    "ports without protocol": (
        {"rules": [{**RULE, "destination_ports": [{"first": 80}]}]},
        "ruleset.rules[0]",
    ),
    "mixed families": (
        {"rules": [{**RULE, "sources": ["10.0.0.0/8", "fd00::/8"]}]},
        "ruleset.rules[0].sources",
    ),
}


@pytest.mark.parametrize("case", list(BAD))
def test_apply(lab: Lab, there: None, case: str) -> None:
    shape, field = BAD[case]
    error = refusal(lab, APPLY_RULESET, request(**{"name": "bad", **shape}))
    assert error.code in {"INVALID_ARGUMENT", "FAILED_PRECONDITION"}, error
    assert error.reason
    assert any(named.startswith(field) for named in fields(error)), error


def test_a_port_in_use_says_by_whom(lab: Lab, there: None) -> None:
    error = refusal(lab, APPLY_RULESET, request("bad", forwards=[forward(8443)]))
    assert (error.code, error.reason) == ("FAILED_PRECONDITION", "PORT_IN_USE")
    assert "there" in error.message


def test_a_request_of_5_mb(lab: Lab, there: None) -> None:
    rules = [{**RULE, "comment": "x" * 60}] * 75_000
    error = refusal(lab, APPLY_RULESET, request("bad", rules=rules))
    assert error.code == "RESOURCE_EXHAUSTED", error
