"""Files with certificates and keys, as the reader tells of them. Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class KeyFound:
    """The public facts of a private key; `kind` is "unknown" where its passphrase is not known."""

    kind: str
    size_bits: int
    curve: str
    spki_sha256: str
    encrypted: bool
    weaknesses: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Fault:
    """What of a file could not be read: a stable word, and words with the place."""

    code: str
    message: str


@dataclass(frozen=True, slots=True)
class FileFound:
    """A file with certificates, as DER, or keys. `paths` are its names, its own one first.

    `trusted` says that it belongs to a trust store, where nobody has put it for a server.
    `container` has the file, by these names: a container, or a unit with a root of its own.
    """

    paths: tuple[str, ...]
    format: str
    owner: str
    group: str
    mode: int
    modify_ns: int
    trusted: bool
    certificates: tuple[bytes, ...] = ()
    keys: tuple[KeyFound, ...] = ()
    faults: tuple[Fault, ...] = ()
    container: str = ""


@dataclass(frozen=True, slots=True)
class Listener:
    """A listening TCP socket of the host's own network: where, and whose."""

    place: str
    pid: int
    comm: str
    unit: str
    server: str
