"""A caller's deadline passes while its change goes on: that is done as a whole, or not at all."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from journal_rows import FIREWALL, NETNS, ask, begin, space
from journal_stage import Place, eventually, opened

from hostler.api.common.v1 import change_pb2
from hostler.api.firewall.v1 import ruleset_pb2
from hostler.api.netns.v1 import namespace_pb2

pytestmark = [pytest.mark.kernel, pytest.mark.soak, pytest.mark.timeout(900)]

SOAK = os.environ.get("HOSTLER_SOAK") == "1"
# As many as one request takes, or enough to take seconds.
SPACES = 1000 if SOAK else 300
RULES = 10_000 if SOAK else 4000
DEADLINE_S = 0.3
APPLY, CREATE = (f"{NETNS}.NamespaceService/{m}" for m in ("ApplyNamespaces", "CreateNamespace"))
RULESET = f"{FIREWALL}.RulesetService/ApplyRuleset"


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Place]]:
    with opened(tmp_path_factory.mktemp("deadline"), "netns", "firewall") as places:
        for place in places.values():
            place.start()
        yield places


def many() -> Any:
    made = [space(f"many{n}", n) for n in range(SPACES)]
    return namespace_pb2.ApplyNamespacesRequest(namespaces=made)


def in_vain(place: Place, method: str, request: Any) -> float:
    """Ask with a deadline that is too short; answers when it passed."""
    with place.channel() as channel:
        call = begin(place, channel, method, request, timeout_s=DEADLINE_S)
        with pytest.raises(grpc.RpcError) as caught:
            call.result(60)
    assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    return time.monotonic()


def outcomes(place: Place, method: str) -> list[dict[str, Any]]:
    return [r for r in place.audit() if r["kind"] == "outcome" and r["method"] == f"/{method}"]


def names(place: Place) -> set[str]:
    return {n["name"] for n in place.stage.ip("netns")}


@pytest.fixture
def netns(places: dict[str, Place]) -> Iterator[Place]:
    place = places["netns"]
    yield place
    ask(place, APPLY, namespace_pb2.ApplyNamespacesRequest(delete_unlisted=True), timeout_s=300)
    assert names(place) == set()


def test_all_of_it_is_done_and_the_next_change_waits(netns: Place) -> None:
    ask(netns, CREATE, namespace_pb2.CreateNamespaceRequest(namespace=space("first", 2000)))
    in_vain(netns, APPLY, many())
    # It cannot be over: what comes next waits for all of it.
    assert outcomes(netns, APPLY) == []
    next_one = namespace_pb2.CreateNamespaceRequest(namespace=space("next", 2001))
    ask(netns, CREATE, next_one, timeout_s=300)
    assert names(netns) == {"first", "next", *(f"many{n}" for n in range(SPACES))}
    links = {link["ifname"] for link in netns.stage.ip("link")}
    assert len(links) == SPACES + 3
    (outcome,) = eventually(lambda: outcomes(netns, APPLY), 120)
    assert outcome["outcome"] == "OUTCOME_APPLIED"
    assert outcome["duration_s"] > DEADLINE_S


def test_what_then_fails_is_undone_as_a_whole(netns: Place) -> None:
    before = netns.stage.network()
    since = len(outcomes(netns, APPLY))
    request = many()
    request.change.request_id = "fails"
    in_vain(netns, APPLY, request)
    # It may not even be planned yet, on a machine that is busy.
    eventually(lambda: names(netns), 120)
    # Somebody takes the name that the last of them needs.
    taken = f"v-many{SPACES - 1}"
    netns.stage.tool("/usr/sbin/ip", "link", "add", taken, "type", "veth", "peer", "name", "other")
    eventually(lambda: len(outcomes(netns, APPLY)) > since, 300)
    (outcome,) = outcomes(netns, APPLY)[since:]
    assert (outcome["status"], outcome["reason"]) == ("FAILED_PRECONDITION", "STEP_FAILED")
    netns.stage.tool("/usr/sbin/ip", "link", "del", taken)
    eventually(lambda: netns.stage.network() == before)
    assert netns.journals() == []
    # What has failed has left nothing: the same request may be made again.
    told = ask(netns, APPLY, request, timeout_s=300).change
    assert (told.outcome, told.changed) == (change_pb2.OUTCOME_APPLIED, True)


def test_a_big_ruleset_is_loaded_as_a_whole(places: dict[str, Place]) -> None:
    place = places["firewall"]
    rules = [
        ruleset_pb2.Rule(
            hook=ruleset_pb2.HOOK_INPUT,
            action=ruleset_pb2.ACTION_ACCEPT,
            protocol=ruleset_pb2.PROTOCOL_TCP,
            sources=[f"10.{n // 250}.{n % 250}.0/24"],
            destination_ports=[ruleset_pb2.PortRange(first=1 + n, last=1 + n)],
        )
        for n in range(RULES)
    ]
    big = ruleset_pb2.Ruleset(name="big", rules=rules)
    in_vain(place, RULESET, ruleset_pb2.ApplyRulesetRequest(ruleset=big))
    small = ruleset_pb2.Ruleset(name="small", rules=rules[:1])
    ask(place, RULESET, ruleset_pb2.ApplyRulesetRequest(ruleset=small), timeout_s=300)
    first, second = outcomes(place, RULESET)
    assert first["outcome"] == second["outcome"] == "OUTCOME_APPLIED"
    assert first["duration_s"] > DEADLINE_S
    table = str(place.stage.firewall()["table"])
    assert table.count("'comment': 'big/") == RULES
    assert table.count("'comment': 'small/") == 1
