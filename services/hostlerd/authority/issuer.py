"""One issuer of the authority, in its folder: key, certificate, and what it publishes."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from hostler.core import certificates, files
from hostler.core.ssl.authority import issue, revocation
from hostler.core.ssl.authority.issue import Published, Signer
from hostler.core.ssl.authority.revocation import Revoked
from hostlerd.authority import keys
from hostlerd.authority.issuer_names import IDENTITY
from hostlerd.authority.publishing import Publishing, status_line
from hostlerd.authority.record import Record, Row
from hostlerd.privileged.refused import Refused


class Issuer:
    """An issuer by its name. Whoever changes something holds the folder's lock."""

    def __init__(self, name: str, folder: Path, publish: Path, secret: bytes) -> None:
        self.name = name
        self._folder = folder
        self._secret = secret
        self._certificate_path = folder / f"{name}.pem"
        self._key_path = folder / f"{name}.key"
        self._request_path = folder / f"{name}.csr"
        self.publishing = Publishing(publish, name)
        self._signer: Signer | None = None

    @property
    def exists(self) -> bool:
        """Whether it can issue."""
        return self._certificate_path.exists()

    def chain(self) -> tuple[x509.Certificate, ...]:
        """Its certificate and those above it; empty if there is none yet."""
        try:
            pem = files.read_bounded(self._certificate_path, certificates.MAX_PEM_BYTES)
        except FileNotFoundError:
            return ()
        return tuple(certificates.load_certificates(pem))

    def waiting_request(self) -> bytes:
        """The request that waits to be signed elsewhere, DER; empty if none does."""
        try:
            return b"" if self.exists else files.read_bounded(self._request_path, 1 << 16)
        except FileNotFoundError:
            return b""

    def make(self, name: str, now: datetime) -> None:
        """Make it with a certificate of its own. A key that is there is taken up."""
        key = self._take_up_key()
        if self.name == IDENTITY:
            pem = certificates.make_ca(name, key=key).pem
        else:
            pem = _pem([issue.root(name, key, now)])
        files.write_new(self._certificate_path, pem, mode=0o600)

    def begin(self, name: str) -> None:
        """Make its key, and a request that an authority elsewhere is to sign."""
        files.replace(self._request_path, issue.request(name, self._take_up_key()), mode=0o600)

    def check(
        self, chain: Sequence[x509.Certificate], now: datetime
    ) -> tuple[x509.Certificate, ...]:
        """Answer a chain that it could take. Raises InvalidField, Refused."""
        if self.exists:
            raise Refused("INVALID", "the authority has a certificate already")
        return issue.check_chain(chain, self._key(), now)

    def complete(self, chain: Sequence[x509.Certificate], now: datetime) -> None:
        """Take the certificate that was signed elsewhere. Raises InvalidField, Refused."""
        checked = self.check(chain, now)
        files.write_new(self._certificate_path, _pem(checked), mode=0o600)

    def signer(self, published: Published) -> Signer:
        """What signs. Raises Refused if there is none, or its key is locked."""
        if self._signer is None or self._signer.published != published:
            chain = self.chain()
            if not chain:
                raise Refused("NOT_FOUND", f"this host has no authority for the {self.name} use")
            self._signer = Signer(chain, self._key(), published)
        return self._signer

    def refresh(self, record: Record, signer: Signer, lifetime: timedelta) -> None:
        """Publish all of it anew; the CRL only if half of its life is gone."""
        now = datetime.now(UTC)
        self.publishing.certificate(signer.certificate)
        self.publishing.delegate(signer, now)
        living = record.living(self.name, int(now.timestamp()))
        self.publishing.status(status_line(*each) for each in living)
        self.refresh_crl(record, signer, lifetime)

    def refresh_crl(self, record: Record, signer: Signer, lifetime: timedelta) -> None:
        """Publish a new CRL if half of the life of the last one is gone."""
        if self._crl_is_old(datetime.now(UTC), lifetime):
            self.publish_crl(record, signer, lifetime)

    def publish_crl(self, record: Record, signer: Signer, lifetime: timedelta) -> None:
        """Sign and publish a new CRL."""
        now = datetime.now(UTC)
        since = int((now - revocation.KEPT_AFTER_END).timestamp())
        revoked = [_revoked(row) for row in record.revoked(self.name, since)]
        number = record.next_crl_number(self.name)
        self.publishing.crl(revocation.crl(signer, revoked, number, now, lifetime))

    def crl_time(self) -> int:
        """When its newest CRL was made, Unix time; 0 if there is none."""
        der = self.publishing.read_crl()
        if der is None:
            return 0
        made = x509.load_der_x509_crl(der).last_update_utc + certificates.BACKDATED
        return int(made.timestamp())

    def _crl_is_old(self, now: datetime, lifetime: timedelta) -> bool:
        try:
            der = self.publishing.read_crl()
            crl = x509.load_der_x509_crl(der) if der else None
        except ValueError:
            return True
        if crl is None or crl.issuer != self.chain()[0].subject:
            return True
        end = crl.next_update_utc
        return end is None or end - now < lifetime / 2

    def _key(self) -> ec.EllipticCurvePrivateKey:
        try:
            return keys.load(self._key_path, self._secret)
        except FileNotFoundError:
            raise Refused("NOT_FOUND", f"there is no key for the {self.name} use") from None

    def _take_up_key(self) -> ec.EllipticCurvePrivateKey:
        try:
            return keys.load(self._key_path, self._secret)
        except FileNotFoundError:
            return keys.make(self._key_path, self._secret)


def _pem(chain: Sequence[x509.Certificate]) -> bytes:
    return b"".join(c.public_bytes(serialization.Encoding.PEM) for c in chain)


def _revoked(row: Row) -> Revoked:
    time = datetime.fromtimestamp(row.revoke_time or 0, UTC)
    return Revoked(int(row.serial, 16), time, row.reason or "unspecified")
