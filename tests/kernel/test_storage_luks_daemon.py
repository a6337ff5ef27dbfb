"""LUKS through the daemon, as far as a kernel without dm-crypt goes."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from storage_daemon import World, world
from storage_devices import MIB, Loop, called, loop
from storage_luks import UUID, first

pytestmark = [pytest.mark.kernel]
NOUN = "luks"


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with world(tmp_path_factory.mktemp("luks")) as made:
        yield made


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loop]:
    with loop(tmp_path_factory.mktemp("disks"), "disk", 16) as one:
        fd = os.open(one.device, os.O_WRONLY)
        os.pwrite(fd, first(2 * MIB), 0)
        os.fsync(fd)
        os.close(fd)
        yield one


def test_what_is_enciphered_is_listed_its_header_kept_and_no_key_told(
    host: World, disk: Loop
) -> None:
    items = host.call(NOUN, "ListLuks", "vera").items
    (found,) = [one for one in items if one.device_name == disk.name]
    assert (found.uuid, found.open, found.name) == (UUID, False, "")
    kept = host.call(NOUN, "BackupLuksHeader", device=called(disk))
    listed = host.call("filesystem", "ListSaved", "vera").saved
    (one,) = [one for one in listed if one.name == kept.saved]
    assert one.operation == "BackupLuksHeader" and one.kept_bytes >= 3 * MIB
    closed = host.call(NOUN, "CloseLuks", device=called(disk))
    assert not closed.change.changed and not closed.luks.open
    opened = lambda **more: host.call(NOUN, "OpenLuks", device=called(disk), **more)  # noqa: E731
    assert host.refusal(lambda: opened(name="safe")) == "INVALID_REQUEST"
    missing = lambda: opened(name="safe", key_file="/no/such/key")  # noqa: E731
    assert host.refusal(missing) == "SECRET_UNUSABLE"
    planned = opened(name="safe", key_file="/k", change={"validate_only": True})
    assert [step.kind for step in planned.change.plan.steps] == ["OpenLuks"]


def test_the_command_says_it_too(host: World, disk: Loop) -> None:
    assert UUID in host.hostler("storage", "luks", "list")
    words = ("storage", "luks", "open", called(disk), "safe", "--key-file", "/etc/key")
    assert f"open LUKS {UUID}" in host.hostler("--plan", *words)
    assert "keep the header" in host.hostler("--plan", "storage", "luks", "backup-header", UUID)
    host.hostler("--plan", "storage", "luks", "close", UUID)
