"""Chain files: the leaf first, put in place in one step, and read again."""

from __future__ import annotations

import stat
from collections.abc import Sequence
from pathlib import Path

from hostler.core.files import replace
from hostler.core.ssl import pem
from hostler.core.ssl.certificate import Certificate
from hostler.core.ssl.reading import read_contents

DEFAULT_MODE = 0o644


class ChainNotWritten(Exception):
    """A chain file that was not put in place; the old one, if any, is still there."""


def chain_text(chain: Sequence[Certificate]) -> bytes:
    """The certificates as PEM, in this order, each under a line with its subject."""
    blocks = []
    for certificate in chain:
        label = certificate.label.encode("ascii", "backslashreplace").decode()
        printable = "".join(c if c.isprintable() else "?" for c in label).replace("-----", "- -")
        blocks.append(f"# {printable}\n".encode() + pem.written(certificate.data))
    return b"".join(blocks)


def write_chain(path: Path, chain: Sequence[Certificate]) -> None:
    """Put a chain in the place of the file at `path`, whole and on disk, or not at all.

    A file that is there keeps its owner, group and mode, and a symbolic link stays one: its target
    is replaced. A new file gets DEFAULT_MODE. Raises ChainNotWritten; ACLs are not kept.
    """
    target = path.resolve() if path.is_symlink() else path
    try:
        old = target.stat() if target.exists() else None
        if old is not None and not stat.S_ISREG(old.st_mode):
            raise ChainNotWritten(f"{path} is there and is no file")
        if old is not None and b"PRIVATE KEY-----" in target.read_bytes():
            raise ChainNotWritten(f"{path} holds a private key, and is left alone")
        mode = stat.S_IMODE(old.st_mode) if old is not None else DEFAULT_MODE
        owner = (old.st_uid, old.st_gid) if old is not None else None
        replace(target, chain_text(chain), mode=mode, owner=owner)
        _check(target, chain)
    except OSError as error:
        raise ChainNotWritten(f"{path}: {error.strerror or error}") from error


def _check(target: Path, chain: Sequence[Certificate]) -> None:
    contents = read_contents(target.read_bytes(), str(target))
    if contents.faults or list(contents.certificates) != list(chain):
        raise ChainNotWritten(f"{target} does not read as the chain that was written")
