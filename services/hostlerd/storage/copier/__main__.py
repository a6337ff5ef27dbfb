"""Starts the program: `[--listen PATH] [--roots FOLDER] [--idle-s S]`."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from hostlerd.storage.copier import server
from hostlerd.storage.copier.roots import ROOTS


def main() -> None:
    """Serve until nobody has asked for a while and nothing goes on."""
    parser = argparse.ArgumentParser(prog="hostlerd-storage-copier", description=__doc__)
    parser.add_argument("--listen", type=Path)
    parser.add_argument("--roots", type=Path, default=ROOTS)
    parser.add_argument("--idle-s", type=float, default=server.IDLE_S)
    words = parser.parse_args()
    os.umask(0o077)
    server.Server(words.roots).serve(words.listen, words.idle_s)


if __name__ == "__main__":
    main()
