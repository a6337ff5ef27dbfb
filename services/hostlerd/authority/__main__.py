"""Starts a part of the authority: `signer`, `refresh` (of what is published) or `responder`.

`backup` and `restore` are for root: an encrypted copy of keys, certificates and record.
"""

from __future__ import annotations

import argparse
import os
import resource
import sys
from pathlib import Path

FOLDER = Path("/var/lib/hostler/ssl-authority")
PARTS = ("signer", "refresh", "responder", "backup", "restore")


def main(argv: list[str]) -> None:
    """Do what the words say."""
    parser = argparse.ArgumentParser(prog="hostlerd-authority", description=__doc__)
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--file", type=Path, help="where the backup is to be, or is")
    parser.add_argument("--passphrase-file", type=Path, help="what encrypts the backup")
    parser.add_argument("--listen", type=Path, help="a socket of its own, for its own user")
    parser.add_argument("--folder", type=Path, default=FOLDER)
    parser.add_argument("--publish", type=Path)
    parser.add_argument("--configuration", type=Path)
    parser.add_argument("--idle", type=float, default=30.0, help="seconds until it ends")
    given = parser.parse_args(argv)
    os.umask(0o077)
    # A core would hold the keys.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if given.part == "responder":
        from hostlerd.authority import responder

        responder.main(given.publish)
    elif given.part in ("backup", "restore"):
        if given.file is None or given.passphrase_file is None:
            parser.error(f"{given.part} needs --file and --passphrase-file")
        _copy(given)
    else:
        _signer(given)


def _copy(given: argparse.Namespace) -> None:
    """Make a backup, or put it back."""
    from hostlerd.authority import backup
    from hostlerd.privileged.refused import Refused

    try:
        secret = backup.read_passphrase(given.passphrase_file)
        if given.part == "backup":
            size = backup.backup(given.folder, given.file, secret)
            sys.stdout.write(f"{given.file}: {size} bytes, encrypted\n")
            return
        names = backup.restore(given.folder, given.file, secret)
    except (Refused, OSError, ValueError) as e:
        sys.exit(f"authority: {e}")
    sys.stdout.write(f"put back: {', '.join(names)}\n")
    sys.stdout.write("what was issued after the backup is not on record, and cannot be revoked\n")


def _signer(given: argparse.Namespace) -> None:
    from hostlerd.authority import keys, publishing, server, settings
    from hostlerd.authority.authority import Authority
    from hostlerd.privileged import door
    from hostlerd.privileged.refused import Refused

    authority = Authority(
        given.folder,
        given.publish or publishing.FOLDER,
        given.configuration or settings.PATH,
        keys.passphrase(),
    )
    try:
        authority.refresh()
    except (Refused, OSError, settings.SettingsInvalid) as e:
        # What is on disk may be asked for all the same, and each caller is told what is wrong.
        sys.stderr.write(f"authority: not published: {e}\n")
        if given.part == "refresh":
            sys.exit(1)
    if given.part == "signer":
        allowed = frozenset({os.geteuid()}) if given.listen else door.uid_of(server.CALLER)
        listener = door.listening_socket("authority", given.listen)
        server.Server(authority, allowed).serve(listener, given.idle)
    authority.close()


if __name__ == "__main__":
    main(sys.argv[1:])
