"""The programs that run restic, as processes; a tree with all that is odd; comparing trees."""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any

import storage_programs
from hosts_witness import eventually
from storage_daemon import CONFIG, World
from storage_devices import worker_process
from stream_daemon import running

NOUN = "backup"
SECRET = "correct horse battery staple"  # noqa: S105
PROGRAM = """
from pathlib import Path
from hostlerd.runtime.server import main
from hostlerd.storage import __main__ as storage
from hostlerd.storage.kernel.doors import Door
from hostlerd.storage.kernel.worker_client import Worker

place = Path({place!r})
Worker.__init__.__defaults__ = (place / "worker.sock",)
Door.__init__.__defaults__ = (place,)
main("storage", storage.build)
"""


def program(place: Path, role: str) -> AbstractContextManager[subprocess.Popen[bytes]]:
    """One of the two, at `storage-ROLE.sock` of a folder, with the worker's definitions there."""
    state = ("--state", str(place / f"{role}-state"))
    definitions = ("--definitions", str(place / "worker-state/backups"))
    return storage_programs.program(
        place, role, "hostlerd.storage.backup", role, *state, *definitions
    )


@contextmanager
def backup_world(place: Path) -> Iterator[World]:
    """A daemon with its worker and both programs, until the block ends."""
    with ExitStack() as stack:
        worker = stack.enter_context(worker_process(place))
        for role in ("backup", "restore"):
            stack.enter_context(program(place, role))
        text = PROGRAM.format(place=str(place))
        daemon = stack.enter_context(running(place / "daemon", text))
        (place / "storage.sock").symlink_to(place / "daemon/netns.sock")
        (place / "fleet.toml").write_text(f'[hosts.local]\naddress = "unix:{place}"\n')
        (place / "config.toml").write_text(CONFIG)
        yield World(place, daemon, worker)


def odd_tree(root: Path) -> None:
    """Files that a backup easily gets wrong, each in its own way."""
    (root / "deep/er").mkdir(parents=True)
    (root / "empty").mkdir(mode=0o1777)
    (root / "deep/er/text").write_bytes(b"words\n" * 1000)
    (root / "none").write_bytes(b"")
    os.link(root / "deep/er/text", root / "twin")
    with (root / "sparse").open("wb") as file:
        file.write(b"head")
        file.truncate(8 << 20)
        file.seek(0, os.SEEK_END)
        file.write(b"tail")
    (root / "noise").write_bytes(os.urandom(300_000))
    (root / "run").write_bytes(b"#!/bin/sh\n")
    (root / "run").chmod(0o4755)
    os.chown(root / "noise", 1234, 4321)
    os.setxattr(root / "noise", "user.colour", b"\x00\xffgreen")
    os.setxattr(root / "run", "security.capability", bytes.fromhex("0100000200200000" + "00" * 12))
    subprocess.run(["/usr/bin/setfacl", "-m", "u:1234:rw", root / "none"], check=True)
    (root / "link").symlink_to("deep/er/text")
    (root / "dangling").symlink_to("nowhere\n")
    os.mkfifo(root / "fifo", 0o640)
    os.mknod(root / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    folder = os.fsencode(root)
    for name in (b"new\nline", b"\xff\xfe", b" *?[a]\\", b"-rf", "Zoë".encode(), b"n" * 255):
        with open(os.path.join(folder, name), "wb") as file:  # noqa: PTH118, PTH123
            file.write(name)
    os.utime(root / "deep", ns=(1, 987_654_321_123_456_789))


def described(root: Path) -> dict[bytes, Any]:
    """All that lies in a tree, as bytes of paths; hard links by which names share a file."""
    top, found, twins = os.fsencode(root), {}, {}
    for folder, folders, files in os.walk(top):
        for name in (*folders, *files):
            path = os.path.join(folder, name)  # noqa: PTH118
            seen = os.lstat(path)
            short = path[len(top) :]
            content: bytes = b""
            if stat.S_ISREG(seen.st_mode):
                content = Path(os.fsdecode(path)).read_bytes()
                twins.setdefault(seen.st_ino, []).append(short)
            elif stat.S_ISLNK(seen.st_mode):
                content = os.readlink(path)  # noqa: PTH115
            names = os.listxattr(path, follow_symlinks=False)
            extended = {n: os.getxattr(path, n, follow_symlinks=False) for n in names}
            owner = (seen.st_mode, seen.st_uid, seen.st_gid, seen.st_rdev, seen.st_mtime_ns)
            found[short] = (owner, extended, content)
    return {**found, b"twins": sorted(map(sorted, twins.values()))}


def secret(place: Path) -> None:
    """Write the password's file of a place."""
    (place / "password").write_text(f"{SECRET}\n")
    (place / "password").chmod(0o600)


def definition(place: Path, name: str, **more: Any) -> dict[str, Any]:
    """A backup of `tree` to `repository` of a place."""
    return {
        "name": name,
        "paths": [str(place / "tree")],
        "repository": str(place / "repository"),
        "password_file": str(place / "password"),
        **more,
    }


def get(host: World, name: str) -> Any:
    """A backup as it is now."""
    return host.call(NOUN, "GetBackup", "vera", name=name).backup


def settled(host: World, method: str, **fields: Any) -> Any:
    """Begin something and wait for its end; answer the backup as it is then."""
    host.call(NOUN, method, **fields)
    return eventually(lambda: (one := get(host, fields["name"])) and not one.busy and one, 60)
