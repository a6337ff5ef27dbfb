"""A host that is enrolled gets another certificate for another key of its own, and may go back."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hostler.core import files, trust
from hostler.core.bundle import MAX_BUNDLE_BYTES
from hostler.core.certificates import MAX_PEM_BYTES, load_certificates
from hostler.core.joining import draw_token
from hostler.enrolment.there import There, key_of

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec

    from hostler.enrolment.seen import Seen
    from hostler.pki import Authority


@dataclass(frozen=True, slots=True)
class Certifying:
    """The CA that signs, and its certificate as PEM."""

    authority: Authority
    ca_pem: bytes

    async def certify(self, there: There, seen: Seen) -> x509.Certificate:
        """Have the host make a key, sign it, and have it put in place; answers the certificate.

        The host keeps the pair before until `{"do": "keep"}`, or takes it up again with
        `{"do": "go back"}`. Raises EnrolmentError, PkiError, OSError.
        """
        token = draw_token()
        told = await there.join({"do": "request", "name": there.name, "token": token})
        key = key_of(told, there.name, token)
        pem = await asyncio.to_thread(self._sign, there.name, key, seen)
        await there.join(
            {
                "do": "install",
                "token": token,
                "certificate": pem.decode(),
                "ca": trust.changed(seen.ca_pem, self.ca_pem, ()).decode(),
                "bundle": self.bundle(),
                "may_go_back": True,
            }
        )
        return load_certificates(pem)[0]

    def bundle(self) -> str:
        """The bundle that comes along. Raises OSError."""
        return files.read_bounded(self.authority.bundle_path, MAX_BUNDLE_BYTES).decode()

    def _sign(self, name: str, key: ec.EllipticCurvePublicKey, seen: Seen) -> bytes:
        """The certificate of this key: the one there is, where an earlier try was cut."""
        path = self.authority.certificate_path("host", name)
        if path.exists():
            pem = files.read_bounded(path, MAX_PEM_BYTES)
            (leaf, *_) = load_certificates(pem)
            if leaf.public_key() == key and trust.issuer_of(leaf, self.ca_pem):
                return pem
        shown = seen.certificate
        names = (shown.dns_names, shown.ip_addresses) if shown else ((), ())
        self.authority.sign_host(name, key, *names, renew=path.exists())
        return files.read_bounded(path, MAX_PEM_BYTES)
