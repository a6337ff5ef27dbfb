"""Disks that are replaced in guests: what is asked for, how far it is told to be, what is there."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

from hosts_witness import eventually
from vm_guest import Guest
from vm_suite import Suite

from hostler.api.common.v1 import job_pb2
from hostler.jobs import WATCH_JOB

MIB = 1 << 20
_PATIENCE_S = 120


def storage(guests: Suite, *words: str, check: bool = True) -> Any:
    """What `hostler storage` answers of vm1, or its error."""
    argv = ("-H", "vm1", "--yes", "-o", "json", "storage", *words)
    answer = json.loads(guests.cli(*argv, check=check, timeout_s=600).stdout)[0]
    return answer["result"] if answer["ok"] else answer["error"]


def serial(name: str) -> str:
    """What a disk is called by, whatever the kernel calls it."""
    return f"serial-{name}"


def reasons(guests: Suite) -> set[str]:
    """What one call of health says."""
    return {one["code"] for one in storage(guests, "health", check=False)["reasons"]}


def begun(guests: Suite, *words: str) -> str:
    """Have a job begun that is called for by `hostler WORDS`; answer its name."""
    done = guests.cli("--yes", "--background", "-o", "json", *words, check=False)
    (answer,) = json.loads(done.stdout)
    assert answer["ok"], answer
    return str(answer["result"]["change"]["job"])


def watched(guests: Suite, name: str) -> Iterator[Any]:
    """A job of vm1, each time that it is told of."""
    request = job_pb2.WatchJobRequest(name=name)
    with guests.client() as client, client.session(client.select("vm1")[0]) as session:
        for answer in session.stream(WATCH_JOB.at("storage"), request):
            yield answer.job


def in_the_middle(guests: Suite, *words: str) -> str:
    """Start a job, and wait until some of its bytes are done and others not; answer its name."""
    name = begun(guests, *words)
    for job in watched(guests, name):
        assert job.state in (job_pb2.JOB_STATE_QUEUED, job_pb2.JOB_STATE_RUNNING), job
        if job.progress.unit == "bytes" and 0 < job.progress.done < job.progress.total:
            return name
    raise AssertionError("the job is not told of any more")


def replaced(
    guests: Suite, old: str, new: str, release: Callable[[], object] | None = None
) -> list[str]:
    """Replace a disk, as a job that is told of to 100 %; answer what its change tells at the end.

    What is held up until `release` is called must be told of in the middle, too.
    """
    asked = ("-H", "vm1", "storage", "replace-disk", serial(old), serial(new))
    far: list[Any] = []
    for job in watched(guests, begun(guests, *asked)):
        last = job
        if job.progress.unit == "bytes":
            far.append(job.progress)
        if release is not None and any(0 < one.done < one.total for one in far):
            release()
            release = None
    assert last.state == job_pb2.JOB_STATE_SUCCEEDED, last
    assert release is None, far
    assert far[-1].done == far[-1].total > 0, far
    assert [one.done for one in far] == sorted(one.done for one in far), far
    return [one.message for one in last.change.warnings]


def held_up(guest: Guest, label: str) -> Callable[[], object]:
    """Have md do next to nothing for an array until what is answered is called."""
    folder = f"/sys/block/$(basename $(readlink -f /dev/md/{label}))/md"

    def bound(least: str, most: str) -> None:
        script = f"echo {most} > {folder}/sync_speed_max; echo {least} > {folder}/sync_speed_min"
        guest.run(["sh", "-ec", script])

    bound("128", "128")
    return lambda: bound("system", "system")


def jobs(guests: Suite) -> dict[str, Any]:
    """The jobs of vm1, by their names."""
    answer = json.loads(guests.cli("-H", "vm1", "-o", "json", "jobs", "list", check=False).stdout)
    return {job["name"]: job for one in answer if one["ok"] for job in one["result"]["jobs"]}


def table(guest: Guest, name: str) -> dict[str, Any]:
    """What sfdisk(8) reads of a disk's table."""
    said = guest.run(["sfdisk", "--json", guest.disk(name)]).stdout
    return dict(json.loads(said)["partitiontable"])


def places(of: dict[str, Any]) -> list[tuple[int, int, str]]:
    """Where a table's partitions are, and what for."""
    return [(one["start"], one["size"], one["type"]) for one in of["partitions"]]


def partition(guest: Guest, table_: str, size_bytes: int, *names: str) -> None:
    """Add disks with a table."""
    for name in names:
        guest.run(["sfdisk", "--quiet", guest.add_disk(name, size_bytes)], stdin=table_)
    guest.run(["udevadm", "settle"])


def lasting(guest: Guest, label: str) -> str:
    """The link to an array that is the same after a boot, whatever that calls it."""
    said = guest.run(["mdadm", "--detail", "--export", f"/dev/md/{label}"]).stdout
    found = dict(line.partition("=")[::2] for line in said.splitlines())
    return f"/dev/disk/by-id/md-uuid-{found['MD_UUID']}"


def whole(guest: Guest, array: str) -> bool:
    """Whether mdadm(8) says that an array lacks nothing; `array` is its path."""
    said = guest.run(["mdadm", "--detail", array]).stdout
    found = dict(re.findall(r"^\s*([A-Z][A-Za-z -]+?) : (.+?)\s*$", said, re.MULTILINE))
    return "degraded" not in found["State"] and found["Failed Devices"] == "0"


def digests(guest: Guest, *paths: str) -> dict[str, str]:
    """SHA-256 of the first 24 MiB of files and devices, read from their disks."""
    script = (
        f"sync; echo 3 > /proc/sys/vm/drop_caches; for one; do head -c {24 * MIB} $one | sha256sum;"
        " done"
    )
    said = guest.run(["sh", "-c", script, "sh", *paths], timeout_s=240).stdout
    return dict(zip(paths, said.split()[::2], strict=True))


def mounted(guest: Guest, *paths: str) -> None:
    """Wait until a boot has mounted all of these."""
    argv = ("mountpoint", "-q")
    eventually(
        lambda: all(guest.run([*argv, one], check=False).returncode == 0 for one in paths),
        _PATIENCE_S,
    )
