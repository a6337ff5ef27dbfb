"""Jobs on a real host: a thousand namespaces and more, done once whatever becomes of the daemon."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import pytest
from hosts_client import APPLY, apply_request, ask
from hosts_witness import eventually, links, names_of_netns, untouched
from test_lab_life import install, repacked

from hostler import sync
from hostler.api.common.v1 import change_pb2, job_pb2
from hostler.api.netns.v1 import namespace_pb2
from hostler.channel import rpc
from hostler.lab.host import Host
from hostler.lab.lab import Lab
from hostler.lab.rootfs import packages_in

pytestmark = [pytest.mark.hosts, pytest.mark.timeout(590)]

GET, WATCH, CANCEL = (
    rpc(job_pb2, "JobService", name).at("netns") for name in ("GetJob", "WatchJob", "CancelJob")
)
SUCCEEDED, CANCELLED = job_pb2.JOB_STATE_SUCCEEDED, job_pb2.JOB_STATE_CANCELLED
INTERRUPTED, RUNNING = job_pb2.JOB_STATE_INTERRUPTED, job_pb2.JOB_STATE_RUNNING
# Some eight thousand steps. More namespaces would be more mounts, which make every unit with a
# sandbox slow to start.
MANY, LINKS = 250, 6
# Answers and ended jobs are kept.
FILES = ("files",)
UNIT = "hostler-job@netns.service"
ENDED = (*range(job_pb2.JOB_STATE_SUCCEEDED, job_pb2.JOB_STATE_INTERRUPTED + 1),)


def start(lab: Lab, many: int, *, persistent: bool = False) -> str:
    """Have so many namespaces applied as a job; answers its name."""
    wanted = [
        namespace_pb2.Namespace(
            name=f"many{i:04}",
            interfaces=[link(i, n) for n in range(LINKS)],
            persistent=persistent,
        )
        for i in range(many)
    ]
    request = apply_request(wanted)
    request.change.job = True
    request.change.request_id = str(uuid.uuid4())
    begun = time.monotonic()
    change = ask(lab, APPLY, request).change
    assert change.outcome == change_pb2.OUTCOME_STARTED and time.monotonic() - begun < 5
    return str(change.job)


def link(namespace: int, number: int) -> Any:
    """A link with a subnet of its own."""
    subnet = f"10.96.{namespace}.{4 * number}/30"
    host, other = (f"{address}/30" for address in IPv4Network(subnet).hosts())
    veth = namespace_pb2.Veth(host_addresses=[host])
    return namespace_pb2.Interface(veth=veth, addresses=[other])


def get(lab: Lab, name: str) -> Any:
    """The job as the daemon tells it."""
    return ask(lab, GET, job_pb2.GetJobRequest(name=name)).job


def watch(lab: Lab, name: str, after_seq: int = 0) -> Iterator[Any]:
    """Watch a job from a sequence number on."""
    client = sync.connect(config=lab.config, timeout_s=300)
    (host,) = client.select("h1")
    with client.session(host) as session:
        request = job_pb2.WatchJobRequest(name=name, after_seq=after_seq)
        yield from session.stream(WATCH, request)


def ended(lab: Lab, name: str, timeout_s: float = 200) -> Any:
    """The job once it has ended."""
    return eventually(
        lambda: job if (job := get(lab, name)).HasField("end_time") else None, timeout_s
    )


@contextmanager
def frozen_in_the_middle(lab: Lab, host: Host, name: str) -> Iterator[Any]:
    """Hold a job still while it carries out its steps; yields what was seen of it last."""
    seen = next(a for a in watch(lab, name) if a.job.progress.done > 200 or a.job.state in ENDED)
    assert seen.job.state == RUNNING, seen.job
    host.run(["systemctl", "freeze", UNIT])
    try:
        # The names of namespaces come last; what can be seen before is the host's ends of links.
        assert get(lab, name).state == RUNNING and 10 < len(links(host)) < MANY * LINKS
        yield seen
    finally:
        if host.leader() is not None:
            host.run(["systemctl", "thaw", UNIT], check=False)


def outcomes(host: Host, job: str) -> list[dict[str, Any]]:
    """What the audit log, read as it lies there, says of a job's end."""
    lines = host.run(["cat", "/var/log/hostler/netns/audit.jsonl"]).stdout.splitlines()
    records = [json.loads(line) for line in lines]
    return [
        r
        for r in records
        if r.get("kind") == "outcome"
        and r.get("job") == job
        and r.get("outcome") != "OUTCOME_STARTED"
    ]


def main_pid(host: Host, unit: str) -> str:
    """The PID of a unit's process on its host; "0" for none."""
    return host.run(["systemctl", "show", "--value", "-p", "MainPID", unit]).stdout.strip()


def remove_all(lab: Lab) -> None:
    """Take every namespace of Hostler's away again."""
    ask(lab, APPLY, apply_request([], delete_unlisted=True), timeout_s=200)


def test_a_long_job_survives_the_daemon_and_ends_once(
    lab: Lab, h1: Host, capsys: pytest.CaptureFixture[str]
) -> None:
    # The first job makes the slice of its unit, which stays.
    ended(lab, start(lab, 0))
    with untouched(h1, but=FILES):
        begun = time.monotonic()
        name = start(lab, MANY)
        with frozen_in_the_middle(lab, h1, name) as seen:
            assert seen.job.progress.total >= 30 * MANY
            job = main_pid(h1, UNIT)
            # Stopped as an administrator would, and killed.
            h1.run(["systemctl", "stop", "hostler-netns.service"])
            again = get(lab, name)
            assert again.state == RUNNING and again.progress.done >= seen.job.progress.done
            h1.run(["kill", "-9", main_pid(h1, "hostler-netns.service")])
            assert get(lab, name).state == RUNNING and main_pid(h1, UNIT) == job
        rest = list(watch(lab, name, after_seq=seen.seq))
        took_s = time.monotonic() - begun
        assert rest[0].seq > seen.seq and rest[-1].job.state == SUCCEEDED, rest[-1]
        assert [a.seq for a in rest] == sorted({a.seq for a in rest})
        assert len(names_of_netns(h1)) == MANY and len(links(h1)) > MANY * LINKS
        assert len(outcomes(h1, name)) == 1
        done = rest[-1].job
        with capsys.disabled():
            print(f"\n{done.progress.total} steps as a job, frozen meanwhile: {took_s:.1f} s")
        remove_all(lab)


def test_a_job_goes_on_while_the_daemon_is_idle(lab: Lab, h1: Host) -> None:
    h1.run(["sed", "-i", "s/^idle_s = .*/idle_s = 1/", "/etc/hostler/hostler.toml"])
    h1.run(["systemctl", "stop", "hostler-netns.service"])
    try:
        name = start(lab, MANY)
        eventually(lambda: main_pid(h1, UNIT) != "0")
        eventually(lambda: main_pid(h1, "hostler-netns.service") == "0")
        assert main_pid(h1, UNIT) != "0"
        assert ended(lab, name).state == SUCCEEDED and len(outcomes(h1, name)) == 1
        assert len(names_of_netns(h1)) == MANY
        remove_all(lab)
    finally:
        h1.run(["sed", "-i", "s/^idle_s = .*/idle_s = 30/", "/etc/hostler/hostler.toml"])
        h1.run(["systemctl", "stop", "hostler-netns.service"])


def test_cancelled_in_the_middle_it_leaves_nothing(lab: Lab, h1: Host) -> None:
    with untouched(h1, but=FILES):
        name = start(lab, MANY)
        with frozen_in_the_middle(lab, h1, name):
            ask(lab, CANCEL, job_pb2.CancelJobRequest(name=name))
        job = ended(lab, name)
        assert job.state == CANCELLED and job.error.reason == "JOB_CANCELLED"
        assert names_of_netns(h1) == set() and len(outcomes(h1, name)) == 1


def test_killed_it_is_taken_back_and_can_be_resumed(lab: Lab, h1: Host) -> None:
    with untouched(h1, but=FILES):
        name = start(lab, MANY)
        with frozen_in_the_middle(lab, h1, name):
            h1.run(["kill", "-9", main_pid(h1, UNIT)])
        # Told before the unit has started again, and after.
        assert get(lab, name).state == INTERRUPTED
        job = ended(lab, name)
        assert job.state == INTERRUPTED and "same call again" in job.resume
        assert names_of_netns(h1) == set() and len(outcomes(h1, name)) == 1
        again = start(lab, 5)
        assert ended(lab, again).state == SUCCEEDED and len(names_of_netns(h1)) == 5
        remove_all(lab)


@pytest.mark.parametrize("persistent", [False, True])
def test_after_a_power_cut_it_says_how_to_go_on(lab: Lab, h1: Host, *, persistent: bool) -> None:
    name = start(lab, MANY, persistent=persistent)
    with frozen_in_the_middle(lab, h1, name) as seen:
        lab.kill("h1")
    lab.boot("h1")
    job = ended(lab, name)
    assert job.state == INTERRUPTED and "same call again" in job.resume
    assert len(outcomes(h1, name)) == 1
    # Of the persistent ones, which a boot brings back, none that was half made is left, either.
    eventually(lambda: names_of_netns(h1) == set())
    records = ["find", "/var/lib/hostler/netns/namespaces", "-type", "f"]
    assert not h1.run(records, check=False).stdout
    (last,) = watch(lab, name, after_seq=seen.seq)
    assert last.seq > seen.seq and last.job.state == INTERRUPTED
    again = start(lab, 5, persistent=persistent)
    assert ended(lab, again).state == SUCCEEDED and len(names_of_netns(h1)) == 5
    remove_all(lab)


def test_an_upgrade_leaves_a_job_alone(lab: Lab, h1: Host, packages: Path, tmp_path: Path) -> None:
    newer = [repacked(package, tmp_path, "99.1") for package in packages_in(packages)]
    try:
        name = start(lab, MANY)
        with frozen_in_the_middle(lab, h1, name) as seen:
            pid = main_pid(h1, UNIT)
            install(h1, newer)
            assert "/99.1/" in h1.run(["systemctl", "cat", UNIT]).stdout
            assert main_pid(h1, UNIT) == pid and get(lab, name).state == RUNNING
        assert list(watch(lab, name, after_seq=seen.seq))[-1].job.state == SUCCEEDED
        assert len(outcomes(h1, name)) == 1 and len(names_of_netns(h1)) == MANY
        # The next one runs the new code.
        again = start(lab, 5)
        with_code = h1.run(["systemctl", "show", "-p", "ExecStart", UNIT]).stdout
        assert ended(lab, again).state == SUCCEEDED and "/99.1/" in with_code
        remove_all(lab)
    finally:
        install(h1, packages_in(packages))
