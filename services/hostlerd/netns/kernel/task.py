"""Tasks of the kernel, read by the launcher, since only root sees all of them."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hostlerd.netns.errors import NamespaceNotFound, TooManyTasks
from hostlerd.netns.kernel import handles
from hostlerd.netns.kernel.launcher_client import Launcher
from hostlerd.netns.kernel.tasks import Found
from hostlerd.netns.model.task import Task

_UNIT = re.compile(r"/hostler-run-([a-z][a-z0-9-]{0,31})\.([a-z][a-z0-9-]{0,31})\.service(/|$)")
# Threads of ours visit namespaces to look at them; that makes no namespace busy.
_OURS = re.compile(r"/hostler-(netns|(job|restore|revert)@netns)\.service(/|$)")
_INODE = re.compile(r"net:\[([0-9]{1,19})\]")


def list_tasks(launcher: Launcher, namespace: str, *, with_argv: bool) -> tuple[Task, ...]:
    """List the tasks of a network namespace, or of all but the host's own for "".

    `namespace` is a handle's name or "net:[INODE]". Raises NamespaceNotFound, TooManyTasks.
    """
    names = {inode: name for name, inode in handles.inodes().items() if inode}
    host = Path("/proc/self/ns/net").stat()
    if namespace:
        found, truncated = launcher.tasks(net=inode_of(namespace), with_argv=with_argv)
    else:
        found, truncated = launcher.tasks(except_net=host.st_ino, with_argv=with_argv)
    if truncated:
        raise TooManyTasks("there are more than 100000 tasks: ask for one namespace")
    return tuple(to_task(task, names) for task in found)


def inode_of(namespace: str) -> int:
    """The inode of a namespace by its handle's name or "net:[INODE]". Raises NamespaceNotFound."""
    if by_inode := _INODE.fullmatch(namespace):
        return int(by_inode[1])
    try:
        inode = handles.inode(namespace)
    except OSError:
        inode = 0
    if not inode:
        raise NamespaceNotFound(f"there is no network namespace {namespace}", name=namespace)
    return inode


def to_task(shown: Mapping[str, Any], names: Mapping[int, str]) -> Task:
    """Make a task of what the launcher shows. `names` are the handles' by inode."""
    net = shown["namespaces"]["net"]
    process = process_of(shown["cgroup"])
    return Task(
        pid_outside=shown["pid"],
        pid_inside=shown["pid_inside"],
        parent_pid=shown["ppid"],
        comm=shown["comm"],
        argv=tuple(shown["argv"]),
        uid=shown["uid"],
        gid=shown["gid"],
        namespaces=shown["namespaces"],
        network_namespace=names.get(net, f"net:[{net}]"),
        cgroup=shown["cgroup"],
        cgroup_limits=shown["limits"],
        security_label=shown["label"],
        container_engine=shown["engine"],
        process="/".join(process) if process else "",
    )


def process_of(cgroup: str) -> tuple[str, str] | None:
    """The namespace and name of the process whose control group it is, or None."""
    unit = _UNIT.search(cgroup)
    return (unit[1], unit[2]) if unit else None


def is_ours(cgroup: str) -> bool:
    """Whether a task is one of this domain's own processes."""
    return _OURS.search(cgroup) is not None


class LauncherTasks:
    """Finds processes for the namespaces' part of the kernel; see kernel.tasks.Tasks."""

    def __init__(self, launcher: Launcher) -> None:
        self._launcher = launcher

    def __call__(self, inode: int) -> Found:
        """Answer the PIDs by the inode of their network namespace; of one, or of all for 0."""
        found: dict[int, list[int]] = defaultdict(list)
        tasks, truncated = self._launcher.tasks(net=inode)
        for task in tasks:
            if not is_ours(task["cgroup"]):
                found[task["namespaces"]["net"]].append(task["pid"])
        return Found(found, truncated)
