"""Where things are on the host, and what its administrator configured."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from hostlerd.runtime import log, sockets


class ConfigurationInvalid(Exception):
    """hostler.toml cannot be used; the message names the key and what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Paths:
    """The folders of one daemon. systemd names them in the environment; see systemd.exec(5)."""

    configuration: Path
    state: Path
    run: Path
    logs: Path

    @classmethod
    def of(cls, domain: str) -> Paths:
        """Answer the folders of a domain: those that systemd named, else the packages' own."""
        env = os.environ
        return cls(
            configuration=Path(env.get("CONFIGURATION_DIRECTORY", "/etc/hostler")),
            state=Path(env.get("STATE_DIRECTORY", f"/var/lib/hostler/{domain}")),
            run=Path(env.get("RUNTIME_DIRECTORY", f"/run/hostler-{domain}")),
            logs=Path(env.get("LOGS_DIRECTORY", f"/var/log/hostler/{domain}")),
        )

    @property
    def pki(self) -> Path:
        """The folder of ca.pem, host.pem and host.key."""
        return self.configuration / "pki"


@dataclass(frozen=True, slots=True)
class Bounds:
    """What one daemon lets callers take of the host; table [limits] of hostler.toml."""

    connections: int = 512
    connections_per_peer: int = 64
    calls: int = 256
    request_bytes: int = 4 << 20
    read_s: float = 60.0
    worker_threads: int = 8


@dataclass(frozen=True, slots=True)
class AuditBounds:
    """How much the audit log keeps and takes; table [audit] of hostler.toml.

    A file that has grown to `file_bytes` is closed, and compressed if `compress`; of the closed
    ones at most `keep_files`, of `keep_bytes` and `keep_days`, stay. `reserve_bytes` of disk are
    always laid aside. Of each identity `reads_burst` reads and `reads_per_minute` get a record each
    (and so many refusals), the rest are counted. `when_full` says whether changes that could wait
    are refused while the log is degraded. `ship` is where records are sent to as well.
    """

    file_bytes: int = 64 << 20
    reserve_bytes: int = 4 << 20
    keep_files: int = 32
    keep_bytes: int = 1 << 30
    keep_days: float = 3650
    compress: bool = True
    reads_per_minute: float = 60
    reads_burst: int = 600
    when_full: Literal["refuse", "allow"] = "refuse"
    ship: str = ""


@dataclass(frozen=True, slots=True)
class Configuration:
    """hostler.toml as far as the runtime reads it; `domain` is the domain's own table."""

    idle_s: float = 30.0
    bounds: Bounds = field(default_factory=Bounds)
    domain: Mapping[str, Any] = field(default_factory=dict)
    audit: AuditBounds = field(default_factory=AuditBounds)
    # The host's own addresses that TCP callers may come to.
    management_addresses: tuple[sockets.Network, ...] = sockets.EVERYWHERE
    log: log.Thresholds = field(default_factory=log.Thresholds)


def read(path: Path, domain: str) -> Configuration:
    """Read hostler.toml; one that is not there means all defaults.

    Raises ConfigurationInvalid, naming the key.
    """
    try:
        text = path.read_text()
    except FileNotFoundError:
        return Configuration()
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as e:
        raise ConfigurationInvalid(f"{path}: {e}") from e
    limits = _table(table, "limits", path)
    known = Bounds()
    values: dict[str, Any] = {}
    for key, value in limits.items():
        if not hasattr(known, key):
            raise ConfigurationInvalid(f"{path}: limits.{key} is not known")
        values[key] = _positive(value, f"limits.{key}", path)
    return Configuration(
        idle_s=float(_positive(table.get("idle_s", 30.0), "idle_s", path)),
        bounds=Bounds(**values),
        domain=_table(table, domain, path),
        audit=_audit(_table(table, "audit", path), path),
        management_addresses=_addresses(table.get("management_addresses"), path),
        log=_log(_table(table, "log", path), path),
    )


def _addresses(listed: Any, path: Path) -> tuple[sockets.Network, ...]:
    if listed is None:
        return sockets.EVERYWHERE
    if not isinstance(listed, list) or not listed or not all(isinstance(w, str) for w in listed):
        raise ConfigurationInvalid(f"{path}: management_addresses must be a list of addresses")
    try:
        return sockets.networks(listed)
    except ValueError as e:
        raise ConfigurationInvalid(f"{path}: management_addresses: {e}") from e


def _log(table: Mapping[str, Any], path: Path) -> log.Thresholds:
    try:
        return log.parse(table)
    except ValueError as e:
        raise ConfigurationInvalid(f"{path}: {e}") from e


def _audit(table: Mapping[str, Any], path: Path) -> AuditBounds:
    known, values = AuditBounds(), dict[str, Any]()
    for key, value in table.items():
        if not hasattr(known, key):
            raise ConfigurationInvalid(f"{path}: audit.{key} is not known")
        default = getattr(known, key)
        if isinstance(default, (bool, str)):
            if type(value) is not type(default):
                raise ConfigurationInvalid(
                    f"{path}: audit.{key} must be a {type(default).__name__}"
                )
            values[key] = value
        else:
            values[key] = type(default)(_positive(value, f"audit.{key}", path))
    if values.get("when_full", "refuse") not in ("refuse", "allow"):
        raise ConfigurationInvalid(f"{path}: audit.when_full must be 'refuse' or 'allow'")
    return AuditBounds(**values)


def _table(table: Mapping[str, Any], key: str, path: Path) -> Mapping[str, Any]:
    value = table.get(key, {})
    if not isinstance(value, dict):
        raise ConfigurationInvalid(f"{path}: {key} must be a table")
    return value


def _positive(value: Any, key: str, path: Path) -> int | float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value <= 0:
        raise ConfigurationInvalid(f"{path}: {key} must be a number above 0")
    return value
