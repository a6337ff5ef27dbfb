"""Which unit and which container a process belongs to, by its cgroup's path. Pure."""

from __future__ import annotations

import re

_UNIT = re.compile(r"([^/]+\.(?:service|scope|socket|mount|swap))(?=/|$)")
_ID = re.compile(r"[0-9a-f]{64}")
_CONTAINERS = (
    re.compile(r"/docker[/-]([0-9a-f]{64})"),
    re.compile(r"/libpod-([0-9a-f]{64})"),
    re.compile(r"/cri-containerd[-:]([0-9a-f]{64})"),
    re.compile(r"/crio-([0-9a-f]{64})"),
    re.compile(r"/kubepods[^/]*/(?:.*/)?([0-9a-f]{64})"),
    re.compile(r"/lxc(?:\.payload)?[./]([^/]+)"),
    re.compile(r"/systemd-nspawn@([^/]+)\.service"),
    re.compile(r"/machine-([^/]+)\.scope"),
)


def unit_of(path: str) -> str:
    """The innermost unit of a cgroup's path, "" if there is none."""
    found = _UNIT.findall(path)
    return found[-1] if found else ""


def container_of(path: str) -> str:
    """The container's name, or the first 12 digits of its id; "" if it is none."""
    for pattern in _CONTAINERS:
        if found := pattern.search(path):
            return found[1][:12] if _ID.fullmatch(found[1]) else found[1]
    return ""
