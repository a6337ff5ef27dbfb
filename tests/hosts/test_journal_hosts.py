"""The daemon of a real host is killed in what only a host has: processes, and pending groups.

As test_journal_kills.py, with systemd, the launcher and the watcher of pending groups: before and
after every step and every fsync of those changes; a few of them, all with HOSTLER_SOAK=1.
"""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
from confirm_lab import DOORS, confirm, confirm_options, ended, pending
from hosts_witness import eventually, names_of_netns
from journal_lab import Killable, gone, killable, with_id
from journal_rows import COMMON, NETNS, ON_HOSTS

from hostler.api.common.v1 import change_pb2, confirm_pb2
from hostler.api.netns.v1 import namespace_pb2, process_pb2, process_pb2_grpc
from hostler.lab.host import Host
from hostler.lab.lab import Lab

pytestmark = [pytest.mark.hosts, pytest.mark.soak, pytest.mark.timeout(1800)]

SOAK = os.environ.get("HOSTLER_SOAK") == "1"
KILLS = 3
PROCESSES, CONFIRM = f"{NETNS}.ProcessService", f"{COMMON}.ConfirmService"
RUN, UNIT = f"{PROCESSES}/RunProcess", "hostler-run-pr.p.service"
COUNT = "/run/journal-count"
LOOP = f"trap 'echo x >>{COUNT}' USR1; while :; do sleep 0.05; done"


def test_every_method_has_its_test() -> None:
    confirming = {f"{CONFIRM}/{name}" for name in ("ConfirmPending", "RevertPending")}
    assert {row.method for row in ROWS} | confirming | {RUN} == ON_HOSTS


@pytest.fixture(scope="module")
def daemon(lab: Lab) -> Iterator[Killable]:
    host = lab.hosts[0]
    if host.leader() is None:
        lab.boot(host.name)
    with killable(lab, host) as made:
        create = namespace_pb2.CreateNamespaceRequest(namespace=namespace_pb2.Namespace(name="pr"))
        made.insist(f"{NETNS}.NamespaceService/CreateNamespace", create)
        try:
            yield made
        finally:
            made.arm("")
            delete = namespace_pb2.DeleteNamespaceRequest(name="pr", stop_processes=True)
            made.insist(f"{NETNS}.NamespaceService/DeleteNamespace", delete)


def process() -> Any:
    return process_pb2.Process(namespace="pr", name="p", argv=["/bin/sh", "-c", LOOP])


def start(daemon: Killable) -> None:
    daemon.insist(f"{PROCESSES}/StartProcess", process_pb2.StartProcessRequest(process=process()))
    # Until its trap is set, a signal would end it.
    time.sleep(0.3)
    daemon.host.run(["rm", "-f", COUNT])


def stop(daemon: Killable) -> None:
    request = process_pb2.StopProcessRequest(namespace="pr", name="p")
    daemon.insist(f"{PROCESSES}/StopProcess", request)
    eventually(lambda: runs(daemon) == "inactive")
    daemon.host.run(["rm", "-f", COUNT])


def runs(daemon: Killable) -> str:
    return daemon.host.run(["systemctl", "is-active", UNIT], check=False).stdout.strip()


def running(daemon: Killable) -> Any:
    """Whether the process runs by systemd's word, and on what record."""
    folders = ["/var/lib/hostler/netns/processes", "/run/hostler-netns/processes"]
    records = daemon.host.run(["find", *folders, "-type", "f"], check=False).stdout
    return runs(daemon), sorted(records.split())


def signals(daemon: Killable) -> Any:
    """How many signals have arrived, a moment after the last."""
    time.sleep(0.2)
    return daemon.host.run(["cat", COUNT], check=False).stdout.count("x")


@dataclass(frozen=True)
class Row:
    method: str
    before: Callable[[Killable], None]
    request: Callable[[], Any]
    witness: Callable[[Killable], Any]
    points: int


ROWS = (
    Row(
        f"{PROCESSES}/StartProcess",
        stop,
        lambda: process_pb2.StartProcessRequest(process=process()),
        running,
        14,
    ),
    Row(
        f"{PROCESSES}/StopProcess",
        start,
        lambda: process_pb2.StopProcessRequest(namespace="pr", name="p"),
        running,
        14,
    ),
    Row(
        f"{PROCESSES}/SignalProcess",
        start,
        lambda: process_pb2.SignalProcessRequest(namespace="pr", name="p", signal="SIGUSR1"),
        signals,
        12,
    ),
)


def chosen(count: int, most: int = KILLS) -> list[int]:
    if SOAK or count <= most:
        return list(range(1, count + 1))
    # Not the ends: those are the audit log's, which other tests look at.
    return sorted({round((i + 1) * count / (most + 1)) for i in range(most)})


@pytest.mark.parametrize("row", ROWS, ids=[row.method.rpartition("/")[2] for row in ROWS])
def test_killed_at_every_point_a_process_is_old_or_new(daemon: Killable, row: Row) -> None:
    daemon.arm("")
    row.before(daemon)
    old = row.witness(daemon)
    daemon.count()
    answer = daemon.insist(row.method, with_id(row.request()))
    points = eventually(lambda: [] if daemon.journals() else daemon.seen())
    daemon.arm("")
    new = row.witness(daemon)
    assert answer.outcome == change_pb2.OUTCOME_APPLIED and new != old
    assert len(points) >= row.points, points
    for number in chosen(len(points)):
        kill_at(daemon, row, number, (old, new), f"{row.method}, {number}: {points[number - 1]}")


def kill_at(daemon: Killable, row: Row, number: int, states: tuple[Any, Any], where: str) -> None:
    old, new = states
    row.before(daemon)
    assert row.witness(daemon) == old, where
    request = with_id(row.request())
    was = daemon.pid()
    daemon.arm(f"kill {number}")
    first = daemon.send(row.method, request)
    if first is not None:
        daemon.kill_now()
    gone(daemon, was)
    daemon.arm("")
    told = daemon.insist(row.method, request)
    after = row.witness(daemon)
    word = change_pb2.Outcome.Name(told.outcome)
    expected = {
        "OUTCOME_APPLIED": (new,),
        "OUTCOME_INTERRUPTED": (old,),
        # A signal that may have been sent is not sent again.
        "OUTCOME_UNKNOWN": (old, new),
    }[word]
    assert after in expected, (where, word, after)
    assert word != "OUTCOME_UNKNOWN" or row.method.endswith("SignalProcess")
    if first is not None:
        assert (word, after) == ("OUTCOME_APPLIED", new), where
    if word != "OUTCOME_APPLIED":
        (record,) = [
            r
            for r in daemon.audit()
            if r.get("request_id") == request.change.request_id and r["kind"] == "recovery"
        ]
        assert record["outcome"] == word, where
    assert daemon.insist(row.method, request).outcome == told.outcome, where
    assert row.witness(daemon) == after, where
    assert daemon.journals() == [], where


def test_a_run_ends_with_the_daemon(daemon: Killable) -> None:
    daemon.arm("")
    stop(daemon)
    before = len(daemon.audit())
    was = daemon.pid()
    with daemon.channel() as channel:
        stub = process_pb2_grpc.ProcessServiceStub(channel)
        first = process_pb2.RunProcessRequest(start=process())
        answers = stub.RunProcess(iter([first]), timeout=60, wait_for_ready=True)
        assert next(answers).started.pid
        assert runs(daemon) == "active"
        daemon.kill_now()
        with pytest.raises(grpc.RpcError):
            list(answers)
    gone(daemon, was)
    eventually(lambda: runs(daemon) != "active")
    kinds = [r["kind"] for r in daemon.audit()[before:] if r.get("method") == f"/{RUN}"]
    assert kinds[0] == "intent"


def opened(daemon: Killable, name: str) -> str:
    """A namespace that waits to be confirmed; answers its group."""
    group = str(uuid.uuid4())
    made = namespace_pb2.CreateNamespaceRequest(namespace=namespace_pb2.Namespace(name=name))
    made.change.CopyFrom(confirm_options(group, 60))
    answer = daemon.insist(f"{NETNS}.NamespaceService/CreateNamespace", made)
    assert answer.outcome == change_pb2.OUTCOME_PENDING_CONFIRM
    return group


def forget(daemon: Killable, name: str) -> None:
    request = namespace_pb2.DeleteNamespaceRequest(name=name)
    daemon.insist(f"{NETNS}.NamespaceService/DeleteNamespace", request)


@pytest.mark.parametrize("how", ["ConfirmPending", "RevertPending"])
def test_killed_at_every_point_a_group_ends_as_a_whole(
    lab: Lab, h1: Host, daemon: Killable, how: str
) -> None:
    daemon.arm("")
    points = end_group(lab, h1, daemon, how, "")
    for number in chosen(len(points)):
        end_group(lab, h1, daemon, how, f"kill {number}")


def end_group(lab: Lab, host: Host, daemon: Killable, how: str, words: str) -> list[str]:
    """Open a group and end it, with a kill on the way; answers the points if there is none."""
    group = opened(daemon, "waits")
    assert "waits" in names_of_netns(host)
    kind = getattr(confirm_pb2, f"{how}Request")
    request = with_id(kind(group=group))
    if how == "ConfirmPending":
        for door in set(DOORS) - {"netns"}:
            confirm(lab, host, door, group)
    was = daemon.pid()
    if words:
        daemon.arm(words)
    else:
        daemon.count()
    first = daemon.send(f"{CONFIRM}/{how}", request)
    if words:
        if first is not None:
            daemon.kill_now()
        gone(daemon, was)
    points = daemon.seen()
    daemon.arm("")
    end_it_after_all(daemon, f"{CONFIRM}/{how}", request)
    eventually(lambda: not pending(lab, host).HasField("pending"))
    last = ended(lab, host)[0]
    assert last.group == group
    stays = how == "ConfirmPending"
    wanted = change_pb2.OUTCOME_APPLIED if stays else change_pb2.OUTCOME_ROLLED_BACK
    assert last.outcome == wanted, (words, last)
    assert ("waits" in names_of_netns(host)) == stays, words
    eventually(lambda: daemon.journals() == [])
    forget(daemon, "waits")
    return points


def end_it_after_all(daemon: Killable, method: str, request: Any) -> None:
    """Ask again with the same id; that the group has ended meanwhile is an answer, too."""
    try:
        daemon.insist(method, request)
    except grpc.RpcError as e:
        assert e.code() == grpc.StatusCode.FAILED_PRECONDITION, e
