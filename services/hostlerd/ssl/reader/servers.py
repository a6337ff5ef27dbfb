"""Finds the servers of the host, by where they keep their configuration and by how they run."""

from __future__ import annotations

import glob
import itertools
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from hostlerd.ssl.model import cgroup
from hostlerd.ssl.model.place import Listener
from hostlerd.ssl.model.site import Parsed
from hostlerd.ssl.plan.servers import (
    apache,
    dovecot,
    haproxy,
    lighttpd,
    nginx,
    openvpn,
    postfix,
    postgresql,
)
from hostlerd.ssl.reader import opening, proc, tcp

_FILE_BYTES, _MOST_MATCHES = 4 << 20, 2000
_PROGRAMS = {
    **{"nginx": "nginx", "apache2": "apache", "httpd": "apache", "lighttpd": "lighttpd"},
    **{"haproxy": "haproxy", "master": "postfix", "smtpd": "postfix", "dovecot": "dovecot"},
    **{"postgres": "postgresql", "openvpn": "openvpn"},
}


class Disk:
    """Configuration files of the host: regular ones alone, bounded."""

    def read(self, path: str) -> str | None:
        """The text of a file, None if it cannot be read or is too large."""
        try:
            data = opening.read(path, _FILE_BYTES)
        except (OSError, ValueError):
            return None
        return None if len(data) > _FILE_BYTES else data.decode("utf-8", "replace")

    def glob(self, pattern: str) -> Sequence[str]:
        """The files that a pattern names, in order; the files of a folder that is named."""
        if "\0" in pattern or "**" in pattern:
            return ()
        if os.path.isdir(pattern):  # noqa: PTH112
            pattern = f"{glob.escape(pattern)}/*"
        found = sorted(glob.iglob(pattern))  # noqa: PTH207
        return [each for each in found[:_MOST_MATCHES] if os.path.isfile(each)]  # noqa: PTH113


def program_of(pid: int) -> str:
    """Which of the servers a process is, "" if none."""
    return _PROGRAMS.get(
        proc.link(f"/proc/{pid}/exe").removesuffix(" (deleted)").rpartition("/")[2], ""
    )


def configurations(listeners: Sequence[Listener]) -> Iterator[Parsed]:
    """What each server's configuration says: those that run, and those where they are kept."""
    disk = Disk()
    seen: set[tuple[str, ...]] = set()
    for server, words in [*_running(listeners), *_kept()]:
        if (server, *words) not in seen:
            seen.add((server, *words))
            yield _parse(disk, server, words)


def _parse(disk: Disk, server: str, words: tuple[str, ...]) -> Parsed:
    if server == "nginx":
        return nginx.parse(disk, words[0])
    if server == "apache":
        return apache.parse(disk, words[0], words[1], _apache_defines(disk))
    if server == "lighttpd":
        return lighttpd.parse(disk, words[0])
    if server == "haproxy":
        return haproxy.parse(disk, words)
    if server == "postfix":
        return postfix.parse(disk, words[0])
    if server == "dovecot":
        return dovecot.parse(disk, words[0])
    if server == "postgresql":
        return postgresql.parse(disk, words[0], words[1])
    return openvpn.parse(disk, words[0])


def _apache_defines(disk: Disk) -> dict[str, str]:
    """What Debian's start script puts into the environment. Source: /etc/apache2/envvars."""
    text = disk.read("/etc/apache2/envvars") or ""
    found = dict(re.findall(r"(?m)^export (APACHE_[A-Z_]+)=([^\s$]+)", text))
    found.setdefault("APACHE_LOG_DIR", "/var/log/apache2")
    return found


def _kept() -> Iterator[tuple[str, tuple[str, ...]]]:
    """Where distributions keep them."""
    for server, path, more in (
        ("nginx", "/etc/nginx/nginx.conf", ()),
        ("apache", "/etc/apache2/apache2.conf", ("/etc/apache2",)),
        ("apache", "/etc/httpd/conf/httpd.conf", ("/etc/httpd",)),
        ("lighttpd", "/etc/lighttpd/lighttpd.conf", ()),
        ("haproxy", "/etc/haproxy/haproxy.cfg", ()),
        ("dovecot", "/etc/dovecot/dovecot.conf", ()),
    ):
        if os.path.isfile(path):  # noqa: PTH113
            yield server, (path, *more)
    if os.path.isfile("/etc/postfix/main.cf"):  # noqa: PTH113
        yield "postfix", ("/etc/postfix",)
    for path in sorted(glob.iglob("/etc/postgresql/*/*/postgresql.conf")):  # noqa: PTH207
        yield "postgresql", (path, "")
    for pattern in (
        "/etc/openvpn/*.conf",
        "/etc/openvpn/server/*.conf",
        "/etc/openvpn/client/*.conf",
    ):
        for path in sorted(glob.iglob(pattern)):  # noqa: PTH207
            yield "openvpn", (path,)


def _running(listeners: Sequence[Listener]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """The configurations that command lines of listening servers name."""
    for pid, server in sorted({(each.pid, each.server) for each in listeners if each.server}):
        words = proc.arguments(pid)
        folder = proc.link(f"/proc/{pid}/cwd") or "/"
        if server == "nginx":
            # Its title has the command line behind the words "master process".
            words = " ".join(words).replace("nginx: master process", "", 1).split()
        if found := _named(server, words, folder):
            yield server, found


def _named(server: str, words: list[str], folder: str) -> tuple[str, ...]:
    def value(*options: str) -> list[str]:
        return [str(Path(folder) / b) for a, b in itertools.pairwise(words) if a in options]

    if server in ("nginx", "dovecot"):
        return tuple(value("-c")[-1:])
    if server == "lighttpd":
        return tuple(value("-f")[-1:])
    if server == "haproxy":
        return tuple(value("-f", "--"))
    if server == "apache" and (found := value("-f")):
        return found[-1], (value("-d") or ["/etc/apache2"])[-1]
    if server == "postgresql" and (data := value("-D")):
        joined = " ".join(words)
        named = re.search(r"config_file=(\S+)", joined)
        return (named[1] if named else f"{data[-1]}/postgresql.conf"), data[-1]
    if server == "openvpn":
        return tuple(value("--config")[-1:])
    return ()


def listeners() -> list[Listener]:
    """The listening TCP sockets of the host's own network, and whose they are."""
    listening = {each.inode: each.place for each in tcp.sockets(1) if each.listens}
    found: dict[str, Listener] = {}
    # No two sockets of any namespaces have the same inode.
    for pid in proc.processes():
        for inode in proc.socket_inodes(pid) & listening.keys():
            place = listening[inode]
            # Of a server's many processes the first one, which is the one that was started; but
            # systemd keeps the sockets of those that it wakes.
            if place not in found or found[place].pid == 1:
                unit = cgroup.unit_of(proc.cgroup(pid))
                found[place] = Listener(place, pid, proc.comm(pid), unit, program_of(pid))
    # What nobody is seen to hold is systemd's, or that of a process which is not shown.
    for place in set(listening.values()) - found.keys():
        found[place] = Listener(place, 0, "", "", "")
    return sorted(found.values(), key=lambda each: each.place)
