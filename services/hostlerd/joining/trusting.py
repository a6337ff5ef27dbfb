"""Whom a host trusts is changed: CAs are added and removed, and never so that it locks itself out.

The bundle that comes along holds before and after the change, but where a CA is added alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from hostler.core import files, trust
from hostler.core.bundle import MAX_BUNDLE_BYTES, Bundle, BundleInvalid, verify
from hostler.core.certificates import (
    MAX_PEM_BYTES,
    CertificateUnreadable,
    describe,
    load_certificates,
)
from hostler.core.names import Identity
from hostlerd.joining.joining import Joining, JoinRefused, forget_unverifiable, pushed_bundles


def change_trust(
    joining: Joining, name: str, added: bytes, removed: Sequence[str], bundle: bytes
) -> tuple[str, ...]:
    """Trust the CAs of `added`, and no more those of the fingerprints `removed`; answers all.

    A second time it changes nothing. Raises JoinRefused, OSError.
    """
    with joining.changing():
        path = joining.pki / "ca.pem"
        try:
            present = files.read_bounded(path, MAX_PEM_BYTES)
            wanted = trust.changed(present, added, removed)
            _check_own(joining, name, added, wanted)
        except (CertificateUnreadable, ValueError) as e:
            raise JoinRefused("CERTIFICATE_UNREADABLE", str(e)) from e
        holds_before = _check_bundle(joining, bundle, present, wanted)
        # Whichever of both trusts a daemon sees, there is a bundle that it can verify.
        if not holds_before:
            files.replace(path, wanted, mode=0o644)
        files.replace(joining.etc / "bundle.json", bundle, mode=0o644)
        forget_unverifiable(joining.state, wanted)
        if wanted != present:
            files.replace(path, wanted, mode=0o644)
    return trust.fingerprints(wanted)


def _check_own(joining: Joining, name: str, added: bytes, wanted: bytes) -> None:
    """Refuse what is for another host, or would leave this one without a CA of its own."""
    pem = files.read_bounded(joining.pki / "host.pem", MAX_PEM_BYTES)
    leaf = load_certificates(pem)[0]
    told = describe(leaf)
    if (told.kind, told.name) != ("host", name):
        raise JoinRefused("OTHER_NAME", f"this host is {told.identity}")
    domain = Identity.parse(told.identity).trust_domain
    for one in load_certificates(added) if added else ():
        if not trust.is_hostler_ca(one, domain):
            raise JoinRefused("NOT_A_CA", f"what is to be trusted is no CA of {domain}")
    if not wanted or not trust.issuer_of(leaf, wanted):
        raise JoinRefused(
            "OLD_CERTIFICATE_SERVED",
            f"the certificate of {name} is of a CA that would not be trusted any more",
        )


def _check_bundle(joining: Joining, bundle: bytes, present: bytes, wanted: bytes) -> bool:
    """Refuse a bundle that does not hold afterwards, or that takes a newer one's place.

    Answers whether it holds before the change as well, as it must where a CA goes.
    """
    holds_before = True
    try:
        told = verify(bundle, wanted)
        if _holds(bundle, present) is None:
            holds_before = False
            if not set(trust.fingerprints(present)) <= set(trust.fingerprints(wanted)):
                verify(bundle, present)
    except BundleInvalid as e:
        raise JoinRefused("BUNDLE_INVALID", str(e)) from e
    either = trust.changed(present, wanted, ())
    newest = max((one.version for one in _bundles(joining, either)), default=0)
    if told.version < newest:
        raise JoinRefused(
            "BUNDLE_OLD", f"version {told.version} of the bundle came, and {newest} is here"
        )
    return holds_before


def _holds(bundle: bytes, ca: bytes) -> Bundle | None:
    try:
        return verify(bundle, ca)
    except BundleInvalid:
        return None


def _bundles(joining: Joining, ca: bytes) -> Iterator[Bundle]:
    places: tuple[Path, ...] = (joining.etc / "bundle.json", *pushed_bundles(joining.state))
    for path in places:
        try:
            yield verify(files.read_bounded(path, MAX_BUNDLE_BYTES), ca)
        except (FileNotFoundError, BundleInvalid, ValueError):
            continue
