"""A task of the kernel, as /proc shows it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

NAMESPACE_KINDS = ("net", "pid", "mnt", "uts", "ipc", "user", "cgroup")


@dataclass(frozen=True, slots=True)
class Task:
    """A task. `process` is the Hostler process it belongs to, as NAMESPACE/NAME, or empty.

    `namespaces` are inodes by kind. `network_namespace` is its handle's name, else "net:[INODE]".
    `argv` is empty unless it was asked for.
    """

    pid_outside: int
    pid_inside: int
    parent_pid: int
    comm: str
    argv: tuple[str, ...]
    uid: int
    gid: int
    namespaces: Mapping[str, int]
    network_namespace: str
    cgroup: str
    cgroup_limits: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    security_label: str = ""
    container_engine: str = ""
    process: str = ""
