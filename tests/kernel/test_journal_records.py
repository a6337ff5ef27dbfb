"""Changes that have no steps: what the daemon writes down is there as a whole, or not at all.

The daemon is killed before and after every fsync of approving, withdrawing and cancelling. Asked
again with the same request id, it is done, and once.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
from journal_rows import COMMON, NETNS, RECORDS, ask, refusal, space
from journal_stage import Place, chain_is_whole, eventually, opened

from hostler.api.common.v1 import approval_pb2, change_pb2, job_pb2
from hostler.api.netns.v1 import namespace_pb2

pytestmark = [pytest.mark.kernel, pytest.mark.soak, pytest.mark.timeout(900)]

SOAK = os.environ.get("HOSTLER_SOAK") == "1"
KILLS = 4
TWO = f"""
@id("two-to-delete")
forbid (principal, action == Action::"/{NETNS}.NamespaceService/DeleteNamespace", resource)
unless {{ context.approvals >= 1 || context.validate_only }};
"""
DELETE = f"{NETNS}.NamespaceService/DeleteNamespace"
APPROVALS, JOBS = f"{COMMON}.ApprovalService", f"{COMMON}.JobService"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with opened(tmp_path_factory.mktemp("records"), "netns") as places:
        place = places["netns"]
        folder = place.authority.folder / "policies"
        folder.mkdir(exist_ok=True)
        (folder / "own.cedar").write_text(TWO)
        place.install_bundle()
        place.start()
        made = [space(f"web{n}", n) for n in range(200)]
        ask(place, f"{NETNS}.NamespaceService/ApplyNamespaces", apply(made), timeout_s=120)
        yield place


def apply(made: list[Any], **options: Any) -> Any:
    return namespace_pb2.ApplyNamespacesRequest(
        namespaces=made, change=change_pb2.ChangeOptions(**options)
    )


@dataclass(frozen=True)
class Row:
    """A method, what brings about something to call it for, and how its state is seen."""

    method: str
    thing: Callable[[Place, int], str]
    request: Callable[[str], Any]
    state: Callable[[Place, str], int]
    user: str
    old: tuple[int, ...]
    new: int


def approval(place: Place, number: int) -> str:
    request = namespace_pb2.DeleteNamespaceRequest(name=f"web{number}")
    refused = refusal(lambda: ask(place, DELETE, request, "alice"))
    assert refused["reason"] == "APPROVAL_REQUIRED", refused
    return refused["approval"]


def approval_state(place: Place, name: str) -> int:
    request = approval_pb2.GetApprovalRequest(id=name)
    told = ask(place, f"{APPROVALS}/GetApproval", request, "bob")
    return int(told.approval.state)


def job(place: Place, number: int) -> str:
    request = apply([space(f"job{number}", 1000 + number)], job=True, request_id=f"job {number}")
    told = ask(place, f"{NETNS}.NamespaceService/ApplyNamespaces", request, "alice")
    name: str = told.change.job
    return name


def job_state(place: Place, name: str) -> int:
    """Queued, or to be cancelled: the job's process would end it, and there is none here."""
    told = ask(place, f"{JOBS}/GetJob", job_pb2.GetJobRequest(name=name), "bob")
    assert told.job.state == job_pb2.JOB_STATE_QUEUED
    queued = place.folder / "state/jobs/queue" / name.removeprefix("jobs/")
    cancelled = (queued / "cancel").exists()
    return job_pb2.JOB_STATE_CANCELLED if cancelled else job_pb2.JOB_STATE_QUEUED


ROWS = (
    Row(
        f"{APPROVALS}/ApproveChange",
        approval,
        lambda name: approval_pb2.ApproveChangeRequest(id=name),
        approval_state,
        "bob",
        (approval_pb2.APPROVAL_STATE_REQUESTED,),
        approval_pb2.APPROVAL_STATE_APPROVED,
    ),
    Row(
        f"{APPROVALS}/WithdrawApproval",
        approval,
        lambda name: approval_pb2.WithdrawApprovalRequest(id=name),
        approval_state,
        "alice",
        (approval_pb2.APPROVAL_STATE_REQUESTED,),
        approval_pb2.APPROVAL_STATE_WITHDRAWN,
    ),
    Row(
        f"{JOBS}/CancelJob",
        job,
        lambda name: job_pb2.CancelJobRequest(name=name),
        job_state,
        "alice",
        (job_pb2.JOB_STATE_QUEUED,),
        job_pb2.JOB_STATE_CANCELLED,
    ),
)


def test_every_method_has_its_row() -> None:
    assert {row.method for row in ROWS} == RECORDS


@pytest.mark.parametrize("row", ROWS, ids=[row.method.rpartition("/")[2] for row in ROWS])
def test_killed_at_every_point_it_is_there_or_not(place: Place, row: Row) -> None:
    points = count(place, row)
    most = len(points) if SOAK else min(KILLS, len(points))
    chosen = sorted({1 + round(i * (len(points) - 1) / max(1, most - 1)) for i in range(most)})
    for number in chosen:
        kill_at(place, row, number, points[number - 1])
    chain_is_whole(place)


NUMBERS = iter(range(200))


def count(place: Place, row: Row) -> list[str]:
    thing = row.thing(place, next(NUMBERS))
    place.arm("count")
    assert send(place, row, row.request(thing)) is not None
    points = place.seen()
    place.arm("")
    assert row.state(place, thing) == row.new
    # Intent, what is written down, outcome, answer: less would be less than there is.
    assert len(points) >= 6, points
    return points


def send(place: Place, row: Row, request: Any) -> Any:
    try:
        return ask(place, row.method, request, row.user).change
    except grpc.RpcError as e:
        assert e.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED), e
        return None


def kill_at(place: Place, row: Row, number: int, name: str) -> None:
    where = f"{row.method}, point {number}: {name}"
    thing = row.thing(place, next(NUMBERS))
    assert row.state(place, thing) in row.old
    request = row.request(thing)
    request.change.request_id = str(uuid.uuid4())
    place.arm(f"kill {number}")
    first = send(place, row, request)
    if first is not None:
        place.kill()
    assert place.wait() == -9, where
    place.arm("")
    place.start()
    found = eventually(lambda: row.state(place, thing))
    assert found in (*row.old, row.new), where
    if first is not None:
        assert found == row.new, where
    for _ in range(2):
        told = send(place, row, request)
        assert told is not None and told.outcome == change_pb2.OUTCOME_APPLIED, where
        assert row.state(place, thing) == row.new, where
    method = f"/{row.method}"
    mine = {
        r["seq"]
        for r in place.audit()
        if r.get("request_id") == request.change.request_id and r["kind"] == "intent"
    }
    ended = [r for r in place.audit() if r.get("method") == method and r["kind"] == "outcome"]
    assert {r["status"] for r in ended if r.get("intent_seq") in mine} == {"OK"}, where
