"""What a server's configuration says of TLS: sites, files that they name, settings. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from hostlerd.ssl.model.library import Unseen


class Role(StrEnum):
    """What a file is named for. BOTH is one with certificate and key in it."""

    CERTIFICATE = "certificate"
    KEY = "key"
    BOTH = "both"
    CHAIN = "chain"
    AUTHORITY = "authority"
    PASSPHRASE = "passphrase"  # noqa: S105 # a name


@dataclass(frozen=True, slots=True)
class Setting:
    """A setting that decides about TLS, and where it stands; `line` is 0 for a default."""

    name: str
    value: str
    path: str
    line: int


@dataclass(frozen=True, slots=True)
class Reference:
    """A file that a configuration names, and the setting that names it."""

    role: Role
    file: str
    setting: str
    path: str
    line: int


@dataclass(frozen=True, slots=True)
class Site:
    """One name or group of names at some listeners. `default` is what is served without a name.

    `listeners` are ADDRESS:PORT, "*" and "[::]" for all; `starttls` is the protocol that TLS is
    begun in. Where `by_certificate`, the names are those of the certificate. `passphrase` is that
    of the key where the configuration itself has it; it never leaves the reader.
    """

    server: str
    names: tuple[str, ...]
    listeners: tuple[str, ...]
    references: tuple[Reference, ...]
    settings: tuple[Setting, ...] = ()
    default: bool = False
    starttls: str = ""
    by_certificate: bool = False
    passphrase: str = field(default="", repr=False)


@dataclass(slots=True)
class Parsed:
    """What the configuration of one server says, and what of it could not be understood."""

    sites: list[Site] = field(default_factory=list)
    unseen: list[Unseen] = field(default_factory=list)

    def note(self, code: str, message: str, subject: str) -> None:
        """Note what could not be understood; at most 100 things."""
        if len(self.unseen) < 100:
            self.unseen.append(Unseen(code, message, subject))
