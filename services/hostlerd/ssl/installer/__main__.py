"""Starts the installer: `[--listen PATH] [--settings FILE] [--state FOLDER]`."""

from __future__ import annotations

import argparse
import os
import resource
from pathlib import Path

from hostlerd.privileged import door
from hostlerd.ssl.installer import server


def main() -> None:
    """Serve until nobody has asked for a while."""
    parser = argparse.ArgumentParser(prog="hostlerd-ssl-installer", description=__doc__)
    parser.add_argument("--listen", type=Path)
    parser.add_argument("--settings", type=Path, default=Path("/etc/hostler/hostler.toml"))
    state = os.environ.get("STATE_DIRECTORY", "/var/lib/hostler-ssl-installer")
    parser.add_argument("--state", type=Path, default=Path(state))
    parser.add_argument("--idle", type=float, default=server.IDLE_S, help="seconds until it ends")
    words = parser.parse_args()
    # Keys are in this memory: it is never written to a file when it dies.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.umask(0o077)
    words.state.mkdir(mode=0o700, parents=True, exist_ok=True)
    installer = server.Installer(words.settings, words.state)
    listener = door.listening_socket("ssl-installer", words.listen)
    server.serve(listener, installer, words.idle)


if __name__ == "__main__":
    main()
