"""A door of a privileged program: who comes in, how many at once, and what each line is told."""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from hostlerd.privileged import door
from hostlerd.privileged.lines import answer_lines
from hostlerd.privileged.refused import Refused

WAIT_S = 30.0
MALFORMED = {"ok": False, "reason": "MALFORMED", "message": "the request is not JSON"}


@contextmanager
def opened(
    path: Path,
    answer: Callable[[socket.socket], None],
    allowed: frozenset[int],
    max_connections: int = 8,
) -> Iterator[threading.Thread]:
    """A door at the path, in a thread of its own that has ended afterwards."""
    with door.listening_socket("test", path) as listener:
        served = threading.Thread(
            target=door.serve, args=(listener, answer, allowed, max_connections, 0.2)
        )
        served.start()
        yield served
        served.join(WAIT_S)
        assert not served.is_alive()


def caller(path: Path) -> socket.socket:
    made = socket.socket(socket.AF_UNIX)
    made.settimeout(WAIT_S)
    made.connect(str(path))
    return made


def greet(peer: socket.socket) -> None:
    peer.sendall(b"hello")


def test_a_stranger_is_sent_away_and_the_allowed_are_answered(tmp_path: Path) -> None:
    path = tmp_path / "door.sock"
    for allowed, told in ((frozenset[int](), b""), (frozenset({os.geteuid()}), b"hello")):
        with opened(path, greet, allowed), caller(path) as one:
            assert path.stat().st_mode & 0o777 == 0o600
            assert one.recv(16) == told


def test_who_comes_when_all_is_taken_is_sent_away_and_nobody_ends_it_meanwhile(
    tmp_path: Path,
) -> None:
    path, leave = tmp_path / "door.sock", threading.Event()

    def hold(peer: socket.socket) -> None:
        greet(peer)
        leave.wait(WAIT_S)

    with opened(path, hold, frozenset({os.geteuid()}), 1) as served:
        with caller(path) as first, caller(path) as second:
            assert (first.recv(16), second.recv(16)) == (b"hello", b"")
            # It would have ended by now if it did not look at who is still being answered.
            served.join(0.5)
            assert served.is_alive()
        leave.set()


def test_a_host_without_the_user_lets_nobody_in_by_that_name() -> None:
    assert door.uid_of("root") == door.ROOT
    assert door.uid_of("hostler-nobody-is-called-so") == frozenset()


def answer(request: Any) -> dict[str, Any]:
    match request:
        case "refused":
            raise Refused("BUSY", "not now", [("a.b", "is taken")])
        case "broken":
            raise OSError(2, "No such file or directory", "/nowhere")
    return {"got": request}


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (b"7\n", {"ok": True, "got": 7}),
        (b"secret{\n", {**MALFORMED, "violations": []}),
        (b"[" * 3000 + b"\n", {**MALFORMED, "violations": []}),
        (
            b'"refused"\n',
            {
                "ok": False,
                "reason": "BUSY",
                "message": "not now",
                "violations": [{"field": "a.b", "description": "is taken"}],
            },
        ),
        (
            b'"broken"\n',
            {
                "ok": False,
                "reason": "SYSTEM",
                "message": "/nowhere: No such file or directory",
                "violations": [],
            },
        ),
    ],
)
def test_each_line_has_its_answer_and_the_next_is_taken(line: bytes, told: object) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.settimeout(WAIT_S)
        ours.sendall(line * 2)
        ours.shutdown(socket.SHUT_WR)
        answer_lines(theirs, answer, 4096, WAIT_S, WAIT_S)
        theirs.shutdown(socket.SHUT_WR)
        with ours.makefile("rb") as lines:
            assert [json.loads(each) for each in lines] == [told, told]


def test_a_line_that_does_not_end_is_the_last() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(b"1" * 20 + b"\n2\n")
        answer_lines(theirs, answer, 8, WAIT_S, WAIT_S)
        assert json.loads(ours.recv(4096)) == {"ok": True, "got": 11111111}


def test_who_says_nothing_is_left() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs, pytest.raises(TimeoutError):
        answer_lines(theirs, answer, 8, 0.01, WAIT_S)
