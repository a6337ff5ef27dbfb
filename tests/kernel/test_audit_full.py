"""The audit log on a disk that is really full: what goes on, what is refused, what is lost."""

import os
import subprocess
import sys
import time

import pytest
from audit_disk import Journal, fill, free_bytes, small_disk
from audit_support import kinds, verdict

from hostler.core.audit import Verifier
from hostlerd.runtime import audit_journal
from hostlerd.runtime.audit import AuditLog, records
from hostlerd.runtime.audit_files import lines
from hostlerd.runtime.config import AuditBounds

pytestmark = pytest.mark.kernel

BOUNDS = AuditBounds(reserve_bytes=256 << 10)


@pytest.fixture(params=["ext4", "tmpfs"])
def disk(request, tmp_path):
    with small_disk(tmp_path, request.param, 16) as place:
        yield place


@pytest.fixture
def journal(tmp_path, monkeypatch):
    monkeypatch.setattr(audit_journal, "SOCKET", tmp_path / "journal")
    return Journal(tmp_path / "journal")


def merged(path, journal):
    """The log with the journal's lines put where they belong."""
    inserted = {int(line.split(b'"seq":')[1].split(b",")[0]): line for line in journal.lines}
    verifier, seq = Verifier(), 0
    for line in lines(path):
        own = int(line.split(b'"seq":')[1].split(b",")[0])
        for missing in range(seq + 1, own):
            verifier.take(inserted[missing])
        verifier.take(line)
        seq = own
    return verifier.finish()


async def test_a_full_disk_first_uses_the_reserve_then_the_journal(disk, tmp_path, journal):
    path, spare = disk / "log/audit.jsonl", tmp_path
    log = AuditLog(path, BOUNDS, spare)
    anchors = [await log.append(durable=True, kind="start")]
    assert log.problem == ""
    hog = fill(disk)
    assert free_bytes(disk) == 0
    # The room that is laid aside is used up to the reserve, and then it shows.
    while not log.problem:
        anchors.append(await log.append(durable=True, kind="outcome", pad="x" * 4000))
    assert "full; on its reserve" in log.problem
    with pytest.raises(OSError, match="reserve"):
        await log.append(durable=True, essential=False, kind="intent")
    # What is essential goes on, in the log itself, on a disk without a free block.
    on_reserve = len(anchors)
    while journal.lines == []:
        anchors.append(await log.append(durable=True, kind="outcome", pad="x" * 4000))
    assert len(anchors) - on_reserve > 50 and free_bytes(disk) < 8192
    assert "journal" in log.problem and log.state.journal_from_seq > on_reserve
    for _ in range(20):
        anchors.append(await log.append(durable=True, kind="outcome"))
    assert [a.seq for a in anchors] == sorted({a.seq for a in anchors})
    # The client sees: so far in the journal only, nothing is cut.
    seen = verdict(path, anchors, log.state.end)
    assert seen.ok and seen.findings[-1].flaw.value == "in_journal"
    hog.unlink()
    time.sleep(1.1)
    anchors.append(await log.append(durable=True, kind="outcome"))
    assert log.problem == "" and log.state.journal_from_seq == 0
    anchors.append(await log.append(durable=True, kind="outcome"))
    log.close()
    told = [kind for kind in kinds(path) if kind not in ("outcome", "start")]
    assert told == ["degraded", "gap", "recovered"]
    found = verdict(path, anchors)
    assert found.ok and found.anchors == len(anchors)
    assert [f.flaw.value for f in found.findings] == ["in_journal"]
    # And whoever has the journal has every record.
    assert merged(path, journal).findings == ()
    assert all(r["time"] for r in records(path))


async def test_the_gap_survives_daemons_and_a_boot(disk, tmp_path, journal):
    path = disk / "log/audit.jsonl"
    bounds = AuditBounds(reserve_bytes=4096)
    log = AuditLog(path, bounds, tmp_path)
    await log.append(durable=True, kind="start")
    hog = fill(disk)
    while journal.lines == []:
        await log.append(durable=True, kind="outcome", pad="x" * 1000)
    log.close()
    # The next daemon, and a job beside it, go on from what is in the journal.
    one, two = AuditLog(path, bounds, tmp_path), AuditLog(path, bounds, tmp_path)
    anchors = [one.write(kind="a"), two.write(kind="b"), one.write(kind="c")]
    assert [a.seq - anchors[0].seq for a in anchors] == [0, 1, 2]
    one.close()
    two.close()
    # A boot empties /run.
    (tmp_path / "audit.overflow").unlink()
    after = AuditLog(path, bounds, tmp_path)
    anchors.append(after.write(kind="d"))
    assert anchors[-1].seq == anchors[-2].seq + 1
    hog.unlink()
    time.sleep(1.1)
    anchors.append(after.write(kind="e"))
    after.close()
    found = verdict(path, anchors)
    assert found.ok and [f.flaw.value for f in found.findings] == ["in_journal"]
    assert found.anchors == len(anchors) and merged(path, journal).findings == ()


async def test_reads_are_summed_up_while_the_disk_is_full(disk, tmp_path, journal):
    log = AuditLog(disk / "log/audit.jsonl", BOUNDS, tmp_path)
    await log.append(durable=True, kind="start")
    hog = fill(disk)
    while not log.problem:
        await log.append(durable=True, kind="outcome", pad="x" * 4000)
    before = log.path.stat().st_size
    for _ in range(5000):
        log.note(kind="outcome", identity="user/a", method="/x/List", status="OK")
    log.close()
    told = list(records(log.path))
    assert told[-1]["kind"] == "summary" and told[-1]["count"] == 5000
    assert log.path.stat().st_size - before < 2000
    hog.unlink()


async def test_without_a_journal_too_nothing_hangs_and_nothing_is_claimed(disk, tmp_path):
    path = disk / "log/audit.jsonl"
    log = AuditLog(path, AuditBounds(reserve_bytes=4096), tmp_path)
    await log.append(durable=True, kind="start")
    hog, failed = fill(disk), 0
    anchors = []
    start = time.monotonic()
    for _ in range(60):
        try:
            anchors.append(await log.append(durable=True, kind="outcome", pad="x" * 1000))
        except OSError:
            failed += 1
    assert failed > 10 and time.monotonic() - start < 5
    hog.unlink()
    time.sleep(1.1)
    anchors.append(await log.append(durable=True, kind="outcome"))
    log.close()
    assert verdict(path, anchors).ok and verdict(path, anchors).anchors == len(anchors)


def test_a_disk_that_turned_read_only_is_the_journals_matter(tmp_path, journal):
    """As ext4 does after an error, with errors=remount-ro."""
    with small_disk(tmp_path, "ext4", 16) as disk:
        path = disk / "log/audit.jsonl"
        log = AuditLog(path, BOUNDS, tmp_path)
        anchors = [log.write(kind="start")]
        log.close()
        again = ["/usr/bin/mount", "-o", "remount,ro", str(disk)]
        subprocess.run(again, check=True, timeout=10)
        log = AuditLog(path, BOUNDS, tmp_path)
        anchors += [log.write(kind="outcome") for _ in range(3)]
        assert "Read-only" in log.problem and len(journal.lines) == 3
        subprocess.run([*again[:2], "remount,rw", str(disk)], check=True, timeout=10)
        anchors.append(log.write(kind="outcome"))
        assert log.problem == ""
        log.close()
        found = verdict(path, anchors)
        assert found.ok and found.anchors == 5 and found.findings[0].flaw.value == "in_journal"


def test_a_log_that_cannot_even_be_opened_is_degraded_not_fatal(tmp_path, journal):
    (tmp_path / "file").write_text("")
    start = time.monotonic()
    log = AuditLog(tmp_path / "file/audit.jsonl", BOUNDS, tmp_path)
    with pytest.raises(OSError):
        log.write(kind="start")
    assert "cannot be opened" in log.problem and time.monotonic() - start < 5
    log.close()


WRITER = """
import sys
from pathlib import Path
from hostlerd.runtime.audit import AuditLog
from hostlerd.runtime.config import AuditBounds
log = AuditLog(Path(sys.argv[1]), AuditBounds(file_bytes=1 << 20, reserve_bytes=1 << 18))
while True:
    anchor = log.write(kind="outcome", pad="x" * 500)
    print(anchor.seq, anchor.head, flush=True)
"""


def test_what_was_answered_survives_a_power_cut_of_the_disk(tmp_path):
    """The filesystem as it is at an instant of writing, copied and mounted anew."""
    with small_disk(tmp_path, "ext4", 64) as disk:
        path = disk / "log/audit.jsonl"
        argv = [sys.executable, "-c", WRITER, str(path)]
        writer = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
        printed = [writer.stdout.readline() for _ in range(400)]
        # What was printed was answered before this copy began.
        (tmp_path / "image.cut").write_bytes((tmp_path / "image").read_bytes())
        os.kill(writer.pid, 9)
        writer.communicate()
    other = tmp_path / "other"
    other.mkdir()
    subprocess.run(
        ["/usr/bin/mount", "-o", "loop", str(tmp_path / "image.cut"), str(other)], check=True
    )
    try:
        from audit_support import take

        anchors = take(printed)
        log = AuditLog(other / "log/audit.jsonl")
        anchors.append(log.write(kind="start"))
        log.close()
        found = verdict(other / "log/audit.jsonl", anchors)
        assert found.ok and found.anchors == 401
    finally:
        subprocess.run(["/usr/bin/umount", "--lazy", str(other)], check=True)
