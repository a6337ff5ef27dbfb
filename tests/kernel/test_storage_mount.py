"""Mounts and swap areas through the daemon and the worker, on loop devices of the test.

No systemd runs here: what it does with a unit is done by mount(8), see mount_manager.py. With real
systemd it is shown in tests/hosts and tests/vm.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from hosts_witness import eventually
from journal_rows import refusal
from storage_daemon import World, world
from storage_devices import Loop, called, loop, mounted, run, target

from hostler.api.common.v1 import change_pb2
from hostler.api.storage.v1 import mount_pb2, mount_pb2_grpc
from hostlerd.runtime.errors import InvalidRequest
from hostlerd.storage import errors
from hostlerd.storage.kernel.worker_client import Worker
from hostlerd.storage.model.mount import State, Unit, mount_name, render
from hostlerd.storage.model.mount_steps import SetMount

pytestmark = [pytest.mark.kernel]
UUID = "2f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0"
LINK = Path(f"/dev/disk/by-uuid/{UUID}")
NOUN = "mount"


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with world(tmp_path_factory.mktemp("storage")) as made:
        yield made


@contextmanager
def linked(device: str) -> Iterator[None]:
    """What udev makes, where none runs."""
    made = [one for one in (LINK.parent.parent, LINK.parent) if not one.exists()]
    LINK.parent.mkdir(parents=True, exist_ok=True)
    LINK.symlink_to(device)
    try:
        yield
    finally:
        LINK.unlink()
        for folder in reversed(made):
            folder.rmdir()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Loop]:
    """An ext4, linked, and whatever is mounted of it unmounted in the end."""
    with loop(tmp_path, "disk", 32) as made, linked(made.device):
        run("/usr/sbin/mkfs.ext4", "-q", "-U", UUID, made.device)
        try:
            yield made
        finally:
            run("/usr/bin/umount", "--all-targets", "--recursive", made.device, status=None)


@pytest.fixture
def where(host: World, tmp_path: Path) -> Iterator[str]:
    at = str(tmp_path / "srv/data")
    yield at
    run("/usr/bin/umount", "--quiet", at, status=None)
    for folder in ("etc/systemd/system", "run/systemd/system"):
        for one in (host.place / "root" / folder).rglob(mount_name(at)):
            one.unlink()


def apply(host: World, where: str, **more: Any) -> Any:
    return host.call(NOUN, "ApplyMount", **{"where": where, "device": UUID, **more})


def delete(host: World, where: str, **more: Any) -> Any:
    return host.call(NOUN, "DeleteMount", "olga", where=where, **more)


def findmnt(where: str) -> dict[str, str]:
    """What is mounted there, by another program; empty if nothing is."""
    said = run("/usr/bin/findmnt", "--json", "--mountpoint", where, status=None)
    return dict(json.loads(said)["filesystems"][0]) if said else {}


def unit_of(host: World, where: str, folder: str = "etc/systemd/system") -> Path:
    return host.place / "root" / folder / mount_name(where)


def is_enabled(host: World, where: str) -> str:
    """What the real systemctl says of the folders."""
    argv = ("/usr/bin/systemctl", f"--root={host.place / 'root'}", "is-enabled", mount_name(where))
    return run(*argv, status=None).strip()


def listed(host: World, where: str) -> Any:
    return next((o for o in host.call(NOUN, "ListMounts", "vera").mounts if o.where == where), None)


def test_a_filesystem_is_mounted_changed_and_unmounted(
    host: World, disk: Loop, where: str, tmp_path: Path
) -> None:
    planned = apply(host, where, change={"validate_only": True}).change
    assert planned.outcome == change_pb2.OUTCOME_PLANNED and not findmnt(where)
    with pytest.raises(grpc.RpcError) as denied:
        host.call(NOUN, "ApplyMount", "olga", where=where, device=UUID)
    assert denied.value.code() is grpc.StatusCode.PERMISSION_DENIED
    done = apply(host, where, options=["noatime"], change={})
    assert (done.change.outcome, done.unit) == (change_pb2.OUTCOME_APPLIED, mount_name(where))
    found = findmnt(where)
    assert (found["source"], found["fstype"]) == (disk.device, "ext4")
    assert {"noatime", "nosuid", "nodev"} <= set(found["options"].split(","))
    assert oct(unit_of(host, where).stat().st_mode & 0o777) == "0o644"
    assert is_enabled(host, where) == "enabled"
    assert not apply(host, where, options=["noatime"]).change.changed
    one = listed(host, where)
    assert (one.ours, one.mounted, one.what, list(one.differs)) == (True, True, str(LINK), [])
    # Other options, and only until the next boot: what is mounted stays, and takes them.
    (Path(where) / "file").write_text("here")
    apply(host, where, options=["ro"], until_boot=True)
    assert "ro" in findmnt(where)["options"].split(",")
    assert not unit_of(host, where).exists() and is_enabled(host, where) != "enabled"
    assert unit_of(host, where, "run/systemd/system").is_file()
    assert (Path(where) / "file").read_text() == "here"
    # Declared and not mounted any more: it differs, and is mounted again.
    run("/usr/bin/umount", where)
    assert list(listed(host, where).differs) == ["NOT_MOUNTED"]
    assert apply(host, where, options=["ro"], until_boot=True).change.changed and findmnt(where)
    assert delete(host, where).change.changed and not delete(host, where).change.changed
    assert not findmnt(where) and listed(host, where) is None
    assert not (tmp_path / "srv").exists()
    assert not list((host.place / "root").rglob(mount_name(where)))


def test_what_is_below_stays_and_is_told(host: World, disk: Loop, where: str) -> None:
    Path(where).mkdir(parents=True)
    (Path(where) / "hidden").write_text("still here")
    told = apply(host, where, change={"validate_only": True}).change.warnings
    assert [one.code for one in told] == ["MOUNT_HIDES_CONTENT"]
    apply(host, where)
    assert not (Path(where) / "hidden").exists()
    delete(host, where)
    assert (Path(where) / "hidden").read_text() == "still here"


HOLDERS = {
    "stands in it": "import os, time; os.chdir({path!r}); print(1, flush=True); time.sleep(60)",
    "has it open": "import time; f = open({path!r} + '/f', 'w'); print(1, flush=True); "
    "time.sleep(60)",
    "has it mapped": "import mmap, time; f = open({path!r} + '/f', 'w+b'); f.write(b'x' * 4096); "
    "f.flush(); m = mmap.mmap(f.fileno(), 0); f.close(); print(1, flush=True); time.sleep(60)",
}


def test_what_is_used_stays_mounted_and_says_by_whom(host: World, disk: Loop, where: str) -> None:
    apply(host, where)
    text = unit_of(host, where).read_text()
    for program in HOLDERS.values():
        argv = [sys.executable, "-Ic", program.format(path=where)]
        with subprocess.Popen(argv, stdout=subprocess.PIPE) as holder:
            try:
                assert holder.stdout is not None and holder.stdout.readline()
                busy = refused(lambda: delete(host, where))
            finally:
                holder.kill()
        assert busy["reason"] == "MOUNT_BUSY" and f"({holder.pid}) has {where}" in busy["used_by"]
    inner = Path(where) / "inner"
    inner.mkdir()
    run("/usr/bin/mount", "-t", "tmpfs", "none", str(inner))
    busy = refused(lambda: delete(host, where))
    assert f"{inner} is mounted in it" in busy["used_by"]
    run("/usr/bin/umount", str(inner))
    # What requires it would be stopped with it.
    required = host.place / "root/required"
    required.write_text("database.service local-fs.target")
    assert "database.service requires" in refused(lambda: delete(host, where))["used_by"]
    required.unlink()
    assert findmnt(where) and is_enabled(host, where) == "enabled"
    assert unit_of(host, where).read_text() == text
    delete(host, where)


def refused(call: Any) -> dict[str, str]:
    return dict(refusal(call))


def test_what_fails_leaves_all_as_it_was(
    host: World, disk: Loop, where: str, tmp_path: Path
) -> None:
    # This filesystem has no quotas of projects: the kernel does not mount it so.
    failed = refused(lambda: apply(host, where, options=["prjquota"]))
    assert failed["reason"] == "MOUNT_FAILED"
    assert not (tmp_path / "srv").exists() and not list(host.place.rglob(mount_name(where)))
    apply(host, where)
    text = unit_of(host, where).read_text()
    # Nor can it change its journal while it is mounted.
    assert refused(lambda: apply(host, where, options=["ro", "data=journal"]))
    assert "rw" in findmnt(where)["options"].split(",")
    assert unit_of(host, where).read_text() == text and is_enabled(host, where) == "enabled"
    delete(host, where)


def test_another_device_is_not_taken_for_the_right_one(
    host: World, disk: Loop, where: str, tmp_path: Path
) -> None:
    with loop(tmp_path, "other", 32) as other:
        run("/usr/sbin/mkfs.ext4", "-q", other.device)
        # Something comes between the link and the mount.
        (host.place / "root/instead").write_text(other.device)
        failed = refused(lambda: apply(host, where))
        (host.place / "root/instead").unlink()
        assert failed["reason"] == "MOUNT_FAILED" and not findmnt(where)
        assert not (tmp_path / "srv").exists() and not unit_of(host, where).exists()
        LINK.unlink()
        LINK.symlink_to(other.device)
        assert refused(lambda: apply(host, where))["reason"] == "LINK_MISSING"
        assert not (tmp_path / "srv").exists() and not unit_of(host, where).exists()
        LINK.unlink()
        LINK.symlink_to(disk.device)
        with mounted(other.device, tmp_path / "hand") as at:
            assert refused(lambda: apply(host, str(at)))["reason"] == "UNIT_NOT_OURS"
            assert refused(lambda: delete(host, str(at)))["reason"] == "UNIT_NOT_OURS"
            assert findmnt(str(at))["source"] == other.device


def test_the_worker_checks_all_of_it_again(
    host: World, disk: Loop, where: str, tmp_path: Path
) -> None:
    asked = Worker(host.place / "worker.sock")
    unit = Unit(str(LINK), where, "ext4", ("nosuid", "nodev", "nofail"))
    step = SetMount(where, target(disk), State(), State(unit, is_active=True))
    path = unit_of(host, where)

    def with_unit(**more: Any) -> SetMount:
        return replace(step, after=State(replace(unit, **more), is_active=True))

    for wrong in (
        with_unit(what=disk.device),
        with_unit(options=("bind",)),
        with_unit(type="overlay"),
        with_unit(where=f"{where}2"),
        replace(with_unit(where="/etc/x"), where="/etc/x"),
        replace(step, after=State(None, is_active=True)),
    ):
        with pytest.raises(InvalidRequest):
            asked.apply(wrong)
    path.write_text("[Mount]\nWhat=/dev/sdz\n")
    with pytest.raises(errors.UnitNotOurs):
        asked.apply(step)
    path.unlink()
    # A mask, and a unit of ours that somebody has linked to from elsewhere.
    elsewhere = tmp_path / path.name
    elsewhere.write_text(render(unit))
    for leads_to in (Path("/dev/null"), elsewhere):
        path.symlink_to(leads_to)
        with pytest.raises(errors.UnitNotOurs):
            asked.apply(step)
        path.unlink()
    (tmp_path / "srv").symlink_to(tmp_path)
    with pytest.raises(errors.MountPointStrange):
        asked.apply(step)
    (tmp_path / "srv").unlink()
    asked.apply(step)
    # A retry finds it done; a plan that saw something else does not touch it.
    asked.apply(step)
    with pytest.raises(errors.UnitChanged):
        asked.apply(with_unit(options=("ro",)))
    changed = path.read_text() + "# by hand\n"
    path.write_text(changed)
    with pytest.raises(errors.UnitNotOurs):
        asked.apply(step.inverse())
    assert path.read_text() == changed and findmnt(where)
    path.write_text(changed.removesuffix("# by hand\n"))
    asked.apply(step.inverse())
    assert not findmnt(where) and not path.exists() and not (tmp_path / "srv").exists()


def test_a_daemon_that_dies_has_the_next_one_go_on(
    host: World, disk: Loop, where: str, tmp_path: Path
) -> None:
    request = mount_pb2.ApplyMountRequest(where=where, device=UUID, change={"request_id": UUID})
    with disk.locked(), host.daemon.channel("alice") as channel:
        stub = mount_pb2_grpc.MountServiceStub(channel)
        call = stub.ApplyMount.future(request, timeout=60, wait_for_ready=True)
        # The worker has it, and waits for the lock.
        eventually(lambda: disk.device in open_files(host.worker.pid))
        host.daemon.process.kill()
        host.daemon.process.wait()
        call.cancel()
    host.daemon.kill_and_start()
    eventually(lambda: findmnt(where))
    retried = apply(host, where, change={"request_id": UUID}).change
    assert retried.outcome == change_pb2.OUTCOME_APPLIED
    assert is_enabled(host, where) == "enabled" and not apply(host, where).change.changed
    delete(host, where)


def open_files(pid: int) -> set[str]:
    found = set()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(OSError):
            found.add(str(entry.readlink()))
    return found


def test_an_area_is_swapped_to_and_no_more(host: World, tmp_path: Path) -> None:
    with loop(tmp_path, "area", 32) as area, linked(area.device):
        run("/usr/sbin/mkswap", "-U", UUID, area.device)
        swap = lambda **more: host.call(NOUN, "ApplySwap", "olga", device=UUID, **more)  # noqa: E731
        try:
            done = swap(priority=7)
            assert done.change.changed and done.unit.endswith(".swap")
            assert shown(area) == "7" and not swap(priority=7).change.changed
            assert swap(priority=9, until_boot=True).change.changed and shown(area) == "9"
            (one,) = [o for o in host.call(NOUN, "ListSwaps", "vera").swaps if o.ours]
            assert (one.active, one.priority, one.until_boot) == (True, 9, True)
            gone = host.call(NOUN, "DeleteSwap", "olga", device=UUID)
            assert gone.change.changed and shown(area) == ""
            assert not list((host.place / "root").rglob("*.swap"))
            # What somebody has done by hand is his.
            run("/usr/sbin/swapon", area.device)
            by_hand = lambda: host.call(NOUN, "DeleteSwap", "olga", device=UUID)  # noqa: E731
            assert refused(by_hand)["reason"] == refused(swap)["reason"] == "UNIT_NOT_OURS"
            assert shown(area)
        finally:
            run("/usr/sbin/swapoff", area.device, status=None)


def shown(area: Loop) -> str:
    """The priority with which it is swapped to, by another program; "" if it is not."""
    rows = run("/usr/sbin/swapon", "--show=NAME,PRIO", "--noheadings", "--raw").split("\n")
    return next((row.split()[1] for row in rows if row.split()[:1] == [area.device]), "")


def test_the_command_shows_the_plan_and_does_it(host: World, disk: Loop, where: str) -> None:
    words = ("mount", "apply", where, called(disk), "-o", "noatime,ro")
    shown = host.hostler("--plan", "storage", *words)
    assert f"on {where} by" in shown and not findmnt(where)
    host.hostler("--yes", "storage", *words)
    assert "ro" in findmnt(where)["options"].split(",")
    table = host.hostler("storage", "mount", "list")
    assert where in table and str(unit_of(host, where).name) in table
    host.hostler("--yes", "storage", "mount", "delete", where)
    assert not findmnt(where) and not os.path.lexists(where)
    assert "SWAP" in host.hostler("storage", "swap", "list")
    refused = host.hostler("--yes", "storage", "mount", "apply", "/etc", UUID, status=1)
    assert "would cover /etc" in refused
