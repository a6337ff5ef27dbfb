"""What lay at the places of a device that tell what it holds, kept before they are overwritten.

The first and the last MiB have partition tables and the superblocks of nearly everything; where
wipefs(8) knows of a signature elsewhere, its surroundings are kept too. Put back, they bring back
what nothing else has overwritten meanwhile.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
import time
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path

from hostlerd.storage.model.saved import ID, Region, Saved
from hostlerd.storage.worker.identity import Device
from hostlerd.storage.worker.refused import Refused
from hostlerd.storage.worker.tools import probe

MOST_KEPT = 256
#: Where units of this host's own lie. systemd.unit(5).
SYSTEM_UNITS = Path("/etc/systemd/system")
_MIB = 1 << 20
_AROUND_BYTES = 4096
# The copies of a btrfs superblock: btrfs rescue would find them.
_BTRFS_COPIES = (64 << 20, 256 << 30)
#: Timers of backups that are not written to their end.
TIMER_DRAFTS = ".hostler-storage-backup@*.draft"
_WIPEFS = "/usr/sbin/wipefs"


class Store:
    """The folder where it is kept: the newest of all, in a number that is bounded."""

    def __init__(self, folder: Path, units: Path = SYSTEM_UNITS) -> None:
        self._folder = folder
        self.units = units

    @property
    def backups(self) -> Path:
        """The folder beside it, where definitions of backups are kept."""
        return self._folder.with_name("backups")

    def sweep(self) -> None:
        """Remove what a worker that was killed has left half written. Raises OSError."""
        for draft in self._folder.glob(".*"):
            shutil.rmtree(draft)
        for draft in (*self.backups.glob(".*.draft"), *self.units.glob(TIMER_DRAFTS)):
            draft.unlink()

    @property
    def exports(self) -> Path:
        """The folder beside it, where definitions of exports are kept."""
        return self._folder.with_name("exports")

    @property
    def attachments(self) -> Path:
        """The folder beside it, where definitions of attachments are kept."""
        return self._folder.with_name("attachments")

    def save(self, device: Device, operation: str, more: Sequence[tuple[int, int]] = ()) -> str:
        """Keep what will be overwritten on a device, on disk; answer its name. Raises OSError.

        `more` are places beside the usual ones, from and to.
        """
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._forget(MOST_KEPT - 1)
        name = name_of(time.time_ns())
        pieces = [(one, _read(device.fd, one)) for one in regions(device, more)]
        kept = tuple(
            Region(one.offset, one.length, hashlib.sha256(piece).hexdigest())
            for one, piece in pieces
        )
        saved = Saved(name, operation, int(time.time()), device.target, kept)
        draft = self._folder / f".{name}"
        draft.mkdir(mode=0o700)
        _write(draft / "regions.zlib", zlib.compress(b"".join(p for _, p in pieces), 1))
        _write(draft / "about.json", json.dumps(asdict(saved)).encode())
        _sync(draft)
        draft.rename(self._folder / name)
        _sync(self._folder)
        return name

    def all(self) -> list[Saved]:
        """All that is kept, the newest first."""
        found = []
        for name in reversed(self._names()):
            try:
                found.append(self._about(name))
            except (OSError, KeyError, TypeError, ValueError):
                # One that is damaged must not hide the others.
                continue
        return found

    def load(self, name: str) -> tuple[Saved, list[bytes]]:
        """Answer what is kept under a name, proven to be what was saved. Raises Refused."""
        try:
            saved = self._about(name)
            length = sum(region.length for region in saved.regions)
            packed = (self._folder / name / "regions.zlib").read_bytes()
            content = zlib.decompressobj().decompress(packed, length)
        except FileNotFoundError:
            raise Refused(
                "SAVED_NOT_FOUND", "nothing is kept under that name", saved=name
            ) from None
        except (KeyError, TypeError, ValueError, zlib.error):
            raise _damaged(name) from None
        pieces, at = [], 0
        for region in saved.regions:
            pieces.append(content[at : at + region.length])
            at += region.length
            if hashlib.sha256(pieces[-1]).hexdigest() != region.sha256:
                raise _damaged(name)
        return saved, pieces

    def _about(self, name: str) -> Saved:
        return Saved.read(json.loads((self._folder / name / "about.json").read_bytes()))

    def _names(self) -> list[str]:
        try:
            return sorted(p.name for p in self._folder.iterdir() if ID.fullmatch(p.name))
        except FileNotFoundError:
            return []

    def _forget(self, most: int) -> None:
        names = self._names()
        for name in names[: max(0, len(names) - most)]:
            shutil.rmtree(self._folder / name)


def name_of(unix_ns: int) -> str:
    """A name that sorts by its moment, to the microsecond."""
    seconds, rest = divmod(unix_ns, 1_000_000_000)
    moment = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(seconds))
    return f"{moment}-{rest // 1000:05x}{secrets.randbelow(1 << 12):03x}"


def regions(device: Device, more: Sequence[tuple[int, int]] = ()) -> list[Region]:
    """The places of a device that tell what it holds, in order, none of them overlapping."""
    size = device.target.size_bytes
    wanted = [(0, _MIB), (size - _MIB, size), *more]
    around = [*_signatures(device.path), *_BTRFS_COPIES]
    for offset in around:
        start = offset - offset % _AROUND_BYTES
        wanted.append((start, start + _AROUND_BYTES))
    joined: list[list[int]] = []
    for start, end in sorted(wanted):
        start, end = max(0, start), min(end, size)
        if start >= end:
            continue
        if joined and start <= joined[-1][1]:
            joined[-1][1] = max(joined[-1][1], end)
        else:
            joined.append([start, end])
    return [Region(start, end - start) for start, end in joined]


def write(fd: int, where: Iterable[Region], pieces: Iterable[bytes]) -> None:
    """Write pieces to their places, down to the disk. Raises OSError."""
    for region, piece in zip(where, pieces, strict=True):
        done = 0
        while done < region.length:
            done += os.pwrite(fd, piece[done:], region.offset + done)
    os.fsync(fd)


def _signatures(path: str) -> list[int]:
    """Where wipefs sees any signature. Raises Refused."""
    said = probe((_WIPEFS, "--no-act", "--json", "--output", "OFFSET", path))
    told = json.loads(said) if said.strip() else {}
    return [int(one["offset"], 16) for one in told.get("signatures", ())]


def _damaged(name: str) -> Refused:
    return Refused("SAVED_DAMAGED", "what is kept under that name is damaged", saved=name)


def _read(fd: int, region: Region) -> bytes:
    content = b""
    while len(content) < region.length:
        more = os.pread(fd, region.length - len(content), region.offset + len(content))
        if not more:
            raise OSError(5, "the device ends before its end")
        content += more
    return content


def _write(path: Path, content: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(fd)


def _sync(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
