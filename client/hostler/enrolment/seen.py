"""What a host says of itself before anything is done to it."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from hostler.core.certificates import Certificate, CertificateUnreadable, read_certificate
from hostler.core.names import InvalidField
from hostler.enrolment.errors import EnrolmentError
from hostler.enrolment.scripts import BEGIN, END

T = TypeVar("T")

_MAX_LINE = 512 * 1024
_AGAIN = "give the command again; if it stays so, look what this host's login shell prints"


@dataclass(frozen=True, slots=True)
class Seen:
    """A host, as it was when it was looked at.

    `clock_s` is its time of day. `packages` maps names to version and dpkg's state, `staged` names
    of files to the SHA-256 of those that an earlier try has brought. `ca` and `certificate` are of
    an enrolment that is over, `joining` says that one has begun; `open` names the domains whose
    sockets listen and will after a boot. `has_pair` is set where there is a certificate that
    cannot be read, too.
    """

    clock_s: int
    uid: int
    os_id: str = ""
    os_version: str = ""
    os_name: str = ""
    architecture: str = ""
    systemd: bool = False
    hostname: str = ""
    room_kib: Mapping[str, int] = field(default_factory=dict)
    packages: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    staged: Mapping[str, str] = field(default_factory=dict)
    ca: Certificate | None = None
    ca_pem: bytes = b""
    certificate_pem: bytes = b""
    certificate: Certificate | None = None
    has_pair: bool = False
    joining: bool = False
    open: frozenset[str] = frozenset()


def parse(data: bytes) -> Seen:
    """Read what the script LOOK has printed. Raises EnrolmentError if it is not that."""
    facts: dict[str, list[str]] = {}
    for word, rest in _lines(data):
        facts.setdefault(word, []).append(rest)

    def one(word: str, default: str = "") -> str:
        return facts.get(word, [default])[0].strip()

    try:
        return Seen(
            clock_s=int(one("clock")),
            uid=int(one("uid")),
            os_id=one("os_id"),
            os_version=one("os_version"),
            os_name=one("os_name"),
            architecture=one("architecture"),
            systemd=one("systemd") == "yes",
            hostname=one("hostname"),
            room_kib=_table(facts.get("room_kib", ()), lambda words: int(words[0])),
            packages=_table(facts.get("package", ()), lambda words: (words[0], words[1])),
            staged=dict(_staged(facts.get("staged", ()))),
            ca=_certificate(one("ca")),
            ca_pem=_pem(one("ca")),
            certificate_pem=_pem(one("certificate")),
            certificate=_certificate(one("certificate")),
            has_pair="certificate" in facts,
            joining=one("joining") == "yes",
            open=frozenset(facts.get("open", ())),
        )
    except (ValueError, IndexError) as e:
        raise EnrolmentError("ODD_ANSWER", f"the host answered something else: {e}", _AGAIN) from e


def _lines(data: bytes) -> Iterator[tuple[str, str]]:
    """The facts between the marks; what a login shell prints around them does not count."""
    lines = data.decode(errors="replace").split("\n")
    try:
        begin = lines.index(BEGIN)
        end = lines.index(END, begin)
    except ValueError:
        words = data[-200:].decode(errors="replace").strip() or "nothing"
        raise EnrolmentError("ODD_ANSWER", f"the host answered {words!r}", _AGAIN) from None
    for line in lines[begin + 1 : end]:
        if len(line) <= _MAX_LINE:
            word, _, rest = line.partition(" ")
            yield word, rest


def _table(lines: Iterable[str], value: Callable[[list[str]], T]) -> dict[str, T]:
    """Map the first word of each line to what the others say. Raises ValueError, IndexError."""
    words = [line.split() for line in lines]
    return {each[0]: value(each[1:]) for each in words if each}


def _staged(lines: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Names of files and their hashes. Source: sha256sum(1)."""
    for line in lines:
        digest, _, path = line.strip().partition("  ")
        yield path.rpartition("/")[2], digest


def _pem(text: str) -> bytes:
    """What is in base64, nothing if that is none."""
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        return b""


def _certificate(text: str) -> Certificate | None:
    """The certificate in base64 of its PEM, None if there is none or it is none of Hostler's."""
    try:
        return read_certificate(base64.b64decode(text, validate=True)) if text else None
    except (binascii.Error, CertificateUnreadable, InvalidField):
        return None
