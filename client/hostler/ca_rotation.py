"""The CA becomes another: both are trusted, then all is issued anew, then the old one goes.

    pki/  ca.next.key, ca.next.pem   the new CA, as long as the old one signs
          ca.old.pem                 the old CA's certificate, once the new one signs
          ca.pem                     the one that signs, then the other, then whatever else is there

The files alone say how far it is. Each change is done in an order that a kill cannot make wrong,
and done again it changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm

from hostler.core import certificates, files, trust
from hostler.core.bundle import MAX_BUNDLE_BYTES, BundleInvalid, verify
from hostler.core.certificates import MAX_PEM_BYTES, CertificateUnreadable, Issuer
from hostler.issued import Entry, PkiDamaged, PkiError
from hostler.pki import NEXT_CERTIFICATE, NEXT_KEY, OLD_CERTIFICATE, Authority


class Stage(StrEnum):
    """How far a rotation is: the next step that it takes is of the same name."""

    NONE = "none"
    TRUST = "trust"
    REISSUE = "reissue"


@dataclass(frozen=True, slots=True)
class Pair:
    """The two CAs of a rotation, as PEM, and their fingerprints."""

    old_pem: bytes
    new_pem: bytes

    @property
    def old(self) -> str:
        """The fingerprint of the old one."""
        return trust.fingerprints(self.old_pem)[0]

    @property
    def new(self) -> str:
        """The fingerprint of the new one."""
        return trust.fingerprints(self.new_pem)[0]


class Rotation:
    """The rotation of the CA in a folder. `trusting` are further files that trust it here."""

    def __init__(
        self,
        folder: Path,
        trusting: tuple[Path, ...] = (),
        passphrase: Callable[[], bytes] | None = None,
    ) -> None:
        self.folder = folder
        self._passphrase = passphrase
        ca = (folder / "ca.pem").resolve()
        self._trusting = tuple(path for path in trusting if path.resolve() != ca)
        self._next_key, self._next = folder / NEXT_KEY, folder / NEXT_CERTIFICATE
        self._old = folder / OLD_CERTIFICATE

    @property
    def authority(self) -> Authority:
        """The CA as it is now. Raises PkiError, OSError."""
        return Authority.open(self.folder, self._passphrase)

    @property
    def stage(self) -> Stage:
        """How far it is."""
        if self._next_key.exists():
            return Stage.TRUST
        return Stage.REISSUE if self._old.exists() else Stage.NONE

    def pair(self) -> Pair:
        """Both CAs of a rotation that has begun. Raises PkiError, OSError."""
        signing = _first(_read(self.folder / "ca.pem"))
        stage = self.stage
        if stage is Stage.REISSUE:
            return Pair(_read(self._old), signing)
        if stage is Stage.TRUST and self._next.exists():
            following = _read(self._next)
            # A switch that was cut off has the new one in the first place already.
            old = _read(self._old) if self._old.exists() else signing
            return Pair(old, following)
        raise PkiError("no rotation of the CA has begun: hostler ca rotate trust")

    def begin(self) -> Pair:
        """Make the new CA beside the old one, and trust both here. Raises PkiError, OSError."""
        authority = self.authority
        with authority.changing():
            if self.stage is Stage.REISSUE:
                raise PkiError("the CA is being rotated already, and the new one signs")
            if not self._next_key.exists():
                self._next.unlink(missing_ok=True)
                kept = authority.key_as_kept(certificates.make_key())
                files.write_new(self._next_key, kept, mode=0o600)
            key = authority.load_key(self._next_key)
            if not self._next.exists():
                made = certificates.make_ca(authority.trust_domain, key=key)
                files.write_new(self._next, made.pem, mode=0o644)
            pair = self.pair()
            Issuer.of(pair.new_pem, key)
            self._trust_here(pair.new_pem, ())
        return pair

    def switch(self) -> Pair:
        """Have the new CA sign from now on, the bundle first. Raises PkiError, OSError."""
        authority = self.authority
        if self.stage is Stage.TRUST:
            with authority.changing():
                pair = self.pair()
                # With this key there is no way back to what is not known.
                authority.load_key(self._next_key)
                if not self._old.exists():
                    files.write_new(self._old, pair.old_pem, mode=0o644)
                whole = trust.first(_read(self.folder / "ca.pem"), pair.new_pem)
                files.replace(self.folder / "ca.pem", whole, mode=0o644)
                self._next_key.rename(self.folder / "ca.key")
                files.sync_folder(self.folder)
                self._next.unlink(missing_ok=True)
        pair = self.pair()
        if not self._is_signed_by(pair.new_pem):
            self.authority.write_bundle()
        return pair

    def drop(self) -> None:
        """Trust the old CA no more here: the rotation is over. Raises PkiError, OSError."""
        pair = self.pair()
        with self.authority.changing():
            if self.stage is not Stage.REISSUE or not self._is_signed_by(pair.new_pem):
                raise PkiError("the old CA still signs here: hostler ca rotate reissue")
            self._trust_here(b"", (pair.old,))
            self._next.unlink(missing_ok=True)
            self._old.unlink()
            files.sync_folder(self.folder)

    def outdated_users(self) -> tuple[Entry, ...]:
        """Certificates of users that count and are of the old CA. Raises PkiError, OSError."""
        pair, now = self.pair(), datetime.now(UTC)
        return tuple(
            entry
            for entry in self.authority.list()
            if entry.certificate.kind == "user" and entry.state == "current" and entry.path
            if entry.certificate.not_after > now and not _is_of(_read(entry.path), pair.new_pem)
        )

    def reissue_users(self) -> tuple[str, ...]:
        """Issue those anew, with new keys, in their places; answers whose. Raises as the CA."""
        names = tuple(entry.certificate.name for entry in self.outdated_users())
        for name in names:
            self.authority.issue_user(name, renew=True)
        return names

    def _trust_here(self, added: bytes, removed: tuple[str, ...]) -> None:
        for path in (*self._trusting, self.folder / "ca.pem"):
            present = _read(path)
            wanted = trust.changed(present, added, removed)
            if wanted != present:
                files.replace(path, wanted, mode=0o644)

    def _is_signed_by(self, ca_pem: bytes) -> bool:
        try:
            verify(files.read_bounded(self.folder / "bundle.json", MAX_BUNDLE_BYTES), ca_pem)
        except (FileNotFoundError, BundleInvalid):
            return False
        return True


def _is_of(pem: bytes, ca_pem: bytes) -> bool:
    try:
        return bool(trust.issuer_of(certificates.load_certificates(pem)[0], ca_pem))
    except (CertificateUnreadable, UnsupportedAlgorithm):
        return False


def _first(pem: bytes) -> bytes:
    return certificates.to_pem(certificates.load_certificates(pem)[0])


def _read(path: Path) -> bytes:
    try:
        pem = files.read_bounded(path, MAX_PEM_BYTES)
        certificates.load_certificates(pem)
    except (ValueError, CertificateUnreadable) as e:
        raise PkiDamaged(f"{path}: {e}") from e
    return pem
