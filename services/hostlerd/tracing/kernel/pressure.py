"""How much the host's tasks are held up. Source: Documentation/accounting/psi.rst."""

from __future__ import annotations

from hostlerd.tracing.kernel import proc
from hostlerd.tracing.model.finding import Pressure

_RESOURCES = ("cpu", "memory", "io")


def read() -> tuple[Pressure, ...]:
    """The pressure of each resource; none where the kernel does not count it."""
    found = []
    for resource in _RESOURCES:
        lines = {
            words[0]: dict(word.split("=") for word in words[1:])
            for line in proc.text(f"/proc/pressure/{resource}").splitlines()
            if (words := line.split())
        }
        if some := lines.get("some"):
            full = lines.get("full", {})
            found.append(
                Pressure(
                    resource,
                    float(some["avg10"]),
                    float(some["avg60"]),
                    float(full.get("avg10", 0)),
                    float(full.get("avg60", 0)),
                )
            )
    return tuple(found)
