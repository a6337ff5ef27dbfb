"""Headers of LUKS kept and put back on loop devices, and keys that are none of root's."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from storage_devices import MIB, Loop, loop, target, worker
from storage_luks import UUID, first

from hostlerd.runtime.errors import InvalidRequest
from hostlerd.storage import errors
from hostlerd.storage.kernel.worker_client import Worker
from hostlerd.storage.model.filesystem_steps import RestoreSaved, WipeSignatures
from hostlerd.storage.model.luks_steps import BackupLuksHeader, CloseLuks, OpenLuks

pytestmark = pytest.mark.kernel
PAYLOAD = 3 * MIB


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    with worker(tmp_path_factory.mktemp("luks")) as made:
        yield made


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Loop]:
    """A header of LUKS1, and where its keys would be what nobody knows."""
    with loop(tmp_path, "disk", 16) as one:
        fd = os.open(one.device, os.O_WRONLY)
        try:
            os.pwrite(fd, first(PAYLOAD), 0)
            os.pwrite(fd, os.urandom(PAYLOAD - 4096), 4096)
            os.fsync(fd)
        finally:
            os.close(fd)
        yield one


def test_a_header_is_kept_with_its_keys_and_put_back(asked: Worker, disk: Loop) -> None:
    before = disk.hash()
    told = asked.apply(BackupLuksHeader(target(disk), UUID))
    assert told["header_bytes"] == PAYLOAD
    # The places of all keys are overwritten, as by a mistake.
    fd = os.open(disk.device, os.O_WRONLY)
    os.pwrite(fd, bytes(PAYLOAD), 0)
    os.fsync(fd)
    os.close(fd)
    assert disk.hash() != before
    (saved,) = told["saved"].values()
    asked.apply(RestoreSaved(target(disk), saved))
    assert disk.hash() == before


def test_what_holds_another_luks_or_none_is_left(asked: Worker, disk: Loop) -> None:
    seen, other = target(disk), UUID.replace("0f1e", "ffff")
    before = disk.hash()
    for step in (
        BackupLuksHeader(seen, other),
        CloseLuks(seen, other, "safe"),
        OpenLuks(seen, other, "safe", "/etc/hostname"),
    ):
        with pytest.raises(errors.SignaturesChanged):
            asked.apply(step)
    assert asked.apply(CloseLuks(seen, UUID, "safe")) == {}
    assert disk.hash() == before
    asked.apply(WipeSignatures(seen))
    with pytest.raises(errors.SignaturesChanged):
        asked.apply(BackupLuksHeader(seen, UUID))


def test_a_key_is_a_file_that_root_alone_may_open(
    asked: Worker, disk: Loop, tmp_path: Path
) -> None:
    seen, key = target(disk), tmp_path / "key"

    def opened(path: Path | str) -> None:
        asked.apply(OpenLuks(seen, UUID, "safe", str(path)))

    key.write_text("secret words")
    key.chmod(0o600)
    link, empty = tmp_path / "link", tmp_path / "empty"
    link.symlink_to(key)
    empty.touch(0o600)
    for path in (tmp_path / "none", link, empty, tmp_path):
        with pytest.raises(errors.SecretUnusable):
            opened(path)
    for mode in (0o640, 0o604):
        key.chmod(mode)
        with pytest.raises(errors.SecretUnusable, match="nobody else"):
            opened(key)
    key.chmod(0o600)
    os.chown(key, 65534, 65534)
    with pytest.raises(errors.SecretUnusable, match="root's"):
        opened(key)
    os.chown(key, 0, 0)
    # The machine of the tests has no cryptsetup, or no dm-crypt; what it says has no key in it.
    with pytest.raises(errors.DomainError) as told:
        opened(key)
    assert told.value.reason in ("TOOL_MISSING", "TOOL_FAILED", "LUKS_KEY_WRONG")
    assert "secret words" not in f"{told.value.message}{told.value.metadata}"
    with pytest.raises(errors.SecretUnusable, match="credstore"):
        asked.apply(OpenLuks(seen, UUID, "safe", "", "no-such-credential"))


@pytest.mark.parametrize("field", ["name", "key_file", "credential", "uuid"])
def test_odd_words_reach_no_tool(asked: Worker, disk: Loop, field: str) -> None:
    whole = {"device": target(disk), "uuid": UUID, "name": "safe", "key_file": "/etc/key"}
    for words in ("-x", "../x", "a\n", "a b\n", "x" * 2000):
        with pytest.raises(InvalidRequest) as told:
            asked.apply(OpenLuks(**{**whole, field: words}))
        assert [one.field for one in told.value.violations] == [field]
