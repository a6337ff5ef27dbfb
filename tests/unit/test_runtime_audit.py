"""The audit log: chain, order, torn tails, several writers, rotation, retention, quota."""

import asyncio
import gzip
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from itertools import pairwise

import pytest
from audit_support import kinds, take, verdict

from hostlerd.runtime.audit import AuditLog, hash_of, records
from hostlerd.runtime.audit_files import all_files, backwards, lines
from hostlerd.runtime.audit_quota import Quota
from hostlerd.runtime.audit_tail import Tail
from hostlerd.runtime.config import AuditBounds

SMALL = AuditBounds(file_bytes=20_000, reserve_bytes=1 << 16)


async def filled(path, count, bounds=SMALL, *, tend=False):
    log = AuditLog(path, bounds, path.parent, tend=tend)
    anchors = [await log.append(durable=False, kind="outcome", n=i) for i in range(count)]
    log.close()
    return anchors


async def test_records_form_a_chain_and_the_answer_is_its_head(tmp_path):
    log = AuditLog(tmp_path / "audit.jsonl")
    anchors = await asyncio.gather(
        *(log.append(durable=i % 3 == 0, kind="outcome", n=i) for i in range(500))
    )
    log.close()
    assert [a.seq for a in anchors] == list(range(1, 501))
    last = list(records(log.path))[-1]
    assert (last["seq"], last["hash"]) == (500, anchors[-1].head)
    assert all(hash_of(r) == r["hash"] for r in records(log.path))
    assert verdict(log.path, anchors).findings == ()


def test_a_process_without_a_loop_writes_too(tmp_path):
    log = AuditLog(tmp_path / "audit.jsonl")
    anchor = log.write(kind="recovery", method="/x/Y")
    log.close()
    (record,) = records(log.path)
    assert (record["seq"], record["hash"]) == (anchor.seq, anchor.head) == (1, record["hash"])


async def test_a_new_daemon_goes_on_where_the_last_one_ended(tmp_path):
    for _ in range(3):
        log = AuditLog(tmp_path / "audit.jsonl")
        await log.append(durable=True, kind="start")
        log.close()
    assert [r["seq"] for r in records(tmp_path / "audit.jsonl")] == [1, 2, 3]
    assert verdict(tmp_path / "audit.jsonl").ok


@pytest.mark.parametrize("cut", [1, 10, 40])
async def test_a_torn_tail_is_closed_and_told(tmp_path, cut):
    path = tmp_path / "audit.jsonl"
    await filled(path, 3)
    path.write_bytes(path.read_bytes()[:-cut])
    await filled(path, 1)
    # Where only the line's end is missing, the record itself is whole and stays.
    whole = ["outcome"] * (3 if cut == 1 else 2)
    assert kinds(path) == [*whole, "recovery", "outcome"]
    found = verdict(path)
    assert found.ok and [f.flaw.value for f in found.findings] == ([] if cut == 1 else ["torn"])
    for line in path.read_text().splitlines()[-2:]:
        json.loads(line)


async def test_a_write_that_fails_leaves_no_torn_line_and_no_hole(tmp_path):
    import resource

    log = AuditLog(tmp_path / "audit.jsonl", AuditBounds(reserve_bytes=4096))
    await log.append(durable=True, kind="start")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (log.path.stat().st_size + 20, hard))
        with pytest.raises(OSError):
            await log.append(durable=True, essential=False, kind="outcome")
        assert "audit log" in log.problem
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, ignored)
    await log.append(durable=True, kind="outcome")
    assert log.problem == ""
    log.close()
    assert kinds(log.path) == ["start", "outcome"] and verdict(log.path).findings == ()


async def test_files_are_closed_by_size_and_the_chain_goes_on(tmp_path):
    path = tmp_path / "audit.jsonl"
    anchors = await filled(path, 400)
    files = all_files(path)
    assert len(files) > 3 and files[-1].path == path
    for before, file in pairwise(files):
        first, last = file.open().readline(), before.open().readlines()[-1]
        told = json.loads(first)
        assert told["kind"] == "rotated" and told["file"] == before.path.name
        assert told["previous"] == json.loads(last)["hash"] and told["seq"] == file.first_seq
    assert verdict(path, anchors).findings == () and verdict(path, anchors).anchors == 400
    # What was laid aside for a closed file was given back.
    assert all(f.path.stat().st_blocks * 512 <= f.path.stat().st_size + 4096 for f in files[:-1])


async def test_closed_files_are_compressed_beside_the_work(tmp_path):
    path = tmp_path / "audit.jsonl"
    anchors = await filled(path, 400, tend=True)
    log = AuditLog(path, SMALL, tmp_path, tend=True)
    await log.append(durable=True, kind="start")
    log.close()
    files = all_files(path)
    assert len(files) > 3 and all(f.compressed for f in files[:-1])
    assert verdict(path, anchors).findings == ()
    assert [x.rstrip() for x in lines(path)] == [x.rstrip() for x in backwards(path)][::-1]


async def test_retention_drops_the_oldest_and_says_so(tmp_path):
    path = tmp_path / "audit.jsonl"
    bounds = AuditBounds(file_bytes=20_000, reserve_bytes=1 << 16, keep_files=2)
    anchors = await filled(path, 800, bounds)
    files = all_files(path)
    assert len(files) == 3 and files[0].first_seq > 200
    found = verdict(path, anchors)
    assert found.ok and [f.flaw.value for f in found.findings] == ["dropped"]
    assert found.first_seq == found.findings[0].to_seq + 1 == files[0].first_seq
    # The oldest file taken by hand, and nothing says so.
    files[0].path.unlink()
    assert [f.flaw.value for f in verdict(path, anchors).findings] == ["missing"]


@pytest.mark.parametrize("by", ["bytes", "days"])
async def test_retention_by_size_and_age(tmp_path, by):
    path = tmp_path / "audit.jsonl"
    await filled(path, 400)
    old = all_files(path)
    if by == "days":
        for file in old[:2]:
            os.utime(file.path, (time.time() - 3 * 86400,) * 2)
        bounds = AuditBounds(keep_days=2)
    else:
        bounds = AuditBounds(keep_bytes=sum(f.path.stat().st_size for f in old[2:-1]) + 10)
    await filled(path, 1, bounds)
    assert [f.path for f in all_files(path)] == [f.path for f in old[2:]]
    assert verdict(path).ok


WRITER = """
import sys
from pathlib import Path
from hostlerd.runtime.audit import AuditLog
from hostlerd.runtime.config import AuditBounds
path = Path(sys.argv[1])
log = AuditLog(path, AuditBounds(file_bytes=30_000, reserve_bytes=1 << 16), path.parent, tend=True)
for n in range(int(sys.argv[2])):
    anchor = log.write(kind="outcome", n=n, pid=sys.argv[3], pad="x" * 100)
    print(anchor.seq, anchor.head, flush=True)
log.close()
"""


def test_many_processes_keep_one_chain_over_rotations_and_kills(tmp_path):
    path = tmp_path / "audit.jsonl"
    argv = [sys.executable, "-c", textwrap.dedent(WRITER), str(path)]

    def start(name, count):
        return subprocess.Popen([*argv, str(count), name], stdout=subprocess.PIPE, text=True)

    writers = [start(str(i), 300) for i in range(3)]
    victim = start("victim", 100_000)
    got = [victim.stdout.readline() for _ in range(100)]
    victim.kill()
    got += victim.communicate()[0].splitlines()
    for writer in writers:
        got += writer.communicate(timeout=60)[0].splitlines()
        assert writer.returncode == 0
    # A killed process may have been torn off in the middle of printing.
    anchors = take(line for line in got if len(line.split()) == 2 and len(line.split()[1]) == 64)
    assert len(anchors) >= 1000 and len({a.seq for a in anchors}) == len(anchors)
    found = verdict(path, anchors)
    assert found.ok and found.anchors == len(anchors)
    assert len(all_files(path)) > 5
    told = [(r["pid"], r["n"]) for r in records(path) if r["kind"] == "outcome"]
    for name in "012":
        assert [n for pid, n in told if pid == name] == list(range(300))


async def test_a_crash_between_the_two_names_of_a_closed_file_counts_nothing_twice(tmp_path):
    path = tmp_path / "audit.jsonl"
    await filled(path, 50, AuditBounds())
    os.link(path, tmp_path / "audit-0000000000000001.jsonl")
    assert len(list(records(path))) == 50 and len(all_files(path)) == 1
    await filled(path, 400)
    assert verdict(path).findings == () and len(all_files(path)) > 2


async def test_a_log_that_was_deleted_does_not_begin_anew(tmp_path):
    path = tmp_path / "audit.jsonl"
    anchors = await filled(path, 400)
    last_closed = all_files(path)[-2].open().readlines()[-1]
    path.unlink()
    again = await filled(path, 1)
    assert again[0].seq == json.loads(last_closed)["seq"] + 1
    found = verdict(path, anchors)
    assert not found.ok and found.findings[0].flaw.value == "cut"


async def test_a_tail_reads_each_line_once_over_rotations(tmp_path):
    path = tmp_path / "audit.jsonl"
    tail = Tail(path, 0)
    seen = []
    for _ in range(6):
        await filled(path, 130)
        while new := tail.lines(50):
            seen += [json.loads(line)["seq"] for line in new]
    assert seen == list(range(1, len(seen) + 1)) and len(all_files(path)) > 4
    later = [json.loads(line)["seq"] for line in Tail(path, 300).lines(10_000)]
    assert 1 < later[0] <= 301 and later[-1] == seen[-1]


async def test_a_chatty_reader_does_not_fill_the_log_and_is_counted(tmp_path):
    bounds = AuditBounds(reads_per_minute=1, reads_burst=10)
    log = AuditLog(tmp_path / "audit.jsonl", bounds)
    chatty = {"kind": "outcome", "identity": "user/chatty", "method": "/x/List", "status": "OK"}
    for _ in range(5000):
        log.note(**chatty)
    for _ in range(20):
        log.note(**chatty | {"status": "PERMISSION_DENIED", "reason": "PERMISSION_DENIED"})
    log.note(**chatty | {"identity": "user/quiet"})
    log.close()
    told = list(records(log.path))
    single = [r for r in told if r["kind"] == "outcome"]
    assert [r["identity"] for r in single].count("user/chatty") == 20
    assert [r["identity"] for r in single].count("user/quiet") == 1
    sums = {r["status"]: r for r in told if r["kind"] == "summary"}
    assert (sums["OK"]["count"], sums["PERMISSION_DENIED"]["count"]) == (4990, 10)
    assert sums["OK"]["identity"] == "user/chatty" and sums["OK"]["method"] == "/x/List"
    assert len(told) == 23


async def test_a_summary_comes_by_itself(tmp_path):
    log = AuditLog(tmp_path / "audit.jsonl", AuditBounds(reads_burst=1))
    log._quota = Quota(1, 1, interval_s=0.2)
    for _ in range(5):
        log.note(kind="outcome", identity="a", method="/x/List", status="OK")
    await asyncio.sleep(0.6)
    assert kinds(log.path) == ["outcome", "summary"]
    log.close()


def test_a_quota_is_bounded_and_refills():
    quota = Quota(6000, 2)
    for i in range(3000):
        quota.take(f"user/{i}")
        quota.count({"identity": f"user/{i}", "method": "/m", "status": "OK"})
    due = quota.due(at_once=True)
    assert len(due) <= 1001 and sum(d["count"] for d in due) == 3000
    assert quota.due(at_once=True) == [] and quota.wait_s is None
    assert [quota.take("z") for _ in range(3)] == [True, True, False] or quota.take("z") in (0, 1)
    time.sleep(0.05)
    assert quota.take("z")


async def test_a_disk_that_does_not_answer_holds_nobody_up(tmp_path, monkeypatch):
    """The writer hangs, as on a dying disk: another process keeps the lock."""
    monkeypatch.setattr("hostlerd.runtime.audit._PATIENCE_S", 0.3)
    log = AuditLog(tmp_path / "audit.jsonl", SMALL, tmp_path)
    await log.append(durable=True, kind="start")
    holder = subprocess.Popen(
        ["/usr/bin/flock", "-F", str(tmp_path / "audit.lock"), "/usr/bin/sleep", "60"]
    )
    time.sleep(0.3)
    try:
        start = time.monotonic()
        with pytest.raises(OSError, match="not answered"):
            await log.append(durable=True, kind="intent", n=1)
        took = time.monotonic() - start
        assert took < 1
        assert "not answered" in log.problem
        start = time.monotonic()
        for _ in range(100):
            with pytest.raises(OSError, match="not answered"):
                await log.append(durable=True, essential=False, kind="intent", n=2)
            log.note(kind="outcome", identity="a", status="OK")
        assert time.monotonic() - start < 0.5
    finally:
        holder.terminate()
        holder.wait()
    for _ in range(50):
        await asyncio.sleep(0.1)
        if not log.problem:
            break
    await log.append(durable=True, kind="outcome")
    log.close()
    told = list(records(log.path))
    # What was essential came late, what was not was refused, what only read was counted.
    assert [r["kind"] for r in told] == ["start", "intent", "outcome", "summary"]
    assert told[-1]["count"] == 100 and verdict(log.path).findings == ()


def test_a_packed_file_that_was_cut_is_a_finding_not_a_crash(tmp_path):
    path = tmp_path / "audit.jsonl"
    asyncio.run(filled(path, 400, tend=True))
    log = AuditLog(path, SMALL, tmp_path, tend=True)
    log.write(kind="start")
    log.close()
    packed = all_files(path)[1].path
    packed.write_bytes(packed.read_bytes()[:-200])
    assert not verdict(path).ok
    packed.write_bytes(gzip.compress(b"garbage\n"))
    assert not verdict(path).ok
