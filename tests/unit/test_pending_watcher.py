"""The watcher: what hostile files, failures and kills of its own make of a group."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from pending_host import ALICE, PendingHost, new_group, put_raw, until

from hostlerd.pending import place as files
from hostlerd.pending import taking_back, units
from hostlerd.pending.asking import is_pending
from hostlerd.pending.asking import revert as ask_for_revert
from hostlerd.pending.documents import (
    KEEP,
    Answer,
    Armed,
    Entry,
    Group,
    Malformed,
    Marks,
    Part,
    encode,
)
from hostlerd.pending.place import Place
from hostlerd.pending.watcher import Watcher

SECOND = 10**9


class Domains:
    """Domains whose processes do as they are told, or fail as often as the test says."""

    def __init__(self, place: Place, doors: tuple[str, ...] = ("netns", "firewall")) -> None:
        self.place = place
        self.group = new_group()
        self.calls: list[tuple[str, int, bool]] = []
        self.failing: dict[str, int] = {}
        for top in (place.state, place.run, place.doors):
            top.mkdir(parents=True, exist_ok=True)
        for domain in ("netns", "firewall"):
            (place.state / domain).mkdir()
            (place.run / domain).mkdir()
        for door in doors:
            os.mknod(place.doors / f"{door}.sock", 0o140600)

    def part(self, domain: str, *orders: int, within_s: float = 30.0, group: str = "") -> Part:
        """Put a part in place, its changes complete since their order."""
        entries = tuple(Entry(f"{domain}{o}", o, "m", "0" * 64) for o in orders)
        now = files.boottime_ns()
        part = Part(
            group or self.group,
            ALICE,
            files.boot_id(),
            int(time.time()),
            now + int(within_s * SECOND),
            int(time.time() + within_s),
            os.urandom(16).hex(),
            entries,
        )
        files.write(self.place.part(domain), part, durable=True)
        marks = Marks(part.group, {e.change: e.order_ns for e in entries})
        files.write(self.place.applied(domain), marks, durable=False)
        return part

    def say(self, domain: str, answer: str = KEEP, connected_ns: int = 1 << 60) -> None:
        said = Answer(self.group, answer, connected_ns, files.boottime_ns())
        files.write(self.place.answer(domain), said, durable=False)

    def start(self, domain: str) -> None:
        armed = files.read(Armed, self.place.armed)
        assert armed is not None
        turn = armed.turn
        if turn is None:
            assert self.place.kept.exists()
            self.place.part(domain).unlink()
            self.calls.append((domain, -1, False))
            return
        self.calls.append((turn.domain, turn.from_ns, turn.last))
        if self.failing.get(domain, 0):
            self.failing[domain] -= 1
            return
        try:
            part = files.read(Part, self.place.part(domain))
        except Malformed:
            part = None
        left = tuple(e for e in part.entries if e.order_ns < turn.from_ns) if part else ()
        if part is not None and left:
            files.write(self.place.part(domain), replace(part, entries=left), durable=True)
        else:
            self.place.part(domain).unlink()

    def ended(self) -> list[tuple[str, str]]:
        from hostlerd.runtime.standing import history

        return [(e.outcome, e.reason) for e in history(self.place)]


@pytest.fixture
def domains(tmp_path: Path) -> Domains:
    return Domains(Place(tmp_path / "state", tmp_path / "run", tmp_path / "doors"))


@pytest.fixture(params=["one watcher", "killed after every look"])
def watch(request: pytest.FixtureRequest, domains: Domains) -> Callable[[], bool]:
    """One look of the watcher: always the same, or a new one that knows only the files."""
    if request.param == "one watcher":
        return Watcher(domains.place, domains.start).look
    return lambda: Watcher(domains.place, domains.start).look()


def to_the_end(look: Callable[[], bool], timeout_s: float = 20.0) -> None:
    end = time.monotonic() + timeout_s
    while look():
        assert time.monotonic() < end, "the watcher does not come to an end"
        time.sleep(0.005)


def test_it_answers_before_anything_is_changed(domains: Domains, watch: Callable[[], bool]) -> None:
    part = domains.part("netns", 5)
    while domains.place.armed.exists() is False:
        assert watch()
    armed = files.read(Armed, domains.place.armed)
    assert armed == Armed(domains.group, {"netns": part.token})
    group = files.read(Group, domains.place.group)
    assert group is not None
    assert (group.group, group.identity, group.doors) == (
        domains.group,
        ALICE,
        ("netns", "firewall"),
    )


def test_newest_first_over_all_domains(domains: Domains, watch: Callable[[], bool]) -> None:
    domains.part("netns", 10, 30, 31, within_s=0.2)
    domains.part("firewall", 20, within_s=0.2)
    to_the_end(watch)
    assert domains.calls == [("netns", 21, False), ("firewall", 11, False), ("netns", 0, False)]
    assert domains.ended() == [("reverted", "deadline")]
    assert not is_pending(domains.place)
    assert not domains.place.armed.exists()


def test_kept_once_all_have_confirmed(domains: Domains, watch: Callable[[], bool]) -> None:
    domains.part("netns", 10)
    watch()
    domains.say("netns")
    for _ in range(3):
        watch()
    assert domains.place.group.exists()
    domains.say("firewall")
    to_the_end(watch)
    assert domains.calls == [("netns", -1, False)]
    assert domains.ended() == [("kept", "confirmed")]


def test_said_in_time_counts_however_late_it_is_read(domains: Domains) -> None:
    """The watcher was away while the deadline passed."""
    look = Watcher(domains.place, domains.start).look
    domains.part("netns", 10, within_s=0.3)
    look()
    domains.say("netns")
    domains.say("firewall")
    time.sleep(0.4)
    to_the_end(look)
    assert domains.ended() == [("kept", "confirmed")]


@pytest.mark.parametrize("late", ["said", "connected", "unfinished"])
def test_what_does_not_count_keeps_nothing(
    domains: Domains, watch: Callable[[], bool], late: str
) -> None:
    part = domains.part("netns", 10, within_s=0.3)
    watch()
    if late == "unfinished":
        domains.place.applied("netns").unlink()
    if late == "said":
        time.sleep(0.35)
    for door in ("netns", "firewall"):
        domains.say(door, connected_ns=10 if late == "connected" else 1 << 60)
    assert part.deadline_ns
    to_the_end(watch)
    assert domains.ended() == [("reverted", "deadline")]


def test_any_door_can_have_it_taken_back(domains: Domains, watch: Callable[[], bool]) -> None:
    domains.part("netns", 10)
    watch()
    domains.say("netns")
    domains.say("firewall", "revert")
    to_the_end(watch)
    assert domains.ended() == [("reverted", "asked for")]


def test_root_can_have_it_taken_back(domains: Domains) -> None:
    """What the removal of hostler-common does."""
    import threading

    ask_for_revert(domains.place, 1)
    assert not domains.place.asked.exists()
    domains.part("netns", 10)
    with pytest.raises(SystemExit):
        ask_for_revert(domains.place, 0.2)
    thread = threading.Thread(target=Watcher(domains.place, domains.start).run)
    thread.start()
    ask_for_revert(domains.place, 10)
    thread.join(10)
    assert domains.ended() == [("reverted", "asked for")]
    assert not domains.place.asked.exists()


def test_another_boot_takes_back_even_what_was_confirmed(
    domains: Domains, watch: Callable[[], bool]
) -> None:
    part = domains.part("netns", 10)
    other = replace(part, boot_id="00000000-0000-4000-8000-000000000000")
    files.write(domains.place.part("netns"), other, durable=True)
    domains.say("netns")
    domains.say("firewall")
    to_the_end(watch)
    assert domains.ended() == [("reverted", "boot")]


def test_a_group_of_another_boot_is_never_kept(domains: Domains) -> None:
    """Confirmed at every door, and the power was cut before that was decided."""
    look = Watcher(domains.place, domains.start).look
    domains.part("netns", 10)
    look()
    other = "00000000-0000-4000-8000-000000000000"
    for path in domains.place.state.rglob("*.json"):
        path.write_text(path.read_text().replace(files.boot_id(), other))
    domains.say("netns")
    domains.say("firewall")
    to_the_end(look)
    assert domains.ended() == [("reverted", "boot")]


def test_history_that_cannot_be_written_goes_to_memory(domains: Domains) -> None:
    domains.place.ended[0].mkdir()
    for n in range(3):
        domains.group = new_group()
        domains.part("netns", 10 + n, within_s=0.1)
        to_the_end(Watcher(domains.place, domains.start).look)
    assert domains.ended() == [("reverted", "deadline")] * 3
    domains.place.ended[0].rmdir()
    domains.group = new_group()
    domains.part("netns", 20, within_s=0.1)
    to_the_end(Watcher(domains.place, domains.start).look)
    assert len(domains.ended()) == 4 and not domains.place.ended[1].exists()


def test_who_fails_keeps_nobody_back(domains: Domains, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(taking_back, "_PAUSE_S", 0.02)
    domains.part("netns", 30, within_s=0.1)
    domains.part("firewall", 20, within_s=0.1)
    domains.failing["netns"] = 2
    to_the_end(Watcher(domains.place, domains.start).look)
    # netns would be first, fails, and firewall goes on meanwhile.
    assert [d for d, _, _ in domains.calls] == ["netns", "firewall", "netns", "netns"]
    assert domains.ended() == [("reverted", "deadline")]


def test_who_never_succeeds_is_told_and_given_up(
    domains: Domains, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(taking_back, "_PAUSE_S", 0.01)
    domains.part("netns", 30, within_s=0.1)
    domains.part("firewall", 20, within_s=0.1)
    domains.failing["netns"] = 1000
    watcher = Watcher(domains.place, domains.start)
    to_the_end(watcher.look)
    assert [last for d, _, last in domains.calls if d == "netns"] == [False] * 4 + [True]
    assert domains.ended() == [("unknown", "deadline; netns: not taken back")]
    assert domains.place.part("netns").exists() and not domains.place.part("firewall").exists()
    # It holds up nobody: the next group is opened as ever.
    domains.group = new_group()
    domains.part("firewall", 40)
    until(watcher.look)
    watcher.look()
    assert files.read(Group, domains.place.group) is not None


HOSTILE: dict[str, Callable[[Path], None]] = {
    "garbage": lambda path: put_raw(path, b"\0" * 1000),
    "nested": lambda path: put_raw(path, b"[" * 200_000),
    "huge": lambda path: put_raw(path, b" " * (8 << 20)),
    "fifo": lambda path: os.mkfifo(path),
    "link": lambda path: path.symlink_to("/etc/shadow"),
    "dangling": lambda path: path.symlink_to("/nonexistent/x"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_part_that_cannot_be_read_is_taken_back(
    domains: Domains, watch: Callable[[], bool], kind: str
) -> None:
    HOSTILE[kind](domains.place.part("netns"))
    to_the_end(watch)
    assert {d for d, _, _ in domains.calls} == {"netns"}
    assert domains.ended() == [("reverted", "the part of netns is not readable")]


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hijacked_daemon_cannot_touch_anothers_group(domains: Domains, kind: str) -> None:
    """Garbage beside a group, and answers in the other's name, keep and revert nothing of it."""
    watcher = Watcher(domains.place, domains.start)
    domains.part("firewall", 20)
    watcher.look()
    watcher.look()
    HOSTILE[kind](domains.place.part("netns"))
    HOSTILE[kind](domains.place.applied("netns"))
    HOSTILE[kind](domains.place.undone("netns"))
    domains.say("netns")
    for _ in range(5):
        watcher.look()
    assert domains.place.group.exists() and domains.calls == []
    armed = files.read(Armed, domains.place.armed)
    assert armed is not None and list(armed.seen) == ["firewall"]
    # What cannot be read might be a change of the group, so nothing stays by it either.
    domains.say("firewall")
    watcher.look()
    assert not domains.place.kept.exists() and domains.calls == []
    for path in (domains.place.part, domains.place.applied, domains.place.undone):
        path("netns").unlink()
    watcher.look()
    assert domains.place.kept.exists()


def test_what_a_daemon_says_of_doors_and_deadlines_is_not_believed(
    domains: Domains, watch: Callable[[], bool]
) -> None:
    domains.part("netns", 10, within_s=7200)
    to_the_end(watch)
    assert domains.ended() == [("reverted", "the deadline of netns is too far away")]


def test_a_second_group_waits_for_the_first(domains: Domains, watch: Callable[[], bool]) -> None:
    domains.part("netns", 10)
    watch()
    watch()
    domains.part("firewall", 20, group=new_group())
    for _ in range(3):
        watch()
    armed = files.read(Armed, domains.place.armed)
    assert armed is not None and list(armed.seen) == ["netns"] and domains.calls == []


def test_a_withdrawn_change_is_no_group(domains: Domains, watch: Callable[[], bool]) -> None:
    domains.part("netns", 10)
    watch()
    domains.place.part("netns").unlink()
    to_the_end(watch)
    assert domains.ended() == [] and not is_pending(domains.place)


def test_a_part_taken_back_in_pieces_is_known_to_be(domains: Domains) -> None:
    """Killed in the middle of its turn: what was undone is not asked for again."""
    domains.part("netns", 10, 30, within_s=0.1)
    domains.part("firewall", 20, within_s=0.1)
    files.write(domains.place.undone("netns"), Marks(domains.group, {"netns30": 40}), durable=False)
    to_the_end(Watcher(domains.place, domains.start).look)
    assert [d for d, _, _ in domains.calls] == ["firewall", "netns"]


def test_no_unit_but_those_of_the_domains() -> None:
    for name in ("../x", "netns.service x", "ssh", ""):
        with pytest.raises(ValueError, match="domain"):
            units.start(name)


def test_a_broken_group_file_is_made_again(domains: Domains) -> None:
    domains.part("netns", 10, within_s=0.3)
    watcher = Watcher(domains.place, domains.start)
    watcher.look()
    domains.place.group.write_bytes(b"\0" * 100)
    to_the_end(watcher.look)
    assert [d for d, _, _ in domains.calls] == ["netns"]
    assert domains.ended() == [("reverted", "deadline")]
    assert not is_pending(domains.place)


def test_daemons_and_watcher_agree(tmp_path: Path) -> None:
    """The whole of it, the watcher being another object at every look."""
    host = PendingHost(tmp_path)
    assert encode(Armed(new_group()))
    with host:
        group = new_group()
        host.netns.put("n", group, 1.0)
        host.settled()
        assert host.netns.state() == {}
