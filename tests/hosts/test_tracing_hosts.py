"""The tracing domain on real hosts, with the capabilities of its unit and no other."""

from __future__ import annotations

import json
from typing import Any

import pytest
import security_lab as support

from hostler.lab.host import Host
from hostler.lab.lab import Lab

pytestmark = [pytest.mark.hosts, pytest.mark.timeout(180)]

HOLD = "import fcntl, time; f = open('/tmp/k', 'w'); fcntl.flock(f, 2); time.sleep(600)"


def stuck(lab: Lab, host: Host, *words: str) -> dict[str, Any]:
    told = support.hostler(lab, "-H", host.name, "-o", "json", "trace", "stuck", *words)
    (answer,) = json.loads(told)
    assert answer["ok"], answer
    result: dict[str, Any] = answer["result"]
    return result


def started(host: Host, name: str, *argv: str) -> int:
    """Start a unit of a user without rights; answers its process."""
    host.run(
        ["systemd-run", "--quiet", "--collect", f"--unit={name}", "-p", "User=www-data", *argv]
    )
    shown = host.run(["systemctl", "show", "--property=MainPID", "--value", name]).stdout
    return int(shown)


def test_a_lock_and_its_holder_are_told_with_their_units(lab: Lab, h1: Host) -> None:
    try:
        holder = started(h1, "tr-holder.service", "/usr/bin/python3", "-c", HOLD)
        h1.run(["sh", "-c", "until grep -q FLOCK /proc/locks; do sleep 0.1; done"])
        waiter = started(h1, "tr-waiter.service", "/usr/bin/python3", "-c", HOLD)
        h1.run(["sh", "-c", "until grep -q -- '-> FLOCK' /proc/locks; do sleep 0.1; done"])
        found = {f["process"]["unit"]: f for f in stuck(lab, h1)["findings"]}["tr-waiter.service"]
        assert found["process"]["pid"] == waiter
        assert found["holders"][0]["process"]["pid"] == holder
        assert found["holders"][0]["process"]["unit"] == "tr-holder.service"
        assert found["target"] == "/tmp/k"
        # Where the kernel keeps its stacks to itself, the answer says so.
        assert "CAP_SYS_ADMIN" in found["stack_unavailable"]
    finally:
        h1.run(["systemctl", "stop", "tr-holder.service", "tr-waiter.service"], check=False)


def test_every_process_of_the_host_is_seen_for_what_it_is(lab: Lab, h1: Host) -> None:
    """A root process, one of systemd's and one of another user: none hides anything."""
    answer = stuck(lab, h1, "systemd")
    assert {f["process"]["pid"] for f in answer["findings"]} >= {1}
    assert answer.get("warnings", []) == []
    assert all(f["syscall"] for f in answer["findings"] if f["state"] == "S")


def test_a_table_is_for_people(lab: Lab, h1: Host) -> None:
    shown = support.hostler(lab, "-H", "all", "trace", "stuck", "systemd-journal")
    lines = shown.splitlines()
    assert lines[0].split()[:4] == ["HOST", "PID", "NAME", "UNIT"]
    assert [line.split()[0] for line in lines[1:]] == [host.name for host in lab.hosts]
    assert "systemd-journald.service" in lines[1]
