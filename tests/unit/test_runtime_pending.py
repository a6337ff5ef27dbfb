"""Commit-confirm: changes of two domains that stay only if every door was confirmed."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextvars import copy_context
from dataclasses import replace
from pathlib import Path

import pytest
from journal_files import Burn, Put
from pending_host import ALICE, BOB, PendingHost, call_of, new_group, until

from hostler.api.common.v1 import change_pb2
from hostlerd.pending import place as files
from hostlerd.pending.documents import MAX_BYTES, MAX_ENTRIES, Part, encode
from hostlerd.pending.place import Place
from hostlerd.runtime import call as call_context
from hostlerd.runtime import standing
from hostlerd.runtime.errors import DomainError, InvalidRequest, StepFailed
from hostlerd.runtime.pending_errors import (
    ConfirmNeedsOutside,
    ConfirmNotCounted,
    ConfirmPending,
    ConfirmUnavailable,
    GroupNotPending,
)
from hostlerd.runtime.standing import Stage

LONG_S = 30.0


@pytest.fixture
def host(tmp_path: Path) -> Iterator[PendingHost]:
    with PendingHost(tmp_path) as one:
        yield one


def opened(host: PendingHost, within_s: float = LONG_S) -> str:
    """A group with a change in each domain, over a change that was made before it."""
    host.netns.put("before", "")
    group = new_group()
    answer = host.netns.put("n", group, within_s)
    assert answer.outcome == change_pb2.OUTCOME_PENDING_CONFIRM
    assert answer.pending.group == group
    assert list(answer.pending.doors) == ["netns", "firewall"]
    assert 0 < answer.pending.remaining.ToNanoseconds() <= within_s * 1e9
    joined = host.firewall.put("f", group)
    assert joined.outcome == change_pb2.OUTCOME_PENDING_CONFIRM
    return group


BEFORE = {"netns": {"before": "new"}, "firewall": {}}
AFTER = {"netns": {"before": "new", "n": "new"}, "firewall": {"f": "new"}}


def test_unconfirmed_all_is_taken_back_at_the_deadline(host: PendingHost) -> None:
    started = time.monotonic()
    group = opened(host, 1.5)
    assert host.state() == AFTER
    host.settled()
    assert 1.4 < time.monotonic() - started < 4
    assert host.state() == BEFORE
    # The newest change first.
    assert host.started == ["firewall", "netns"]
    assert host.ended() == [("reverted", "deadline")]
    assert "revert" in host.netns.kinds()
    with pytest.raises(GroupNotPending) as caught:
        host.netns.confirm(group)
    assert caught.value.metadata["outcome"] == "reverted"


def test_confirmed_at_every_door_all_stays(host: PendingHost) -> None:
    group = opened(host, 2.0)
    first = host.netns.confirm(group)
    assert first is not None and first.confirmed == ("netns",)
    assert host.firewall.confirm(group) is None
    # Once more is no error, at either door.
    assert host.netns.confirm(group) is None
    host.settled()
    time.sleep(2)
    assert host.state() == AFTER
    assert host.ended() == [("kept", "confirmed")]
    assert not list((host.root / "netns" / "state" / "journal").iterdir())


def test_one_door_is_not_enough(host: PendingHost) -> None:
    group = opened(host, 1.5)
    assert host.netns.confirm(group) is not None
    host.settled()
    assert host.state() == BEFORE


def test_a_door_without_a_part_is_asked_too(host: PendingHost) -> None:
    group = new_group()
    host.netns.put("n", group, 1.5)
    assert host.netns.confirm(group) is not None
    host.settled()
    assert host.netns.state() == {}
    group = new_group()
    host.netns.put("n", group, LONG_S)
    assert host.netns.confirm(group) is not None
    assert host.firewall.confirm(group) is None
    host.settled()
    assert host.netns.state() == {"n": "new"}


@pytest.mark.parametrize(
    ("why", "by", "outside"),
    [("identity", BOB, True), ("local", "local/root", False), ("own_address", ALICE, False)],
)
def test_who_proves_nothing_is_not_counted(
    host: PendingHost, why: str, by: str, outside: bool
) -> None:
    group = opened(host)
    call = call_of(by, outside=outside)
    if why == "local":
        # The very identity, as if a policy gave it to root: still from the host itself.
        call = call_of(ALICE, outside=False)
        object.__setattr__(call.caller, "local", True)
    with pytest.raises(ConfirmNotCounted) as caught:
        host.netns.confirm(group, call)
    assert caught.value.metadata["why"] == why
    standing = host.netns.pending.standing()
    assert standing.confirmed == () and standing.stage is Stage.WAITING


def test_an_older_connection_is_not_counted(host: PendingHost) -> None:
    at = time.monotonic()
    group = opened(host)
    with pytest.raises(ConfirmNotCounted) as caught:
        host.netns.confirm(group, call_of(ALICE, connected_at=at))
    assert caught.value.metadata["why"] == "old_connection"


def test_a_change_after_a_confirmation_voids_it(host: PendingHost) -> None:
    group = opened(host, LONG_S)
    host.netns.confirm(group)
    host.firewall.put("g", group)
    until(lambda: host.netns.pending.standing().confirmed == ())
    assert host.firewall.confirm(group) is not None
    assert host.netns.confirm(group) is None


def test_other_changes_are_refused_and_disarm_nothing(host: PendingHost) -> None:
    group = opened(host, 2.0)
    for domain in host.domains.values():
        for options in ({"group": ""}, {"group": new_group(), "within_s": 9.0}):
            with pytest.raises(ConfirmPending) as caught:
                domain.put("x", **options)
            assert caught.value.metadata["group"] == group
            assert caught.value.metadata["identity"] == ALICE
    # Nobody else's, nor a change made on the host itself.
    with pytest.raises(ConfirmPending):
        host.netns.put("x", group, by=BOB)
    with pytest.raises(ConfirmNeedsOutside):
        host.netns.put("x", group, outside=False)
    host.settled()
    assert host.state() == BEFORE


def test_dry_runs_and_faulty_requests_disarm_nothing(host: PendingHost) -> None:
    group = opened(host, 2.0)
    host.netns.put("x", group, LONG_S, validate_only=True)
    for faulty, within_s in (("no-uuid", 0.0), (group, 0.5), (group, 3601.0), (group.upper(), 9.0)):
        with pytest.raises(InvalidRequest):
            host.netns.put("x", faulty, within_s)
    with pytest.raises(DomainError):
        host.netns.change((Burn("before"),), group)
    # A step that fails is undone, and its change is not in the group.
    with pytest.raises(StepFailed):
        host.netns.change((Put("y", "1"), Put("n", "1")), group)
    host.settled()
    assert host.state() == BEFORE
    assert host.ended() == [("reverted", "deadline")]


def test_joining_extends_no_deadline(host: PendingHost) -> None:
    group = opened(host, 1.5)
    before = host.netns.pending.standing().remaining_ns
    host.firewall.put("g", group, LONG_S)
    assert host.netns.pending.standing().remaining_ns < before
    host.settled(4)
    assert host.state() == BEFORE


def test_a_failed_change_alone_leaves_no_group(host: PendingHost) -> None:
    host.netns.put("n", "")
    with pytest.raises(StepFailed):
        host.netns.change((Put("m", "1"), Put("n", "1")), new_group(), LONG_S)
    host.settled(5)
    assert host.ended() == []
    host.netns.put("free", "")


def test_names_of_groups_are_not_used_again(host: PendingHost) -> None:
    group = new_group()
    with pytest.raises(GroupNotPending):
        host.netns.put("n", group)
    host.netns.put("n", group, 1.0)
    host.settled()
    for within_s in (0.0, 9.0):
        with pytest.raises(GroupNotPending) as caught:
            host.netns.put("n", group, within_s)
        assert caught.value.metadata["outcome"] == "reverted"
    assert host.netns.state() == {}


def test_revert_takes_back_at_once_and_waits(host: PendingHost) -> None:
    group = opened(host)
    ended = host.firewall.door.revert("")
    assert (ended.group, ended.outcome, ended.reason) == (group, "reverted", "asked for")
    assert host.state() == BEFORE
    # Until the watcher is through, the group that has ended is the answer.
    host.settled()
    with pytest.raises(GroupNotPending):
        host.netns.door.revert("")
    with pytest.raises(GroupNotPending):
        host.netns.confirm(group)


def test_interleaved_changes_go_back_newest_first(host: PendingHost) -> None:
    group = new_group()
    host.netns.put("a", group, LONG_S)
    host.firewall.put("b", group)
    host.netns.change((Put("a", "newer", "new"),), group)
    host.netns.door.revert(group)
    assert host.started == ["netns", "firewall", "netns"]
    assert host.state() == {"netns": {}, "firewall": {}}


def test_a_full_group_can_still_be_read(host: PendingHost) -> None:
    """As many changes as it takes, with more words than fit, and then no more."""
    group = new_group()
    many = [Put(f"{n:03}" + "\u00e4" * 80, "") for n in range(50)]
    host.netns.change(many, group, LONG_S)
    part = files.read(Part, host.place.part("netns"))
    assert part is not None
    crowd = tuple(replace(part.entries[0], change=f"{n}") for n in range(MAX_ENTRIES - 2))
    assert len(encode(replace(part, entries=crowd))) > MAX_BYTES
    for n in range(1, MAX_ENTRIES):
        host.netns.change([Put(f"{n}-{m}" + "\u00e4" * 80, "") for m in range(6)], group)
    part = files.read(Part, host.place.part("netns"))
    assert part is not None and len(part.entries) == MAX_ENTRIES
    with pytest.raises(ConfirmPending):
        host.netns.put("one more", group)
    host.netns.door.revert(group)
    assert host.netns.state() == {}


def test_without_a_watcher_nothing_is_changed(tmp_path: Path) -> None:
    host = PendingHost(tmp_path)
    with pytest.raises(ConfirmUnavailable):
        host.netns.put("n", new_group(), LONG_S)
    assert host.netns.state() == {}
    assert not host.place.part("netns").exists()
    host.netns.put("n", "")
    for domain in host.domains.values():
        domain.audit.close()


def test_the_slower_of_two_who_open_changes_nothing(host: PendingHost) -> None:
    """Both have looked and seen nothing; the watcher takes on one of them."""
    mine, theirs = new_group(), new_group()
    confirm = change_pb2.ConfirmOptions(group=mine)
    confirm.within.FromSeconds(30)

    def check() -> str:
        call_context.enter(call_of(ALICE))
        return host.netns.pending.check(confirm)

    assert copy_context().run(check) == mine
    host.firewall.put("f", theirs, LONG_S)
    with pytest.raises(ConfirmPending):
        host.netns.put("n", mine, LONG_S)
    assert host.netns.state() == {}
    host.netns.door.revert(theirs)


def test_a_killed_daemon_leaves_what_can_still_be_confirmed(host: PendingHost) -> None:
    """Killed between a change's end and its mark: a start, or the door, finds it complete."""
    group = opened(host)
    host.place.applied("netns").unlink()
    with pytest.raises(ConfirmNotCounted) as caught:
        host.firewall.confirm(group)
    assert caught.value.metadata["why"] == "going_on"
    host.netns.reconcile()
    assert host.firewall.confirm(group) is not None
    assert host.netns.confirm(group) is None


def test_a_decision_in_the_midst_of_a_look_is_seen_whole(
    host: PendingHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the file of the group and what the watcher tells, it decided to keep the group."""
    group = opened(host)
    read_parts = standing._parts

    def confirmed_meanwhile(place: Place) -> dict[str, Part]:
        parts = read_parts(place)
        monkeypatch.undo()
        assert host.netns.confirm(group) is None
        return parts

    assert host.firewall.confirm(group) is not None
    monkeypatch.setattr(standing, "_parts", confirmed_meanwhile)
    seen = standing.look(host.place)
    assert (seen.stage, seen.confirmed) == (Stage.NONE, ())


def test_a_boot_takes_back_and_history_says_so(tmp_path: Path) -> None:
    host = PendingHost(tmp_path)
    with host:
        opened(host)
        part = files.read(Part, host.place.part("netns"))
        assert part is not None
        host._stop.set()
        host._thread.join(10)
        # As the disk is after a boot: files of another one, and nothing in /run.
        other = "00000000-0000-4000-8000-000000000000"
        for path in host.place.state.rglob("*.json"):
            path.write_text(path.read_text().replace(part.boot_id, other))
        for path in host.place.run.rglob("*.json"):
            path.unlink()
        host.netns.taking_back.after_boot(host.netns.audit)
        assert host.netns.state() == BEFORE["netns"]
        assert host.firewall.state() == AFTER["firewall"]
        from hostlerd.pending.watcher import Watcher

        Watcher(host.place, host.start).run()
        assert host.state() == BEFORE
        assert host.ended() == [("reverted", "boot")]
        assert host.started == ["firewall"]
