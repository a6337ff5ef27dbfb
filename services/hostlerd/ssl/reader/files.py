"""Walks the host's folders for certificates and keys, and reads those that are."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cache
from grp import getgrgid

from hostler.core.ssl import reading
from hostler.core.ssl.reading import Contents, FaultCode, read_contents
from hostlerd.ssl.model.library import Unseen
from hostlerd.ssl.model.place import Fault, FileFound, KeyFound
from hostlerd.ssl.reader import containers, opening, proc

DEFAULT_FOLDERS = (
    *("/etc/ssl", "/etc/pki", "/etc/letsencrypt", "/etc/nginx", "/etc/apache2", "/etc/httpd"),
    *("/etc/lighttpd", "/etc/haproxy", "/etc/postfix", "/etc/dovecot", "/etc/postgresql"),
    *("/etc/openvpn", "/etc/exim4", "/etc/ldap", "/etc/mysql", "/etc/docker", "/etc/kubernetes"),
    *("/etc/caddy", "/etc/hostler/pki", "/usr/local/etc/ssl", "/root/.acme.sh"),
    *("/usr/local/share/ca-certificates", "/usr/share/ca-certificates"),
)
_TRUSTED_FOLDERS = (
    *("/usr/share/ca-certificates/", "/usr/local/share/ca-certificates/", "/etc/ca-certificates/"),
    *("/etc/pki/ca-trust/", "/usr/share/pki/", "/etc/ssl/certs/java/"),
)
_TRUSTED_FILES = ("/etc/ssl/certs/ca-certificates.crt", "/etc/ssl/cert.pem")
_SUFFIXES = (
    *(".pem", ".crt", ".cer", ".cert", ".der", ".key", ".p12", ".pfx", ".p7b", ".p7c", ".p8"),
    *(".jks", ".keystore"),
)
MAX_FILE_BYTES = 4 << 20
_MOST_FILES, _MOST_DEPTH, _MOST_CACHED, _MOST_NAMES = 200_000, 16, 50_000, 20
_MOST_PASSPHRASES = 50
_JKS = (b"\xfe\xed\xfe\xed", b"\xce\xce\xce\xce")
_PEM = b"-----BEGIN "


@dataclass(slots=True)
class _One:
    """A file that was met: its descriptor's facts, and the names that lead to it."""

    status: os.stat_result
    own: str = ""
    container: str = ""
    links: list[str] = field(default_factory=list)

    @property
    def paths(self) -> tuple[str, ...]:
        return tuple(([self.own] if self.own else []) + self.links)[:_MOST_NAMES]


Identity = tuple[int, int, int, int]


class Inventory:
    """Reads files. What was read is kept while a file is the same; of keys their facts alone."""

    def __init__(self) -> None:
        self._read: dict[Identity, Contents | None] = {}

    def look(
        self,
        folders: Sequence[str],
        named: Sequence[str],
        passphrases: Mapping[str, Sequence[bytes]],
        until: float,
    ) -> Iterator[FileFound | Unseen]:
        """Every file with something in it below the folders, and those that are `named`.

        `passphrases` are those to try for keys, by their files. `until` is monotonic.
        """
        found: dict[tuple[int, int], _One] = {}
        for name in named:
            _meet(found, name, named=True)
        ended = False
        for path in _walk(folders):
            if time.monotonic() > until or len(found) >= _MOST_FILES:
                ended = True
                break
            _meet(found, path, named=False)
        wanted = set(named)
        for count, one in enumerate(found.values()):
            if time.monotonic() > until:
                yield Unseen("TIME_OVER", f"{len(found) - count} files are not read")
                return
            if made := self._file(one, wanted, passphrases):
                yield made
        if ended:
            yield Unseen("TIME_OVER", "not all folders are looked through")

    def look_inside(self, folders: Sequence[str], until: float) -> Iterator[FileFound | Unseen]:
        """The same of every root that is not the host's. `until` is monotonic."""
        found = containers.pids(proc.processes())
        for pid in found[: containers.MOST]:
            if time.monotonic() > until:
                yield Unseen("TIME_OVER", "not all containers are looked into", "containers")
                return
            # A container that ends meanwhile has nothing to tell.
            with suppress(OSError), containers.opened(pid) as root:
                yield from self._inside(root, folders, until)
        if len(found) > containers.MOST:
            words = f"{len(found) - containers.MOST} containers are not looked into"
            yield Unseen("TOO_MANY", words, "containers")

    def _inside(
        self, root: containers.Root, folders: Sequence[str], until: float
    ) -> Iterator[FileFound | Unseen]:
        for count, path in enumerate(containers.files(root, folders)):
            if time.monotonic() > until or count >= containers.MOST_FILES_EACH:
                yield Unseen("TIME_OVER", "not all folders of it are looked through", root.name)
                return
            try:
                fd = root.open(path, os.O_PATH)
            except OSError:
                continue
            status = os.fstat(fd)
            one, contents = _One(status, path, root.name), None
            try:
                if stat.S_ISREG(status.st_mode):
                    contents = self._contents(fd, status, (path,), set())
            except OSError as e:
                yield _fault(one, "UNREADABLE", e.strerror or str(e))
                continue
            finally:
                os.close(fd)
            if contents:
                yield _made(one, contents)

    def _file(
        self, one: _One, wanted: set[str], passphrases: Mapping[str, Sequence[bytes]]
    ) -> FileFound | None:
        paths = one.paths
        try:
            fd, status = opening.status_of(paths[0])
        except OSError as e:
            return _fault(one, "UNREADABLE", e.strerror or str(e))
        try:
            contents = self._contents(fd, status, paths, wanted)
            tried = [p for path in paths for p in passphrases.get(path, ())]
            if contents and tried and _is_locked(contents):
                contents = _unlocked(fd, paths[0], tried) or contents
        except OSError as e:
            return _fault(one, "UNREADABLE", e.strerror or str(e))
        finally:
            os.close(fd)
        return _made(one, contents) if contents else None

    def _contents(
        self, fd: int, status: os.stat_result, paths: Sequence[str], wanted: set[str]
    ) -> Contents | None:
        key = (status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size)
        is_wanted = any(path in wanted or path.lower().endswith(_SUFFIXES) for path in paths)
        if key in self._read:
            return self._read[key]
        if len(self._read) >= _MOST_CACHED:
            self._read.clear()
        data = opening.content(fd, MAX_FILE_BYTES)
        self._read[key] = made = _read(data, paths[0], is_wanted=is_wanted)
        return made


def _walk(folders: Sequence[str]) -> Iterator[str]:
    """The files below folders, in order. Links to folders are not followed: they may be loops."""
    waiting = [(folder, 0) for folder in reversed(folders)]
    seen: set[tuple[int, int]] = set()
    while waiting:
        folder, depth = waiting.pop()
        try:
            status = os.stat(folder, follow_symlinks=depth == 0)  # noqa: PTH116
            if not stat.S_ISDIR(status.st_mode) or (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            with os.scandir(folder) as entries:
                inner = sorted(entries, key=lambda e: e.name)
        except OSError:
            continue
        for entry in reversed(inner):
            if entry.is_dir(follow_symlinks=False) and depth < _MOST_DEPTH:
                waiting.append((entry.path, depth + 1))
        for entry in inner:
            if entry.is_file(follow_symlinks=False) or entry.is_symlink():
                yield entry.path


def _meet(found: dict[tuple[int, int], _One], path: str, *, named: bool) -> None:
    """Note a file by its identity, under every name that leads to it."""
    try:
        status = os.stat(path)  # noqa: PTH116
        is_link = stat.S_ISLNK(os.lstat(path).st_mode)
    except OSError:
        return
    if not stat.S_ISREG(status.st_mode):
        return
    one = found.setdefault((status.st_dev, status.st_ino), _One(status))
    if not is_link and not one.own:
        one.own = path
    elif path not in (one.own, *one.links) and (named or not _is_hash_link(path)):
        one.links.append(path)
    elif not one.paths:
        one.links.append(path)


def _is_hash_link(path: str) -> bool:
    """Whether a link is one of those that OpenSSL finds issuers by: 8 digits, a dot, a number."""
    name, _, number = path.rpartition("/")[2].rpartition(".")
    return len(name) == 8 and number.removeprefix("r").isdigit()


def _read(data: bytes, path: str, *, is_wanted: bool) -> Contents | None:
    """What is in a file; None for one that nobody takes for a certificate or a key."""
    looks_like = _PEM in data or b"-\0-\0-\0-\0-\0B\0E\0G\0I\0N" in data
    if data[:4] in _JKS:
        return Contents("jks", (), (), (), (_jks(path),))
    if not (is_wanted or looks_like or data[:1] == b"\x30"):
        return None
    contents = read_contents(data, path, max_bytes=MAX_FILE_BYTES)
    nothing = not (contents.certificates or contents.keys)
    if not is_wanted and nothing and (not looks_like or not contents.faults):
        return None
    return contents


def _jks(path: str) -> reading.Fault:
    # The one library for it, pyjks, had its last release in 2020 and wants a cipher in C of 2013.
    why = "a Java key store of the old kind, which is not read; keytool makes PKCS #12 of it"
    return reading.Fault(FaultCode.UNKNOWN_FORMAT, path, why)


def _is_locked(contents: Contents) -> bool:
    return any(fault.code is FaultCode.PASSPHRASE_NEEDED for fault in contents.faults)


def _unlocked(fd: int, path: str, passphrases: Sequence[bytes]) -> Contents | None:
    """What is in a file by the first passphrase that fits."""
    data = opening.content(fd, MAX_FILE_BYTES)
    for each in passphrases[:_MOST_PASSPHRASES]:
        contents = read_contents(data, path, each, max_bytes=MAX_FILE_BYTES)
        if any(key.facts.spki_sha256 for key in contents.keys):
            return contents
    return None


def _made(one: _One, contents: Contents) -> FileFound:
    keys = tuple(
        KeyFound(
            key.facts.kind,
            key.facts.size_bits,
            key.facts.curve,
            key.facts.spki_sha256,
            key.facts.encrypted,
            key.facts.weaknesses,
        )
        for key in contents.keys
    )
    # What is encrypted is told by its key; it is no fault of the file.
    faults = tuple(
        Fault(fault.code.value, f"{fault.place}: {fault.message}")
        for fault in contents.faults
        if fault.code is not FaultCode.PASSPHRASE_NEEDED or not keys
    )
    return replace(
        _blank(one),
        format=contents.kind,
        certificates=tuple(each.data for each in contents.certificates),
        keys=keys,
        faults=faults,
    )


def _fault(one: _One, code: str, message: str) -> FileFound:
    return replace(_blank(one), faults=(Fault(code, message),))


def _blank(one: _One) -> FileFound:
    status, paths = one.status, one.paths
    trusted = any(path.startswith(_TRUSTED_FOLDERS) or path in _TRUSTED_FILES for path in paths)
    inside = bool(one.container)
    return FileFound(
        paths,
        "",
        str(status.st_uid) if inside else proc.user_name(status.st_uid),
        str(status.st_gid) if inside else _group(status.st_gid),
        stat.S_IMODE(status.st_mode),
        status.st_mtime_ns,
        trusted,
        container=one.container,
    )


@cache
def _group(gid: int) -> str:
    try:
        return getgrgid(gid).gr_name
    except KeyError:
        return str(gid)
