"""What a client remembers of the logs it has verified, and which anchors it compares with."""

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import click
import pytest

from hostler.cli.audit_doors import Moment
from hostler.core.audit import Anchor
from hostler.replay import Event, Told, in_order
from hostler.results import HostResult
from hostler.verify import AnchorsUnusable, Heads, from_file


def test_ends_are_remembered_by_context_host_and_domain(tmp_path):
    path = tmp_path / "state/heads.json"
    heads = Heads("lab", path)
    assert heads.seen("h1", "netns").heads == ()
    heads.remember("h1", "netns", Anchor(5, "a"))
    heads.remember("h1", "netns", Anchor(5, "a"))
    heads.remember("h1", "netns", Anchor(9, "b"))
    assert Heads("lab", path).seen("h1", "netns").heads == (Anchor(5, "a"), Anchor(9, "b"))
    assert heads.seen("h1", "firewall").heads == ()
    assert Heads("other", path).seen("h1", "netns").heads == ()


def test_what_is_forgotten_counts_from_then_on(tmp_path):
    heads = Heads("lab", tmp_path / "heads.json")
    heads.remember("h1", "netns", Anchor(5, "a"))
    before = datetime.now(UTC)
    heads.forget("h1", "netns")
    seen = heads.seen("h1", "netns")
    assert seen.heads == () and seen.since >= before.isoformat()
    heads.remember("h1", "netns", Anchor(1, "c"))
    assert heads.seen("h1", "netns").heads == (Anchor(1, "c"),)


def test_many_at_once_lose_nothing_and_the_file_stays_small(tmp_path):
    heads = Heads("lab", tmp_path / "heads.json")

    def one(number):
        heads.remember(f"h{number % 10}", "netns", Anchor(number, "x"))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(one, range(200)))
    assert all(len(heads.seen(f"h{n}", "netns").heads) == 20 for n in range(10))
    for number in range(1000, 1300):
        heads.remember("h1", "netns", Anchor(number, "y"))
    kept = [anchor.seq for anchor in heads.seen("h1", "netns").heads]
    assert len(kept) == 100 and kept[-1] == 1299 and min(kept) < 200


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"[\\"lab\\", \\"h1\\", \\"netns\\"]": {"heads": 1}}']
)
def test_a_broken_file_is_told_not_taken_for_nothing(tmp_path, text):
    (tmp_path / "heads.json").write_text(text)
    with pytest.raises(AnchorsUnusable):
        Heads("lab", tmp_path / "heads.json").seen("h1", "netns")


def test_anchors_come_from_a_file_too(tmp_path):
    path = tmp_path / "anchors.json"
    path.write_text(json.dumps([{"host": "h1", "domain": "netns", "seq": 3, "head": "x"}]))
    assert from_file(path) == {("h1", "netns"): [Anchor(3, "x")]}
    path.write_text("[1]")
    with pytest.raises(AnchorsUnusable):
        from_file(path)


def test_a_clock_that_was_set_back_does_not_turn_a_log_around():
    start = datetime(2026, 1, 1, tzinfo=UTC)

    def told(host, *offsets):
        events = (Event(start + timedelta(seconds=s), host, "netns", s) for s in offsets)
        return HostResult(host, Told(tuple(events), 0.0), None, "netns")

    events = in_order([told("h1", 0, 5, -1_700_000_000, 8), told("h2", 2, 6)])
    assert [(e.host, e.record) for e in events] == [
        ("h1", 0),
        ("h2", 2),
        ("h1", 5),
        ("h1", -1_700_000_000),
        ("h2", 6),
        ("h1", 8),
    ]


def test_times_are_read_as_people_write_them():
    kind = Moment()
    now = datetime.now(UTC)
    assert abs((now - kind.convert("2h", None, None)).total_seconds() - 7200) < 5
    assert kind.convert("2026-11-01", None, None) == datetime(2026, 11, 1, tzinfo=UTC)
    there = kind.convert("2026-11-01T12:00:00+02:00", None, None)
    assert there == datetime(2026, 11, 1, 10, tzinfo=UTC)
    for text in ("", "2x", "yesterday", "999999999d", "2026-13-01"):
        with pytest.raises(click.BadParameter):
            kind.convert(text, None, None)
