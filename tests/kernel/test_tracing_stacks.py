"""Kernel stacks as the tracer gives them, against /proc/PID/stack, which root may read."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from traced import ENVIRONMENT

from hostlerd.tracing.kernel.stacks import kernel_stacks

pytestmark = pytest.mark.kernel


def shown_by_proc(pid):
    lines = Path(f"/proc/{pid}/stack").read_text().splitlines()
    return tuple(line.removeprefix("[<0>] ").partition("+")[0] for line in lines)


@pytest.fixture
def waiting_in():
    """Processes that wait in a sleep and in a pipe, by their pid."""
    sleeper = subprocess.Popen(["/usr/bin/sleep", "60"])
    reader = subprocess.Popen(["/usr/bin/cat"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    time.sleep(0.3)
    yield sleeper.pid, reader.pid
    for process in (sleeper, reader):
        process.kill()
        process.wait()


def test_the_stacks_are_those_of_proc(waiting_in):
    want = {pid: shown_by_proc(pid) for pid in waiting_in}
    assert all(len(stack) > 2 for stack in want.values())
    assert kernel_stacks([*waiting_in, (1 << 22) + 1]) == want


NARROW = """
import sys
from hostlerd.tracing.kernel.stacks import kernel_stacks
print(kernel_stacks([int(sys.argv[1])]))
"""


def test_they_need_no_cap_sys_admin(waiting_in):
    want = {waiting_in[0]: shown_by_proc(waiting_in[0])}
    allowed = "-all,+bpf,+perfmon,+sys_ptrace,+dac_read_search"
    powers = [f"--{kind}={allowed}" for kind in ("bounding-set", "inh-caps", "ambient-caps")]
    who = ["--reuid=65534", "--regid=65534", "--clear-groups", "--no-new-privs"]
    done = subprocess.run(
        [
            *("/usr/bin/setpriv", *who, *powers),
            *(sys.executable, "-c", NARROW, str(waiting_in[0])),
        ],
        env={"PYTHONPATH": ":".join(sys.path), **ENVIRONMENT},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout == f"{want}\n", done.stderr
    assert os.geteuid() == 0
