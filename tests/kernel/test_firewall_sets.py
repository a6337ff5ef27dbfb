"""Dynamic sets on a real kernel: what they hold, and what it outlives."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import re
import time
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
from firewall_in_place import InPlace
from firewall_topology import Router, hosts
from google.protobuf.duration_pb2 import Duration
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from journal_backing import backed

from hostler.api.common.v1 import change_pb2
from hostler.api.firewall.v1 import address_set_pb2 as pb
from hostlerd.firewall.__main__ import restore
from hostlerd.firewall.errors import AddressSetNotFound, AddressSetNotInForce, AddressSetStatic
from hostlerd.firewall.kernel.generation import generation
from hostlerd.firewall.model.address_set import ChangeElements
from hostlerd.firewall.model.state import EVERYWHERE, Shadow
from hostlerd.firewall.model.steps import ReplaceTable, StartShadow
from hostlerd.firewall.plan import change
from hostlerd.firewall.plan.shadow import compile_shadow
from hostlerd.firewall.service.address_set import AddressSetService
from hostlerd.runtime.errors import InvalidRequest

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(300)]

T = TypeVar("T")

SETS = [
    {"name": "block", "dynamic": True},
    {"name": "office", "elements": ["10.0.0.0/8", "fd00::/8"]},
]
DROP = {"id": "blocked", "hook": "input", "action": "drop", "source_sets": ["block"]}
NO_CONTEXT: Any = None


@pytest.fixture
def router(tmp_path: Path) -> Iterator[Router]:
    with hosts("router") as names:
        made = Router(names[0])
        made.install(tmp_path / "state", tmp_path / "run")
        made.apply(name="base", address_sets=SETS, rules=[DROP], persistent=True)
        yield made


class Sets:
    """The service in the router's namespace."""

    def __init__(self, router: Router, folder: Path) -> None:
        runtime: Any = InPlace()
        changes = backed(router.kernel, folder, runtime.blocking)
        self.service = AddressSetService(runtime, router.kernel, changes)
        self.router = router

    def call(self, made: Coroutine[Any, Any, T]) -> T:
        return self.router.run(lambda: asyncio.run(made))  # type: ignore[arg-type]

    def add(self, *elements: pb.Element, name: str = "block", **options: Any) -> Any:
        request = pb.AddElementsRequest(
            name=name, elements=elements, change=change_pb2.ChangeOptions(**options)
        )
        return self.call(self.service.AddElements(request, NO_CONTEXT)).change

    def remove(self, *addresses: str) -> Any:
        request = pb.RemoveElementsRequest(name="block", addresses=addresses)
        return self.call(self.service.RemoveElements(request, NO_CONTEXT)).change

    def replace(self, *elements: pb.Element) -> Any:
        request = pb.ReplaceElementsRequest(name="block", elements=elements)
        return self.call(self.service.ReplaceElements(request, NO_CONTEXT)).change

    def page(self, size: int = 0, token: str = "", name: str = "block") -> Any:
        request = pb.ListElementsRequest(name=name, page_size=size, page_token=token)
        return self.call(self.service.ListElements(request, NO_CONTEXT))


@pytest.fixture
def sets(router: Router, tmp_path: Path) -> Sets:
    return Sets(router, tmp_path / "backing")


def plain(*addresses: str) -> list[pb.Element]:
    return [pb.Element(address=address) for address in addresses]


def timed(address: str, seconds: int) -> pb.Element:
    return pb.Element(address=address, timeout=Duration(seconds=seconds))


def nft_holds(router: Router, table: str = "hostler") -> dict[str, int]:
    """What nft itself says that a set holds, and how long each stays; 0 for ever."""
    found = {}
    for version in (4, 6):
        argv = ("/usr/sbin/nft", "-j", "list", "set", "inet", table, f"block_{version}")
        listed = next(e["set"] for e in json.loads(router.exec(*argv))["nftables"] if "set" in e)
        for each in listed.get("elem", []):
            inner = each["elem"] if isinstance(each, dict) and "elem" in each else {"val": each}
            found[_address(inner["val"])] = inner.get("expires", 0)
    return found


def _address(value: Any) -> str:
    if isinstance(value, str):
        return value
    if "prefix" in value:
        return f"{value['prefix']['addr']}/{value['prefix']['len']}"
    return "-".join(value["range"])


def test_elements_come_and_go(router: Router, sets: Sets) -> None:
    done = sets.add(*plain("10.0.0.1", "10.1.0.0/16", "10.2.0.1-10.2.0.9", "fd00::1"))
    assert done.changed
    assert set(nft_holds(router)) == {"10.0.0.1", "10.1.0.0/16", "10.2.0.1-10.2.0.9", "fd00::1"}
    state = router.run(router.kernel.observe)
    assert change.drift(state) == ()
    before = router.run(generation)
    # Nothing has to be listed to know that the tables stand.
    assert state.applied is not None
    assert state.applied.generation == before
    assert not sets.add(*plain("10.0.0.1", "fd00::1")).changed
    assert not sets.remove("10.0.0.77").changed
    assert router.run(generation) == before
    sets.remove("10.0.0.1", "fd00::1")
    assert set(nft_holds(router)) == {"10.1.0.0/16", "10.2.0.1-10.2.0.9"}
    sets.add(*plain("10.1.255.0-10.2.0.3"))
    assert set(nft_holds(router)) == {"10.1.0.0-10.2.0.9"}
    sets.replace(*plain("10.2.0.7", "10.2.0.8"))
    before = router.run(generation)
    assert not sets.replace(*plain("10.2.0.8", "10.2.0.7")).changed
    assert router.run(generation) == before
    assert set(nft_holds(router)) == {"10.2.0.7", "10.2.0.8"}
    assert sets.replace().changed
    assert nft_holds(router) == {}


def test_timeouts_are_given_anew_and_told(router: Router, sets: Sets) -> None:
    sets.add(timed("10.0.0.1", 100), *plain("10.0.0.2"))
    assert 0 < nft_holds(router)["10.0.0.1"] <= 100
    sets.add(timed("10.0.0.1", 3000), timed("10.0.0.2", 5000))
    held = nft_holds(router)
    assert 100 < held["10.0.0.1"] <= 3000 < held["10.0.0.2"] <= 5000
    one, two = sets.page().elements
    assert 100 < one.timeout.seconds <= 3000 < two.timeout.seconds
    assert abs(two.expire_time.seconds - time.time() - two.timeout.seconds) < 60
    sets.add(*plain("10.0.0.1"))
    assert nft_holds(router)["10.0.0.1"] == 0
    # One that ends between the listing and the change does not stop the change.
    end = int(time.time()) + 4000
    step = ChangeElements("block", f"10.0.0.2 {end}\n10.0.0.4\n", "10.0.0.1\n10.0.0.3\n", True)

    def apply() -> None:
        with router.kernel.applying() as carry_out:
            carry_out(step)

    for _ in range(2):
        router.run(apply)
        held = nft_holds(router)
        assert set(held) == {"10.0.0.2", "10.0.0.4"}
        assert 3000 < held["10.0.0.2"] <= 4000


def test_thousands_go_out_of_thousands_in_seconds(router: Router, sets: Sets) -> None:
    """And each that stays keeps its end. nft(8) alone takes most of a minute to delete as many."""
    some = [f"10.{n // 200}.{n % 200}.1" for n in range(6000)]
    sets.add(*(timed(a, 3000) if n % 2 else pb.Element(address=a) for n, a in enumerate(some)))
    start = time.monotonic()
    sets.remove(*some[:3000], "10.99.0.1")
    assert time.monotonic() - start < 15
    held = nft_holds(router)
    assert set(held) == set(some[3000:])
    for n, each in enumerate(some[3000:]):
        assert (2800 < held[each] <= 3000) if n % 2 else held[each] == 0


def test_all_faults_are_told_and_nothing_is_done(router: Router, sets: Sets) -> None:
    sets.add(*plain("10.1.0.0/16"))
    before = router.run(generation)
    wrong = plain("10.0.0.1/8", "nobody", "10.9.0.0-10.8.0.0", "")
    with pytest.raises(InvalidRequest) as error:
        sets.add(*wrong, timed("10.3.0.1", 0), timed("10.4.0.0/16", 9), *plain("10.4.0.1"))
    found = [v.field for v in error.value.violations]
    assert found == [
        *(f"elements[{n}].address" for n in range(4)), "elements[4].timeout", "elements[6]"
    ]  # fmt: skip
    with pytest.raises(
        InvalidRequest, match=r"10\.1\.2\.3 overlaps 10\.1\.0\.0/16, which the set holds"
    ):
        sets.add(timed("10.1.2.3", 60))
    with pytest.raises(
        InvalidRequest, match=r"10\.1\.2\.3 overlaps 10\.1\.0\.0/16, which the set holds"
    ):
        sets.remove("10.1.2.3")
    with pytest.raises(InvalidRequest, match="at most 262144"):
        sets.add(*plain(*["10.0.0.1"] * 262_145))
    with pytest.raises(AddressSetStatic):
        sets.add(*plain("10.1.2.3"), name="office")
    with pytest.raises(AddressSetNotFound):
        sets.add(*plain("10.1.2.3"), name="nobody")
    assert router.run(generation) == before
    router.exec("/usr/sbin/nft", "delete", "table", "inet", "hostler")
    with pytest.raises(AddressSetNotInForce):
        sets.add(*plain("10.1.2.3"))


def test_pages(router: Router, sets: Sets) -> None:
    everything = [*(f"10.0.{n // 256}.{n % 256}" for n in range(0, 2500, 2)), "fd00::1", "fd00::2"]
    sets.add(*plain(*reversed(everything)))
    token, found = "", []
    for size in (1, 1000, 250, 2):
        page = sets.page(size, token)
        assert len(page.elements) == size or not page.next_page_token
        found += [e.address for e in page.elements]
        token = page.next_page_token
    assert (found, token) == (everything, "")
    assert [e.address for e in sets.page(name="office").elements] == ["10.0.0.0/8", "fd00::/8"]
    with pytest.raises(InvalidRequest, match="page_token"):
        sets.page(1, "5/x")
    listed = sets.call(sets.service.ListAddressSets(pb.ListAddressSetsRequest(), NO_CONTEXT))
    told = {s.name: (s.ruleset, s.dynamic, s.ipv4_elements, s.ipv6_elements, *s.used_by)
            for s in listed.address_sets}  # fmt: skip
    assert told == {
        "block": ("base", True, 1250, 2, "base/blocked"),
        "office": ("base", False, 1, 1),
    }


def test_elements_outlive_rulesets_and_a_boot(router: Router, sets: Sets, tmp_path: Path) -> None:
    sets.add(timed("10.0.0.1", 3000), timed("10.0.0.9", 1), *plain("10.1.0.0/16", "fd00::1"))
    held = {"10.0.0.1", "10.1.0.0/16", "fd00::1"}
    router.apply(name="web", rules=[{"hook": "input", "action": "accept"}])
    assert set(nft_holds(router)) - {"10.0.0.9"} == held
    sets.add(*plain("10.5.0.5"))
    held.add("10.5.0.5")
    router.delete("web")
    time.sleep(1.1)
    # A boot: the run folder and the kernel's tables are gone.
    router.exec("/usr/sbin/nft", "flush", "ruleset")
    router.install(tmp_path / "state", tmp_path / "run2")
    router.run(restore, router.kernel)
    now = nft_holds(router)
    assert set(now) == held
    assert 2000 < now["10.0.0.1"] <= 3000
    assert change.drift(router.run(router.kernel.observe)) == ()


def test_what_is_not_persistent_ends_with_a_boot(
    router: Router, sets: Sets, tmp_path: Path
) -> None:
    sets.add(*plain("10.0.0.1"))
    router.apply(name="base", address_sets=SETS, rules=[DROP])
    router.apply(name="base", address_sets=SETS, rules=[DROP], persistent=True)
    assert set(nft_holds(router)) == {"10.0.0.1"}
    router.apply(name="base", address_sets=SETS, rules=[DROP])
    assert not list((tmp_path / "state/address_sets").iterdir())
    assert list((tmp_path / "run/address_sets").iterdir())


def test_a_change_taken_back_brings_elements_back(router: Router, sets: Sets) -> None:
    sets.add(*plain("10.0.0.1"))
    router.apply(name="web", rules=[{"hook": "input", "action": "accept"}])

    def there_and_back() -> None:
        steps = change.delete("base", router.kernel.observe()).steps
        assert any(isinstance(s, ReplaceTable) for s in steps)
        with router.kernel.applying() as apply:
            for step in steps:
                apply(step)
            for step in reversed(steps):
                back = step.inverse()
                assert back is not None
                apply(back)

    router.run(there_and_back)
    assert set(nft_holds(router)) == {"10.0.0.1"}


ADDRESSES = st.one_of(
    st.integers(0, 255).map(lambda n: f"10.0.0.{n}"),
    st.tuples(st.integers(0, 7), st.integers(24, 32)).map(
        lambda n: str(ipaddress.ip_network((f"10.0.0.{n[0] * 32}", n[1]), strict=False))
    ),
    st.tuples(st.integers(0, 200), st.integers(0, 55)).map(
        lambda n: f"10.0.0.{n[0]}-10.0.0.{n[0] + n[1]}"
    ),
)


def covered(addresses: list[str]) -> set[int]:
    """Which of 10.0.0.0/24 some elements are about."""
    found: set[int] = set()
    for each in addresses:
        first, _, last = each.partition("-")
        if last:
            ends = [int(ipaddress.ip_address(a)) for a in (first, last)]
        else:
            network = ipaddress.ip_network(each)
            ends = [int(network.network_address), int(network.broadcast_address)]
        found |= set(range(ends[0], ends[1] + 1))
    return found


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(ADDRESSES, max_size=8), st.lists(ADDRESSES, max_size=8))
def test_what_is_given_is_what_nft_covers(sets: Sets, first: list[str], then: list[str]) -> None:
    sets.replace(*plain(*first))
    assert covered(list(nft_holds(sets.router))) == covered(first)
    sets.add(*plain(*then))
    assert covered(list(nft_holds(sets.router))) == covered(first + then)
    sets.replace(*plain(*then))
    assert covered(list(nft_holds(sets.router))) == covered(then)
    assert not sets.replace(*plain(*then)).changed


def test_a_shadow_looks_at_what_sets_hold(router: Router, sets: Sets) -> None:
    sets.add(timed("10.0.0.1", 3000), *plain("10.1.0.0/16"))
    rulesets = router.run(router.kernel.observe).rulesets
    text = compile_shadow(rulesets.values(), EVERYWHERE, int(time.time()) + 600)

    def start_and_read() -> str:
        with router.kernel.applying() as apply:
            apply(StartShadow(Shadow(text, int(time.time()) + 600), None))
        return router.exec("/usr/sbin/nft", "list", "set", "inet", "hostler_shadow", "block_4")

    listed = router.run(start_and_read)
    assert "10.1.0.0/16" in listed
    assert re.search(r"10\.0\.0\.1 timeout (50m|49m\d+s) expires 49m", listed)
    assert change.drift(router.run(router.kernel.observe)) == ()


def test_a_shadow_follows_what_sets_hold(router: Router, sets: Sets) -> None:
    sets.add(timed("10.0.0.1", 3000), *plain("10.1.0.0/16", "fd00::1"))
    rulesets = router.run(router.kernel.observe).rulesets
    text = compile_shadow(rulesets.values(), EVERYWHERE, int(time.time()) + 600)

    def start() -> None:
        with router.kernel.applying() as apply:
            apply(StartShadow(Shadow(text, int(time.time()) + 600), None))

    router.run(start)
    for change_sets in (
        lambda: sets.add(timed("10.3.0.1", 5000), *plain("10.0.0.7", "fd00::9")),
        lambda: sets.remove("10.1.0.0/16"),
        lambda: sets.replace(*plain(*(f"10.5.0.{n}" for n in range(40)))),
        lambda: sets.remove(*(f"10.5.0.{n}" for n in range(30))),
    ):
        change_sets()
        assert set(nft_holds(router, "hostler_shadow")) == set(nft_holds(router))
    assert len(nft_holds(router)) == 10
    assert change.drift(router.run(router.kernel.observe)) == ()
    # One that somebody has deleted does not stop a change.
    router.exec("/usr/sbin/nft", "delete", "table", "inet", "hostler_shadow")
    assert sets.add(*plain("10.8.0.1")).changed
    assert "10.8.0.1" in nft_holds(router)


def test_drift_says_what(router: Router) -> None:
    accept = {"hook": "input", "action": "accept", "protocol": "tcp"}
    rules = [{**accept, "id": f"r{n}", "destination_ports": [{"first": n}]} for n in range(1, 4)]
    router.apply(name="web", input_policy="drop", rules=rules)
    handles = {r["comment"]: r["handle"] for r in router.nft_rules() if "comment" in r}
    chain = ("inet", "hostler", "filter_input")
    nft = "/usr/sbin/nft"
    router.exec(nft, "delete", "rule", *chain, "handle", str(handles["web/r2"]))
    router.exec(nft, "add", "rule", *chain, "udp", "dport", "9", "accept")
    router.exec(nft, "chain", *chain, "{ policy accept; }")
    router.exec(nft, "add", "element", "inet", "hostler", "office_4", "{ 11.0.0.1 }")
    router.exec(nft, "add", "chain", "inet", "hostler", "theirs")
    told = change.drift(router.run(router.kernel.observe))
    assert set(told) == {
        "table inet hostler was changed from outside",
        "chain filter_input: policy is accept",
        "chain filter_input: rule web/r2 is gone",
        "chain filter_input: a rule of somebody else: udp dport 9 accept",
        "set office_4: its elements are others",
        "chain theirs of somebody else",
    }
    router.apply(name="web", input_policy="drop", rules=rules)
    assert change.drift(router.run(router.kernel.observe)) == ()
    many = "".join(f"add rule inet hostler filter_input tcp dport {n} accept\n" for n in range(50))
    router.exec(nft, many)
    told = change.drift(router.run(router.kernel.observe))
    assert (len(told), told[-1]) == (21, "31 more")
