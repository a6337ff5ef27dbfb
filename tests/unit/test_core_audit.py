"""Verifying a log: everything an intruder can do to it is found, and named for what it is."""

import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostler.core.audit import START, Anchor, Flaw, Verifier, chained, hash_of, parse

N = 60


def made(count=N, **more):
    """A log, line by line, and the anchor of every record."""
    end, lines, anchors = START, [], []
    for i in range(count):
        fields = {"kind": "outcome", "n": i, "identity": "user/a", **more}
        line, end = chained(fields, "2026-01-01T00:00:00+00:00", end)
        lines.append(line)
        anchors.append(end)
    return lines, anchors


LINES, ANCHORS = made()
# What a client has seen in the answers of its own changes: not every record.
SEEN = ANCHORS[4::10]


def judged(lines, anchors=SEEN, journal=None):
    verifier = Verifier(anchors)
    for line in lines:
        verifier.take(line)
    return verifier.finish(journal)


def named(verdict):
    return [(f.flaw, f.from_seq, f.to_seq) for f in verdict.findings]


def rewritten(lines, start, change):
    """Do what an intruder with time does: change a record and all hashes from there on."""
    end = Anchor(start, parse(lines[start - 1])["hash"]) if start else START
    kept = lines[:start]
    for line in lines[start:]:
        record = change(parse(line))
        if record is None:
            continue
        plain = {k: v for k, v in record.items() if k not in ("seq", "time", "previous", "hash")}
        new, end = chained(plain, record["time"], end)
        kept.append(new)
    return kept


def test_a_log_that_nobody_touched_has_no_findings():
    verdict = judged(LINES)
    assert verdict.ok and verdict.findings == ()
    assert (verdict.records, verdict.first_seq, verdict.end) == (N, 1, ANCHORS[-1])
    assert verdict.anchors == len(SEEN)


@pytest.mark.parametrize("seq", [1, 2, 31, N - 1, N])
def test_an_edited_line_is_named(seq):
    lines = list(LINES)
    lines[seq - 1] = lines[seq - 1].replace(b"user/a", b"user/b")
    assert named(judged(lines)) == [(Flaw.EDITED, seq, seq)]


@pytest.mark.parametrize("seq", [1, 2, 31, N - 1])
def test_an_edited_line_with_a_new_hash_is_named(seq):
    record = parse(LINES[seq - 1])
    record["identity"] = "user/b"
    record["hash"] = hash_of(record)
    lines = list(LINES)
    lines[seq - 1] = json.dumps(record).encode()
    assert named(judged(lines)) == [(Flaw.EDITED, seq, seq)]


def test_an_edited_number_is_named_by_its_place():
    lines = list(LINES)
    lines[9] = lines[9].replace(b'"seq":10', b'"seq":99')
    assert named(judged(lines)) == [(Flaw.EDITED, 10, 10)]
    assert "calls itself 99" in judged(lines).findings[0].message


@pytest.mark.parametrize(("start", "end"), [(10, 10), (10, 20), (1, 5), (2, N - 1)])
def test_missing_lines_are_named(start, end):
    assert named(judged(LINES[: start - 1] + LINES[end:])) == [(Flaw.MISSING, start, end)]


def test_reordered_lines_are_named():
    lines = list(LINES)
    lines[19], lines[20] = lines[20], lines[19]
    assert named(judged(lines)) == [(Flaw.REORDERED, 20, 20)]
    lines = [*LINES[:10], *LINES[13:20], *LINES[10:13], *LINES[20:]]
    assert named(judged(lines)) == [(Flaw.REORDERED, n, n) for n in (11, 12, 13)]


def test_a_line_that_comes_again_is_named():
    assert named(judged([*LINES[:30], LINES[9], *LINES[30:]])) == [(Flaw.REPEATED, 10, 10)]


@pytest.mark.parametrize("kept", [0, 1, 30, N - 6])
def test_a_cut_end_is_named(kept):
    assert named(judged(LINES[:kept])) == [(Flaw.CUT, kept + 1, SEEN[-1].seq)]


def test_a_log_cut_and_gone_on_with_is_rewritten():
    def drop(record):
        return None if 30 <= record["n"] < 33 else record

    verdict = judged(rewritten(LINES, 29, drop))
    # Anchors are at 5, 15, … 55: the last that matches is 25, the first that does not 35.
    assert (Flaw.REWRITTEN, 26) in [(f.flaw, f.from_seq) for f in verdict.findings]
    assert not verdict.ok and "between record 26 and 35" in verdict.findings[0].message


@pytest.mark.parametrize("start", [0, 1, 24, 25, 40])
def test_a_rewritten_log_is_named(start):
    def lie(record):
        return record | ({"identity": "user/b"} if record["n"] == start else {})

    lines = rewritten(LINES, start, lie)
    assert judged(lines, ()).ok, "hashes alone cannot tell"
    good = max((a.seq for a in SEEN if a.seq <= start), default=0)
    assert named(judged(lines)) == [(Flaw.REWRITTEN, good + 1, N)]
    assert named(judged(lines, ANCHORS)) == [(Flaw.REWRITTEN, start + 1, N)]


def test_two_clients_that_saw_different_logs_are_both_heard():
    other = rewritten(LINES, 0, lambda r: r | {"identity": "user/b"})
    also = Anchor(55, parse(other[54])["hash"])
    assert named(judged(LINES, [*SEEN, also])) == [(Flaw.REWRITTEN, 46, N)]


def test_a_torn_line_is_harmless_if_the_next_start_says_so():
    torn, end = LINES[10][:25], ANCHORS[9]
    recovery, end = chained({"kind": "recovery", "torn_bytes": 25}, "t", end)
    more, end = chained({"kind": "outcome"}, "t", end)
    verdict = judged([*LINES[:10], torn, recovery, more], ANCHORS[:10])
    assert named(verdict) == [(Flaw.TORN, 10, 10)] and verdict.ok
    verdict = judged([*LINES[:10], torn[:20], recovery, more], ANCHORS[:10])
    assert named(verdict) == [(Flaw.UNREADABLE, 10, 10)] and not verdict.ok
    assert named(judged([*LINES[:10], torn], ANCHORS[:10])) == [(Flaw.TORN, 10, 10)]


def gap(first, last, **lies):
    told = {"kind": "gap", "from_seq": first, "to_seq": last, "before": ANCHORS[first - 2].head}
    told |= {"head": ANCHORS[last - 1].head}
    told |= {"hashes": [a.head for a in ANCHORS[first - 1 : last]]}
    return chained(told | lies, "t", ANCHORS[last - 1])[0]


def test_a_gap_that_the_log_names_is_harmless_and_its_anchors_count():
    lines = [*LINES[:20], gap(21, 40)]
    verdict = judged(lines, ANCHORS[:40])
    assert named(verdict) == [(Flaw.IN_JOURNAL, 21, 40)] and verdict.ok and verdict.anchors == 40
    merged = judged([*LINES[:40], gap(21, 40)], ANCHORS[:40])
    assert merged.findings == () and merged.ok


@pytest.mark.parametrize("lie", [{"from_seq": 20}, {"to_seq": 39}, {"before": "0" * 64}])
def test_a_gap_that_does_not_fit_is_missing_lines(lie):
    verdict = judged([*LINES[:20], gap(21, 40, **lie)], ANCHORS[:20])
    assert named(verdict) == [(Flaw.MISSING, 21, 40)] and not verdict.ok


def test_a_gap_with_other_hashes_than_the_client_saw_is_rewritten():
    hashes = [a.head for a in ANCHORS[20:40]]
    hashes[4] = "0" * 64
    verdict = judged([*LINES[:20], gap(21, 40, hashes=hashes)])
    assert (Flaw.REWRITTEN, 16) in [(f.flaw, f.from_seq) for f in verdict.findings]


def test_what_is_in_the_journal_still_is_no_cut_end():
    verdict = judged(LINES[:40], [*SEEN], Anchor(N, ANCHORS[-1].head))
    assert named(verdict) == [(Flaw.IN_JOURNAL, 41, N)] and verdict.ok
    lied = judged(LINES[:40], [ANCHORS[-1]], Anchor(N, "0" * 64))
    assert not lied.ok


def test_retention_is_no_missing_line_if_the_log_says_where_it_begins():
    told = {"kind": "dropped", "to_seq": 20, "head": ANCHORS[19].head}
    dropped = chained(told, "t", ANCHORS[-1])[0]
    verdict = judged([*LINES[20:], dropped])
    assert named(verdict) == [(Flaw.DROPPED, 1, 20)] and verdict.ok and verdict.first_seq == 21
    assert named(judged(LINES[20:])) == [(Flaw.MISSING, 1, 20)]
    assert named(judged([*LINES[21:], dropped])) == [(Flaw.MISSING, 1, 21)]


@given(st.integers(0, 2**32))
def test_whatever_is_done_to_a_log_is_found(seed):
    """Any change of the bytes that matter, by anybody, against the anchor of the last record."""
    chance = random.Random(seed)  # noqa: S311 - the seed is hypothesis's
    lines = list(LINES)
    how = chance.choice(("drop", "swap", "edit", "repeat", "rewrite", "cut"))
    at = chance.randrange(N - 1)
    if how == "drop":
        del lines[at]
    elif how == "swap":
        other = chance.choice([i for i in range(N) if i != at])
        lines[at], lines[other] = lines[other], lines[at]
    elif how == "edit":
        place = chance.randrange(len(lines[at]) - 1)
        byte = bytes([lines[at][place] ^ (1 << chance.randrange(7))])
        lines[at] = lines[at][:place] + byte + lines[at][place + 1 :]
    elif how == "repeat":
        lines.insert(chance.randrange(at + 1, N), lines[at])
    elif how == "rewrite":
        lines = rewritten(lines, at, lambda r: r | {"identity": "user/b"})
    else:
        lines = lines[:at]
    assert not judged(lines, [ANCHORS[-1]]).ok, how


@given(st.lists(st.binary(max_size=200), max_size=20))
def test_garbage_is_judged_and_never_crashes(lines):
    verifier = Verifier([Anchor(3, "0" * 64)])
    for line in lines:
        verifier.take(line)
    assert not verifier.finish().ok
