"""Requests whose callers have gone: not begun, and waited for once they were."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from hostlerd.privileged.orphans import Turns, is_gone
from hostlerd.privileged.refused import Refused

WAIT_S = 20.0
Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pairs() -> Iterator[list[Pair]]:
    """Three connections, each with the program's end and the caller's."""
    with ExitStack() as stack:
        made = [socket.socketpair() for _ in range(3)]
        for pair in made:
            for each in pair:
                stack.enter_context(each)
        yield made


def test_a_caller_has_gone_when_it_is_closed_and_not_when_it_has_said_all(
    pairs: list[Pair],
) -> None:
    (peer, caller), (other, silent), _ = pairs
    caller.sendall(b"words")
    caller.shutdown(socket.SHUT_WR)
    assert not is_gone(peer)
    assert not is_gone(other)
    # What it has said last is still to be read.
    caller.close()
    silent.close()
    assert is_gone(peer)
    assert is_gone(other)


def test_what_nobody_waits_for_is_not_begun(pairs: list[Pair]) -> None:
    turns = Turns()
    (peer, caller), (other, _), _ = pairs
    caller.close()
    begun = []
    with pytest.raises(Refused) as refused, turns.taken(peer):
        begun.append(peer)
    assert refused.value.reason == "CALLER_GONE"
    assert not begun
    with turns.taken(other):
        begun.append(other)
    assert begun == [other]


def test_callers_that_are_there_do_not_wait_for_each_other(pairs: list[Pair]) -> None:
    turns = Turns(wait_s=0)
    (one, _), (two, _), _ = pairs
    with turns.taken(one), turns.taken(two):
        pass


def test_what_was_begun_for_one_that_has_gone_is_through_before_the_next_begins(
    pairs: list[Pair],
) -> None:
    turns, order = Turns(), []
    (orphan, caller), (heir, _), (third, _) = pairs
    entered = threading.Event()

    def inherit() -> None:
        entered.set()
        with turns.taken(heir):
            order.append("heir")

    thread = threading.Thread(target=inherit)
    with turns.taken(orphan):
        caller.close()
        thread.start()
        assert entered.wait(WAIT_S)
        with pytest.raises(Refused) as refused, Turns(wait_s=0).taken(third):
            raise Refused("OTHER", "another program's turns have nothing to do with it")
        assert refused.value.reason == "OTHER"
        thread.join(0.2)
        order.append("orphan")
    thread.join(WAIT_S)
    assert order == ["orphan", "heir"]


def test_who_waits_too_long_is_told_so(pairs: list[Pair]) -> None:
    turns = Turns(wait_s=0.05)
    (orphan, caller), (heir, _), _ = pairs
    with turns.taken(orphan):
        caller.close()
        with pytest.raises(Refused) as refused, turns.taken(heir):
            pass
        assert refused.value.reason == "ORPHAN_GOES_ON"
    with turns.taken(heir):
        pass
