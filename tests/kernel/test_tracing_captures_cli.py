"""`hostler trace captures`: from the start of one to its end, by the command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from stream_daemon import running

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(180)]

PROGRAM = """
from hostlerd.tracing.__main__ import build
from hostlerd.runtime.server import main
main("tracing", build)
"""
CONFIG = """
current = "here"
[contexts.here]
trust_domain = "test.hostler"
ca = "ca.pem"
certificate = "none.pem"
key = "none.key"
fleet = "fleet.toml"
"""
HOSTLER = Path(sys.executable).with_name("hostler")


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A configuration whose host `local` is a daemon of the test's."""
    folder = tmp_path_factory.mktemp("captures")
    with running(folder / "daemon", PROGRAM):
        (folder / "tracing.sock").symlink_to(folder / "daemon/netns.sock")
        (folder / "fleet.toml").write_text(f'[hosts.local]\naddress = "unix:{folder}"\n')
        (folder / "config.toml").write_text(CONFIG)
        yield folder / "config.toml"


def hostler(config: Path, *words: str, status: int = 0) -> str:
    done = subprocess.run(
        [HOSTLER, "-H", "local", *words],
        env={**os.environ, "HOSTLER_CONFIG": str(config)},
        capture_output=True,
        text=True,
        timeout=90,
    )
    assert done.returncode == status, done.stderr
    return done.stdout


def captures(config: Path) -> dict[str, dict[str, str]]:
    told = json.loads(hostler(config, "-o", "json", "trace", "captures", "list"))
    return {c["name"]: c for c in told[0]["result"].get("captures", ())}


def test_a_capture_is_started_queried_fetched_and_deleted(config: Path, tmp_path: Path) -> None:
    reader = subprocess.Popen(
        [sys.executable, "-c", "import sys; sys.stdin.read(); open('/etc/hostname').read()"],
        stdin=subprocess.PIPE,
    )
    only = ("--pid", str(reader.pid), "--rotate-size", "64KiB", "--keep", "3")
    started = hostler(config, "trace", "captures", "start", "reads", *only, "--for", "1m")
    assert started.splitlines()[1].split()[1:3] == ["reads", "bpf"]
    reader.communicate()
    end = time.monotonic() + 60
    while not (capture := captures(config)["reads"])["end_reason"]:
        assert time.monotonic() < end
        time.sleep(0.2)
    assert capture["end_reason"] == "PROCESSES_ENDED"
    opened = hostler(
        *(config, "trace", "captures", "query", "reads", "--style", "strace"),
        *("--filter", "evt.type=openat and fd.name=/etc/hostname"),
    )
    (line,) = opened.splitlines()
    assert 'openat(AT_FDCWD, "/etc/hostname", O_RDONLY|O_CLOEXEC) = 3' in line
    table = hostler(
        config, "trace", "captures", "query", "reads", "--last", "5m", "-c", "topscalls"
    )
    assert table.startswith("CALL")
    file = tmp_path / "reads.htrace"
    hostler(config, "trace", "captures", "get", "reads", str(file))
    lines = hostler(config, "trace", "read", str(file)).splitlines()
    assert len(lines) == int(capture["events"])
    hostler(config, "trace", "captures", "get", "reads", str(file), status=1)
    hostler(config, "trace", "captures", "query", "other", status=1)
    hostler(config, "trace", "captures", "query", "reads", "--filter", "proc.nmae=x", status=2)
    hostler(config, "--yes", "trace", "captures", "delete", "reads")
    assert "reads" not in captures(config)


def test_who_attaches_sees_what_goes_on_and_leaves_it_as_it_is(
    config: Path, tmp_path: Path
) -> None:
    program = "import os, time\nwhile True: os.getppid(); time.sleep(0.05)"
    asking = subprocess.Popen([sys.executable, "-I", "-S", "-c", program])
    try:
        only = ("--pid", str(asking.pid), "--filter", "evt.type=getppid")
        hostler(config, "trace", "captures", "start", "asked", *only)
        file = tmp_path / "asked.htrace"
        hostler(config, "trace", "attach", "asked", "--for", "3s", "-w", str(file))
        lines = hostler(config, "trace", "live", "-r", str(file), "--style", "strace").splitlines()
        assert len(lines) > 10
        assert all("getppid()" in line for line in lines)
        assert captures(config)["asked"]["end_reason"] == ""
        hostler(config, "trace", "attach", "other", status=1)
        hostler(config, "trace", "live", "-r", str(file), "--for", "3s", status=2)
        hostler(config, "trace", "stop", "asked")
        assert captures(config)["asked"]["end_reason"] == "STOPPED"
    finally:
        asking.kill()
        asking.wait()
