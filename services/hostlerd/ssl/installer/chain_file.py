"""A chain file: certificates in PEM, the leaf first, and nothing else.

What lies at its path already must be one as well, of the same key: nothing here takes the place of
a private key or of a configuration, or leaves a server with a certificate that is not its key's.
"""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from hostlerd.privileged.refused import Refused
from hostlerd.ssl.installer import contents, folder, keys
from hostlerd.ssl.installer.configuration import Configuration
from hostlerd.ssl.installer.contents import Prepared, Target
from hostlerd.ssl.installer.looking import Wanted

NEW_MODE = 0o644
_NAME = "full_chain"


def held(path: str, allowed: Configuration) -> dict[str, Any]:
    """Answer what lies at a path: the certificates in PEM, and whether anything does.

    Raises Refused for a place that is not allowed, and for what is no chain file; OSError.
    """
    found = _certificates(_target(path, allowed))
    return {
        "exists": found is not None,
        "certificates": [c.public_bytes(Encoding.PEM).decode() for c in found or ()],
    }


def prepare(path: str, pem: str, allowed: Configuration) -> Prepared:
    """Make the file of a chain. Raises Refused, OSError."""
    chain = keys.certificates(pem)
    leaf, issuers = chain[0], chain[1:]
    if keys.issuers_of(leaf, issuers) != issuers:
        words = "must be the leaf, then each issuer after what it signed, without the root"
        raise Refused("CHAIN_BROKEN", words, [("pem", words)])
    target = _target(path, allowed)
    before = _certificates(target)
    own = keys.spki_sha256(leaf.public_key())
    if before is not None and own not in {keys.spki_sha256(c.public_key()) for c in before}:
        raise Refused("KEY_MISMATCH", f"{path} holds the chain of another key")
    data = b"".join(c.public_bytes(Encoding.PEM) for c in chain)
    wanted = Wanted(contents.sha256(leaf), tuple(map(contents.sha256, issuers)))
    deployment = {"name": path, "subject_names": [], "servers": []}
    return Prepared(deployment, {_NAME: target}, {_NAME: data}, wanted, waiting=False)


def verify(prepared: Prepared) -> None:
    """Read a file again that was put in place. Raises Refused if it is not the chain."""
    target, wanted = prepared.targets[_NAME], prepared.wanted
    found = [contents.sha256(c) for c in _certificates(target) or ()]
    if found != [wanted.leaf, *wanted.issuers] or not contents.in_place(prepared):
        raise Refused("NOT_VERIFIED", f"{target.path} does not read as the chain that was written")


def _target(path: str, allowed: Configuration) -> Target:
    """Where the file goes. One that is there keeps its owner, group and mode."""
    home, whole = allowed.home_of(path, "path"), PurePosixPath(path)
    with folder.opened(home, whole) as fd:
        kind = folder.kind_of(fd, whole.name)
        if kind == "other":
            raise Refused("NOT_A_FILE", f"{path} is a link, or no file")
        owner = folder.owner_and_mode(fd, whole.name) if kind else (0, 0, NEW_MODE)
    return Target(home, whole, *owner)


def _certificates(target: Target) -> list[x509.Certificate] | None:
    """What a file holds; None if there is none. Raises Refused if it is no chain file."""
    data = contents.read(target)
    if data is None:
        return None
    if b"PRIVATE KEY-----" in data:
        raise Refused("HOLDS_KEY", f"{target.path} holds a private key, and is left alone")
    try:
        return x509.load_pem_x509_certificates(data)
    except ValueError:
        raise Refused("NOT_A_CHAIN", f"{target.path} is no file of certificates in PEM") from None
