"""What the host's administrator lets the installer do: the table [ssl] of hostler.toml."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from hostlerd.privileged.refused import Refused
from hostlerd.ssl.installer.grammar import KINDS, UNIT

MAX_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Server:
    """A server that may be asked to reload: its unit, or the process that a PID file names."""

    unit: str
    kind: str
    configuration: str = ""
    pid_file: str = ""


@dataclass(frozen=True, slots=True)
class Configuration:
    """`served_within_s` is how long a server may take to serve what was installed."""

    install_directories: tuple[PurePosixPath, ...] = ()
    webroots: tuple[PurePosixPath, ...] = ()
    servers: Mapping[str, Server] = field(default_factory=dict)
    served_within_s: float = 30.0

    def server(self, unit: str, kind: str, path: str) -> Server:
        """Answer the server of a unit. Raises Refused for one that is not configured."""
        found = self.servers.get(unit)
        if found is None or found.kind != kind:
            words = f"hostler.toml names no {kind} with the unit {unit} in [ssl.servers]"
            raise Refused("SERVER_NOT_CONFIGURED", words, [(path, words)])
        return found

    def home_of(self, path: str, at: str) -> PurePosixPath:
        """Answer the folder that a file may be put below. Raises Refused if there is none."""
        wanted = PurePosixPath(path)
        for home in self.install_directories:
            if wanted != home and wanted.is_relative_to(home):
                return home
        words = f"{path} is not below one of [ssl] install_directories of hostler.toml"
        raise Refused("PATH_NOT_ALLOWED", words, [(at, words)])


def read(path: Path) -> Configuration:
    """Read the file; one that is not there allows nothing. Raises Refused, naming the key."""
    try:
        with path.open("rb") as file:
            table = tomllib.loads(file.read(MAX_BYTES).decode())
    except FileNotFoundError:
        return Configuration()
    except (ValueError, OSError) as e:
        raise Refused("CONFIGURATION", f"{path}: {e}") from e
    ssl = table.get("ssl", {})
    if not isinstance(ssl, dict):
        raise Refused("CONFIGURATION", f"{path}: ssl must be a table")
    try:
        return Configuration(
            _folders(ssl.get("install_directories", []), "install_directories"),
            _folders(ssl.get("webroots", []), "webroots"),
            _servers(ssl.get("servers", {})),
            _seconds(ssl.get("served_within_s", 30.0)),
        )
    except ValueError as e:
        raise Refused("CONFIGURATION", f"{path}: {e}") from e


def _folders(listed: Any, key: str) -> tuple[PurePosixPath, ...]:
    if not isinstance(listed, list) or not all(isinstance(each, str) for each in listed):
        raise ValueError(f"ssl.{key} must be a list of folders")
    found = tuple(PurePosixPath(each) for each in listed)
    for each in found:
        if not each.is_absolute() or ".." in each.parts or len(each.parts) < 2:
            raise ValueError(f"ssl.{key}: {each} must be absolute, without .., and not /")
    return found


def _servers(table: Any) -> dict[str, Server]:
    if not isinstance(table, dict):
        raise ValueError("ssl.servers must be a table by units")
    found = {}
    for unit, each in table.items():
        if not UNIT.fullmatch(unit) or not isinstance(each, dict):
            raise ValueError(f"ssl.servers.{unit!r} must be a table named by a unit")
        if unknown := each.keys() - {"kind", "configuration", "pid_file"}:
            raise ValueError(f"ssl.servers.{unit!r}: {min(unknown)} is not known")
        if each.get("kind") not in KINDS:
            raise ValueError(f"ssl.servers.{unit!r}: kind must be one of {', '.join(KINDS)}")
        for key in ("configuration", "pid_file"):
            value = each.get(key, "/")
            if not isinstance(value, str) or not value.startswith("/"):
                raise ValueError(f"ssl.servers.{unit!r}: {key} must be an absolute path")
        found[unit] = Server(unit, **each)
    return found


def _seconds(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 1 <= value <= 600:
        raise ValueError("ssl.served_within_s must be a number from 1 to 600")
    return float(value)
