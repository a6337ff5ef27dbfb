"""Power is cut in the middle of what takes long: it is told, goes on when asked, loses nothing."""

from __future__ import annotations

import pytest
from hosts_witness import eventually
from vm_guest import Guest
from vm_replace import (
    MIB,
    begun,
    digests,
    held_up,
    in_the_middle,
    jobs,
    lasting,
    serial,
    storage,
    watched,
    whole,
)
from vm_suite import Suite

from hostler.api.common.v1 import job_pb2

pytestmark = [pytest.mark.vm, pytest.mark.timeout(3600)]

DISK = 32 * MIB


def filled(vm1: Guest, path: str) -> dict[str, str]:
    """Write what nobody knows to the first 24 MiB; answer its hash."""
    argv = ["dd", "if=/dev/urandom", f"of={path}", "bs=1M", "count=24", "conv=fsync,notrunc"]
    vm1.run([*argv, "status=none"], timeout_s=180)
    return digests(vm1, path)


def cut(guests: Suite, vm1: Guest, job: str) -> str:
    """Cut the power; the job says then that it was cut off, and with which words."""
    vm1.power_cut()
    guests.boot(vm1)
    vm1.wake("storage")
    (told,) = eventually(lambda: [one for one in [jobs(guests).get(job)] if one], 120)
    assert told["state"] == "JOB_STATE_INTERRUPTED" and told["resume"], told
    return str(told["error"]["message"])


def resumed(guests: Suite, words: tuple[str, ...]) -> set[str]:
    """Ask for the same once more, to its end; answer what is told then."""
    *_, last = watched(guests, begun(guests, *words))
    assert last.state == job_pb2.JOB_STATE_SUCCEEDED, last
    return {one.code for one in last.change.warnings}


def array(guests: Suite, vm1: Guest, level: str, *names: str) -> str:
    """Make an array that is at its next work for minutes; answer its path."""
    vm1.run(["modprobe", level])
    for name in names:
        vm1.add_disk(name, DISK)
    shape = ("--level", level, "--assume-clean")
    storage(guests, "array", "create", "data", *shape, *map(serial, names))
    held_up(vm1, "data")
    return lasting(vm1, "data")


def test_a_replacement(guests: Suite) -> None:
    (vm1,) = guests.take("vm1")
    vm1.wake("storage")
    path = array(guests, vm1, "raid1", "m1", "m2")
    before = filled(vm1, path)
    vm1.add_disk("m3", DISK)
    # The old disk is there, and there is no other copy: it stays in use until all is copied.
    words = ("-H", "vm1", "storage", "replace-disk", serial("m1"), serial("m3"))
    told = cut(guests, vm1, in_the_middle(guests, *words))
    assert "ask for the same replacement again" in told
    # md waits for the first write, and there is none: whoever asks again has it go on.
    assert not whole_without(vm1, path, "m1")
    assert "PULL" in resumed(guests, words)
    assert whole_without(vm1, path, "m1")
    assert digests(vm1, path) == before


def whole_without(vm1: Guest, path: str, name: str) -> bool:
    """Whether an array lacks nothing, and has nothing more on a disk."""
    return whole(vm1, path) and vm1.disk(name) not in vm1.run(["mdadm", "--detail", path]).stdout
