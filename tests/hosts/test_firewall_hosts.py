"""One ruleset for a fleet, by the command line, on real hosts."""

from __future__ import annotations

import json
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hosts_client import HOSTLER, answers, cli, environment
from hosts_witness import Snapshot, differences, network

from hostler.lab.host import Host
from hostler.lab.lab import Lab

pytestmark = [pytest.mark.hosts, pytest.mark.timeout(300)]

BASE = """
name = "base"
input_policy = "drop"
persistent = true
[[address_sets]]
name = "office"
elements = ["10.0.0.0/8", "192.168.0.0/16", "172.16.0.0/12", "fd00::/8"]
[[address_sets]]
name = "block"
dynamic = true
[[rules]]
id = "blocked"
hook = "input"
action = "drop"
source_sets = ["block"]
log = {}
[[rules]]
id = "ssh"
hook = "input"
action = "accept"
services = ["ssh"]
source_sets = ["office"]
"""
WEB = """
hosts = ["role=web"]
name = "web"
priority = 100
[[rules]]
id = "https"
hook = "input"
action = "accept"
services = ["http", "https"]
"""
DB = """
hosts = ["role=db"]
name = "db"
priority = 100
[[rules]]
id = "postgresql"
hook = "input"
action = "accept"
services = ["postgresql"]
source_sets = ["office"]
"""
NAMES = ("base", "web", "db", "block-me", "many")


@pytest.fixture
def files(tmp_path: Path) -> Path:
    for name, text in (("base", BASE), ("web", WEB), ("db", DB)):
        (tmp_path / f"{name}.toml").write_text(text)
    return tmp_path


def settled(host: Host) -> Snapshot:
    """What the host has, once its addresses are no longer tentative, as they are after a boot."""
    deadline = time.monotonic() + 15
    last = network(host)
    while time.monotonic() < deadline:
        time.sleep(0.5)
        now = network(host)
        if differences(last, now) == {}:
            break
        last = now
    return last


@pytest.fixture
def tidy(lab: Lab, hosts: tuple[Host, ...]) -> Iterator[None]:
    """Hosts as they were before."""
    before = [settled(host) for host in hosts]
    yield
    cli(lab, "-H", "all", "--yes", "pending", "revert", status=None)
    # What uses a name goes before what gives it.
    for name in reversed(NAMES):
        cli(lab, "-H", "all", "--yes", "--batch", "100%", "firewall", "delete", name)
    for host, old in zip(hosts, before, strict=True):
        assert differences(old, network(host)) == {}


def apply(lab: Lab, *words: str, status: int | None = 0) -> dict[str, Any]:
    options = ("-H", "all", "--yes", "--batch", "100%")
    return answers(lab, *options, "firewall", "apply", *words, status=status)


def labels(host: Host) -> set[str]:
    """The rules that the host has, as nft tells them."""
    told = json.loads(host.run(["nft", "-j", "list", "ruleset"]).stdout)["nftables"]
    comments = (entry["rule"].get("comment", "") for entry in told if "rule" in entry)
    return {comment.partition(" ")[0] for comment in comments if "/" in comment}


@pytest.mark.usefixtures("tidy")
def test_base_and_roles_are_merged_on_each_host(
    lab: Lab, hosts: tuple[Host, ...], files: Path
) -> None:
    done = apply(lab, "-f", str(files))
    assert {a["outcome"] for a in done.values()} == {"applied"}
    h1, h2, h3 = hosts
    assert labels(h1) == labels(h2) == {"base/blocked", "base/ssh", "web/https"}
    assert labels(h3) == {"base/blocked", "base/ssh", "db/postgresql"}
    again = apply(lab, "-f", str(files))
    assert [a["result"]["change"].get("changed", False) for a in again.values()] == [False] * 3
    # One bad rule of 500, in one file: it is named, and no host is changed.
    before = [network(host) for host in hosts]
    rule = '[[rules]]\nid = "r{n}"\nhook = "input"\naction = "accept"\nservices = ["{s}"]\n'
    many = "".join(rule.format(n=n, s="ssh" if n != 321 else "nowhere") for n in range(500))
    (files / "many.toml").write_text('name = "many"\n' + many)
    said = cli(lab, "-H", "all", "--yes", "firewall", "apply", "-f", str(files), status=1).stderr
    line = 1 + 321 * 5 + 5
    assert f"many.toml:{line}" in said
    assert "r321" in said and "nowhere" in said
    for host, old in zip(hosts, before, strict=True):
        assert differences(old, network(host)) == {}


@pytest.mark.usefixtures("tidy")
def test_blocking_oneself_is_refused_and_if_forced_taken_back(
    lab: Lab, h1: Host, files: Path
) -> None:
    text = (
        'name = "block-me"\n[[rules]]\nid = "all"\nhook = "input"\naction = "drop"\n'
        'protocol = "tcp"\ndestination_ports = ["7441-7445"]\n'
    )
    path = files / "block-me.toml"
    path.write_text(text)
    before = network(h1)
    words = ("-H", "h1", "--yes")
    said = cli(lab, *words, "firewall", "apply", "-f", str(path), status=1).stderr
    assert "block-me/all would close Hostler's own ports" in said
    assert "block-me.toml:2" in said
    assert differences(before, network(h1)) == {}
    start = time.monotonic()
    forced = answers(
        lab, *words, "--confirm-within", "8s", "firewall", "apply", "--force", "-f", str(path),
        status=1,
    )  # fmt: skip
    assert forced["h1"]["outcome"] == "rolled_back"
    assert time.monotonic() - start < 40
    assert differences(before, network(h1)) == {}


@contextmanager
def following(lab: Lab, folder: Path, where: str) -> Iterator[Callable[[], list[dict[str, Any]]]]:
    """Follow the packet log of a host by the command; answers what has come so far."""
    argv = [HOSTLER, "-H", "h1", "-o", "ndjson", "firewall", "log", "--follow", "--where", where]
    with (folder / "log").open("wb") as out:
        process = subprocess.Popen(argv, env=environment(lab), stdout=out)
    try:
        yield lambda: [json.loads(line) for line in (folder / "log").read_text().splitlines()]
    finally:
        process.terminate()
        process.wait(10)


def knock(address: str, port: int) -> None:
    with socket.socket() as s:
        s.settimeout(0.2)
        # Nobody answers: it is dropped.
        s.connect_ex((address, port))


@pytest.mark.usefixtures("tidy")
def test_a_blocklist_its_log_and_what_explains_it(lab: Lab, h1: Host, files: Path) -> None:
    apply(lab, "-f", str(files / "base.toml"))
    me = h1.bridge.ipv4(1)
    one = ("-H", "h1", "--yes")
    cli(lab, *one, "firewall", "sets", "add", "block", me, "--timeout", "1h")

    def held() -> str:
        return h1.run(["nft", "list", "set", "inet", "hostler", "block_4"]).stdout

    assert me in held()
    assert me in cli(lab, "-H", "h1", "firewall", "sets", "show", "block").stdout
    words = ("firewall", "explain", "--from", me, "--to", h1.ipv4, "--dport", "22")
    now = answers(lab, "-H", "h1", *words)["h1"]["result"]["now"]
    assert now["verdict"] == "VERDICT_DROP"
    assert "base/blocked" in json.dumps(now)
    with following(lab, files, 'dport == 22 and action == "drop"') as come:
        deadline = time.monotonic() + 30
        while not come() and time.monotonic() < deadline:
            knock(h1.ipv4, 22)
            time.sleep(0.3)
        assert come(), "nothing was logged"
        assert (come()[0]["rule"], come()[0]["host"]) == ("base/blocked", "h1")
    # A change of rules leaves the set alone.
    apply(lab, "-f", str(files / "base.toml"), "-f", str(files / "web.toml"))
    assert me in held()
    cli(lab, *one, "firewall", "sets", "remove", "block", me)
    assert me not in held()
