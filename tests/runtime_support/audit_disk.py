"""Real small filesystems for a log, and a journal that keeps what it gets."""

from __future__ import annotations

import json
import os
import re
import socket
import struct
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def small_disk(folder: Path, kind: str, mebibytes: int) -> Iterator[Path]:
    """Mount a filesystem of its own on `folder`/disk, unmounted whatever happens."""
    place = folder / "disk"
    place.mkdir()
    if kind == "tmpfs":
        argv = ["/usr/bin/mount", "-t", "tmpfs", "-o", f"size={mebibytes}m", "tmpfs", str(place)]
    else:
        image = folder / "image"
        with image.open("wb") as stream:
            stream.truncate(mebibytes << 20)
        make = ["/usr/sbin/mkfs.ext4", "-q", "-m", "0", str(image)]
        subprocess.run(make, check=True, timeout=30)
        argv = ["/usr/bin/mount", "-o", "loop", str(image), str(place)]
    subprocess.run(argv, check=True, timeout=30)
    try:
        yield place
    finally:
        subprocess.run(["/usr/bin/umount", "--lazy", str(place)], check=True, timeout=30)


def fill(place: Path) -> Path:
    """Take all the room there is; answers the file that has it."""
    hog = place / "hog"
    with hog.open("ab", buffering=0) as stream:
        for size in (1 << 20, 1 << 16, 4096, 512, 1):
            try:
                while stream.write(bytes(size)) == size:
                    pass
            except OSError:
                continue
        os.fsync(stream.fileno())
    return hog


def free_bytes(place: Path) -> int:
    """How much room is left."""
    told = os.statvfs(place)
    return told.f_bavail * told.f_frsize


class Journal:
    """Speaks journald's native protocol at a socket, as far as the audit log uses it."""

    def __init__(self, path: Path) -> None:
        self.entries: list[dict[str, bytes]] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
        self._socket.bind(str(path))
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while data := self._socket.recv(1 << 20):
            self.entries.append(_entry(data))

    @property
    def lines(self) -> list[bytes]:
        """The lines of the chain that came here, in the order of their numbers."""
        chained = [e["HOSTLER_AUDIT_LINE"] for e in self.entries if "HOSTLER_AUDIT_SEQ" in e]
        return sorted(chained, key=lambda line: int(json.loads(line)["seq"]))


def _entry(data: bytes) -> dict[str, bytes]:
    found = {}
    while data:
        head, _, rest = data.partition(b"\n")
        key, equals, value = head.partition(b"=")
        if equals and re.fullmatch(rb"[A-Z_]+", key):
            data = rest
        else:
            (size,) = struct.unpack("<Q", rest[:8])
            key, value, data = head, rest[8 : 8 + size], rest[9 + size :]
        found[key.decode()] = value
    return found
