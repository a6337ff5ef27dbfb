"""Counters of links on a real host, inside the daemon's sandbox, held against ip(8)."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
from hosts_client import (
    COUNTERS,
    CREATE,
    DELETE,
    WATCH,
    ask,
    cli,
    create_request,
    delete_request,
    refusal,
)
from hosts_witness import ip_json, links, untouched

from hostler import sync
from hostler.api.netns.v1 import counter_pb2
from hostler.lab.host import Host
from hostler.lab.lab import Lab

pytestmark = [pytest.mark.hosts, pytest.mark.timeout(300)]

MEGABYTES = 30
ETHERNET_SHARE = {1500: 0.9493, 9000: 0.9914}


def link(mtu_bytes: int) -> dict[str, Any]:
    veth = {"host_addresses": ["10.94.0.1/30"]}
    return {"veth": veth, "addresses": ["10.94.0.2/30"], "mtu_bytes": mtu_bytes}


@pytest.fixture
def ns(lab: Lab, h1: Host) -> Iterator[str]:
    with untouched(h1):
        ask(lab, CREATE, create_request("meter", interfaces=[link(1500)]))
        try:
            yield "meter"
        finally:
            ask(lab, DELETE, delete_request("meter"))


def raw(host: Host, *where: str) -> dict[str, tuple[int, ...]]:
    """What ip -s says of every link but those that other traffic keeps busy."""
    told = {}
    for one in ip_json(host, *where, "-s", "link"):
        rx, tx = one["stats64"]["rx"], one["stats64"]["tx"]
        told[one["ifname"]] = tuple(
            side[key] for key in ("bytes", "packets", "errors", "dropped") for side in (rx, tx)
        )
    return told


def ours(lab: Lab, namespace: str) -> dict[str, tuple[int, ...]]:
    answer = ask(lab, COUNTERS, counter_pb2.GetCountersRequest(namespace=namespace))
    return {
        x.ifname: (
            *(x.rx_bytes, x.tx_bytes, x.rx_packets, x.tx_packets),
            *(x.rx_errors, x.tx_errors, x.rx_dropped, x.tx_dropped),
        )
        for x in answer.links
    }


def transfer(host: Host, ns: str) -> None:
    """Send so many megabytes of TCP payload from the host into the namespace."""
    sink = (
        "import socket; s = socket.create_server(('10.94.0.2', 9000)); print('up', flush=True);"
        "c, _ = s.accept()\nwhile c.recv(1 << 20): pass"
    )
    argv = ["ip", "netns", "exec", ns, "python3", "-c", sink]
    server = host.popen(argv, stdout=-1)
    assert server.stdout is not None
    assert server.stdout.readline() == "up\n"
    send = (
        "import socket; c = socket.create_connection(('10.94.0.2', 9000));"
        f"c.sendall(bytes({MEGABYTES} * 1000000)); c.shutdown(1); c.recv(1)"
    )
    host.run(["python3", "-c", send])
    server.wait(30)
    server.stdout.close()


def test_raw_counters_are_those_of_the_device(lab: Lab, h1: Host, ns: str) -> None:
    transfer(h1, ns)
    # The kernel's own multicast must have come to rest for an exact comparison.
    for _ in range(10):
        before, seen, after = raw(h1, "-n", ns), ours(lab, ns), raw(h1, "-n", ns)
        if before == after:
            break
        time.sleep(0.5)
    assert seen == before == after
    assert seen["eth0"][0] > MEGABYTES * 1_000_000
    assert set(seen) == {"lo", "eth0"}
    assert set(ours(lab, "")) == links(h1)


def test_rates_are_those_of_a_transfer_of_known_size(lab: Lab, h1: Host, ns: str) -> None:
    client = sync.connect(config=lab.config)
    request = counter_pb2.WatchCountersRequest(namespace=ns, ifname="eth0", count=12)
    request.interval.FromMilliseconds(250)
    readings = []
    with client.session(client.select("h1")[0]) as session:
        sender = None
        for reading in session.stream(WATCH, request):
            readings.append(reading)
            if sender is None:
                sender = threading.Thread(target=transfer, args=(h1, ns))
                sender.start()
    assert sender is not None
    sender.join(30)
    assert [r.seq for r in readings] == list(range(1, 13))
    assert not readings[0].links[0].HasField("rates")
    received_bits = 0.0
    for was, now in pairwise(readings):
        (link_was,), (link_now,) = was.links, now.links
        rates = link_now.rates
        interval_s = rates.interval.ToNanoseconds() / 1e9
        assert interval_s == pytest.approx(0.25, abs=0.2)
        grown = link_now.counters.rx_bytes - link_was.counters.rx_bytes
        assert rates.rx_bits_per_second * interval_s == pytest.approx(8 * grown, rel=1e-6, abs=1)
        between_s = (now.time.ToNanoseconds() - was.time.ToNanoseconds()) / 1e9
        assert interval_s == pytest.approx(between_s, abs=0.05)
        received_bits += rates.rx_bits_per_second * interval_s
        assert rates.tcp4_payload_share == pytest.approx(ETHERNET_SHARE[1500], abs=5e-5)
        assert rates.payload_limit_bits_per_second == pytest.approx(0.9493e10, rel=1e-4)
    payload_bits = MEGABYTES * 8e6
    assert payload_bits < received_bits < 1.06 * payload_bits


def test_the_payload_share_at_9000(lab: Lab, h1: Host) -> None:
    with untouched(h1):
        ask(lab, CREATE, create_request("jumbo", interfaces=[link(9000)]))
        try:
            watch = ["netns", "counters", "jumbo", "--watch", "--count", "2", "--interval", "100ms"]
            told = cli(lab, "-H", "h1", *watch, "--link", "eth0").stdout
            assert "99.14%" in told
            assert "L2 frame without FCS" in told
            (seen,) = ip_json(h1, "-n", "jumbo", "link", "show", "eth0")
            assert seen["mtu"] == 9000
        finally:
            ask(lab, DELETE, delete_request("jumbo"))


def test_what_is_not_there(lab: Lab, h1: Host, ns: str) -> None:
    request = counter_pb2.GetCountersRequest(namespace="no-such")
    assert refusal(lab, COUNTERS, request).reason == "NAMESPACE_NOT_FOUND"
    request = counter_pb2.GetCountersRequest(namespace=ns, ifname="no0")
    assert refusal(lab, COUNTERS, request).reason == "LINK_NOT_FOUND"
    request = counter_pb2.GetCountersRequest(namespace="../x")
    assert refusal(lab, COUNTERS, request).code == "INVALID_ARGUMENT"
    unit = h1.run(["systemctl", "show", "-P", "RestrictAddressFamilies", "hostler-netns"]).stdout
    assert set(unit.split()) == {"AF_UNIX", "AF_NETLINK"}
