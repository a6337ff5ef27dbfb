"""The fleet file, changed by commands: comments and order stay, what would not load is refused."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hostler.config import ConfigError
from hostler.fleet import Host, load_fleet


def add_host(path: Path, host: Host) -> None:
    """Add a host to a fleet file, keeping its comments and order. Made if it is not there.

    Raises ConfigError if the name is taken or the entry would not load.
    """
    take_over(path, (host,), {})


def take_over(path: Path, added: Iterable[Host], groups: Mapping[str, Sequence[str]]) -> None:
    """Add hosts and put groups into a fleet file, all or none. Raises ConfigError.

    Members of a group are names, globs, label=value, and @group of other groups.
    """
    import tomlkit

    document, hosts = _document(path)
    for host in added:
        if host.name in hosts:
            raise ConfigError(f"{path}: hosts.{host.name}: is there already")
        hosts[host.name] = _entry(host)
    if groups and "groups" not in document:
        document["groups"] = tomlkit.table()
    for name, members in groups.items():
        document["groups"][name] = list(members)
    _write(path, tomlkit.dumps(document))


def _entry(host: Host) -> Any:
    import tomlkit

    table = tomlkit.table()
    table.add("address", host.address)
    for key, values in (("labels", host.labels), ("ports", host.ports)):
        if values:
            inline = tomlkit.inline_table()
            inline.update(dict(values))
            table.add(key, inline)
    if host.domains:
        table.add("domains", list(host.domains))
    return table


def set_domains(path: Path, name: str, domains: Sequence[str]) -> None:
    """Have the fleet file say which doors a host has; none means all. Raises ConfigError."""
    import tomlkit

    document, hosts = _document(path)
    if name not in hosts:
        raise ConfigError(f"{path}: there is no host {name!r}")
    if domains:
        hosts[name]["domains"] = list(domains)
    else:
        hosts[name].pop("domains", None)
    _write(path, tomlkit.dumps(document))


def remove_host(path: Path, name: str) -> None:
    """Take a host out of a fleet file. Raises ConfigError if it is not in it."""
    import tomlkit

    document, hosts = _document(path)
    if name not in hosts:
        raise ConfigError(f"{path}: there is no host {name!r}")
    del hosts[name]
    for members in document.get("groups", {}).values():
        while name in members:
            members.remove(name)
    _write(path, tomlkit.dumps(document))


def set_group(path: Path, name: str, members: Sequence[str]) -> None:
    """Put a group into a fleet file, or in place of one of that name. Raises ConfigError."""
    take_over(path, (), {name: members})


def remove_group(path: Path, name: str) -> None:
    """Take a group out of a fleet file. Raises ConfigError if it is not in it, or in another."""
    import tomlkit

    document, _ = _document(path)
    groups = document.get("groups", {})
    if name not in groups:
        raise ConfigError(f"{path}: there is no group {name!r}")
    del groups[name]
    _write(path, tomlkit.dumps(document))


def _document(path: Path) -> tuple[Any, Any]:
    import tomlkit

    if path.exists():
        load_fleet(path)  # A file that would not load must not be written back.
        document = tomlkit.parse(path.read_text())
    else:
        document = tomlkit.document()
    if "hosts" not in document:
        document["hosts"] = tomlkit.table(is_super_table=True)
    return document, document["hosts"]


def _write(path: Path, text: str) -> None:
    """Replace a file in one step, so that a reader sees the old text or the new.

    Raises ConfigError if the new text would not load: then the file is what it was.
    """
    # With its own imports it takes 4 ms, and most commands write no fleet.
    import tempfile

    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        _check(temporary, path)
        temporary.chmod(path.stat().st_mode & 0o777 if path.exists() else 0o644)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _check(temporary: Path, path: Path) -> None:
    try:
        load_fleet(temporary)
    except ConfigError as error:
        raise ConfigError(str(error).replace(str(temporary), str(path))) from error
