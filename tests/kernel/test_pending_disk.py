"""On a full disk, a real small one, what is pending can still be confirmed, and taken back."""

from __future__ import annotations

import errno
import os
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from journal_files import Put
from pending_host import PendingHost, new_group

from hostlerd.pending import place as files
from hostlerd.pending.documents import History
from hostlerd.runtime.errors import DomainError

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(120)]

SIZE_BYTES, BLOCK_BYTES = 8 << 20, 1024


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """An ext4 of a few MiB on a loop device."""
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    image, mount = tmp_path / "image", tmp_path / "disk"
    with image.open("wb") as file:
        file.truncate(SIZE_BYTES)
    subprocess.run(["/usr/sbin/mkfs.ext4", "-q", str(image)], check=True, timeout=60)
    mount.mkdir()
    subprocess.run(["/usr/bin/mount", "-o", "loop", str(image), str(mount)], check=True, timeout=60)
    try:
        yield mount
    finally:
        subprocess.run(["/usr/bin/umount", str(mount)], check=True, timeout=60)


@contextmanager
def full(disk: Path) -> Iterator[None]:
    """Leave no block that a file could have, and take each that gets free."""
    is_full, stop = threading.Event(), threading.Event()
    thread = threading.Thread(target=_fill, args=(disk / "full", is_full, stop))
    thread.start()
    try:
        assert is_full.wait(30), "it does not get full"
        yield
    finally:
        stop.set()
        thread.join(30)


def _fill(path: Path, is_full: threading.Event, stop: threading.Event) -> None:
    size = 1 << 20
    with path.open("ab", buffering=0) as file:
        while not stop.is_set():
            try:
                file.write(b"x" * size)
                os.fsync(file.fileno())
            except OSError as e:
                assert e.errno == errno.ENOSPC
                if size == BLOCK_BYTES:
                    is_full.set()
                    time.sleep(0.0005)
                size = BLOCK_BYTES


def opened(host: PendingHost) -> str:
    group = new_group()
    host.netns.change((Put("n", "1"), Put("m", "1")), group, 30)
    host.firewall.put("f", group)
    return group


def everything_on(disk: Path) -> PendingHost:
    (disk / "root").mkdir()
    host = PendingHost(disk / "root")
    # /run is memory on every host.
    subprocess.run(
        ["/usr/bin/mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(host.place.run)],
        check=True,
        timeout=60,
    )
    for domain in host.domains:
        (host.place.run / domain).mkdir()
    return host


@pytest.fixture
def host(disk: Path) -> Iterator[PendingHost]:
    host = everything_on(disk)
    try:
        with host:
            yield host
    finally:
        subprocess.run(["/usr/bin/umount", str(host.place.run)], check=True, timeout=60)


def test_a_full_disk_keeps_nothing_from_going_back(host: PendingHost, disk: Path) -> None:
    group = opened(host)
    host.netns.put("last", group)
    with full(disk):
        ended = host.netns.door.revert("")
        assert (ended.outcome, ended.reason) == ("reverted", "asked for")
        assert host.state() == {"netns": {}, "firewall": {}}
        host.settled()
        # Each at its turn, and no turn twice.
        assert host.started == ["netns", "firewall", "netns"]


def test_a_full_disk_keeps_nothing_from_being_confirmed(host: PendingHost, disk: Path) -> None:
    group = opened(host)
    with full(disk):
        assert host.netns.confirm(group) is not None
        assert host.firewall.confirm(group) is None
        host.settled()
        assert host.netns.state() == {"n": "1", "m": "1"}
        assert host.ended()[0] == ("kept", "confirmed")
    # The history is on the disk again as soon as there is room.
    (disk / "full").unlink()
    group = new_group()
    host.netns.put("later", group, 30)
    host.netns.door.revert(group)
    on_disk = files.read(History, host.place.ended[0])
    assert on_disk is not None and len(on_disk.groups) == 2


def test_on_a_full_disk_nothing_new_is_begun(host: PendingHost, disk: Path) -> None:
    with full(disk), pytest.raises(DomainError) as caught:
        opened(host)
    assert caught.value.reason in ("CONFIRM_UNAVAILABLE", "JOURNAL_UNAVAILABLE")
    assert host.state() == {"netns": {}, "firewall": {}}
    host.settled()
