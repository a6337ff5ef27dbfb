"""One change, disturbed at one place, and what is found and told afterwards.

What is found is what was there before or what was asked for; the same request id then never does
anything twice, and is answered what happened.
"""

from __future__ import annotations

import json
import os
import uuid
from typing import Any

import grpc
from journal_rows import COMMON, Row, ask, begin, reason_of
from journal_stage import Place, Points, eventually

from hostler.api.common.v1 import change_pb2, host_pb2

SOAK = os.environ.get("HOSTLER_SOAK") == "1"
_LEFT = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
#: What is answered to a request whose token was taken, and of which nothing was begun then.
_SPENT = "DESTROY_TOKEN_USED"
LOST = "WORKER_LOST"


def chosen(count: int, most: int, first: int | None = None) -> list[int]:
    """All numbers from 1 to `count`, or at most so many of them, evenly.

    The last is included, or, counted round, the `first`.
    """
    if SOAK or count <= most:
        return list(range(1, count + 1))
    if first is not None:
        return sorted({1 + (first + i * count // most) % count for i in range(most)})
    return sorted({1 + round(i * (count - 1) / (most - 1)) for i in range(most)})


class Trial:
    """One change at one place: from the state before it to the state that is found."""

    def __init__(self, place: Place, row: Row) -> None:
        self.place, self.row = place, row
        self.reason = ""
        place.arm("")
        place.start()
        row.before(place)
        self.old = row.witness(place)
        self.request = row.request(place)
        self.request.change.request_id = str(uuid.uuid4())
        self.since = max((record["seq"] for record in place.audit()), default=-1)

    def ask(self) -> change_pb2.Change | None:
        """Make the request; None if no answer came, or one that tells of no outcome."""
        self.reason = ""
        try:
            answer: change_pb2.Change = ask(self.place, self.row.method, self.request).change
            return answer
        except grpc.RpcError as e:
            self.reason = reason_of(e)
            if self.reason not in (_SPENT, LOST):
                assert e.code() in _LEFT, e
            return None

    def records(self) -> list[dict[str, Any]]:
        """What the audit log says of it; that it was planned may be written any time later."""
        mine = [r for r in self.place.audit() if r.get("method") == f"/{self.row.method}"]
        planned = "OUTCOME_PLANNED"
        return [r for r in mine if r["seq"] > self.since and r.get("outcome") != planned]

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


def disturbed(place: Place, row: Row, *others: Points) -> tuple[Any, list[str]]:
    """What the change brings about, and its points; other programs count theirs meanwhile."""
    trial = Trial(place, row)
    for one in (place, *others):
        one.arm("count")
    answer = trial.ask()
    # The journal goes after the answer.
    eventually(lambda: not place.journals())
    points = place.seen()
    place.arm("")
    assert answer is not None, trial.reason
    assert answer.outcome == change_pb2.OUTCOME_APPLIED
    new = row.witness(place)
    assert new != trial.old
    assert len(points) >= row.points, points
    return new, points


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
    return judge(trial, new, first, where)


def judge(
    trial: Trial, new: Any, first: change_pb2.Change | None, where: str, *, is_whole: bool = False
) -> str:
    """Look at what is found after a change was cut off; answers what a retry is told.

    `is_whole` says that whoever carried it out was not: then it is old or new in any case.
    """
    place, row = trial.place, trial.row
    # The first call after the kill sees no half: recovery was before it.
    get_host(place)
    found = row.witness(place)
    assert place.journals() == [], where
    if first is not None:
        assert found == new, f"{where}: acknowledged and lost"
    told = trial.ask()
    if told is None:
        assert trial.reason == _SPENT, (where, trial.reason)
        assert found == trial.old, difference(where, found, trial.old, new)
        assert trial.times_applied() == 0, where
        return _SPENT
    word = change_pb2.Outcome.Name(told.outcome)
    after = row.witness(place)
    if word == "OUTCOME_UNKNOWN":
        # Nobody knows, and that is on record: then nothing is done any more, now or later.
        assert row.unrepeatable, where
        assert after == found, where
        assert not is_whole or found in (trial.old, new), difference(where, found, trial.old, new)
    else:
        assert found in (trial.old, new), difference(where, found, trial.old, new)
        assert after == (trial.old if word == "OUTCOME_INTERRUPTED" else new), (where, word)
        if found == new:
            assert word == "OUTCOME_APPLIED", (where, word)
    # Done again without need, it would say that nothing had to be changed.
    assert told.changed == (word == "OUTCOME_APPLIED"), where
    if word != "OUTCOME_APPLIED":
        (record,) = [r for r in trial.records() if r["kind"] == "recovery"]
        assert record["outcome"] == word, where
    # And once more: answered the same, and nothing done.
    again = trial.ask()
    assert again is not None
    assert (again.outcome, again.changed) == (told.outcome, told.changed), where
    assert row.witness(place) == after, where
    assert trial.times_applied() == (word == "OUTCOME_APPLIED"), (where, trial.records())
    if word == "OUTCOME_UNKNOWN" and row.mend is not None and after != trial.old:
        row.mend(place)
        assert row.witness(place) == trial.old, where
    return f"{word} {found == new}"


def leave_at(
    place: Place, row: Row, number: int, new: Any, name: str, points: Points | None = None
) -> bool:
    """Leave while it is at a point, the daemon's or another's; answers whether it came to it."""
    points = points or place
    where = f"{row.name}, point {number}: {name}"
    trial = Trial(place, row)
    points.arm(f"pause {number}")
    with place.channel() as channel:
        call = begin(place, channel, row.method, trial.request)
        # Folders that are made once, and records that share one fsync, make fewer points: then all
        # is over before the last.
        eventually(lambda: points.is_reached() or trial.is_over())
        came = points.is_reached()
        call.cancel()
    points.go()
    eventually(trial.has_outcome)
    eventually(lambda: not place.journals())
    points.arm("")
    found = row.witness(place)
    assert found == new, difference(where, found, trial.old, new)
    told = trial.ask()
    assert told is not None
    assert (told.outcome, told.changed) == (change_pb2.OUTCOME_APPLIED, True), where
    assert trial.times_applied() == 1, where
    return came


def difference(where: str, found: Any, old: Any, new: Any) -> str:
    """What was found, in words."""
    told = {"found": found, "old": old, "new": new}
    return f"{where}: neither old nor new: {json.dumps(told, indent=1)}"


def get_host(place: Place) -> None:
    """Call something that only reads."""
    ask(place, f"{COMMON}.HostService/GetHost", host_pb2.GetHostRequest())
