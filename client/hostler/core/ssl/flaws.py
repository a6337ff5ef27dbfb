"""Flaws of TLS libraries by which keys may have got out, and which services have them.

Pure. The table has a few that are well known; of any other the operator says the library and the
version that puts it right, as `hostler ssl affected` takes them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from hostler.core.ssl.compromise import Found

# What processes are called, where that is not what their configuration is known by.
_SERVERS = {"apache2": "apache", "httpd": "apache", "postgres": "postgresql", "master": "postfix"}


@dataclass(frozen=True, slots=True)
class Flaw:
    """A flaw. `versions` are those of the library that have it; empty: all before `fixed_in`.

    A distribution that put it right in a version of its own keeps the number: say its package's.
    """

    cve: str
    library: str
    fixed_in: str
    versions: frozenset[str] = frozenset()
    what: str = ""
    source: str = ""


KNOWN: Mapping[str, Flaw] = {
    flaw.cve: flaw
    for flaw in (
        Flaw(
            "CVE-2014-0160",
            "openssl",
            "1.0.1g",
            frozenset({"1.0.1", *(f"1.0.1{letter}" for letter in "abcdef")}),
            "Heartbleed: anybody reads 64 KiB of the process at a time, keys among it",
            "https://www.openssl.org/news/secadv/20140407.txt",
        ),
        Flaw(
            "CVE-2022-3602",
            "openssl",
            "3.0.7",
            frozenset(f"3.0.{number}" for number in range(7)),
            "a certificate's e-mail address overruns the stack; code may run beside the keys",
            "https://www.openssl.org/news/secadv/20221101.txt",
        ),
    )
}


@dataclass(frozen=True, slots=True)
class User:
    """A process that runs a library: `versions` are those that it has of it, "" if not known."""

    host: str
    pid: int
    comm: str
    unit: str
    container: str
    versions: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Door:
    """What a process serves: `leaves` are the certificates that it shows, or is to."""

    host: str
    pid: int
    comm: str
    unit: str
    server: str
    leaves: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Exposed:
    """What a flaw exposes: keys by spki, the processes that had them, and those without a key.

    `keyless` run the library and serve nothing that is known: clients, mostly.
    """

    keys: tuple[str, ...]
    users: tuple[User, ...]
    keyless: tuple[User, ...]


def has(flaw: Flaw, user: User) -> bool:
    """Whether a process has a flaw, or may have it, since its version is not known."""
    if not flaw.versions:
        return True
    return any(not version or version in flaw.versions for version in user.versions)


def exposed(
    flaw: Flaw, users: Iterable[User], doors: Sequence[Door], certificates: Collection[Found]
) -> Exposed:
    """Answer which keys processes with a flaw have: all that their servers are configured with."""
    keys: set[str] = set()
    serving: list[User] = []
    keyless: list[User] = []
    by_leaf = {(found.host, found.fingerprint): found.spki for found in certificates}
    for user in users:
        if not has(flaw, user):
            continue
        own = [door for door in doors if _is(user, door)]
        theirs = {by_leaf[user.host, leaf] for d in own for leaf in d.leaves
                  if (user.host, leaf) in by_leaf}  # fmt: skip
        servers = {door.server for door in own if door.server}
        servers.add(_SERVERS.get(user.comm, user.comm))
        theirs |= {
            found.spki
            for found in certificates
            if found.host == user.host and any(use.server in servers for use in found.uses)
        }
        keys |= theirs
        (serving if theirs else keyless).append(user)
    return Exposed(tuple(sorted(keys)), tuple(serving), tuple(keyless))


def _is(user: User, door: Door) -> bool:
    """Whether a process is the one that listens, or another one of its unit."""
    if user.host != door.host:
        return False
    same_unit = bool(user.unit) and user.unit == door.unit and not user.container
    return user.pid == door.pid or same_unit
