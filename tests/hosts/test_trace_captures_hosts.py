"""Captures and engines on real hosts, with what the unit of the daemon allows and no more."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from hosts_client import cli

from hostler.lab.host import Host
from hostler.lab.lab import Lab

pytestmark = [pytest.mark.hosts, pytest.mark.timeout(300)]

UNIT = "capture-busy.service"
LOOP = "while :; do cat /etc/hostname >/dev/null; sleep 0.05; done"
LINES = r"[Service]\nSystemCallFilter=ptrace process_vm_readv capset\n"
DROP_IN = "/run/systemd/system/hostler-tracing.service.d"


@pytest.fixture
def busy(hosts: tuple[Host, ...]) -> Iterator[None]:
    """On each host somebody reads /etc/hostname again and again."""
    for host in hosts:
        host.run(["/usr/bin/systemd-run", f"--unit={UNIT}", "/bin/sh", "-c", LOOP])
    yield
    for host in hosts:
        host.run(["/usr/bin/systemctl", "stop", UNIT], check=False)


def captures(lab: Lab) -> dict[str, dict[str, Any]]:
    """The capture `nightly` of each host."""
    told = json.loads(cli(lab, "-H", "all", "-o", "json", "trace", "captures", "list").stdout)
    return {
        answer["host"]: capture
        for answer in told
        for capture in answer["result"]["captures"]
        if capture["name"] == "nightly"
    }


def wait_for(holds: Any) -> Any:
    end = time.monotonic() + 60
    while not (found := holds()):
        assert time.monotonic() < end
        time.sleep(0.5)
    return found


@pytest.mark.usefixtures("busy")
def test_a_fleet_keeps_a_trace_that_nobody_watches_and_is_asked_later(lab: Lab) -> None:
    text = "evt.type=read and fd.name=/etc/hostname and proc.name=cat"
    start = ("trace", "captures", "start", "nightly", "--filter", text, "--for", "12s")
    cli(lab, "-H", "all", *start)
    # Longer than a trace lasts that nobody watches and nobody keeps.
    kept = wait_for(
        lambda: len(c := captures(lab)) == 3 and all(x["end_reason"] for x in c.values()) and c
    )
    assert {c["end_reason"] for c in kept.values()} == {"BUDGET_DURATION"}
    for host in lab.hosts:
        host.run(["systemctl", "kill", "--signal=KILL", "hostler-tracing.service"], check=False)
    asked = ("trace", "captures", "query", "nightly", "--filter", "evt.rawres > 0")
    told = cli(lab, "-H", "all", "-o", "ndjson", *asked).stdout
    events = [json.loads(line) for line in told.splitlines()]
    ends = [event["time_unix_ns"] + event["latency_ns"] for event in events]
    assert ends == sorted(ends)
    # Each host's own name tells how long it is.
    assert {(e["host"], e["result"]) for e in events} == {(n, 3) for n in ("h1", "h2", "h3")}
    assert {e["unit"] for e in events} == {UNIT}
    cli(lab, "-H", "all", "--yes", "trace", "captures", "delete", "nightly")
    assert captures(lab) == {}


def strace_of(lab: Lab) -> dict[str, Any]:
    told = cli(lab, "-H", "h1", "-o", "json", "fleet", "check", "--domain", "tracing").stdout
    found: list[dict[str, Any]] = []

    def look(at: Any) -> None:
        if isinstance(at, dict):
            if at.get("name") == "traces_by_strace":
                found.append(at)
            at = list(at.values())
        for each in at if isinstance(at, list) else ():
            look(each)

    look(json.loads(told))
    return found[0]


def test_strace_is_let_through_by_a_host_that_says_so(lab: Lab, h1: Host) -> None:
    h1.run(["/usr/bin/systemd-run", f"--unit={UNIT}", "/bin/sh", "-c", LOOP])
    shown = h1.run(["systemctl", "show", "--property=MainPID", "--value", UNIT]).stdout
    argv = ("trace", "pid", shown.strip(), "--engine", "strace", "--for", "3s")
    try:
        assert "not permitted" in cli(lab, "-H", "h1", *argv, status=1).stderr
        assert "not permitted" in strace_of(lab)["reason"]
        h1.run(["mkdir", "-p", DROP_IN])
        h1.run(["sh", "-c", f"printf '{LINES}' > {DROP_IN}/strace.conf"])
        restart(h1)
        assert strace_of(lab)["available"], strace_of(lab)
        assert (
            'openat(AT_FDCWD, "/etc/hostname"'
            in cli(lab, "-H", "h1", *argv, "--style", "strace").stdout
        )
    finally:
        h1.run(["rm", "-rf", DROP_IN])
        restart(h1)
        h1.run(["systemctl", "stop", UNIT])


def restart(host: Host) -> None:
    host.run(["systemctl", "daemon-reload"])
    host.run(["systemctl", "stop", "hostler-tracing.service"])
