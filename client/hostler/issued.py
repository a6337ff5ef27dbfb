"""What an internal CA has issued: the index that outlives replaced and revoked certificates."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from hostler.config import HostlerError
from hostler.core import certificates, files
from hostler.core.certificates import MAX_PEM_BYTES, Certificate, CertificateUnreadable
from hostler.core.names import Identity, InvalidSerial, parse_serial

State = Literal["current", "replaced", "absent", "expired", "revoked"]

INDEX_NAME = "issued.jsonl"
FOLDERS: dict[str, str] = {"host": "hosts", "user": "users"}

_MAX_INDEX_BYTES = 64 * 1024 * 1024


class PkiError(HostlerError):
    """Something about the CA's folder stands in the way. The message says what."""

    exit_code = 1


class PkiNotFound(PkiError):
    """There is no such CA, certificate or name."""


class PkiExists(PkiError):
    """There is one already, and it is not overwritten."""


class PkiDamaged(PkiError):
    """A file of the CA's folder is not what it should be."""


class PkiLocked(PkiError):
    """The CA's key is encrypted, and its passphrase is missing or another one."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A certificate that was issued, and what has become of it.

    `state` is `current` (the one in NAME.pem), `replaced` by a later one, `absent` (its file is
    gone or was never finished), `expired` or `revoked`; the last two go before the others.
    `path` is that of its certificate, None if there is none.
    """

    certificate: Certificate
    state: State
    path: Path | None


def append(folder: Path, certificate: Certificate) -> None:
    """Add a certificate to the index of a CA's folder, on disk. The caller holds the lock."""
    document = asdict(certificate)
    for name in ("not_before", "not_after"):
        document[name] = document[name].isoformat()
    line = json.dumps(document, separators=(",", ":")).encode()
    files.append_line(folder / INDEX_NAME, line, mode=0o600)


def read(folder: Path) -> Sequence[Certificate]:
    """Read the index of a CA's folder, oldest first. Raises PkiDamaged, OSError."""
    path = folder / INDEX_NAME
    try:
        data = files.read_bounded(path, _MAX_INDEX_BYTES)
    except FileNotFoundError:
        return []
    except ValueError as e:
        raise PkiDamaged(str(e)) from e
    # What follows the last newline is a line that is being written, or never was.
    lines = data[: data.rfind(b"\n") + 1].splitlines()
    return [_from_line(line, f"{path}:{n}") for n, line in enumerate(lines, 1)]


def entries(folder: Path, revoked: frozenset[str], now: datetime) -> tuple[Entry, ...]:
    """Tell what has become of each certificate of the index. Raises PkiDamaged, OSError."""
    index = read(folder)
    last: dict[tuple[str, str], str] = {(c.kind, c.name): c.serial for c in index}
    found = []
    for certificate in index:
        path = _locate(folder, certificate)
        latest = last[certificate.kind, certificate.name] == certificate.serial
        state = _state(certificate, path, latest=latest)
        if certificate.not_after <= now:
            state = "expired"
        if certificate.serial in revoked:
            state = "revoked"
        found.append(Entry(certificate, state, path))
    return tuple(found)


def find(all_entries: Sequence[Entry], name_or_serial: str) -> Sequence[Entry]:
    """Find all certificates of a name, else the one of a serial number.

    A name is bare, `user/NAME`, `host/NAME` or a whole identity. Raises PkiNotFound, and PkiError
    if a bare name is both a host's and a user's.
    """
    named = [e for e in all_entries if _answers_to(e.certificate, name_or_serial)]
    found = named or [e for e in all_entries if _has_serial(e.certificate, name_or_serial)]
    if not found:
        raise PkiNotFound(f"nothing was issued as {name_or_serial[:100]!r}")
    if len({e.certificate.identity for e in found}) > 1:
        raise PkiError(
            f"{name_or_serial!r} is a host and a user: "
            f"say host/{name_or_serial} or user/{name_or_serial}"
        )
    return found


def read_file(path: Path) -> Certificate:
    """Read a certificate's file. Raises PkiDamaged, OSError."""
    try:
        return certificates.read_certificate(files.read_bounded(path, MAX_PEM_BYTES))
    except (ValueError, CertificateUnreadable) as e:
        raise PkiDamaged(f"{path}: {e}") from e


def archive_path(folder: Path, certificate: Certificate) -> Path:
    """Answer where a certificate is kept once another has taken its place."""
    name = f"{certificate.name}-{certificate.serial}.pem"
    return folder / "archive" / FOLDERS[certificate.kind] / name


def _state(certificate: Certificate, path: Path | None, *, latest: bool) -> State:
    if path is not None and path.name == f"{certificate.name}.pem":
        return "current"
    return "absent" if latest else "replaced"


def _locate(folder: Path, certificate: Certificate) -> Path | None:
    current = folder / FOLDERS[certificate.kind] / f"{certificate.name}.pem"
    try:
        if read_file(current).serial == certificate.serial:
            return current
    except FileNotFoundError:
        pass
    archived = archive_path(folder, certificate)
    return archived if archived.exists() else None


def _answers_to(certificate: Certificate, name: str) -> bool:
    short = f"{certificate.kind}/{certificate.name}"
    return name in (certificate.name, short, certificate.identity)


def _has_serial(certificate: Certificate, text: str) -> bool:
    try:
        return certificate.serial == parse_serial(text)
    except InvalidSerial:
        return False


def _from_line(line: bytes, where: str) -> Certificate:
    try:
        document: dict[str, Any] = json.loads(line)
        if document.keys() != {field.name for field in fields(Certificate)}:
            raise ValueError("other fields than those of a certificate")
        for name in ("not_before", "not_after"):
            document[name] = datetime.fromisoformat(document[name])
        for name in ("dns_names", "ip_addresses"):
            document[name] = tuple(document[name])
        identity = Identity.parse(document["identity"])
        if (identity.kind, identity.name) != (document["kind"], document["name"]):
            raise ValueError("the identity is not that of the name")
        return Certificate(**document)
    except (ValueError, TypeError, AttributeError) as e:
        raise PkiDamaged(f"{where}: {e}") from e
