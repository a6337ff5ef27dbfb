"""Which processes have TLS and crypto libraries mapped, and which of those are not the file's."""

from __future__ import annotations

import mmap
import os
import re
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace

from hostlerd.ssl.model import cgroup, library
from hostlerd.ssl.model.library import Library, LibraryUser, Linkage, Unseen, Use
from hostlerd.ssl.reader import dpkg, proc, tcp

_MAPS_BYTES = 32 << 20
_SCAN_BYTES = 512 << 20
_MEMORY_BYTES = 16 << 20
_MOST_CACHED = 20_000
# A quick look at all of a process's maps, before its lines are taken apart.
_ANY = re.compile(rb"/lib(?:ssl|crypto|nss3|gnutls|tls|mbed|wolfssl|nettle|hogweed)[^/\n]*\.so")
_LINE = re.compile(
    rb"^([0-9a-f]+)-([0-9a-f]+) (\S+) [0-9a-f]+ ([0-9a-f]+:[0-9a-f]+) (\d+) +(/[^\n]*)$",
    re.MULTILINE,
)
# Family, version, whether it has the code of TLS, whether it has that of the library at all.
Said = tuple[str, str, bool, bool]
_NOTHING: Said = ("", "", False, False)
_NO_FILES = ("/dev/", "/memfd:", "/SYSV", "/[")


@dataclass(slots=True)
class MappedFile:
    """A file that a process has mapped, and where."""

    path: str
    inode: int
    device: str
    runs: bool = False
    ranges: list[tuple[int, int]] = field(default_factory=list)


class Libraries:
    """Looks through all processes. What files say of themselves is kept while they are the same."""

    def __init__(self) -> None:
        self._said: dict[tuple[int, int, int, int], Said] = {}
        self._memory: dict[tuple[str, int, str], tuple[str, str]] = {}

    def look(self, *, static: bool, until: float) -> Iterator[LibraryUser | Unseen]:
        """Every process with a library, and what could not be seen. `until` is monotonic."""
        # Inodes are given to others once nobody has them: these are good for one look.
        self._memory.clear()
        hidden, seen = 0, 0
        sockets: dict[str, set[int]] = {}
        found: list[tuple[LibraryUser, str]] = []
        for pid in proc.processes():
            if pid == os.getpid():
                continue
            if time.monotonic() > until:
                yield Unseen("TIME_OVER", f"looked at {seen} processes, then the time was over")
                break
            seen += 1
            try:
                maps = proc.read(f"/proc/{pid}/maps", _MAPS_BYTES)
            except PermissionError:
                hidden += 1
                continue
            except OSError:
                continue
            if libraries := self._of(pid, maps, static=static):
                found.append((_user(pid, libraries, sockets), _root(pid)))
        if hidden:
            yield Unseen(
                "PROCESSES_HIDDEN", f"{hidden} processes do not show what they have mapped"
            )
        yield from _with_packages(found)

    def _of(self, pid: int, maps: bytes, *, static: bool) -> tuple[Library, ...]:
        if not static and not _ANY.search(maps):
            return ()
        files = _files(maps)
        shared = _of_one_version([lib for each in files if (lib := self._shared(pid, each))])
        if not static:
            return tuple(shared)
        has = {each.family for each in shared}
        inside = [lib for each in files if each.runs and (lib := self._static(pid, each, has))]
        return tuple(shared + inside)

    def _shared(self, pid: int, mapped: MappedFile) -> Library | None:
        path, deleted = library.without_deleted(mapped.path)
        name = library.named(path)
        if name is None:
            return None
        reason = _staleness(pid, path, mapped, deleted=deleted)
        if reason:
            family, version = self._gone(pid, mapped)
        else:
            family, version, _, _ = self._in_file(pid, path)
        linkage = library.linkage_of(path)
        return Library(family or name[0], name[1], path, linkage, version, "", bool(reason), reason)

    def _gone(self, pid: int, mapped: MappedFile) -> tuple[str, str]:
        """What a library says of itself whose file is gone; asked of the first who has it."""
        key = (mapped.device, mapped.inode, mapped.path)
        said = self._memory.get(key)
        if said is None:
            said = self._memory[key] = _in_memory(pid, mapped)
        return said

    def _static(self, pid: int, mapped: MappedFile, has: set[str]) -> Library | None:
        """A copy inside a program.

        Without the library's code it is but a string, if the library is mapped too: nginx and
        others carry the version that they were built with.
        """
        path, deleted = library.without_deleted(mapped.path)
        if deleted or library.named(path) or path.startswith(_NO_FILES):
            return None
        family, version, tls, whole = self._in_file(pid, path)
        if not family or (family in has and not whole):
            return None
        return Library(family, "libssl" if tls else "libcrypto", path, Linkage.STATIC, version)

    def _in_file(self, pid: int, path: str) -> Said:
        with suppress(OSError, ValueError):
            fd = os.open(f"/proc/{pid}/root{path}", os.O_PATH | os.O_CLOEXEC)
            try:
                status = os.fstat(fd)
                key = (status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size)
                if key in self._said:
                    return self._said[key]
                if len(self._said) >= _MOST_CACHED:
                    self._said.clear()
                self._said[key] = answer = _scan(fd, status)
                return answer
            finally:
                os.close(fd)
        return _NOTHING


def _of_one_version(libraries: list[Library]) -> list[Library]:
    """Give a library that says no version its sibling's, as libssl has that of libcrypto.

    Both came from one package when they were mapped, whatever has become of their files.
    """
    told = {_sibling(each): each.version for each in libraries if each.version}
    return [
        replace(each, version=each.version or told.get(_sibling(each), "")) for each in libraries
    ]


def _sibling(of: Library) -> tuple[str, str, str]:
    folder, _, name = of.path.rpartition("/")
    return of.family, folder, name[name.find(".so") :]


def _scan(path_fd: int, status: os.stat_result) -> Said:
    if (status.st_mode & 0o170000) != 0o100000 or not 0 < status.st_size <= _SCAN_BYTES:
        return _NOTHING
    fd = os.open(f"/proc/self/fd/{path_fd}", os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY)
    try:
        with mmap.mmap(fd, 0, access=mmap.ACCESS_READ) as data:
            family, version = library.version_in(data)
            if not family:
                return _NOTHING
            return family, version, library.has_tls_code(data), library.has_code(data)
    finally:
        os.close(fd)


def _files(maps: bytes) -> list[MappedFile]:
    """The files of a process's maps, each once."""
    files: dict[tuple[bytes, bytes, bytes], MappedFile] = {}
    for start, end, mode, device, inode, path in _LINE.findall(maps):
        key = (device, inode, path)
        if key not in files:
            name = path.decode("utf-8", "surrogateescape")
            files[key] = MappedFile(name, int(inode), device.decode())
        files[key].runs |= b"x" in mode
        if b"w" not in mode:
            files[key].ranges.append((int(start, 16), int(end, 16)))
    return list(files.values())


def _staleness(pid: int, path: str, mapped: MappedFile, *, deleted: bool) -> str:
    """Why what is mapped is not the file any more; "" if it is."""
    try:
        now = os.stat(f"/proc/{pid}/root{path}")  # noqa: PTH116
    except OSError:
        return "deleted" if deleted else "gone: no file has that path any more"
    if deleted or now.st_ino != mapped.inode:
        return f"replaced: inode {mapped.inode} is now {now.st_ino}"
    return ""


def _in_memory(pid: int, mapped: MappedFile) -> tuple[str, str]:
    """What a library says of itself whose file is gone: it is read where it is mapped."""
    left = _MEMORY_BYTES
    with suppress(OSError, OverflowError):
        fd = os.open(f"/proc/{pid}/mem", os.O_RDONLY | os.O_CLOEXEC)
        try:
            for start, end in mapped.ranges:
                size = min(end - start, left)
                left -= size
                # Only pages of the file itself: no range that was ever written to.
                said = library.version_in(os.pread(fd, size, start)) if size > 0 else ("", "")
                if said[0]:
                    return said
        finally:
            os.close(fd)
    return "", ""


def _root(pid: int) -> str:
    """The root of a process's files: "" for that of this host."""
    own, its = proc.link("/proc/1/root"), proc.link(f"/proc/{pid}/root")
    same = proc.link("/proc/1/ns/mnt") == proc.link(f"/proc/{pid}/ns/mnt") and own == its
    return "" if same else f"/proc/{pid}/root"


def _user(pid: int, libraries: tuple[Library, ...], sockets: dict[str, set[int]]) -> LibraryUser:
    namespace = proc.link(f"/proc/{pid}/ns/net")
    if namespace not in sockets:
        sockets[namespace] = {each.inode for each in tcp.sockets(pid)}
    path = proc.cgroup(pid)
    tls = any(library.speaks_tls(each.library) for each in libraries)
    return LibraryUser(
        pid,
        proc.comm(pid),
        cgroup.unit_of(path),
        cgroup.container_of(path),
        proc.user(pid),
        libraries,
        Use.TLS if tls else Use.CRYPTO,
        bool(sockets[namespace] & proc.socket_inodes(pid)),
    )


def _with_packages(found: list[tuple[LibraryUser, str]]) -> Iterator[LibraryUser]:
    """Add the versions of packages, looked up once for each root that has other files."""
    by_root: dict[tuple[int, int], list[tuple[LibraryUser, str]]] = defaultdict(list)
    for user, root in found:
        with suppress(OSError):
            status = os.stat(f"{root}/var/lib/dpkg/status")  # noqa: PTH116
            by_root[status.st_dev, status.st_ino].append((user, root))
            continue
        yield user
    for users in by_root.values():
        paths = {each.path for user, _ in users for each in user.libraries}
        versions = dpkg.versions(users[0][1], paths)
        for user, _ in users:
            told = tuple(
                replace(each, package_version=versions.get(each.path, ""))
                if each.linkage is not Linkage.STATIC and not each.stale
                else each
                for each in user.libraries
            )
            yield replace(user, libraries=told)
