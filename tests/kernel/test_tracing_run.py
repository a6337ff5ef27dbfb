"""`hostler trace run`: a command of this machine, traced from its first call to its last."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from stream_daemon import running
from terminal import Terminal

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
    folder = tmp_path_factory.mktemp("run")
    with running(folder / "daemon", PROGRAM):
        (folder / "tracing.sock").symlink_to(folder / "daemon/netns.sock")
        (folder / "fleet.toml").write_text(f'[hosts.local]\naddress = "unix:{folder}"\n')
        (folder / "config.toml").write_text(CONFIG)
        yield folder / "config.toml"


def trace(config: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [HOSTLER, "-H", "local", "trace", "run", *options],
        env={**os.environ, "HOSTLER_CONFIG": str(config)},
        capture_output=True,
        text=True,
        timeout=90,
    )


def test_a_command_is_traced_from_its_first_call_to_its_last(config: Path) -> None:
    done = trace(config, "--style", "strace", "--", "/bin/cat", "/etc/hostname")
    assert done.returncode == 0, done.stderr
    calls = [line.split(" ", 2)[2] for line in done.stdout.splitlines()]
    assert any(call.startswith("execve(") and " = 0 " in call for call in calls)
    assert any('openat(AT_FDCWD, "/etc/hostname", O_RDONLY) = 3' in call for call in calls)
    assert calls[-1] == "exit_group(0) = ?"
    # What it prints is beside the trace, not in it.
    assert Path("/etc/hostname").read_text() in done.stderr
    assert "0 lost; processes ended" in done.stderr


@pytest.mark.parametrize(
    ("argv", "status"),
    [
        (["/bin/sh", "-c", "exit 3"], 3),
        (["/bin/sh", "-c", "kill -TERM $$"], 128 + 15),
        (["no-such-command"], 127),
    ],
)
def test_its_exit_status_is_the_commands(config: Path, argv: list[str], status: int) -> None:
    done = trace(config, "-c", "topscalls", "--", *argv)
    assert done.returncode == status, done.stderr
    assert done.stdout.startswith("CALL")


def test_a_command_is_not_run_if_it_cannot_be_traced(config: Path, tmp_path: Path) -> None:
    made = tmp_path / "made"
    done = trace(config, "--payload", "1", "--filter", "nonsense", "--", "/bin/touch", str(made))
    assert done.returncode == 2
    assert not made.exists()
    done = subprocess.run(
        [HOSTLER, "-H", "h1", "trace", "run", "--", "/bin/touch", str(made)],
        env={**os.environ, "HOSTLER_CONFIG": str(config)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2
    assert "-H local" in done.stderr
    assert not made.exists()


def test_a_table_is_drawn_anew_on_a_terminal_and_once_into_a_pipe(config: Path) -> None:
    program = "import os, time\nfor _ in range(40): os.getppid(); time.sleep(0.1)"
    argv = [HOSTLER, "-H", "local", "trace", "run", "-c", "topscalls", "--filter"]
    argv += ["evt.type=getppid", "--", sys.executable, "-I", "-S", "-c", program]
    env = {**os.environ, "HOSTLER_CONFIG": str(config), "TERM": "xterm"}
    with Terminal() as terminal:
        shown = subprocess.Popen(
            argv, env=env, stdout=terminal.program_side, stderr=subprocess.DEVNULL
        )
        terminal.read_until(lambda: shown.poll() is not None, 90)
        drawn = terminal.written.count("getppid")
        lines = [line for line in terminal.screen if "getppid" in line]
    assert shown.returncode == 0
    assert drawn >= 3
    assert len(lines) == 1
    assert "40" in lines[0].split()
    done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=90)
    assert done.stdout.count("getppid") == 1
    assert "\x1b" not in done.stdout
