"""What the files of a deployment hold: made of a key, its certificate and the issuers."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from hostlerd.privileged.refused import Refused
from hostlerd.ssl.installer import folder, keys
from hostlerd.ssl.installer.configuration import Configuration
from hostlerd.ssl.installer.grammar import FILES
from hostlerd.ssl.installer.looking import Wanted


@dataclass(frozen=True, slots=True)
class Target:
    """Where a file goes: `home` is the configured folder that it is below."""

    home: PurePosixPath
    path: PurePosixPath
    uid: int
    gid: int
    mode: int


@dataclass(frozen=True, slots=True)
class Prepared:
    """A deployment with what its files will hold; `data` has keys in it and is never shown."""

    deployment: Mapping[str, Any]
    targets: Mapping[str, Target]
    data: Mapping[str, bytes]
    wanted: Wanted
    waiting: bool

    def __repr__(self) -> str:
        return f"Prepared({self.deployment['name']})"


def targets(deployment: Mapping[str, Any], allowed: Configuration) -> dict[str, Target]:
    """Where the files of a deployment go. Raises Refused for a place that is not allowed."""
    found = {}
    for name in FILES:
        if name in deployment:
            one, at = deployment[name], f"deployment.{name}"
            found[name] = Target(
                allowed.home_of(one["path"], f"{at}.path"),
                PurePosixPath(one["path"]),
                folder.user_id(one["owner"], f"{at}.owner"),
                folder.group_id(one["group"], f"{at}.group"),
                one["mode"],
            )
    return found


def read(target: Target) -> bytes | None:
    """Read the file that is in place now; None for none. Raises Refused, OSError."""
    with folder.opened(target.home, target.path) as fd:
        return folder.read(fd, target.path.name)


def key_in_use(places: Mapping[str, Target]) -> keys.Key | None:
    """Answer the private key that is in place."""
    for name in ("key", "bundle"):
        data = read(places[name]) if name in places else None
        if data and (key := keys.from_pem(data)):
            return key
    return None


def installed(places: Mapping[str, Target]) -> list[x509.Certificate]:
    """Answer the certificates that are in place, the leaf first; none if there are none."""
    found: list[x509.Certificate] = []
    for name in ("full_chain", "bundle", "certificate", "chain"):
        data = read(places[name]) if name in places else None
        try:
            if data:
                found += [c for c in x509.load_pem_x509_certificates(data) if c not in found]
        except ValueError:
            continue
    return found


def prepare(
    deployment: Mapping[str, Any], pem: str, allowed: Configuration, waiting: keys.Waiting
) -> Prepared:
    """Match certificate, issuers and key, and make the files. Raises Refused, OSError."""
    places = targets(deployment, allowed)
    found = keys.certificates(pem)
    for key, waits in ((waiting.get(deployment["name"]), True), (key_in_use(places), False)):
        leaf = keys.leaf_of(found, key) if key else None
        if key and leaf:
            chain = keys.issuers_of(leaf, [c for c in found if c != leaf])
            data = _contents(key, leaf, chain)
            wanted = Wanted(
                sha256(leaf),
                tuple(map(sha256, chain))
                if {"full_chain", "bundle", "chain"} & set(places)
                else (),
            )
            made = {name: data[name] for name in places}
            return Prepared(deployment, places, made, wanted, waits)
    words = "no key on this host belongs to any of these certificates"
    raise Refused("KEY_MISMATCH", words, [("pem", words)])


def in_place(prepared: Prepared) -> bool:
    """Whether every file is there already, with these contents, owner and mode."""
    return all(_equal(target, prepared.data[name]) for name, target in prepared.targets.items())


def _equal(target: Target, data: bytes) -> bool:
    with folder.opened(target.home, target.path) as fd:
        name = target.path.name
        if folder.kind_of(fd, name) != "file" or folder.read(fd, name) != data:
            return False
        return folder.owner_and_mode(fd, name) == (target.uid, target.gid, target.mode)


def _contents(
    key: keys.Key, leaf: x509.Certificate, chain: Sequence[x509.Certificate]
) -> dict[str, bytes]:
    private, own = keys.to_pem(key), leaf.public_bytes(Encoding.PEM)
    issuers = b"".join(c.public_bytes(Encoding.PEM) for c in chain)
    return {
        "key": private,
        "certificate": own,
        "chain": issuers,
        "full_chain": own + issuers,
        "bundle": private + own + issuers,
    }


def sha256(certificate: x509.Certificate) -> str:
    """SHA-256 of the DER, in hex."""
    return hashlib.sha256(certificate.public_bytes(Encoding.DER)).hexdigest()
