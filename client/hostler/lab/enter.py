"""Joins a cgroup and becomes another program: `python -IS enter.py CGROUP PROGRAM ARG…`.

A program of its own, since what a process does between fork and exec is unsafe with threads, and
joining after exec is too late for systemd-nspawn, which looks where it is when it starts.
"""

from __future__ import annotations

import os
import sys


def main() -> None:
    """Join and execute; an OSError ends it with a traceback and status 1."""
    with open(os.path.join(sys.argv[1], "cgroup.procs"), "w") as procs:  # noqa: PTH118, PTH123 - pathlib costs a third of the start
        procs.write("0")
    os.execv(sys.argv[2], sys.argv[2:])  # noqa: S606 - becoming that program is the purpose


main()
