"""A real daemon that kills itself, or waits, at a chosen point of a change.

Points are where a kill could matter: before and after every fsync(2) and fdatasync(2), and before
and after every step. `journal_points.py DOMAIN` is the daemon of that domain; while there is a file
`arm` in the folder JOURNAL_POINTS, it counts the points and does what that says:

    count        writes each point's name to `seen`
    kill N       sends itself SIGKILL at the n-th
    pause N      makes `reached` at the n-th and waits until there is `go`
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

FOLDER = Path(os.environ["JOURNAL_POINTS"])
_PATIENCE_S = 20.0
# How the program ends; one that systemd kills with what it has started ends otherwise.
END: Callable[[], None] = lambda: os.kill(os.getpid(), signal.SIGKILL)  # noqa: E731
_lock = threading.Lock()
_count = 0
_armed = ""


def point(name: str) -> None:
    """Come to a point."""
    global _count, _armed
    try:
        arm = (FOLDER / "arm").read_text()
    except FileNotFoundError:
        return
    with _lock:
        if arm != _armed:
            _armed, _count = arm, 0
        _count += 1
        here = _count
    what, _, number = arm.partition(" ")
    if what == "count":
        with (FOLDER / "seen").open("a") as seen:
            seen.write(f"{name}\n")
    elif here != int(number.split()[0]):
        return
    elif what == "kill":
        # Who comes after it counts anew, and is not to die as well.
        (FOLDER / "arm").unlink()
        END()
    else:
        _wait()


def _wait() -> None:
    (FOLDER / "reached").touch()
    end = time.monotonic() + _PATIENCE_S
    while not (FOLDER / "go").exists() and time.monotonic() < end:
        time.sleep(0.005)


def around(name: str, work: Callable[..., Any]) -> Callable[..., Any]:
    """Make the moments before and after a piece of work points."""

    def call(*arguments: Any) -> Any:
        point(f"before {name}")
        result = work(*arguments)
        point(f"after {name}")
        return result

    return call


def _around_steps(kernel: Any) -> None:
    """Make every step of a kernel's changes a point, those of the way back included."""
    real: Callable[[Any], AbstractContextManager[Callable[[Any], None]]] = kernel.applying

    @contextmanager
    def applying(self: Any) -> Iterator[Callable[[Any], None]]:
        with real(self) as apply:
            yield lambda step: around(type(step).__name__, apply)(step)

    kernel.applying = applying


# Where changes are carried out, if it is not the domain's Kernel.
_EDGES = {
    "storage": ("hostlerd.storage.kernel.changing", "Changing"),
    "tracing": ("hostlerd.tracing.kernel.store", "Store"),
}


def main(domain: str) -> None:
    """Be the daemon."""
    # nsenter(1) has kept the process: only now is its number known.
    os.environ["LISTEN_PID"] = str(os.getpid())
    for name in ("fsync", "fdatasync"):
        setattr(os, name, around(name, getattr(os, name)))
    from hostlerd.runtime import server
    from hostlerd.runtime.pushing import BundleKernel

    module, name = _EDGES.get(domain, (f"hostlerd.{domain}.kernel", "Kernel"))
    kernel = getattr(importlib.import_module(module), name)
    _around_steps(kernel)
    _around_steps(BundleKernel)
    build = importlib.import_module(f"hostlerd.{domain}.__main__").build
    sys.argv[1:] = sys.argv[2:]
    server.main(domain, build)


if __name__ == "__main__":
    main(sys.argv[1])
