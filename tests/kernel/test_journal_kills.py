"""A daemon is killed before and after every step and every fsync of every change there is.

What ip(8), nft(8) and the files show afterwards is what was there before or what was asked for; the
same request id then never does anything twice, and is answered what happened. The same places again
with a caller that leaves instead of a kill. A few points of each change are tried, chosen evenly;
HOSTLER_SOAK=1 tries all.
"""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from journal_rows import (
    BUNDLE,
    DEPLOYMENTS,
    NEVER_CARRIED_OUT,
    OF_THE_COPIER,
    OF_THE_SIGNER,
    ON_HOSTS,
    RECORDS,
    ROWS,
    TRACES,
    Row,
    ask,
    change_methods,
)
from journal_stage import Place, chain_is_whole, eventually, opened
from journal_trial import Trial, chosen, disturbed, kill_at, leave_at
from storage_changes import GUEST_ROWS, STORAGE_ROWS

pytestmark = [pytest.mark.kernel, pytest.mark.soak, pytest.mark.timeout(3600)]

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
    named |= OF_THE_SIGNER | OF_THE_COPIER | DEPLOYMENTS
    # These have tests of their own, with the worker: test_journal_kills_storage.py, and in a guest,
    # which has md, LVM and LIO, tests/vm/test_vm_storage_kills.py.
    in_guests = [row for rows in GUEST_ROWS.values() for row in rows]
    named |= {row.method for row in (*STORAGE_ROWS, *in_guests)}
    assert not named & set(NEVER_CARRIED_OUT)
    assert named | set(NEVER_CARRIED_OUT) == set(change_methods())


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


@pytest.mark.parametrize("row", ROWS, ids=NAMES)
def test_left_at_every_point_it_is_done_as_a_whole(places: dict[str, Place], row: Row) -> None:
    place = places[row.domain]
    new, points = disturbed(place, row)
    numbers = chosen(len(points), LEAVES)
    left = sum(leave_at(place, row, number, new, points[number - 1]) for number in numbers)
    chain_is_whole(place)
    assert left > len(numbers) // 2


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
