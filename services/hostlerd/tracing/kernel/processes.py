"""What processes are called: name, file, unit. Never what is on their command line."""

from __future__ import annotations

from hostlerd.tracing.kernel import proc
from hostlerd.tracing.model.evidence import Process

_UNITS = (".service", ".scope", ".socket", ".mount", ".swap")


def process(pid: int) -> Process:
    """Name a process; one that is gone has no name."""
    comm = proc.text(f"/proc/{pid}/comm").rstrip("\n")
    return Process(pid, comm, proc.link(f"/proc/{pid}/exe"), unit(pid))


def unit(pid: int) -> str:
    """The systemd unit that a process belongs to, "" if none. Source: systemd's CGROUP_DELEGATION.

    In version 2 the line is `0::PATH`; beside version 1, systemd has a hierarchy of its own name.
    """
    for line in proc.text(f"/proc/{pid}/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers in ("", "name=systemd"):
            for part in reversed(path.split("/")):
                if part.endswith(_UNITS):
                    return part
    return ""
