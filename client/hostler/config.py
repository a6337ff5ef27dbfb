"""The client's configuration: contexts, each with its certificates and its fleet.

Read from $HOSTLER_CONFIG, else ~/.config/hostler/config.toml. Paths in it are relative to it.
"""

from __future__ import annotations

import os
import tomllib
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any

_MAX_FILE_BYTES = 16 * 1024 * 1024
_PATHS = ("ca", "certificate", "key", "fleet", "pki")
_KNOWN = frozenset({"trust_domain", "dns", "runs_url", *_PATHS})


class HostlerError(Exception):
    """What the caller can put right: a wrong file, selector or value. `exit_code` is the CLI's."""

    exit_code = 2


class ConfigError(HostlerError):
    """A configuration or fleet file is missing, unreadable or says something wrong."""


@dataclass(frozen=True, slots=True)
class Context:
    """One fleet and the identity it is reached with.

    `dns` are the resolvers that `isolate` gives a namespace when the caller names none. `pki` is
    the folder of the CA, on the machine that has it; None elsewhere. `runs_url` is where runs are
    recorded; empty means a file of the user's own.
    """

    name: str
    trust_domain: str
    ca: Path
    certificate: Path
    key: Path
    fleet: Path
    pki: Path | None = None
    dns: tuple[str, ...] = ()
    runs_url: str = ""


def config_path() -> Path:
    """Where the configuration is, whether or not it exists."""
    named = os.environ.get("HOSTLER_CONFIG")
    return Path(named).expanduser() if named else Path.home() / ".config/hostler/config.toml"


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file of at most 16 MiB. Raises ConfigError that names the file."""
    return parse_toml(path, read_text(path))


def read_text(path: Path) -> str:
    """Read a text file of at most 16 MiB. Raises ConfigError that names it."""
    try:
        if path.stat().st_size > _MAX_FILE_BYTES:
            raise ConfigError(f"{path}: larger than {_MAX_FILE_BYTES} bytes")
        with path.open("rb") as file:
            # What is no regular file has no size beforehand.
            data = file.read(_MAX_FILE_BYTES + 1)
        if len(data) > _MAX_FILE_BYTES:
            raise ConfigError(f"{path}: larger than {_MAX_FILE_BYTES} bytes")
        return data.decode()
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 text") from error


def parse_toml(path: Path, text: str) -> dict[str, Any]:
    """Read the text of a TOML file. Raises ConfigError that names the file."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not TOML: {error}") from error
    except RecursionError as error:
        raise ConfigError(f"{path}: not TOML: nested too deeply") from error


def load_context(name: str | None = None, path: Path | None = None) -> Context:
    """Load a context by name, else the one that the file calls current. Raises ConfigError."""
    path = path or config_path()
    if not path.exists():
        raise ConfigError(
            f"no configuration at {path}: set HOSTLER_CONFIG, or make one with 'hostler lab up' "
            "or 'hostler pki init'"
        )
    data = read_toml(path)
    contexts = data.get("contexts")
    if not isinstance(contexts, dict) or not contexts:
        raise ConfigError(f"{path}: contexts: there is none")
    name = name or data.get("current") or (next(iter(contexts)) if len(contexts) == 1 else None)
    if name is None:
        raise ConfigError(f"{path}: current: not set; one of {', '.join(sorted(contexts))}")
    if name not in contexts:
        known = ", ".join(sorted(contexts))
        raise ConfigError(f"{path}: there is no context {name!r}; there are: {known}")
    return _context(str(name), contexts[name], path)


def _context(name: str, table: Any, path: Path) -> Context:
    where = f"{path}: contexts.{name}"
    if not isinstance(table, dict):
        raise ConfigError(f"{where}: not a table")
    if unknown := sorted(set(table) - _KNOWN):
        raise ConfigError(f"{where}.{unknown[0]}: unknown key; known: {', '.join(sorted(_KNOWN))}")
    paths: dict[str, Path] = {}
    for key in _PATHS:
        if key not in table and key == "pki":
            continue
        if not isinstance(table.get(key), str) or not table[key]:
            raise ConfigError(f"{where}.{key}: a path is needed")
        paths[key] = path.parent / Path(table[key]).expanduser()
    trust_domain = table.get("trust_domain")
    if not isinstance(trust_domain, str) or not trust_domain:
        raise ConfigError(f"{where}.trust_domain: a name is needed")
    dns = _resolvers(table.get("dns", []), f"{where}.dns")
    runs_url = table.get("runs_url", "")
    if not isinstance(runs_url, str):
        raise ConfigError(f"{where}.runs_url: a URL is needed")
    return Context(name=name, trust_domain=trust_domain, dns=dns, runs_url=runs_url, **paths)


def _resolvers(value: Any, where: str) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise ConfigError(f"{where}: a list of addresses is needed")
    for entry in value:
        try:
            ip_address(entry)
        except ValueError as error:
            raise ConfigError(f"{where}: {entry!r} is not an address") from error
    return tuple(value)
