"""`hostler web` and `hostler top` beside real hosts, one of which dies."""

from __future__ import annotations

import json
import secrets
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
from browser import CHROMIUM
from driven import driven
from hosts_client import HOSTLER, cli, environment
from hosts_witness import eventually

from hostler.lab.host import Host
from hostler.lab.lab import Lab

pytestmark = [pytest.mark.hosts, pytest.mark.timeout(300)]

RULES = """
name = "{name}"
[[rules]]
id = "lost"
hook = "input"
action = "drop"
protocol = "udp"
destination_ports = [9]
"""


@contextmanager
def page_of(lab: Lab) -> Iterator[str]:
    """The page of all hosts, served by the command; its URL."""
    argv = [HOSTLER, "-H", "all", "web", "--interval", "1s"]
    command = subprocess.Popen(argv, env=environment(lab), stdout=subprocess.PIPE, text=True)
    try:
        assert command.stdout is not None
        yield command.stdout.readline().strip()
    finally:
        command.terminate()
        command.wait(30)


def told(url: str) -> dict[str, dict[str, Any]]:
    with urlopen(f"{url}status.json", timeout=10) as answer:  # noqa: S310 - of this machine
        return {each["host"]: each for each in json.load(answer)["hosts"]}


@pytest.fixture
def losing(lab: Lab, h1: Host, tmp_path: Path) -> Iterator[str]:
    """A rule of h1 that has dropped three packets."""
    name, path = f"board-{secrets.token_hex(3)}", tmp_path / "lost.toml"
    path.write_text(RULES.format(name=name))
    cli(lab, "-H", "h1", "--yes", "firewall", "apply", "-f", str(path))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for _ in range(3):
            sender.sendto(b"x", (h1.ipv4, 9))
    try:
        yield f"{name}/lost"
    finally:
        cli(lab, "-H", "h1", "--yes", "firewall", "delete", name)


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
def test_a_dead_host_blanks_neither_the_page_nor_the_others(
    lab: Lab, hosts: tuple[Host, ...], losing: str, tmp_path: Path
) -> None:
    with page_of(lab) as url, driven(url, tmp_path / "profile") as page:
        eventually(lambda: all(each["answered_unix_s"] for each in told(url).values()), 60)
        seen = told(url)
        assert {name: set(each["doors"].values()) for name, each in seen.items()} == {
            host.name: {""} for host in hosts
        }
        assert seen["h1"]["drops"][0] == {"rule": losing, "packets": 3}
        page.eventually("document.body.innerText.includes('5 of 5')")
        lab.kill("h3")
        eventually(lambda: told(url)["h3"]["level"] == "down", 60)
        page.eventually("document.body.innerText.includes('1 down')")
        # The others go on being asked, and shown.
        at = told(url)["h1"]["asked_unix_s"]
        eventually(lambda: told(url)["h1"]["asked_unix_s"] > at + 1, 30)
        assert losing in page.text() and "live" in page.text()
        page.screenshot(tmp_path / "one-down.png")
        shown = json.loads(cli(lab, "-H", "all", "-o", "json", "top", "--count", "1").stdout)
        assert [each["host"] for each in shown if each["level"] == "down"] == ["h3"]
        assert "1 down" in cli(lab, "-H", "all", "top", "--count", "1").stdout
        lines = cli(lab, "-H", "all", "metrics").stdout.splitlines()
        assert 'hostler_door_up{host="h3",domain="firewall"} 0' in lines
        assert f'hostler_rule_lost_packets_total{{host="h1",rule="{losing}"}} 3' in lines
        with socket.create_server(("127.0.0.1", 0)) as nobody:
            place = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        assert place in cli(lab, "-H", "h1", "metrics", "--otlp", place, status=1).stderr
        lab.boot("h3")
        eventually(lambda: told(url)["h3"]["level"] != "down", 60)
