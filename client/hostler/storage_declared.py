"""What a host is declared to store things on, and how it differs from that. Pure.

The file has a table for each host, and one for all; what both say is taken from the host's own:

    [all.mounts."/"]
    type = "ext4"

    [hosts.h1]
    kernel = "6.1.0-28-amd64"            # what has to run
    loader_partition = "…"               # PARTUUID that EFI takes the boot loader from

    [hosts.h1.mounts."/"]
    uuid = "…"                           # of the filesystem
    type = "ext4"
    disks = ["wwn-0x5000c500a1b2c3d4"]   # ids of the graph: no more, no fewer
    free_bytes = 1073741824              # at least so much room

    [hosts.h1.arrays."md-…"]             # id of the graph
    level = "raid1"
    disks = 2                            # that it is made for, and has in sync
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hostler.api.storage.v1 import graph_pb2 as pb
from hostler.config import HostlerError

_MOUNT = {"uuid": str, "type": str, "disks": list, "free_bytes": int}
_ARRAY = {"level": str, "disks": int}
_HOST = {"kernel": str, "loader_partition": str, "mounts": dict, "arrays": dict}


@dataclass(frozen=True, slots=True)
class Drift:
    """Something that is not as declared."""

    code: str
    subject: str
    message: str


@dataclass(frozen=True, slots=True)
class Declared:
    """What one host is declared to have: the tables of the file, checked."""

    words: Mapping[str, str] = field(default_factory=dict)
    mounts: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    arrays: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def load(path: Path) -> Mapping[str, Any]:
    """Read a file of declarations. Raises HostlerError, which names what is wrong in it."""
    try:
        document = tomllib.loads(path.read_text())
    except OSError as e:
        raise HostlerError(f"{path}: {e.strerror}") from e
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as e:
        raise HostlerError(f"{path}: {e}") from e
    _check(f"{path}: ", document, {"all": dict, "hosts": dict})
    tables = {"all": document.get("all", {})}
    tables |= {f"hosts.{name}": table for name, table in document.get("hosts", {}).items()}
    for name, table in tables.items():
        _check(f"{path}: {name}", {"": table}, {"": dict})
        _check(f"{path}: {name}.", table, _HOST)
        for kind, grammar in (("mounts", _MOUNT), ("arrays", _ARRAY)):
            for key, one in table.get(kind, {}).items():
                place = f"{path}: {name}.{kind}.{key}"
                _check(place, {"": one}, {"": dict})
                _check(f"{place}.", one, grammar)
    return document


def _check(place: str, table: Mapping[str, Any], grammar: Mapping[str, type]) -> None:
    for key, value in table.items():
        if key not in grammar:
            raise HostlerError(f"{place}{key} is not known: use {', '.join(sorted(grammar))}")
        # TOML's booleans are no numbers, Python's are.
        is_right = isinstance(value, grammar[key]) and not isinstance(value, bool)
        if grammar[key] is list:
            is_right = is_right and all(isinstance(each, str) for each in value)
        if not is_right:
            raise HostlerError(f"{place}{key} has to be a {_KINDS[grammar[key]]}")


_KINDS: Mapping[type, str] = {str: "string", list: "list of strings", int: "number", dict: "table"}


def of_host(document: Mapping[str, Any], host: str) -> Declared | None:
    """What the file declares of a host; None if it says nothing of it."""
    own = document.get("hosts", {}).get(host)
    if own is None and "all" not in document:
        return None
    tables = [document.get("all", {}), own or {}]
    merged: dict[str, dict[str, dict[str, Any]]] = {"mounts": {}, "arrays": {}}
    words: dict[str, str] = {}
    for table in tables:
        words |= {key: value for key, value in table.items() if isinstance(value, str)}
        for kind, known in merged.items():
            for key, one in table.get(kind, {}).items():
                known[key] = {**known.get(key, {}), **one}
    return Declared(words, merged["mounts"], merged["arrays"])


@dataclass(frozen=True, slots=True)
class Found:
    """What a host has, in the words of a declaration."""

    kernel: str
    loader_partition: str
    mounts: Mapping[str, Mapping[str, Any]]
    arrays: Mapping[str, Mapping[str, Any]]


def found(graph: Any, spaces: Any) -> Found:
    """Take it from a GetGraphResponse and a GetSpaceResponse."""
    nodes = {node.id: node for node in graph.nodes}
    lower: dict[str, list[tuple[str, str]]] = {}
    for edge in graph.edges:
        lower.setdefault(edge.upper, []).append((edge.lower, edge.role))
    free = {one.mount: one.free_least_bytes for one in spaces.spaces}
    mounts: dict[str, Mapping[str, Any]] = {}
    arrays: dict[str, Mapping[str, Any]] = {}
    for node in graph.nodes:
        if node.kind == pb.NODE_KIND_MOUNT and _is_whole(node.facts):
            carrier = nodes[lower[node.id][0][0]]
            mounts[node.name] = {
                "uuid": carrier.uuid,
                "type": node.facts["type"],
                "disks": sorted(_disks(node.id, lower)),
                "free_bytes": free.get(node.name, -1),
            }
        elif node.kind == pb.NODE_KIND_MD:
            legs = [role for _, role in lower.get(node.id, ()) if role == "active leg"]
            arrays[node.id] = {
                "level": node.facts.get("level", ""),
                "disks": int(node.facts.get("raid_disks", 0)),
                "in_sync": len(legs),
                "name": node.name,
            }
    return Found(graph.boot.kernel_release, graph.boot.loader_partition_uuid, mounts, arrays)


def _is_whole(facts: Mapping[str, str]) -> bool:
    """Not a folder that is bound elsewhere; a subvolume of btrfs looks like one."""
    return facts.get("root") == "/" or facts["type"] == "btrfs"


def _disks(node_id: str, lower: Mapping[str, list[tuple[str, str]]]) -> set[str]:
    """The ids of what carries a node and is carried by nothing."""
    below = lower.get(node_id, [])
    return {node_id} if not below else set().union(*(_disks(each, lower) for each, _ in below))


def drift(declared: Declared, has: Found) -> Iterator[Drift]:
    """How a host differs from what is declared. What is not declared is not compared."""
    here = {"kernel": has.kernel, "loader_partition": has.loader_partition}
    for key, wanted in declared.words.items():
        if here[key] != wanted:
            words = f"{here[key] or 'not known'}, declared is {wanted}"
            yield Drift("KERNEL_OTHER" if key == "kernel" else "BOOT_LOADER_OTHER", key, words)
    yield from _of_mounts(declared.mounts, has.mounts)
    yield from _of_arrays(declared.arrays, has.arrays)


def _of_mounts(
    declared: Mapping[str, Mapping[str, Any]], has: Mapping[str, Mapping[str, Any]]
) -> Iterator[Drift]:
    for path, wanted in declared.items():
        one = has.get(path)
        if one is None:
            yield Drift("MOUNT_MISSING", path, "is declared and not mounted")
            continue
        for key, code in (("uuid", "MOUNT_OTHER_FILESYSTEM"), ("type", "MOUNT_OTHER_TYPE")):
            if key in wanted and wanted[key].lower() != one[key].lower():
                words = f"{key} {one[key] or 'not known'}, declared is {wanted[key]}"
                yield Drift(code, path, words)
        if "disks" in wanted and set(wanted["disks"]) != set(one["disks"]):
            words = f"lies on {_list(one['disks'])}, declared is {_list(wanted['disks'])}"
            yield Drift("MOUNT_OTHER_DISKS", path, words)
        if one["free_bytes"] < wanted.get("free_bytes", -1):
            words = f"{one['free_bytes']} bytes are free, declared is {wanted['free_bytes']}"
            yield Drift("SPACE_LOW", path, words)
    for path in sorted(set(has) - set(declared)) if declared else ():
        yield Drift("MOUNT_UNDECLARED", path, f"is mounted ({has[path]['uuid']}), not declared")


def _of_arrays(
    declared: Mapping[str, Mapping[str, Any]], has: Mapping[str, Mapping[str, Any]]
) -> Iterator[Drift]:
    for name, wanted in declared.items():
        one = has.get(name)
        if one is None:
            yield Drift("ARRAY_MISSING", name, "is declared and not there")
            continue
        if wanted.get("level", one["level"]) != one["level"]:
            words = f"{one['name']} is {one['level']}, declared is {wanted['level']}"
            yield Drift("ARRAY_LEVEL", name, words)
        count = wanted.get("disks", one["in_sync"])
        if count != one["in_sync"] or count != one["disks"]:
            words = (
                f"{one['name']} has {one['in_sync']} disks in sync and is made for {one['disks']}, "
                f"declared is {count}"
            )
            yield Drift("ARRAY_DISKS", name, words)
    for name in sorted(set(has) - set(declared)) if declared else ():
        yield Drift("ARRAY_UNDECLARED", name, f"{has[name]['name']} is there, not declared")


def _list(names: Any) -> str:
    return ", ".join(sorted(names)) or "nothing"
