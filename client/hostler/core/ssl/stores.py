"""Stores of roots: where systems keep what they trust, and what is in one."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from hostler.core.ssl import pem
from hostler.core.ssl.certificate import Certificate, parse_errors

STORES = (
    Path("/etc/ssl/certs/ca-certificates.crt"),
    Path("/etc/pki/tls/certs/ca-bundle.crt"),
    Path("/etc/ssl/ca-bundle.pem"),
    Path("/etc/ssl/cert.pem"),
)
"""Of Debian, Red Hat, SUSE and Alpine, in this order."""
MAX_STORE_BYTES = 16 << 20


def system_store() -> Path | None:
    """The store of this system; None if it has none that is known."""
    return next((store for store in STORES if store.exists()), None)


def read_store(path: Path) -> tuple[Certificate, ...]:
    """The certificates of a store, read once while the file is the same.

    Raises ValueError if none can be read, OSError.
    """
    return _read(path, _version(path))


def read_named(path: Path, names: Collection[bytes]) -> tuple[Certificate, ...]:
    """Those of a PEM store whose `subject_key` is one of some names.

    Reading all of a store takes a twentieth of a second, and a chain needs one or two of it.
    Raises OSError; what cannot be read is none.
    """
    index = _by_name(path, _version(path))
    return tuple(one for name in sorted(names) for one in index.get(name, ()))


def _version(path: Path) -> tuple[int, int, int]:
    status = path.stat()
    return status.st_ino, status.st_mtime_ns, status.st_size


def _bytes(path: Path) -> bytes:
    with path.open("rb") as stream:
        return stream.read(MAX_STORE_BYTES + 1)


@lru_cache(maxsize=4)
def _by_name(path: Path, _version: tuple[int, int, int]) -> Mapping[bytes, list[Certificate]]:
    found: dict[bytes, list[Certificate]] = defaultdict(list)
    for block in pem.blocks(_bytes(path)):
        if block.body is not None:
            one = Certificate(block.body, f"{path}:{block.line}")
            # Their extensions and keys are left unread: nobody asks for most of them.
            with suppress(*parse_errors()):
                found[one.subject_key].append(one)
    return found


@lru_cache(maxsize=8)
def _read(path: Path, _version: tuple[int, int, int]) -> tuple[Certificate, ...]:
    # What reads every form takes longer to import than the system's store needs to be read.
    from hostler.core.ssl.reading import read_contents

    contents = read_contents(_bytes(path), str(path), max_bytes=MAX_STORE_BYTES)
    if not contents.certificates:
        faults = "; ".join(map(str, contents.faults[:3]))
        raise ValueError(faults or f"{path}: no certificate is in it")
    return contents.certificates
