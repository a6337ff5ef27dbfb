"""Where things are on the host, and what its administrator configured."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


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
class Configuration:
    """hostler.toml as far as the runtime reads it; `domain` is the domain's own table."""

    idle_s: float = 30.0
    bounds: Bounds = field(default_factory=Bounds)
    domain: Mapping[str, Any] = field(default_factory=dict)


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
    )


def _table(table: Mapping[str, Any], key: str, path: Path) -> Mapping[str, Any]:
    value = table.get(key, {})
    if not isinstance(value, dict):
        raise ConfigurationInvalid(f"{path}: {key} must be a table")
    return value


def _positive(value: Any, key: str, path: Path) -> int | float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value <= 0:
        raise ConfigurationInvalid(f"{path}: {key} must be a number above 0")
    return value
