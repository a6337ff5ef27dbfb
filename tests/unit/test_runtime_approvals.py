"""Approvals on disk: one id for one thing, used once, across restarts, for a while."""

import json
import threading
import time
from dataclasses import replace

import pytest

from hostlerd.runtime.approvals import (
    About,
    ApprovalClosed,
    ApprovalNotFound,
    ApprovalRequired,
    Approvals,
    Approver,
    State,
    TooManyApprovals,
    is_user,
)

ABOUT = About("spiffe://t/user/alice", "/s.S/Wipe", ("sdb",), "ab" * 32, (("Wipe", "wipe sdb"),))
BOB = Approver("spiffe://t/user/bob", "4f", "10.0.0.2:1")


@pytest.fixture
def approvals(tmp_path):
    return Approvals(tmp_path / "approvals")


def again(tmp_path, **changed):
    """The same daemon after a restart."""
    return Approvals(tmp_path / "approvals", **changed)


def test_asked_approved_and_used_once_with_a_restart_between_any_two(tmp_path):
    asked = again(tmp_path).request(ABOUT)
    assert asked.state is State.REQUESTED and asked.about == ABOUT
    assert again(tmp_path).approve(asked.id, BOB).state is State.APPROVED
    found = again(tmp_path).find(asked.id)
    assert found.approver == BOB and found.approved > 0
    assert again(tmp_path).use(asked.id).state is State.USED
    with pytest.raises(ApprovalClosed):
        again(tmp_path).use(asked.id)


def test_what_nobody_has_approved_cannot_be_used(approvals):
    asked = approvals.request(ABOUT)
    with pytest.raises(ApprovalRequired):
        approvals.use(asked.id)
    assert approvals.find(asked.id).state is State.REQUESTED


def test_asking_again_is_the_same_request_until_it_is_over(approvals):
    asked = approvals.request(ABOUT)
    assert approvals.request(ABOUT) == asked
    approvals.approve(asked.id, BOB)
    assert approvals.request(ABOUT).state is State.APPROVED
    approvals.use(asked.id)
    anew = approvals.request(ABOUT)
    assert anew.id == asked.id and anew.state is State.REQUESTED and anew.approver is None


@pytest.mark.parametrize(
    "changed",
    [
        {"requester": "spiffe://t/user/carol"},
        {"method": "/s.S/Other"},
        {"resources": ("sdc",)},
        {"resources": ("sdb", "sdc")},
        {"plan_hash": "cd" * 32},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_an_approval_is_for_nothing_else(approvals, changed):
    other = replace(ABOUT, **changed)
    asked = approvals.request(ABOUT)
    approvals.approve(asked.id, BOB)
    assert other.id != asked.id
    with pytest.raises(ApprovalNotFound):
        approvals.use(other.id)


def test_withdrawn_is_over(approvals):
    asked = approvals.request(ABOUT)
    approvals.approve(asked.id, BOB)
    approvals.withdraw(asked.id)
    for act in (approvals.use, approvals.withdraw, lambda i: approvals.approve(i, BOB)):
        with pytest.raises(ApprovalClosed, match="withdrawn"):
            act(asked.id)


@pytest.mark.parametrize("approved", [False, True])
def test_requests_and_approvals_expire(tmp_path, approved):
    approvals = again(tmp_path, lifetime_s=0.3)
    asked = approvals.request(ABOUT)
    if approved:
        approvals.approve(asked.id, BOB)
    time.sleep(0.35)
    assert approvals.find(asked.id).state is State.EXPIRED
    with pytest.raises(ApprovalClosed, match="expired"):
        approvals.use(asked.id)
    assert approvals.request(ABOUT).state is State.REQUESTED


def test_one_from_the_future_has_expired(tmp_path, approvals):
    """A clock that was set back must not lengthen the life of an approval."""
    asked = approvals.request(ABOUT)
    approvals.approve(asked.id, BOB)
    place = tmp_path / f"approvals/{asked.id}.json"
    data = json.loads(place.read_text())
    place.write_text(json.dumps({**data, "created": data["created"] + 7200}))
    with pytest.raises(ApprovalClosed):
        approvals.use(asked.id)


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[: len(text) // 2],
        lambda text: "[]",
        lambda text: text.replace('"APPROVED"', '"BLESSED"'),
        lambda text: text.replace("/s.S/Wipe", "/s.S/WipeAll"),
        lambda text: text.replace("user/alice", "user/mallory"),
        lambda text: text.replace("ab" * 32, "ac" * 32),
    ],
    ids=["torn", "a list", "no state", "method", "requester", "plan"],
)
def test_a_damaged_file_approves_nothing(tmp_path, approvals, damage):
    asked = approvals.request(ABOUT)
    approvals.approve(asked.id, BOB)
    place = tmp_path / f"approvals/{asked.id}.json"
    place.write_text(damage(place.read_text()))
    with pytest.raises(ApprovalNotFound):
        approvals.use(asked.id)
    assert approvals.all() == []
    assert approvals.request(ABOUT).state is State.REQUESTED


@pytest.mark.parametrize(
    "odd", ["", "..", "../destroy/key", "ab" * 17, "AB" * 16, "ab" * 16 + "\n"]
)
def test_an_id_is_never_a_path(approvals, odd):
    approvals.request(ABOUT)
    with pytest.raises(ApprovalNotFound):
        approvals.find(odd)


def test_of_many_who_use_it_at_once_one_does(approvals):
    asked = approvals.request(ABOUT)
    approvals.approve(asked.id, BOB)
    done, start = [], threading.Barrier(8)

    def use():
        start.wait()
        try:
            done.append(approvals.use(asked.id))
        except ApprovalClosed:
            pass

    threads = [threading.Thread(target=use) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(done) == 1


def test_open_requests_are_bounded_and_what_is_over_makes_room(approvals):
    for number in range(500):
        approvals.request(replace(ABOUT, plan_hash=f"{number:064x}"))
    with pytest.raises(TooManyApprovals):
        approvals.request(ABOUT)
    approvals.withdraw(approvals.all()[0].id)
    assert approvals.request(ABOUT).state is State.REQUESTED


def test_a_long_plan_is_shown_in_part_and_stays_the_same_request(approvals):
    steps = tuple(("Wipe", "x" * 1000) for _ in range(5000))
    about = replace(ABOUT, steps=steps)
    asked = approvals.request(about)
    assert asked.id == about.id == approvals.find(asked.id).id
    shown = approvals.find(asked.id).about.steps
    assert len(shown) == 2001 and shown[-1] == ("", "and 3000 more") and len(shown[0][1]) == 300


@pytest.mark.parametrize(
    ("identity", "person"),
    [
        ("spiffe://t/user/alice", True),
        ("spiffe://t/host/web1", False),
        ("local/root", False),
        ("local/uid/1000", False),
        ("spiffe://t/user/", False),
        ("spiffe://t/user/a/b", False),
    ],
)
def test_only_users_are_persons(identity, person):
    assert is_user(identity) is person
