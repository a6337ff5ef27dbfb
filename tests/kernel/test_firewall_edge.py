"""From tables to tables in one transaction: what stays is not touched, and nothing else is left."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from firewall_generated import NAMES_GIVEN, rulesets
from firewall_topology import Host, Network, Router, hosts
from hypothesis import HealthCheck, given, settings

from hostlerd.firewall.errors import TableForeign
from hostlerd.firewall.kernel import nft
from hostlerd.firewall.kernel.generation import generation
from hostlerd.firewall.model.address_set import ChangeElements
from hostlerd.firewall.model.ruleset import Ruleset
from hostlerd.firewall.model.state import EVERYWHERE
from hostlerd.firewall.plan import change
from hostlerd.firewall.plan.table import compile_table

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(300)]

LIST = ("/usr/sbin/nft", "-s", "list", "ruleset")


@pytest.fixture
def router(tmp_path: Path) -> Iterator[Router]:
    with hosts("router") as names:
        made = Router(names[0])
        made.install(tmp_path / "state", tmp_path / "run")
        yield made


@pytest.fixture
def net(tmp_path: Path) -> Iterator[Network]:
    with hosts("router", "client", "web", "two", "far") as names:
        yield Network(names, tmp_path)


def blocks(router: Router) -> list[list[str]]:
    """What nft lists of each table; in which order chains were made does not matter."""
    tables = router.exec(*LIST).split("\n}\n")
    return [sorted(" ".join(b.split()) for b in f"{t}\n".split("\n\t}\n")) for t in tables]


def text_of(*given_rulesets: Ruleset) -> str:
    return compile_table([*given_rulesets, NAMES_GIVEN], EVERYWHERE)


def test_a_set_that_grows_keeps_what_it_holds(router: Router) -> None:
    """The witness of what is written is nft's monitor, that of what is held is its list."""

    def document(*elements: str) -> dict[str, Any]:
        rule = {"id": "d", "hook": "input", "action": "drop", "source_sets": ["bad"]}
        return {"name": "web", "address_sets": [{"name": "bad", "elements": [*elements]}],
                "rules": [rule]}  # fmt: skip

    some = [f"10.0.{n}.1" for n in range(50)]
    router.apply(**document(*some, "fd00::1"))
    with watched_elements(router) as events:
        router.apply(**document(*some, "10.1.0.0/24", "192.0.2.1", "fd00::1"))
    assert held(router) == {*some, "10.1.0.0/24", "192.0.2.1"}
    added = [e for e in events if e.startswith("add element inet hostler bad_4")]
    assert len(added) == 2, events
    assert not [e for e in events if e.startswith("delete element inet hostler bad_4")]
    # What loses an element is filled anew, in the same transaction.
    router.apply(**document(*some[1:], "192.0.2.1"))
    assert held(router) == {*some[1:], "192.0.2.1"}
    router.apply(**document())
    assert held(router) == set()


@contextmanager
def watched_elements(router: Router) -> Iterator[list[str]]:
    """Answer what nft(8) sees happen to elements, once it is over."""
    argv = ("/usr/sbin/ip", "netns", "exec", router.name, "/usr/sbin/nft", "monitor", "elements")
    found: list[str] = []
    probe = ("/usr/sbin/nft", "add element inet hostler bad_6 { fd00::77 }")
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, bufsize=1) as monitor:
        assert monitor.stdout
        reader = threading.Thread(target=lambda: found.extend(monitor.stdout or ()))
        reader.start()
        try:
            # It says nothing when it begins to look: look until it does.
            while not any("fd00::77" in line for line in found):
                router.exec(*probe)
                router.exec(probe[0], probe[1].replace("add", "delete"))
                time.sleep(0.05)
            yield found
            last = len(found)
            router.exec(probe[0], probe[1].replace("77", "99"))
            while not any("fd00::99" in line for line in found[last:]):
                time.sleep(0.02)
        finally:
            monitor.kill()
            reader.join(10)


def held(router: Router) -> set[str]:
    """The elements of bad_4, as nft -j lists them."""
    listed = json.loads(
        router.exec("/usr/sbin/nft", "-j", "list", "set", "inet", "hostler", "bad_4")
    )
    (one,) = (e["set"] for e in listed["nftables"] if "set" in e)
    return {
        e if isinstance(e, str) else f"{e['prefix']['addr']}/{e['prefix']['len']}"
        for e in one.get("elem", ())
    }


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(rulesets(), rulesets())
def test_the_way_there_does_not_show(router: Router, one: Ruleset, other: Ruleset) -> None:
    first, second = text_of(one), text_of(other)
    router.run(nft.replace, first, None)
    router.exec("/usr/sbin/nft", "add", "element", "inet", "hostler", "block_4", "{ 10.9.9.9 }")
    router.run(nft.replace, second, first)
    by_steps = blocks(router)
    assert "10.9.9.9" in str(by_steps)
    router.run(nft.replace, second, None)
    assert blocks(router) == by_steps
    router.run(nft.delete)
    assert router.exec(*LIST) == ""


def rules(count: int, **changed: str) -> list[dict[str, Any]]:
    return [
        {
            "id": f"r{n}",
            "hook": "input",
            "action": changed.get(f"r{n}", "accept"),
            "protocol": "udp",
            "destination_ports": [{"first": 1000 + n}],
        }
        for n in range(count)
    ]


def handles(router: Router) -> dict[str, int]:
    return {r["comment"]: r["handle"] for r in router.nft_rules() if "comment" in r}


def test_few_changes_touch_few_rules(router: Router) -> None:
    router.apply(name="web", rules=rules(100))
    before = handles(router)
    router.apply(name="web", rules=rules(100, r3="drop", r50="drop"))
    after = handles(router)
    assert list(after) == list(before), "another order"
    assert {label for label in after if after[label] != before[label]} == {"web/r3", "web/r50"}
    router.apply(name="web", rules=[r for r in rules(101) if r["id"] not in ("r7", "r99")])
    left = handles(router)
    assert [*left] == [f"web/r{n}" for n in range(101) if n not in (7, 99)]
    same = [label for label in left if label in after and label not in ("web/r3", "web/r50")]
    assert all(left[label] == after[label] for label in same)


def test_the_same_again_writes_nothing(router: Router) -> None:
    router.apply(name="web", rules=rules(20))
    before = router.run(generation)
    assert router.apply(name="web", rules=rules(20)).steps == ()
    assert router.run(generation) == before


def test_drift_is_seen_whoever_made_it(router: Router) -> None:
    router.apply(
        name="web",
        rules=rules(3),
        address_sets=[{"name": "office", "elements": ["10.0.0.0/8"]}],
    )
    for command in (
        ("add", "rule", "inet", "hostler", "filter_input", "drop"),
        ("add", "element", "inet", "hostler", "office_4", "{ 11.0.0.1 }"),
        ("flush", "chain", "inet", "hostler", "filter_input"),
        ("delete", "table", "inet", "hostler"),
    ):
        assert change.drift(router.run(router.kernel.observe)) == ()
        router.exec("/usr/sbin/nft", *command)
        assert change.drift(router.run(router.kernel.observe)) != ()
        router.apply(name="web", rules=rules(3), address_sets=OFFICE)
        assert "11.0.0.1" not in router.exec(*LIST)
        assert len(handles(router)) == 3
    # What others do elsewhere is none.
    router.exec("/usr/sbin/nft", "add", "table", "ip", "theirs")
    assert change.drift(router.run(router.kernel.observe)) == ()
    assert router.apply(name="web", rules=rules(3), address_sets=OFFICE).steps == ()


OFFICE = [{"name": "office", "elements": ["10.0.0.0/8"]}]


def test_dynamic_elements_outlive_every_change(router: Router) -> None:
    block = [{"name": "block", "dynamic": True}]
    drop = {"hook": "input", "action": "drop", "source_sets": ["block"]}
    router.apply(name="base", address_sets=block, rules=[drop])
    add = ("/usr/sbin/nft", "add", "element", "inet", "hostler")
    router.exec(*add, "block_4", "{ 10.0.0.7, 10.1.0.0/16 timeout 1h }")
    router.exec(*add, "block_6", "{ fd00::7 timeout 2h }")
    listed = nft_sets(router)
    for _ in range(2):
        router.apply(name="web", rules=rules(3))
        assert nft_sets(router) == listed
        router.apply(name="web", rules=rules(200))
        # Also where somebody else has been at the table, and all of it is made anew.
        router.exec("/usr/sbin/nft", "flush", "chain", "inet", "hostler", "filter_input")
        router.apply(name="web", rules=rules(2))
        assert nft_sets(router) == listed
        assert len(handles(router)) == 3


def nft_sets(router: Router) -> dict[str, list[str]]:
    """The elements of sets; of those that end, the time that is left is not told."""
    found = {}
    for name in ("block_4", "block_6"):
        text = router.run(nft.elements_text, name)
        found[name] = sorted(each.split(" expires ")[0].strip() for each in text.split(","))
        assert ("timeout" in text) == ("expires" in text)
    return found


def test_a_text_that_makes_another_table_is_refused(router: Router) -> None:
    text = "table inet hostler {\n\tchain a {\n\t\taccept\n\t}\n}\n"
    router.run(nft.check, text)
    with pytest.raises(TableForeign, match="ip theirs"):
        router.run(nft.check, text.replace("accept", "accept; }; }; table ip theirs { chain b {"))
    assert router.exec(*LIST) == ""


SOFTNET = Path("/proc/net/softnet_stat")
# What was dropped for the sake of connections, of the network of the thread that reads it.
CONNECTIONS = Path("/proc/thread-self/net/stat/nf_conntrack")


class Flood:
    """Datagrams of one connection from a host to another, as fast as can be; counted at both.

    It begins once the first has arrived: the neighbour and the connection are known by then.
    """

    def __init__(self, source: Host, target: Host, address: str) -> None:
        self.sent = self.got = 0
        self._address = (address, 9999)
        self._ready, self._first = threading.Event(), threading.Event()
        self._done = threading.Event()
        self._queue_drops = queue_drops()
        self._ear = threading.Thread(target=lambda: target.run(self._receive))
        self._mouth = threading.Thread(target=lambda: source.run(self._send))

    def __enter__(self) -> Flood:
        self._ear.start()
        assert self._ready.wait(5)
        self._mouth.start()
        assert self._first.wait(5)
        return self

    @property
    def lost(self) -> int:
        """Datagrams that never came."""
        return self.sent - self.got

    def told(self, router: Router) -> str:
        """Where the kernel says that packets were dropped, other than by a rule."""
        queues = queue_drops() - self._queue_drops
        return f"{queues} dropped by queues of CPUs\n{router.run(CONNECTIONS.read_text)}"

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._mouth.join()
        self._ear.join()

    def _receive(self) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
            s.setsockopt(socket.SOL_SOCKET, 33, 64 << 20)  # SO_RCVBUFFORCE
            s.bind(("", 9999))
            s.settimeout(1.0)
            self._ready.set()
            while True:
                # A busy machine may let the sender wait for long, too.
                all_sent = self._done.is_set() and not self._mouth.is_alive()
                try:
                    s.recv(100)
                except TimeoutError:
                    if all_sent:
                        return
                    continue
                self.got += 1
                self._first.set()

    def _send(self) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
            s.connect(self._address)
            s.send(b"x")
            self.sent += 1
            assert self._first.wait(5)
            while not self._done.is_set():
                s.send(b"x")
                self.sent += 1


def queue_drops() -> int:
    """Packets of any network that no queue of a CPU had room for (proc(5), softnet_stat)."""
    return sum(int(cpu.split()[1], 16) for cpu in SOFTNET.read_text().splitlines())


def test_nothing_is_lost_in_many_replaces(net: Network) -> None:
    """Rules change by handle, and chains as a whole, while packets pass them."""
    net.router.sysctl("net.ipv4.ip_forward", "1")
    passed = {"id": "pass", "hook": "forward", "action": "accept", "protocol": "udp"}

    def apply(count: int, turn: int) -> None:
        changed = {f"r{turn % count}": "drop"}
        forward = [{**r, "hook": "forward"} for r in rules(count, **changed)]
        net.router.apply(name="web", forward_policy="drop", rules=[*forward, passed])

    apply(50, 0)
    with Flood(net.client, net.web, "10.213.0.2") as flood:
        for turn in range(30):
            apply(50 if turn % 3 else 10, turn)
    assert flood.sent > 1000
    assert flood.lost == 0, flood.told(net.router)


REPLACES = 100 if os.environ.get("HOSTLER_SOAK") else 12


def read_slowly(net: Network, total: int, got: list[int]) -> None:
    """Take a transfer in, from a guest that is behind NAT."""
    with net.client.run(lambda: socket.create_server(("198.51.100.2", 9000))) as listening:
        peer, came = listening.accept()
        with peer:
            peer.settimeout(20)
            assert came[0] == "198.51.100.1", "it is behind NAT"
            while sum(got) < total and (part := peer.recv(1 << 16)):
                got.append(len(part))


def test_whole_rulesets_are_replaced_under_load(net: Network) -> None:
    """Each time all of 1,000 rules are others; a flood, a transfer, a blocklist live through it."""
    block = [{"name": "block", "dynamic": True}]
    blocked = {"id": "blocked", "hook": "forward", "action": "drop", "source_sets": ["block"]}
    nat = [{"source": "10.213.0.0/24", "uplink": "eth0"}]
    passed = {"id": "pass", "hook": "forward", "action": "accept"}
    # Without the rules for a moment, packets would be lost to the policy.
    net.router.apply(
        name="base",
        forward_policy="drop",
        address_sets=block,
        rules=[blocked, passed],
        masquerades=nat,
    )
    add = ("/usr/sbin/nft", "add", "element", "inet", "hostler", "block_4")
    net.router.exec(*add, "{ 203.0.113.9 timeout 1h }")
    total = 480 * 100_000
    got: list[int] = []
    reader = threading.Thread(target=read_slowly, args=(net, total, got))

    def send() -> None:
        with socket.create_connection(("198.51.100.2", 9000), 20) as s:
            part = b"x" * (total // 480)
            for _ in range(480):
                s.sendall(part)
                time.sleep(0.01)

    reader.start()
    time.sleep(0.3)
    writer = threading.Thread(target=lambda: net.web.run(send))
    writer.start()
    packets = 0
    with Flood(net.client, net.two, "10.213.0.3") as flood:
        for turn in range(REPLACES):
            hook = {"hook": "forward", "action": "drop" if turn % 2 else "reject"}
            many = [{**r, **hook, "id": f"t{turn}-{r['id']}"} for r in rules(1000)]
            net.router.apply(name="many", priority=10, rules=many)
            counted = {r.label: c for r, c in net.router.run(nft.read_counters).items()}
            assert counted["base/pass"].packets >= packets, "a counter went back"
            packets = counted["base/pass"].packets
    writer.join(60)
    reader.join(60)
    assert flood.sent > 1000
    assert flood.lost == 0, flood.told(net.router)
    assert sum(got) == total
    assert packets > 0
    assert "203.0.113.9" in net.router.run(nft.elements_text, "block_4")
    came = f"{flood.sent} datagrams sent, {flood.got} came"
    print(f"\n{REPLACES} replaces: {came}; {total} bytes over TCP")


def test_what_others_do_meanwhile_is_not_taken_for_ours(
    router: Router, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody's rule that comes between our transaction and our reading back is drift."""
    real = nft.read_listed

    def late(*args: Any) -> Any:
        # Within the namespace: the thread of the change is in it.
        subprocess.run(
            ["/usr/sbin/nft", "add rule inet hostler filter_input udp dport 9 drop"], check=True
        )
        monkeypatch.setattr(nft, "read_listed", real)
        return real(*args)

    router.apply(name="web", rules=rules(3))
    assert change.drift(router.run(router.kernel.observe)) == ()
    monkeypatch.setattr(nft, "read_listed", late)
    router.apply(name="web", rules=rules(4))
    assert "udp dport 9 drop" in router.exec(*LIST)
    assert change.drift(router.run(router.kernel.observe)) != ()
    router.apply(name="web", rules=rules(4))
    assert "udp dport 9 drop" not in router.exec(*LIST)
    assert change.drift(router.run(router.kernel.observe)) == ()


def test_what_others_do_while_elements_change_is_not_taken_for_ours(
    router: Router, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Likewise where a change of elements notes the generation that it has made."""
    real = nft.load

    def late(text: str) -> None:
        real(text)
        subprocess.run(
            ["/usr/sbin/nft", "add rule inet hostler filter_input udp dport 9 drop"], check=True
        )

    def add(element: str) -> None:
        with router.kernel.applying() as apply:
            apply(ChangeElements("block", f"{element}\n", "", False))

    router.apply(name="web", address_sets=[{"name": "block", "dynamic": True}], rules=rules(3))
    router.run(add, "10.0.0.1")
    assert change.drift(router.run(router.kernel.observe)) == ()
    monkeypatch.setattr(nft, "load", late)
    router.run(add, "10.0.0.2")
    assert "udp dport 9 drop" in router.exec(*LIST)
    assert change.drift(router.run(router.kernel.observe)) != ()
