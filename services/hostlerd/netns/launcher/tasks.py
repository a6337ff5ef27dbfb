"""Tasks of the kernel, as /proc tells them to root."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

MAX_TASKS = 100_000
MAX_ARGV_BYTES = 8 * 1024
MAX_TEXT = 4096
PROC = Path("/proc")
KINDS = ("net", "pid", "mnt", "uts", "ipc", "user", "cgroup")
# What makes containers leaves its mark in the control group's path.
ENGINES = (
    ("docker", re.compile(r"/docker[-/][0-9a-f]{12,}")),
    ("podman", re.compile(r"/libpod[-_]")),
    ("cri-o", re.compile(r"/crio-[0-9a-f]{12,}")),
    ("containerd", re.compile(r"/cri-containerd-|/system\.slice:containerd|/kubepods[./-]")),
    ("lxc", re.compile(r"/lxc[./]|/lxc\.payload")),
    ("nspawn", re.compile(r"/machine\.slice/|/systemd-nspawn@|/machine-[^/]+\.scope")),
)
# The value of container= in the environment of a container's init, by our word for its maker.
CONTAINER_NAMES = {"systemd-nspawn": "nspawn", "oci": "oci", "lxc-libvirt": "lxc"}
# Files of limits by the controller that has them in cgroup v1; the empty one stands for v2.
LIMITS = {
    "": (
        *("memory.max", "memory.high", "memory.swap.max", "pids.max", "cpu.max"),
        *("cpu.weight", "io.max", "io.weight", "cpuset.cpus"),
    ),
    "memory": ("memory.limit_in_bytes",),
    "pids": ("pids.max",),
    "cpu": ("cpu.cfs_quota_us", "cpu.shares"),
    "blkio": ("blkio.throttle.read_bps_device", "blkio.throttle.write_bps_device"),
}
# Values that mean no limit, or the kernel's default.
UNLIMITED = {"", "max", "-1", "9223372036854771712", "max 100000"}
DEFAULTS = {"cpu.weight": "100", "io.weight": "default 100", "cpu.shares": "1024"}


class Scan:
    """One walk through /proc, in the order of PIDs; `truncated` says whether it had to stop.

    With `net` only what is in that network namespace, with `except_net` all but what is in that
    one. A thread is listed by itself only if it is in another network namespace than its process.
    """

    def __init__(self, with_argv: bool = False, net: int = 0, except_net: int = 0) -> None:
        self.truncated = False
        self._with_argv = with_argv
        self._net = net
        self._except_net = except_net
        self._limits: dict[str, dict[str, str]] = {}
        self._engines: dict[int, str] = {}
        self._mounts = _cgroup_mounts()

    def __iter__(self) -> Iterator[dict[str, Any]]:
        count = 0
        for pid in sorted(int(p.name) for p in PROC.iterdir() if p.name.isdigit()):
            for folder in self._folders(PROC / str(pid)):
                # A task may end at any moment of being looked at.
                with suppress(OSError, ValueError, IndexError, KeyError):
                    task = self._task(folder)
                    if count >= MAX_TASKS:
                        self.truncated = True
                        return
                    count += 1
                    yield task

    def _folders(self, process: Path) -> Iterator[Path]:
        """The process, and those of its threads that are elsewhere; only what was asked for."""
        nets: set[int] = set()
        with suppress(OSError):
            main = _inode(process / "ns/net")
            if self._wanted(main):
                yield process
            nets.add(main)
            threads = list((process / "task").iterdir())
            for folder in threads if len(threads) > 1 else ():
                with suppress(OSError):
                    net = _inode(folder / "ns/net")
                    if net not in nets and self._wanted(net):
                        yield folder

    def _wanted(self, net: int) -> bool:
        return (not self._net or net == self._net) and net != self._except_net

    def _task(self, folder: Path) -> dict[str, Any]:
        status = dict(
            line.split(":", 1) for line in _text(folder / "status").splitlines() if ":" in line
        )
        inodes = {kind: _inode(folder / "ns" / kind) for kind in KINDS}
        groups = _groups(_text(folder / "cgroup"))
        inside = [int(n) for n in status["NSpid"].split()]
        return {
            "pid": inside[0],
            "pid_inside": inside[-1],
            "ppid": int(status["PPid"]),
            "comm": _text(folder / "comm").rstrip("\n"),
            "argv": _argv(folder) if self._with_argv else [],
            "uid": int(status["Uid"].split()[1]),
            "gid": int(status["Gid"].split()[1]),
            "namespaces": inodes,
            "cgroup": groups.get("") or groups.get("name=systemd", ""),
            "limits": self._limits_of(groups),
            "label": _label(folder),
            "engine": self._engine(folder, groups, inodes["pid"], inside),
        }

    def _limits_of(self, groups: dict[str, str]) -> dict[str, str]:
        key = repr(sorted(groups.items()))
        if key not in self._limits:
            self._limits[key] = {
                name: value
                for controller, path in groups.items()
                for mount in self._mounts.get(controller, ())
                for name in LIMITS.get(controller, ())
                if (value := _limit(mount / path.lstrip("/") / name, name))
            }
        return self._limits[key]

    def _engine(
        self, folder: Path, groups: dict[str, str], pid_namespace: int, inside: list[int]
    ) -> str:
        for path in groups.values():
            for engine, mark in ENGINES:
                if mark.search(path):
                    return engine
        if len(inside) == 1:
            return ""
        # Inits come before their children in the order of PIDs, unless numbers have wrapped.
        if inside[-1] == 1 and pid_namespace not in self._engines:
            self._engines[pid_namespace] = _container_variable(folder)
        return self._engines.get(pid_namespace, "")


def _inode(path: Path) -> int:
    return path.stat().st_ino


def _text(path: Path, max_bytes: int = 1 << 16) -> str:
    with path.open("rb") as file:
        return file.read(max_bytes).decode(errors="replace")


def _argv(folder: Path) -> list[str]:
    words = _text(folder / "cmdline", MAX_ARGV_BYTES)
    return words.rstrip("\0").split("\0") if words else []


def _label(folder: Path) -> str:
    """What the security module says; an error means that there is none."""
    try:
        return _text(folder / "attr/current", MAX_TEXT).rstrip("\n\0")
    except OSError:
        return ""


def _groups(text: str) -> dict[str, str]:
    """The control group's path by v1 controller; "" is v2. Source: cgroups(7)."""
    groups = {}
    for line in text.splitlines():
        _, controllers, path = line.split(":", 2)
        for controller in controllers.split(","):
            groups[controller] = path[:MAX_TEXT]
    return groups


def _cgroup_mounts() -> dict[str, list[Path]]:
    """Where the hierarchies are mounted, by controller. Source: proc(5), mountinfo."""
    mounts: dict[str, list[Path]] = {}
    for line in _text(PROC / "self/mountinfo", 1 << 20).splitlines():
        left, _, right = line.partition(" - ")
        fstype, _, options = right.split(" ", 2)
        where = Path(left.split()[4])
        if fstype == "cgroup2":
            mounts.setdefault("", []).append(where)
        elif fstype == "cgroup":
            for controller in set(options.split(",")) & set(LIMITS):
                mounts.setdefault(controller, []).append(where)
    return mounts


def _limit(path: Path, name: str) -> str:
    """A limit; empty if there is none. Lines of one file are joined by "; "."""
    try:
        value = "; ".join(_text(path, MAX_TEXT).split("\n")).strip("; ")
    except OSError:
        return ""
    return "" if value in UNLIMITED or value == DEFAULTS.get(name) else value


def _container_variable(folder: Path) -> str:
    with suppress(OSError):
        for variable in _text(folder / "environ", 1 << 17).split("\0"):
            name, _, value = variable.partition("=")
            if name == "container":
                return CONTAINER_NAMES.get(value, value[:64])
    return ""
