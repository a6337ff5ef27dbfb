"""Traces of real hosts by the command line: one at a time, and all together."""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from hosts_client import HOSTLER, answers, cli, environment
from hosts_witness import eventually

from hostler.lab.host import Host
from hostler.lab.lab import Lab

pytestmark = [pytest.mark.hosts, pytest.mark.timeout(300)]

SECRET = "correct-horse-battery-staple"  # noqa: S105 - what must not be seen
READ = "evt.type in (openat, read) and fd.name=/etc/hostname"


@pytest.fixture
def busy(hosts: tuple[Host, ...]) -> Iterator[None]:
    """On each host somebody reads /etc/hostname again and again, and says which host it is."""
    unit = "trace-busy.service"
    for host in hosts:
        host.run(
            [
                *("/usr/bin/systemd-run", f"--unit={unit}", "/bin/sh", "-c"),
                "while :; do cat /etc/hostname >/dev/null; sleep 0.05; done",
            ]
        )
    yield
    for host in hosts:
        if host.leader() is not None:
            host.run(["/usr/bin/systemctl", "stop", unit])


def objects(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


@pytest.mark.usefixtures("busy")
def test_hosts_traced_at_once_are_told_in_order_and_a_dead_one_is_named(lab: Lab) -> None:
    argv = [HOSTLER, "-H", "all", "-o", "ndjson", "trace", "live", "--for", "8s", "--filter", READ]
    begun = time.monotonic()
    with subprocess.Popen(
        argv, env=environment(lab), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        begun_at = eventually(lambda: beginnings(lab), 60)
        lab.kill("h3")
        out, err = process.communicate(timeout=120)
    assert process.returncode == 1, err
    assert re.search(r"^h3: (UNAVAILABLE|DEADLINE_EXCEEDED)", err, re.MULTILINE), err
    # A dead host is waited for, but not for ever.
    assert time.monotonic() - begun < 60
    events = objects(out)
    by_host: dict[str, list[dict[str, Any]]] = {}
    for event in events:
        by_host.setdefault(event["host"], []).append(event)
    assert set(by_host) >= {"h1", "h2"}
    for name in ("h1", "h2"):
        mine = by_host[name]
        assert len(mine) > 20
        # Only this host's own processes, by the pids of its own pid namespace.
        assert {event["process"] for event in mine} == {"cat"}
        assert {event["unit"] for event in mine} == {"trace-busy.service"}
        # What is read is the host's own name, which tells how long it is, not what.
        assert {e["result"] for e in mine if e["syscall"] == "read"} == {len(name) + 1, 0}
        assert "data" not in mine[0]
    ends = [event["time_unix_ns"] + event["latency_ns"] for event in events]
    assert ends == sorted(ends)
    # They were to begin together, by one clock, and none told what was before.
    assert max(begun_at.values()) - min(begun_at.values()) < 0.5
    for name in ("h1", "h2"):
        assert by_host[name][0]["time_unix_ns"] / 1e9 > begun_at[name] - 0.5


def beginnings(lab: Lab) -> dict[str, float]:
    """When the trace of each host is to begin; none until all are there."""
    found = {}
    for host, answer in answers(lab, "-H", "all", "trace", "list").items():
        for trace in answer["result"]["traces"]:
            if trace["engine"] and not trace["end_reason"] and "start_time" in trace["spec"]:
                begins = datetime.fromisoformat(trace["spec"]["start_time"])
                found[host] = begins.timestamp()
    return found if len(found) == 3 else {}


@pytest.mark.usefixtures("busy")
def test_a_capture_is_read_back_by_us_and_by_sysdig(lab: Lab, tmp_path: Path) -> None:
    file = tmp_path / "boot.htrace"
    done = cli(lab, "-H", "h1", "trace", "live", "--for", "3s", "-w", str(file))
    assert done.stdout == ""
    assert " 0 lost; budget duration" in done.stderr
    ours = cli(lab, "-o", "ndjson", "trace", "read", str(file), "--filter", READ)
    events = objects(ours.stdout)
    assert len(events) > 10
    exported = tmp_path / "boot.scap"
    cli(lab, "trace", "read", str(file), "--scap", str(exported))
    theirs = subprocess.run(
        ["/usr/bin/sysdig", "-r", exported, "-p", "%proc.name %evt.type", f"evt.dir=< and {READ}"],
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert theirs.stdout.splitlines() == [f"{e['process']} {e['syscall']}" for e in events]
    again = cli(lab, "trace", "read", str(file), "--scap", str(exported), status=2)
    assert "is there already" in again.stderr


def test_a_torn_capture_is_read_up_to_where_it_is_torn(lab: Lab, tmp_path: Path) -> None:
    file = tmp_path / "torn.htrace"
    cli(lab, "-H", "h1", "trace", "live", "--for", "2s", "-w", str(file))
    file.write_bytes(file.read_bytes()[:-7])
    done = cli(lab, "trace", "read", str(file))
    assert "not completed" in done.stderr
    file.write_bytes(b"not a capture")
    assert "torn.htrace" in cli(lab, "trace", "read", str(file), status=1).stderr


def test_a_chisel_of_a_live_trace(lab: Lab, h1: Host) -> None:
    argv = [HOSTLER, "-H", "h1", "trace", "live", "--for", "6s", "-c", "topfiles_bytes"]
    with subprocess.Popen(
        argv, env=environment(lab), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        time.sleep(4)
        h1.run(["/bin/dd", "if=/dev/zero", "of=/root/traced", "bs=1M", "count=64"])
        out, err = process.communicate(timeout=120)
    h1.run(["/bin/rm", "/root/traced"])
    assert process.returncode == 0, err
    rows = [line.split() for line in out.splitlines()[1:]]
    assert ["/root/traced", "64M"] in rows


def test_payloads_are_for_those_who_may_see_them(lab: Lab, h1: Host) -> None:
    h1.put("/root/secret", SECRET)
    told = {}
    for user in ("admin", "operator"):
        # The configuration names its files as they lie beside it.
        config = lab.config.with_name(f"trace-{user}.toml")
        config.write_text(lab.config.read_text().replace("/users/admin.", f"/users/{user}."))
        argv = [
            *(HOSTLER, "-H", "h1", "-o", "ndjson", "trace", "live", "--for", "6s"),
            *("--payload", "100", "--filter", "evt.type=read and fd.name=/root/secret"),
        ]
        with subprocess.Popen(
            argv,
            env=environment(lab) | {"HOSTLER_CONFIG": str(config)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            time.sleep(4)
            h1.run(["/bin/cat", "/root/secret"])
            out, err = process.communicate(timeout=120)
        config.unlink()
        assert process.returncode == 0, err
        told[user] = (objects(out), err)
    events, err = told["admin"]
    assert [event.get("data") for event in events] == [SECRET, None]
    events, err = told["operator"]
    assert "payloads are not allowed" in err
    assert [event["result"] for event in events] == [len(SECRET), 0]
    assert "data" not in events[0]
    assert "DATA_WITHHELD" in events[0]["flags"]


def test_what_is_wrong_is_said_before_anything_is_traced(lab: Lab) -> None:
    done = cli(lab, "-H", "h1", "trace", "live", "--filter", "proc.nmae=cat", status=2)
    assert "did you mean proc.name" in done.stderr
    assert "\n^" in done.stderr
    done = cli(lab, "-H", "h1", "trace", "pid", "4194000", "--for", "3s", status=1)
    assert "h1: NOT_FOUND PROCESS_NOT_FOUND" in done.stderr
    assert "-c" in cli(lab, "-H", "h1", "trace", "live", "--per-host", status=2).stderr
