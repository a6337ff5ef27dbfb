"""Starts the reader: `python -m hostlerd.ssl.reader [--listen PATH [CONFIGURATION]]`."""

from __future__ import annotations

import ctypes
import resource
import sys
from pathlib import Path

from hostlerd.privileged import door
from hostlerd.ssl.reader.answers import CONFIGURATION
from hostlerd.ssl.reader.server import MAX_CONNECTIONS, serve

_PR_SET_DUMPABLE = 4


def main(argv: list[str]) -> None:
    """Read for whoever may ask, until nobody does."""
    keep_to_itself()
    path = Path(argv[1]) if argv[:1] == ["--listen"] and len(argv) > 1 else None
    listener = door.listening_socket("hostlerd-ssl-reader", path, backlog=MAX_CONNECTIONS)
    serve(listener, Path(argv[2]) if len(argv) > 2 else CONFIGURATION)


def keep_to_itself() -> None:
    """Leave no core, and let nobody look into this process: it holds keys while it reads them.

    Source: prctl(2), PR_SET_DUMPABLE.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0):
        sys.exit("hostlerd-ssl-reader: the kernel does not let it keep to itself")


if __name__ == "__main__":
    main(sys.argv[1:])
