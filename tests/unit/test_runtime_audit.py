"""The audit log: chain, order, torn tails, several writers."""

import asyncio
import json

import pytest

from hostlerd.runtime.audit import AuditLog, hash_of, records


def chain_is_whole(path) -> bool:
    previous, seq = "0" * 64, 0
    for record in records(path):
        if record["seq"] != seq + 1 or record["previous"] != previous:
            return False
        if hash_of(record) != record["hash"]:
            return False
        previous, seq = record["hash"], record["seq"]
    return True


async def test_records_form_a_chain_and_the_answer_is_its_head(tmp_path):
    log = AuditLog(tmp_path / "audit.jsonl")
    anchors = await asyncio.gather(
        *(log.append(durable=i % 3 == 0, kind="outcome", n=i) for i in range(500))
    )
    log.close()
    assert [a.seq for a in anchors] == list(range(1, 501))
    last = list(records(log.path))[-1]
    assert (last["seq"], last["hash"]) == (500, anchors[-1].head)
    assert chain_is_whole(log.path)


async def test_an_edited_line_breaks_the_chain(tmp_path):
    log = AuditLog(tmp_path / "audit.jsonl")
    for i in range(5):
        await log.append(durable=False, kind="outcome", n=i)
    log.close()
    lines = log.path.read_text().splitlines(keepends=True)
    lines[2] = lines[2].replace('"n":2', '"n":7')
    log.path.write_text("".join(lines))
    assert not chain_is_whole(log.path)


async def test_a_new_daemon_goes_on_where_the_last_one_ended(tmp_path):
    for _ in range(3):
        log = AuditLog(tmp_path / "audit.jsonl")
        await log.append(durable=True, kind="start")
        log.close()
    assert [r["seq"] for r in records(tmp_path / "audit.jsonl")] == [1, 2, 3]
    assert chain_is_whole(tmp_path / "audit.jsonl")


@pytest.mark.parametrize("cut", [1, 10, 40])
async def test_a_torn_tail_is_closed_and_told(tmp_path, cut):
    path = tmp_path / "audit.jsonl"
    log = AuditLog(path)
    for i in range(3):
        await log.append(durable=True, kind="outcome", n=i)
    log.close()
    path.write_bytes(path.read_bytes()[:-cut])
    log = AuditLog(path)
    await log.append(durable=True, kind="outcome", n=3)
    log.close()
    kinds = [r["kind"] for r in records(path)]
    # Where only the line's end is missing, the record itself is whole and stays.
    whole = ["outcome"] * (3 if cut == 1 else 2)
    assert kinds == [*whole, "recovery", "outcome"]
    assert chain_is_whole(path)
    for line in path.read_text().splitlines()[-2:]:
        json.loads(line)


async def test_two_writers_share_one_chain(tmp_path):
    first, second = AuditLog(tmp_path / "a.jsonl"), AuditLog(tmp_path / "a.jsonl")
    for i in range(20):
        await first.append(durable=False, kind="outcome", n=i)
        await second.append(durable=False, kind="outcome", n=i)
    first.close()
    second.close()
    assert len(list(records(first.path))) == 40
    assert chain_is_whole(first.path)


async def test_a_full_disk_is_an_error_of_the_append(tmp_path):
    log = AuditLog(tmp_path / "audit.jsonl")
    await log.append(durable=True, kind="start")
    import resource
    import signal

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (log.path.stat().st_size + 20, hard))
        with pytest.raises(OSError):
            await log.append(durable=True, kind="outcome")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, ignored)
    await log.append(durable=True, kind="outcome")
    log.close()
    assert chain_is_whole(log.path)
    assert [r["kind"] for r in records(log.path)] == ["start", "recovery", "outcome"]
