"""`hostler isolate` on three real hosts: what of it can be reached, and from where."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator

import demo
import pytest
from hosts_client import answers, cli, fetch, remove
from hosts_witness import eventually, untouched

from hostler.lab.host import Host
from hostler.lab.lab import Lab

pytestmark = [pytest.mark.hosts, pytest.mark.timeout(300)]

ECHO = """
import socket
s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
s.bind(("::", 5300))
while True:
    data, peer = s.recvfrom(2000)
    s.sendto(data.upper(), peer)
"""


@pytest.fixture(scope="module")
def running(lab: Lab) -> tuple[Host, ...]:
    for host in lab.hosts:
        if host.leader() is None:
            lab.boot(host.name)
    return lab.hosts


@pytest.fixture(scope="module")
def world(lab: Lab, running: tuple[Host, ...]) -> Iterator[demo.Outside]:
    with untouched(*running), demo.outside(lab.bridge.ipv4(1)) as one:
        demo.isolate(lab, one)
        try:
            yield one
        finally:
            remove(lab, "web")


@pytest.mark.parametrize("host", ["h1", "h2", "h3"])
@pytest.mark.parametrize("check", list(demo.CHECKS))
def test_the_one_command(lab: Lab, world: demo.Outside, check: str, host: str) -> None:
    at = lab.names().index(host)
    other = lab.hosts[(at + 1) % len(lab.hosts)]
    assert demo.CHECKS[check](lab, lab.host(host), other, world)


def test_again_changes_nothing(lab: Lab, world: demo.Outside) -> None:
    args = ["-H", "all", "--yes", *demo.COMMAND, "--dns", world.address, "--", *demo.SERVER]
    pids = {h.name: demo.process_of(lab, h)["main_pid"] for h in lab.hosts}
    with untouched(*lab.hosts):
        done = answers(lab, *args)
    for name in lab.names():
        assert done[name]["result"]["changed"] is False, done[name]
        assert done[name]["result"]["plan"]["steps"] == []
    assert "unchanged" in cli(lab, *args).stdout
    assert {h.name: demo.process_of(lab, h)["main_pid"] for h in lab.hosts} == pids


@pytest.fixture(scope="module")
def six(lab: Lab, running: tuple[Host, ...]) -> Iterator[str]:
    with untouched(*running):
        args = ["isolate", "six", "--publish", "8081:8000", "--private-pid", "--private-uts"]
        server = ["python3", "-m", "http.server", "8000", "--bind", "::"]
        try:
            cli(lab, "-H", "all", "--yes", *args, "--user", "www-data", "--", *server)
            for host in running:
                url = f"http://[{host.ipv6}]:8081/"
                eventually(lambda url=url: demo.LISTING in fetch(url))
            yield "six"
        finally:
            remove(lab, "six")


@pytest.mark.parametrize("name", ["h1", "h2", "h3"])
def test_both_families_from_everywhere(lab: Lab, six: str, name: str) -> None:
    host = lab.host(name)
    other = next(h for h in lab.hosts if h.name != name)
    for address in (host.ipv4, f"[{host.ipv6}]"):
        url = f"http://{address}:8081/"
        assert demo.LISTING in fetch(url)
        assert demo.LISTING in fetch(url, other)
        assert demo.LISTING in fetch(url, host)
        curl = ["curl", "-gsS", "--max-time", "5", url]
        done = cli(lab, "-H", name, "netns", "run", six, "--", *curl)
        assert demo.LISTING in done.stdout


def test_ipv6_goes_out_as_the_host_and_nothing_else_comes_in(lab: Lab, six: str) -> None:
    host, other = lab.hosts[:2]
    program = (
        "import socket; s=socket.create_server(('::', 9099), family=socket.AF_INET6);"
        "s.settimeout(20); print('up', flush=True); c, peer = s.accept(); print(peer[0])"
    )
    server = other.popen(["python3", "-c", program], stdout=-1)
    try:
        assert server.stdout is not None
        assert server.stdout.readline() == "up\n"
        curl = ["curl", "-gs", "--max-time", "2", f"http://[{other.ipv6}]:9099/"]
        cli(lab, "-H", host.name, "netns", "run", six, "--", *curl, status=None)
        assert server.stdout.readline().strip() == host.ipv6
    finally:
        server.kill()
        server.wait()
    inside = demo.results(lab, "-H", host.name, "netns", "get", six)[host.name]["namespace"]
    address = inside["interfaces"][0]["addresses"][1].split("/")[0]
    route = ["ip", "-6", "route", "add", f"{address}/128", "via", host.ipv6]
    other.run(route)
    try:
        assert demo.LISTING in fetch(f"http://[{address}]:8000/", host)
        assert demo.LISTING not in fetch(f"http://[{address}]:8000/", other)
    finally:
        other.run([*route[:3], "del", *route[4:]])


@pytest.mark.parametrize("name", ["h1", "h2", "h3"])
def test_private_pid_and_uts(lab: Lab, six: str, name: str) -> None:
    host = lab.host(name)
    tasks = demo.results(lab, "-H", name, "netns", "ps", six)[name]["tasks"]
    (server,) = [t for t in tasks if t["comm"].startswith("python3")]
    outside, inside = server["pid_outside"], server["pid_inside"]
    assert outside != inside
    assert inside <= 3
    status = host.run(["grep", "^NSpid", f"/proc/{outside}/status"]).stdout.split()
    assert status[-1] == str(inside)
    for kind in ("pid", "uts", "net", "mnt"):
        told = host.run(["readlink", f"/proc/{outside}/ns/{kind}"]).stdout.strip()
        assert told == f"{kind}:[{server['namespaces'][kind]}]"
        assert told != host.run(["readlink", f"/proc/1/ns/{kind}"]).stdout.strip()
    enter = ["nsenter", "-t", str(outside), "-u", "hostname"]
    assert host.run(enter).stdout.strip() == six
    assert host.run(["hostname"]).stdout.strip() == name
    ps = host.run(["nsenter", "-t", str(outside), "-p", "-m", "ps", "-eo", "pid="]).stdout.split()
    assert str(inside) in ps
    assert len(ps) <= 4


def test_udp_is_published_for_both_families(lab: Lab, running: tuple[Host, ...]) -> None:
    host, other = running[:2]
    with untouched(*running):
        args = ["-H", "all", "--yes", "isolate", "echo", "--publish", "5353:5300/udp"]
        try:
            cli(lab, *args, "--user", "nobody", "--", "python3", "-c", ECHO)
            for one in running:
                for address in (one.ipv4, one.ipv6):
                    assert eventually(lambda a=address: _echoed(a)) == b"HELLO"
            program = (
                "import socket, sys; s = socket.socket(socket.AF_INET6 if ':' in sys.argv[1] else "
                "socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(3);"
                "s.sendto(b'hello', (sys.argv[1], 5353)); print(s.recv(99).decode())"
            )
            for place in (other, host):
                for address in (host.ipv4, host.ipv6):
                    assert place.run(["python3", "-c", program, address]).stdout == "HELLO\n"
            nft = json.loads(host.run(["nft", "-j", "list", "table", "inet", "hostler"]).stdout)
            assert any("5353" in json.dumps(entry) for entry in nft["nftables"])
        finally:
            remove(lab, "echo")


def _echoed(address: str) -> bytes:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.settimeout(1)
        sock.sendto(b"hello", (address, 5353))
        try:
            return sock.recv(99)
        except OSError:
            time.sleep(0.1)
            return b""
