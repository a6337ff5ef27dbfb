"""Counters of rules against what a sender sent; the sender's socket and nft(8) are witnesses."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from firewall_topology import Host, Router, address, hosts, join

from hostler.api.firewall.v1 import counter_pb2 as pb
from hostlerd.firewall.kernel import nft, tool
from hostlerd.firewall.service.convert import sums
from hostlerd.firewall.service.counter import RuleCounterService
from hostlerd.runtime.errors import InvalidRequest

pytestmark = pytest.mark.kernel

NO_CONTEXT: Any = None
PAYLOAD_BYTES, HEADERS_BYTES = 100, {4: 28, 6: 48}
UP4, UP6 = "198.51.100.1", "2001:db8:1::1"


class Net:
    """A router with the service on it, and a client that sends to it."""

    def __init__(self, router: Router, client: Host) -> None:
        self.router, self.client = router, client
        self.at_once, self.most_at_once, self.reads = 0, 0, 0
        self._lock = threading.Lock()
        runtime: Any = self
        self.service = RuleCounterService(runtime, router.kernel)

    async def blocking(self, work: Callable[..., Any], /, *args: Any) -> Any:
        """Do the daemon's blocking work in the router's namespace, and note how much goes on."""

        def noted() -> Any:
            with self._lock:
                self.at_once += 1
                self.reads += 1
                self.most_at_once = max(self.most_at_once, self.at_once)
            try:
                return work(*args)
            finally:
                with self._lock:
                    self.at_once -= 1

        return await asyncio.to_thread(self.router.run, noted)

    def send(self, port: int, packets: int, to: str = UP4) -> int:
        """Send datagrams; answer how many the sender's kernel took."""
        family = socket.AF_INET6 if ":" in to else socket.AF_INET
        with self.client.run(socket.socket, family, socket.SOCK_DGRAM) as s:
            return sum(
                s.sendto(bytes(PAYLOAD_BYTES), (to, port)) == PAYLOAD_BYTES for _ in range(packets)
            )

    def listed(self, **fields: Any) -> pb.ListRuleCountersResponse:
        request = pb.ListRuleCountersRequest(**fields)
        return asyncio.run(self.service.ListRuleCounters(request, NO_CONTEXT))

    async def watch(
        self, count: int, between: Callable[[int], None] = lambda _: None, **fields: Any
    ) -> list[pb.WatchRuleCountersResponse]:
        """Take so many readings, and do something after each."""
        found: list[pb.WatchRuleCountersResponse] = []
        request = pb.WatchRuleCountersRequest(**fields)
        request.interval.FromMilliseconds(200)
        readings: Any = self.service.WatchRuleCounters(request, NO_CONTEXT)
        async for reading in readings:
            found.append(reading)
            if len(found) == count:
                break
            await asyncio.to_thread(between, len(found))
        await readings.aclose()
        return found


@pytest.fixture
def net(tmp_path: Path) -> Iterator[Net]:
    with hosts("router", "client") as names:
        router, client = Router(names[0]), Host(names[1])
        router.install(tmp_path / "state", tmp_path / "run")
        join(router, "eth0", client, "eth0")
        address(router, "eth0", f"{UP4}/24", f"{UP6}/64")
        address(client, "eth0", "198.51.100.2/24", "2001:db8:1::2/64")
        router.apply(name="web", rules=[rule(1000), rule(2000), rule(3000, action="accept")])
        made = Net(router, client)
        settle(made)
        yield made


def rule(port: int, action: str = "drop", **more: Any) -> dict[str, Any]:
    ports = [{"first": port, "last": port}]
    return {
        **{"id": f"p{port}", "hook": "input", "action": action, "protocol": "udp"},
        "destination_ports": ports,
        **more,
    }


def settle(net: Net) -> None:
    """Wait until the client knows its neighbour: what is sent before may be lost unseen."""
    for to in (UP4, UP6):
        net.client.exec("/usr/bin/ping", "-c1", "-W10", to)


def by_rule(counters: Any) -> dict[str, tuple[int, int]]:
    return {c.rule: (c.packets, c.bytes) for c in counters}


def witness(router: Router) -> dict[str, tuple[int, int]]:
    """What nft(8) lists, added up by label."""
    found: dict[str, tuple[int, int]] = {}
    for r in router.nft_rules():
        told = [e["counter"] for e in r["expr"] if "counter" in e]
        if "comment" in r and told:
            label = r["comment"].split(" ")[0]
            packets, size = found.get(label, (0, 0))
            found[label] = (packets + told[0]["packets"], size + told[0]["bytes"])
    return found


def test_counts_what_was_sent(net: Net) -> None:
    sent4, sent6 = net.send(1000, 40), net.send(1000, 25, UP6)
    assert net.send(2000, 7) == 7
    found = net.listed()
    size = sent4 * (PAYLOAD_BYTES + HEADERS_BYTES[4]) + sent6 * (PAYLOAD_BYTES + HEADERS_BYTES[6])
    assert by_rule(found.counters)["web/p1000"] == (65, size)
    assert by_rule(found.counters)["web/p2000"] == (7, 7 * 128)
    assert by_rule(found.counters) == witness(net.router)
    assert [c.rule for c in found.counters] == list(witness(net.router))
    assert not found.next_page_token
    # GetTable adds up in the same way.
    table = sums(net.router.run(net.router.kernel.rule_counters))
    assert by_rule(table) == by_rule(found.counters)


def test_one_label_in_several_chains_is_one_counter(net: Net) -> None:
    """A forward has a line for packets from outside and one for the host's own."""
    forward = {"protocol": "udp", "port": 53, "target_address": "198.51.100.2", "target_port": 5300}
    net.router.apply(name="dns", forwards=[forward])
    labels = net.router.labels()
    assert labels.count("dns/forward-udp-53") > 1
    net.send(53, 1)
    with net.router.run(socket.socket, socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.sendto(b"?", (UP4, 53))
    found = by_rule(net.listed().counters)
    assert found["dns/forward-udp-53"] == witness(net.router)["dns/forward-udp-53"]
    assert found["dns/forward-udp-53"][0] >= 2


def test_pages_follow_each_other(net: Net) -> None:
    rules = [rule(port, action="accept") for port in range(4000, 4050)]
    net.router.apply(name="many", rules=rules)
    whole = [c.rule for c in net.listed().counters]
    assert len(whole) == 53
    token, found = "", []
    while True:
        page = net.listed(page_size=20, page_token=token)
        found.append([c.rule for c in page.counters])
        token = page.next_page_token
        if not token:
            break
    assert [len(page) for page in found] == [20, 20, 13]
    assert [label for page in found for label in page] == whole
    # A table that has changed meanwhile: the page goes on after the rule it had ended with.
    first = net.listed(page_size=20)
    net.router.apply(name="many", rules=rules[5:])
    assert net.listed(page_token=first.next_page_token).counters[0].rule == whole[20]
    net.router.delete("many")
    net.router.delete("web")
    assert not net.listed(page_token=first.next_page_token).counters
    assert not net.listed().counters


def test_rates_are_what_was_sent_over_the_time_between(net: Net) -> None:
    net.send(2000, 500)

    def send(after: int) -> None:
        if after in (1, 2):
            net.send(1000, 100 * after)

    first, second, third, fourth = asyncio.run(net.watch(4, send, after_seq=7))
    assert [r.seq for r in (first, second, third, fourth)] == [8, 9, 10, 11]
    assert all(r.packets_per_second == r.bits_per_second == 0 for r in first.rules)
    # Without rates, those that have counted most.
    assert first.rules[0].counter.rule == "web/p2000"
    for before, now, sent in ((first, second, 100), (second, third, 200), (third, fourth, 0)):
        elapsed_s = (now.time.ToNanoseconds() - before.time.ToNanoseconds()) / 1e9
        (busy,) = (r for r in now.rules if r.counter.rule == "web/p1000")
        assert 0.5 * sent <= busy.packets_per_second * elapsed_s <= 2 * sent
        assert busy.bits_per_second == pytest.approx(busy.packets_per_second * 8 * 128)
        if sent:
            assert now.rules[0] == busy
    assert by_rule(r.counter for r in fourth.rules) == witness(net.router)


def test_top_is_cut_after_it_is_sorted(net: Net) -> None:
    def send(after: int) -> None:
        net.send(3000, 30)
        net.send(2000, 90)

    _, second = asyncio.run(net.watch(2, send, top=2))
    assert [r.counter.rule for r in second.rules] == ["web/p2000", "web/p3000"]


def test_a_set_counts_what_the_rules_that_use_it_count(net: Net) -> None:
    sets = [
        {"name": "bad", "elements": ["198.51.100.2"]},
        {"name": "far", "dynamic": True},
        {"name": "unused", "elements": ["192.0.2.1"]},
    ]
    rules = [
        rule(4000, source_sets=["bad"]),
        rule(4001, source_sets=["bad", "far"]),
        rule(4002),
    ]
    net.router.apply(name="lists", address_sets=sets, rules=rules)

    def send(after: int) -> None:
        net.send(4000, 30)
        net.send(4001, 50)
        net.send(4002, 90)

    first, second = asyncio.run(net.watch(2, send))
    assert all(r.packets_per_second == 0 for r in first.sets)
    counted = witness(net.router)
    both = tuple(map(sum, zip(counted["lists/p4000"], counted["lists/p4001"], strict=True)))
    assert both[0] == 80
    assert [(r.address_set, r.packets, r.bytes) for r in second.sets] == [
        ("bad", *both),
        ("far", *counted["lists/p4001"]),
    ]
    elapsed_s = (second.time.ToNanoseconds() - first.time.ToNanoseconds()) / 1e9
    for found, sent in zip(second.sets, (80, 50), strict=True):
        assert 0.5 * sent <= found.packets_per_second * elapsed_s <= 2 * sent
        assert found.bits_per_second == pytest.approx(found.packets_per_second * 8 * 128)
    (one,) = asyncio.run(net.watch(1, top=1))
    assert [r.address_set for r in one.sets] == ["bad"]


def test_a_table_made_anew_counts_from_nothing_and_no_rate_is_negative(net: Net) -> None:
    net.send(1000, 50)

    def replace(after: int) -> None:
        net.router.exec("/usr/sbin/nft", "reset counters; flush chain inet hostler filter_input")
        net.router.apply(name="web", rules=[rule(1000), rule(2000), rule(5000)])
        net.send(1000, 3)

    _, second = asyncio.run(net.watch(2, replace))
    found = {r.counter.rule: r for r in second.rules}
    assert set(found) == {"web/p1000", "web/p2000", "web/p5000"}
    assert found["web/p1000"].counter.packets == 3
    assert all(r.packets_per_second >= 0 and r.bits_per_second >= 0 for r in second.rules)


def test_all_who_watch_share_one_reading_at_a_time(net: Net) -> None:
    async def all_watch() -> list[list[pb.WatchRuleCountersResponse]]:
        return await asyncio.gather(*(net.watch(4) for _ in range(25)))

    watched = asyncio.run(all_watch())
    assert net.most_at_once == 1
    times = {r.time.ToNanoseconds() for readings in watched for r in readings}
    # Every reading was one call, and 100 answers came of far fewer.
    assert len(times) == net.reads <= 50
    for readings in watched:
        assert [r.seq for r in readings] == [1, 2, 3, 4]
        assert len({r.time.ToNanoseconds() for r in readings}) == 4


def test_one_who_leaves_leaves_the_others_their_reading(net: Net) -> None:
    async def both() -> list[pb.WatchRuleCountersResponse]:
        leaving = asyncio.create_task(net.watch(100))
        staying = asyncio.create_task(net.watch(3))
        while not net.at_once:
            await asyncio.sleep(0.001)
        leaving.cancel()
        return await staying

    assert len(asyncio.run(both())) == 3


def test_a_slow_caller_and_one_that_was_away_are_told_what_they_missed(net: Net) -> None:
    def dawdle(after: int) -> None:
        if after == 1:
            time.sleep(1.1)

    readings = asyncio.run(net.watch(3, dawdle))
    # 1.1 s are five ticks of 200 ms at the least, and the fifth is the next reading.
    assert readings[0].dropped == 0
    assert readings[1].dropped >= 4
    request: dict[str, Any] = {"after_seq": 3, "after_time": {"seconds": int(time.time()) - 60}}
    (again,) = asyncio.run(net.watch(1, **request))
    assert again.seq == 4
    assert again.dropped >= 298


def test_bad_requests_are_told_by_field(net: Net) -> None:
    for fields in ({"page_size": -1}, {"page_size": 10_001}, {"page_token": "x"}):
        with pytest.raises(InvalidRequest):
            net.listed(**fields)
    request = pb.WatchRuleCountersRequest(interval={"nanos": 1}, top=-1, after_seq=-1)
    with pytest.raises(InvalidRequest) as refused:
        asyncio.run(anext(net.service.WatchRuleCounters(request, NO_CONTEXT)))  # type: ignore[arg-type]
    assert [v.field for v in refused.value.violations] == ["interval", "top", "after_seq"]


def test_elements_of_sets_are_not_listed_for_counters(
    net: Net, monkeypatch: pytest.MonkeyPatch
) -> None:
    elements = ", ".join(f"10.{n // 250}.{n % 250}.1" for n in range(5000))
    more = f"add set inet hostler bad {{ type ipv4_addr; elements = {{ {elements} }}; }}"
    net.router.exec("/usr/sbin/nft", more)
    assert len(net.router.exec("/usr/sbin/nft", "-j", "list", "ruleset")) > 60_000
    sizes = []

    def run_noted(*args: Any) -> tool.Answer:
        answer = tool.run(*args)
        sizes.append(len(answer.output))
        return answer

    monkeypatch.setattr(nft, "run", run_noted)
    assert "web/p1000" in by_rule(net.listed().counters)
    assert 0 < sizes[0] < 30_000
