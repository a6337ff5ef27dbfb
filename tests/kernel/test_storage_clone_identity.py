"""What tells a copied host from its template, taken out of a file system that is not mounted."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from storage_devices import Loop, loop, mounted, run

from hostlerd.storage.worker import clone_identity
from hostlerd.storage.worker.refused import Refused
from hostlerd.storage.worker.tools import Tools

pytestmark = pytest.mark.kernel
OLD, NEW = "11111111-2222-3333-4444-555555555555", "66666666-7777-8888-9999-aaaaaaaaaaaa"
FSTAB = f"UUID={OLD} / ext4 defaults 0 1\nUUID=other /srv ext4 defaults 0 2\n"
TOOLS = Tools(lambda: None)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Loop]:
    with loop(tmp_path, "root", 32) as one:
        run("/usr/sbin/mkfs.ext4", "-q", "-U", OLD, one.device)
        yield one


def fill(disk: Loop, at: Path) -> None:
    """Make it the root of a host."""
    with mounted(disk.device, at) as root:
        ssh = root / "etc/ssh"
        ssh.mkdir(parents=True)
        (root / "etc/machine-id").write_text("0123456789abcdef0123456789abcdef\n")
        (root / "etc/hostname").write_text("template\n")
        (root / "etc/fstab").write_text(FSTAB)
        for name in ("ssh_host_rsa_key", "ssh_host_rsa_key.pub", "sshd_config", "ssh_host_notes"):
            (ssh / name).write_text(name)


def test_a_clone_has_no_identity_but_its_name(disk: Loop, tmp_path: Path) -> None:
    fill(disk, tmp_path / "at")
    done = clone_identity.reset(disk.device, "web", (OLD, NEW), TOOLS)
    assert done == ["machine-id", "hostname", "fstab", "ssh_host_rsa_key", "ssh_host_rsa_key.pub"]
    run("/usr/sbin/e2fsck", "-f", "-n", disk.device)
    with mounted(disk.device, tmp_path / "at") as root:
        assert (root / "etc/machine-id").read_text() == ""
        assert (root / "etc/hostname").read_text() == "web\n"
        assert (root / "etc/fstab").read_text() == FSTAB.replace(OLD, NEW)
        assert sorted(p.name for p in (root / "etc/ssh").iterdir()) == [
            "ssh_host_notes",
            "sshd_config",
        ]
        seen = (root / "etc/machine-id").stat()
        assert (seen.st_mode & 0o7777, seen.st_uid) == (0o444, 0)


def test_without_a_name_that_of_the_template_stays(disk: Loop, tmp_path: Path) -> None:
    fill(disk, tmp_path / "at")
    assert "hostname" not in clone_identity.reset(disk.device, "", (NEW, OLD), TOOLS)
    with mounted(disk.device, tmp_path / "at") as root:
        assert (root / "etc/hostname").read_text() == "template\n"
        assert (root / "etc/fstab").read_text() == FSTAB


def test_a_link_in_the_template_leads_out_of_it_nowhere(disk: Loop, tmp_path: Path) -> None:
    fill(disk, tmp_path / "at")
    outside = tmp_path / "outside"
    outside.write_text("mine\n")
    with mounted(disk.device, tmp_path / "at") as root:
        (root / "etc/hostname").unlink()
        (root / "etc/hostname").symlink_to(outside)
    clone_identity.reset(disk.device, "web", (OLD, NEW), TOOLS)
    assert outside.read_text() == "mine\n"
    with mounted(disk.device, tmp_path / "at") as root:
        assert not (root / "etc/hostname").is_symlink()


def test_what_is_no_root_is_left(disk: Loop, tmp_path: Path) -> None:
    with mounted(disk.device, tmp_path / "at") as root:
        (root / "song").write_text("la")
    before = disk.hash()
    with pytest.raises(Refused) as told:
        clone_identity.reset(disk.device, "web", (OLD, NEW), TOOLS)
    assert told.value.reason == "NOT_A_SYSTEM" and disk.hash() == before
