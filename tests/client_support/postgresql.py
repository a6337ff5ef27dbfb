"""A PostgreSQL server of the tests' own: a cluster in a temporary folder, on a unix socket."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_PROGRAMS = Path("/usr/lib/postgresql")


def programs() -> Path | None:
    """The folder of the newest server installed, None if there is none. Source: Debian."""
    found = [path.parent for path in _PROGRAMS.glob("*/bin/initdb")]
    return max(found, key=lambda path: float(path.parent.name), default=None)


@contextmanager
def cluster() -> Iterator[str]:
    """Run one; answers the URL of its database. It refuses to be run by root."""
    bin_folder = programs()
    assert bin_folder is not None
    # The path of a unix socket has room for 107 bytes.
    folder = Path(tempfile.mkdtemp(prefix="hostler-pg-", dir="/tmp"))
    owner = pwd.getpwnam("nobody")
    user: dict[str, int] = {}
    if os.geteuid() == 0:
        user = {"user": owner.pw_uid, "group": owner.pw_gid}
        os.chown(folder, owner.pw_uid, owner.pw_gid)

    def run(*argv: str) -> None:
        subprocess.run(
            [str(bin_folder / argv[0]), *argv[1:]],
            check=True, timeout=60, cwd=folder, stdout=subprocess.DEVNULL,
            stdin=subprocess.DEVNULL, extra_groups=[] if user else None, **user,
        )  # fmt: skip

    data = str(folder / "data")
    try:
        run("initdb", "-D", data, "-U", "hostler", "-A", "trust", "-E", "UTF8", "--no-sync")
        options = f"-k {folder} -c listen_addresses= -c fsync=off"
        run("pg_ctl", "-D", data, "-w", "-l", str(folder / "log"), "-o", options, "start")
        try:
            yield f"postgresql://hostler@/postgres?host={folder}"
        finally:
            run("pg_ctl", "-D", data, "-w", "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
