"""Starts the worker: `[--listen PATH] [--state FOLDER] [--idle-s S]`.

`--root FOLDER` and `--systemctl PATH` say where units lie and who brings them up, for tests.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from hostlerd.storage.worker import server
from hostlerd.storage.worker.units import Units


def main() -> None:
    """Serve until nobody has asked for a while."""
    parser = argparse.ArgumentParser(prog="hostlerd-storage-worker", description=__doc__)
    parser.add_argument("--listen", type=Path)
    state = os.environ.get("STATE_DIRECTORY", "/var/lib/hostler-storage-worker")
    parser.add_argument("--state", type=Path, default=Path(state))
    parser.add_argument("--idle-s", type=float, default=server.IDLE_S)
    parser.add_argument("--root", type=Path, default=Path("/"))
    parser.add_argument("--systemctl", default="/usr/bin/systemctl")
    words = parser.parse_args()
    os.umask(0o077)
    words.state.mkdir(mode=0o700, parents=True, exist_ok=True)
    server.serve(words.listen, words.state, words.idle_s, Units(words.root, words.systemctl))


if __name__ == "__main__":
    main()
