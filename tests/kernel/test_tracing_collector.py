"""The collector's process: its end is the tracer's end; what it may see; what it may cost."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from traced import (
    ENVIRONMENT,
    bpftool,
    collector,
    names,
    next_frame,
    program_ids,
    programs_of,
    trace,
    waiting,
)

from hostler.core.trace.blocks import decode
from hostler.core.trace.events import Flag
from hostler.core.trace.filter import compile_filter
from hostlerd.tracing.collector.wanted import wanted_from
from hostlerd.tracing.kernel.capture.engine import Engine
from hostlerd.tracing.kernel.collecting import line_for
from hostlerd.tracing.kernel.frames import Kind
from hostlerd.tracing.model.capture import NAMES_MOST, Budget, Capture, Filter
from hostlerd.tracing.model.trace import DEFAULT, Payload, Spec

pytestmark = pytest.mark.kernel

BUSY = ["/usr/bin/dd", "if=/dev/zero", "of=/dev/null", "bs=1", "count=20000"]


def attached_ids():
    """Those programs that are attached."""
    return {each.get("prog_id") for each in bpftool("link")}


def gone(programs, among=program_ids):
    """Are all these programs gone, within seconds?"""
    give_up = time.monotonic() + 5
    while programs & among():
        if time.monotonic() > give_up:
            return False
        time.sleep(0.02)
    return True


def test_a_capture_in_a_process_of_its_own():
    with waiting(BUSY) as (pid, go):
        process = collector(Spec(pids=(pid,), budget=DEFAULT))
        assert next_frame(process)[0] is Kind.READY
        go()
        count = 0
        while (told := next_frame(process))[0] is Kind.BLOCK:
            assert told[1].events == len(decode(told[1].data))
            assert not told[1].lost
            count += told[1].events
    assert told[0] is Kind.END
    assert told[1]["reason"] == "PROCESSES_ENDED"
    assert count > 40_000
    assert process.wait(10) == 0


@pytest.mark.parametrize("way", ["killed", "closed"])
def test_no_program_is_left_when_the_collector_ends(way):
    process = collector(Spec(budget=DEFAULT))
    assert next_frame(process)[0] is Kind.READY
    ours = programs_of(process.pid)
    assert len(ours) == 5
    if way == "killed":
        process.kill()
    else:
        process.stdin.close()
    process.stdout.read()
    assert process.wait(10) == (-signal.SIGKILL if way == "killed" else 0)
    assert gone(ours)


PARENT = """
import os, subprocess, sys, time
from traced import collector, next_frame
from hostlerd.tracing.model.trace import DEFAULT, Spec
process = collector(Spec(budget=DEFAULT))
next_frame(process)
print(process.pid, flush=True)
time.sleep(60)
"""


def test_the_collector_dies_with_its_parent():
    search = {"PYTHONPATH": ":".join(sys.path), **ENVIRONMENT}
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT], env=search, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL
    )
    pid = int(parent.stdout.readline())
    ours = programs_of(pid)
    assert len(ours) == 5
    # Its pipes stay open in nobody: a parent that is killed outright closes none by itself.
    parent.kill()
    parent.wait()
    assert gone(ours)
    assert not Path(f"/proc/{pid}").exists() or "Z" in Path(f"/proc/{pid}/stat").read_text()


def test_a_reader_that_stands_still_cannot_keep_the_tracer_attached():
    process = collector(Spec(budget=replace(DEFAULT, duration_s=2.0, ring_bytes=1 << 20)))
    assert next_frame(process)[0] is Kind.READY
    ours = programs_of(process.pid)
    assert ours <= attached_ids()
    with waiting([*BUSY[:-1], "count=300000"]) as (_, go):
        go()
        # Nothing reads: the pipe is full, and the collector waits in write.
        time.sleep(2.5)
        assert process.poll() is None
    assert gone(ours, attached_ids)
    process.stdout.close()
    process.stdin.close()
    process.wait(10)


@pytest.mark.parametrize(
    ("budget", "reason"),
    [
        (Budget(events=1000), "events"),
        (Budget(bytes=100_000), "bytes"),
        (Budget(seconds=0.5), "seconds"),
        (Budget(cpu_share=0.0001), "cpu"),
    ],
)
def test_a_budget_ends_the_trace(budget, reason):
    argv = [*BUSY[:-1], "count=3000000"]
    with waiting(argv) as (pid, go), Engine(Capture(Filter(pids=(pid,)), budget)) as engine:
        engine.start()
        go(wait=False)
        events = 0
        give_up = time.monotonic() + 20
        while not engine.has_ended and time.monotonic() < give_up:
            events += len(engine.read(0.05))
        os.kill(pid, signal.SIGKILL)
        assert engine.ended == reason
        assert reason != "events" or events == 1000


INSIDE = """
import os, subprocess, sys, time
from hostlerd.tracing.kernel.capture.engine import Engine
from hostlerd.tracing.model.capture import Capture
with Engine(Capture()) as engine:
    engine.start()
    print("started", flush=True)
    child = subprocess.Popen(["/bin/true"])
    child.wait()
    sys.stdin.readline()
    batch = engine.read(1)
    engine.stop()
    exe = {batch.texts[p["exe"]].decode() for p in batch.processes}
    print(set(batch.processes["pid"].tolist()) == {0, 1, child.pid}, os.getpid(), sorted(exe))
"""


def test_from_inside_a_pid_namespace_only_its_own_processes_are_seen():
    search = {"PYTHONPATH": ":".join(sys.path), **ENVIRONMENT}
    inside = subprocess.Popen(
        [
            *("/usr/bin/unshare", "--pid", "--fork", "--mount-proc", "--kill-child"),
            *(sys.executable, "-c", INSIDE),
        ],
        env=search,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert inside.stdout.readline() == "started\n"
    subprocess.run(["/usr/bin/md5sum", "/etc/passwd"], check=True, capture_output=True)
    out, _ = inside.communicate("\n", 30)
    assert out.startswith("True 1 ["), out
    assert "/usr/bin/true" in out
    assert "md5sum" not in out


NARROW = """
import sys, time
from pathlib import Path
from hostlerd.tracing.kernel.capture.engine import Engine
from hostlerd.tracing.model.capture import Capture
with Engine(Capture()) as engine:
    engine.start()
    time.sleep(0.3)
    print(len(engine.read(1)) > 0, Path("/proc/self/status").read_text().split("CapEff:")[1][:17])
"""


@pytest.mark.parametrize("uid", [0, 65534])
def test_four_capabilities_are_enough(uid, tmp_path):
    allowed = "-all,+bpf,+perfmon,+sys_ptrace,+dac_read_search"
    who = ["--reuid", str(uid), "--regid", str(uid), "--clear-groups"]
    powers = [f"--{kind}={allowed}" for kind in ("bounding-set", "inh-caps", "ambient-caps")]
    done = subprocess.run(
        ["/usr/bin/setpriv", *who, *powers, "--no-new-privs", sys.executable, "-c", NARROW],
        env={"PYTHONPATH": ":".join(sys.path), **ENVIRONMENT},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout.split() == ["True", "000000c000080004"], done.stderr


CARRYING = """
import os, socket, sys
a, b = socket.socketpair()
a.sendmsg([b"hid", b"den words"])
b.recv(100)
reader, writer = os.pipe()
os.writev(writer, [b"one", b"two" * 100])
os.read(reader, 1000)
os.pwrite(os.open(sys.argv[1], os.O_CREAT | os.O_RDWR), b"short", 0)
"""


def data_of(events):
    return [
        (name, events.texts[row], int(flags))
        for name, row, flags in zip(
            names(events), events["data"].tolist(), events["flags"].tolist(), strict=True
        )
        if name in ("sendmsg", "recvfrom", "writev", "pwrite64") or row
    ]


def test_what_calls_carry_is_kept_only_if_it_is_wanted(tmp_path):
    argv = ["/usr/bin/python3", "-IS", "-c", CARRYING, str(tmp_path / "file")]
    events = trace(argv, payload_bytes=64)
    assert data_of(events)[-5:] == [
        ("sendmsg", b"hidden words", 0),
        ("recvfrom", b"hidden words", 0),
        ("writev", (b"one" + b"two" * 100)[:64], Flag.DATA_CUT),
        ("read", (b"one" + b"two" * 100)[:64], Flag.DATA_CUT),
        ("pwrite64", b"short", 0),
    ]
    without = trace(argv)
    assert not without["data"].any()
    assert b"hidden" not in b"".join(without.texts)
    assert {flags for _, _, flags in data_of(without)} == {Flag.DATA_WITHHELD}


def test_command_lines_are_kept_only_if_they_are_wanted():
    argv = ["/usr/bin/basename", "a secret"]
    without, kept = trace(argv), trace(argv, cmdlines=True, environs=True)
    assert b"secret" not in b"".join(without.texts)
    process = kept.processes[kept["process"][-1]]
    assert kept.texts[process["cmdline"]] == b"/usr/bin/basename\0a secret\0"
    assert b"LC_ALL=C.UTF-8\0" in kept.texts[process["environ"]]


def test_old_names_are_let_go_and_told_again(tmp_path):
    for i in range(400):
        (tmp_path / f"file{i}").touch()
    loop = "import os\nfor _ in range(20):\n for i in range(400): os.stat('file%d' % i)\n"
    argv = ["/usr/bin/python3", "-IS", "-c", f"import os; os.chdir({str(tmp_path)!r})\n{loop}"]
    with waiting(argv) as (pid, go), Engine(Capture(Filter(pids=(pid,))), rows_kept=300) as engine:
        engine.start()
        go(wait=False)
        seen = []
        while not engine.has_ended:
            batch = engine.read(0.01)
            seen += [
                (batch.texts[row], batch.texts[batch.processes[process]["name"]])
                for row, process in zip(batch["path"], batch["process"], strict=True)
                if b"/file" in batch.texts[row]
            ]
    want = [(os.fsencode(tmp_path / f"file{i}"), b"python3") for i in range(400)]
    assert seen == want * 20


def test_what_the_collector_is_told_is_what_was_asked():
    spec = Spec("evt.failed=true", (1, 2), False, "/system.slice", 7, DEFAULT)
    payload = Payload(9, True, False)
    wanted = wanted_from(json.loads(line_for(spec, payload)))
    assert (wanted.spec, wanted.payload) == (spec, payload)
    assert wanted.ignored_pids == (os.getpid(),)


def test_the_kernel_compares_names_and_failures_and_times():
    wanted = wanted_from(json.loads(line_for(Spec(), Payload())))
    text = "proc.name in (dd, a-name-of-more-than-15) and evt.failed = true and evt.latency > 1ms"
    kept = wanted.capture(compile_filter(text)).filter
    assert set(kept.names) == {b"dd", b"a-name-of-more-"}
    assert (kept.failed_only, kept.latency_ns) == (True, 1_000_001)
    many = ", ".join(f"n{i}" for i in range(NAMES_MOST + 1))
    assert wanted.capture(compile_filter(f"proc.name in ({many})")).filter.names == ()
    assert wanted.capture(compile_filter("proc.name = a or evt.type = read")).filter.names == ()


def test_what_is_told_and_what_is_lost_is_what_perf_counts(tmp_path):
    witness = tmp_path / "perf.txt"
    argv = ["/usr/bin/perf", "stat", "-x,", "-e", "raw_syscalls:sys_exit", "-o", str(witness)]
    # Whatever else runs on the host has another name.
    busy = shutil.copy(BUSY[0], tmp_path / f"dd{os.getpid()}")
    spec = Spec(f"proc.name = {Path(busy).name}", budget=replace(DEFAULT, ring_bytes=1 << 20))
    process = collector(spec)
    assert next_frame(process)[0] is Kind.READY
    argv += [busy, *BUSY[1:-1], "count=100000"]
    subprocess.run(argv, check=True, capture_output=True, timeout=60)
    process.stdin.close()
    told = lost = 0
    while (frame := next_frame(process))[0] is Kind.BLOCK:
        told += frame[1].events
        lost += frame[1].lost
    assert process.wait(10) == 0
    assert told > 0 < lost
    counted = int(witness.read_text().splitlines()[-1].split(",")[0])
    # exit_group does not return: we see it where it begins, perf does not see it end.
    assert told + lost == counted + 1
