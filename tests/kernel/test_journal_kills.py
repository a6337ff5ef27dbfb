"""A daemon is killed before and after every step and every fsync of every change there is.

What ip(8), nft(8) and the files show afterwards is what was there before or what was asked for; the
same request id then never does anything twice, and is answered what happened. The same places again
with a caller that leaves instead of a kill. A few points of each change are tried, chosen evenly;
HOSTLER_SOAK=1 tries all.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from journal_rows import (
    BUNDLE,
    COMMON,
    DEPLOYMENTS,
    OF_THE_SIGNER,
    OF_THE_WORKER,
    ON_HOSTS,
    RECORDS,
    ROWS,
    TRACES,
    Row,
    ask,
    begin,
    change_methods,
)
from journal_stage import Place, chain_is_whole, eventually, opened

from hostler.api.common.v1 import change_pb2, host_pb2

pytestmark = [pytest.mark.kernel, pytest.mark.soak, pytest.mark.timeout(3600)]

SOAK = os.environ.get("HOSTLER_SOAK") == "1"
KILLS, LEAVES = 5, 3
STRACE = "/usr/bin/strace"
DOMAINS = ("netns", "firewall", "tracing")
NAMES = [row.name for row in ROWS]


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Place]]:
    with opened(tmp_path_factory.mktemp("stage"), *DOMAINS) as places:
        yield places


def test_every_change_has_its_row() -> None:
    named = {row.method for row in (*ROWS, BUNDLE)} | ON_HOSTS | RECORDS | TRACES
    named |= OF_THE_SIGNER | OF_THE_WORKER | DEPLOYMENTS
    assert named == set(change_methods())


def chosen(count: int, most: int) -> list[int]:
    """All numbers from 1 to `count`, or at most so many of them, evenly, the last included."""
    if SOAK or count <= most:
        return list(range(1, count + 1))
    return sorted({1 + round(i * (count - 1) / (most - 1)) for i in range(most)})


class Trial:
    """One change at one place: from the state before it to the state that is found."""

    def __init__(self, place: Place, row: Row) -> None:
        self.place, self.row = place, row
        place.arm("")
        place.start()
        row.before(place)
        self.old = row.witness(place)
        self.request = row.request(place)
        self.request.change.request_id = str(uuid.uuid4())
        self.since = len(place.audit())

    def ask(self) -> change_pb2.Change | None:
        """Make the request; None if no answer came."""
        try:
            answer: change_pb2.Change = ask(self.place, self.row.method, self.request).change
            return answer
        except grpc.RpcError as e:
            assert e.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED), e
            return None

    def records(self) -> list[dict[str, Any]]:
        """What the audit log says of it."""
        method = f"/{self.row.method}"
        return [r for r in self.place.audit()[self.since :] if r.get("method") == method]

    def has_outcome(self) -> bool:
        """Whether the audit log tells how it ended."""
        return any(r["kind"] == "outcome" for r in self.records())

    def is_over(self) -> bool:
        """Whether nothing more is written about it."""
        return self.has_outcome() and not self.place.journals()

    def times_applied(self) -> int:
        """How many requests were carried out to their end, by the audit log."""
        told = [r for r in self.records() if r.get("outcome") == "OUTCOME_APPLIED"]
        return len({r["intent_seq"] for r in told if r["steps"] or r["kind"] == "recovery"})


def disturbed(place: Place, row: Row) -> tuple[Any, list[str]]:
    """What the change brings about, and its points."""
    trial = Trial(place, row)
    place.arm("count")
    answer = trial.ask()
    # The journal goes after the answer.
    eventually(lambda: not place.journals())
    points = place.seen()
    place.arm("")
    assert answer is not None
    assert answer.outcome == change_pb2.OUTCOME_APPLIED
    new = row.witness(place)
    assert new != trial.old
    assert len(points) >= row.points, points
    return new, points


@pytest.mark.parametrize("name", ["create-persistent", "rules"])
def test_strace_sees_no_other_fsync(places: dict[str, Place], name: str) -> None:
    """The points are all that there are: the kernel is not asked behind their back."""
    (row,) = [row for row in ROWS if row.name == name]
    place = places[row.domain]
    trial = Trial(place, row)
    place.arm("count")
    log = place.folder / "strace"
    with traced(place, log):
        assert trial.ask() is not None
        eventually(lambda: not place.journals())
    points = place.seen()
    place.arm("")
    calls = [line for line in log.read_text().splitlines() if "sync(" in line]
    assert len(calls) == sum(point in ("before fsync", "before fdatasync") for point in points)
    assert len(calls) > 10


@contextmanager
def traced(place: Place, log: Path) -> Iterator[None]:
    """Write every fsync and fdatasync of the daemon and its children into a file."""
    assert place.process is not None
    argv = [STRACE, "-f", "-e", "trace=fsync,fdatasync", "-o", str(log), "-p"]
    with subprocess.Popen([*argv, str(place.process.pid)], stderr=subprocess.PIPE) as tracer:
        assert tracer.stderr is not None
        assert b"attached" in tracer.stderr.readline()
        try:
            yield
        finally:
            tracer.send_signal(signal.SIGINT)
            tracer.wait(20)


@pytest.mark.parametrize("row", ROWS, ids=NAMES)
def test_killed_at_every_point_it_is_old_or_new(places: dict[str, Place], row: Row) -> None:
    place = places[row.domain]
    new, points = disturbed(place, row)
    seen = set()
    for number in chosen(len(points), KILLS):
        seen.add(kill_at(place, row, number, new, points[number - 1]))
    chain_is_whole(place)
    # Both came true: a test in which nothing was ever begun, or all was done, shows nothing.
    assert len(seen) > 1, seen


def kill_at(place: Place, row: Row, number: int, new: Any, name: str) -> str:
    """Kill the daemon at a point, and look; answers what a retry is told."""
    where = f"{row.name}, point {number}: {name}"
    trial = Trial(place, row)
    place.arm(f"kill {number}")
    first = trial.ask()
    if first is not None:
        # Folders that are made once, and records that share one fsync, make fewer points: then the
        # kill comes when all is over.
        eventually(lambda: not place.lives() or not place.journals())
        place.kill()
    assert place.wait() == -9, where
    place.arm("")
    place.start()
    # The first call after the kill sees no half: recovery was before it.
    get_host(place)
    found = row.witness(place)
    assert found in (trial.old, new), difference(where, found, trial.old, new)
    assert place.journals() == [], where
    if first is not None:
        assert found == new, f"{where}: acknowledged and lost"
    told = trial.ask()
    assert told is not None, where
    after = row.witness(place)
    word = change_pb2.Outcome.Name(told.outcome)
    assert after == (trial.old if word == "OUTCOME_INTERRUPTED" else new), (where, word)
    if found == new:
        assert word == "OUTCOME_APPLIED", (where, word)
    # Done again without need, it would say that nothing had to be changed.
    assert told.changed == (word == "OUTCOME_APPLIED"), where
    if word == "OUTCOME_INTERRUPTED":
        (record,) = [r for r in trial.records() if r["kind"] == "recovery"]
        assert record["outcome"] == word, where
    # And once more: answered the same, and nothing done.
    again = trial.ask()
    assert again is not None
    assert (again.outcome, again.changed) == (told.outcome, told.changed), where
    assert row.witness(place) == after, where
    assert trial.times_applied() == (word == "OUTCOME_APPLIED"), (where, trial.records())
    return f"{word} {found == new}"


def difference(where: str, found: Any, old: Any, new: Any) -> str:
    told = {"found": found, "old": old, "new": new}
    return f"{where}: neither old nor new: {json.dumps(told, indent=1)}"


def get_host(place: Place) -> None:
    ask(place, f"{COMMON}.HostService/GetHost", host_pb2.GetHostRequest())


@pytest.mark.parametrize("row", ROWS, ids=NAMES)
def test_left_at_every_point_it_is_done_as_a_whole(places: dict[str, Place], row: Row) -> None:
    place = places[row.domain]
    new, points = disturbed(place, row)
    numbers, left = chosen(len(points), LEAVES), 0
    for number in numbers:
        where = f"{row.name}, point {number}: {points[number - 1]}"
        trial = Trial(place, row)
        place.arm(f"pause {number}")
        with place.channel() as channel:
            call = begin(place, channel, row.method, trial.request)
            # Folders that are made once, and records that share one fsync, make fewer points: then
            # all is over before the last.
            eventually(lambda trial=trial: is_reached(place) or trial.is_over())
            left += is_reached(place)
            call.cancel()
        (place.points / "go").touch()
        eventually(lambda trial=trial: trial.has_outcome())
        eventually(lambda: not place.journals())
        assert row.witness(place) == new, where
        told = trial.ask()
        assert told is not None
        assert (told.outcome, told.changed) == (change_pb2.OUTCOME_APPLIED, True), where
        assert trial.times_applied() == 1, where
    chain_is_whole(place)
    assert left > len(numbers) // 2


def is_reached(place: Place) -> bool:
    return (place.points / "reached").exists()


def test_a_pushed_bundle_is_in_force_or_not(places: dict[str, Place]) -> None:
    place, row = places["netns"], BUNDLE
    place.authority.grant("carol", "viewers")
    _, points = disturbed(place, row)
    seen = set()
    for number in chosen(len(points), KILLS):
        before = row.witness(place)
        # Versions only go up: each time it is another bundle.
        place.authority.grant(f"user{number}", "viewers")
        seen.add(kill_at(place, row, number, before + 1, points[number - 1]))
        place.arm("")
        place.start()
        ask(place, row.method, row.request(place))
        assert row.witness(place) == before + 1
    chain_is_whole(place)
    assert seen
