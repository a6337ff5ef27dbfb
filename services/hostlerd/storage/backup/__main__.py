"""Starts one of the programs: `backup` or `restore`, `[--listen PATH] [--state FOLDER] …`."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from hostlerd.storage.backup import asking, server

DEFINITIONS = Path("/var/lib/hostler-storage-worker/backups")


def main() -> None:
    """Serve until nobody has asked for a while, or have the other program do a run."""
    parser = argparse.ArgumentParser(prog="hostlerd-storage-backup", description=__doc__)
    parser.add_argument("role", choices=("backup", "restore", "run"))
    parser.add_argument("name", nargs="?", default="", help="of the backup that is to be run")
    parser.add_argument("--listen", type=Path)
    parser.add_argument("--door", type=Path, default=asking.DOOR)
    parser.add_argument("--state", type=Path)
    parser.add_argument("--definitions", type=Path, default=DEFINITIONS)
    parser.add_argument("--idle-s", type=float, default=server.IDLE_S)
    words = parser.parse_args()
    os.umask(0o077)
    if words.role == "run":
        raise SystemExit(asking.run(words.door, words.name))
    state = words.state or Path(os.environ.get("STATE_DIRECTORY", ""))
    if not state.is_absolute():
        parser.error("--state FOLDER, or STATE_DIRECTORY of systemd, is needed")
    state.mkdir(mode=0o700, parents=True, exist_ok=True)
    server.Server(words.role, words.definitions, state).serve(words.listen, words.idle_s)


if __name__ == "__main__":
    main()
