"""Which systemd unit and which container a cgroup belongs to, by its path. Pure."""

from __future__ import annotations

import re

_UNIT = re.compile(rb"([^/]+\.(?:service|scope|socket|mount|swap))(?=/|$)")
_CONTAINERS = (
    re.compile(rb"/docker[/-]([0-9a-f]{64})"),
    re.compile(rb"/libpod-([0-9a-f]{64})"),
    re.compile(rb"/cri-containerd[-:]([0-9a-f]{64})"),
    re.compile(rb"/crio-([0-9a-f]{64})"),
    re.compile(rb"/kubepods[^/]*/(?:.*/)?([0-9a-f]{64})"),
    re.compile(rb"/lxc(?:\.payload)?[./]([^/]+)"),
    re.compile(rb"/systemd-nspawn@([^/]+)\.service"),
    re.compile(rb"/machine-([^/]+)\.scope"),
)


def unit_of(path: bytes) -> bytes:
    """The innermost unit of a cgroup path, empty if there is none."""
    found = _UNIT.findall(path)
    return found[-1] if found else b""


def container_of(path: bytes) -> bytes:
    """The container's name, or the first 12 digits of its id; empty if it is none."""
    for pattern in _CONTAINERS:
        found = pattern.search(path)
        if found:
            name = found[1]
            return name[:12] if re.fullmatch(rb"[0-9a-f]{64}", name) else name
    return b""
