"""Certificates of a host's authority, from a request to the file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from hostler.api.ssl.v1 import authority_pb2 as pb
from hostler.channel import rpc
from hostler.config import ConfigError
from hostler.core import files
from hostler.core.ssl.authority.request import (
    MAX_REQUEST_BYTES,
    RequestInvalid,
    read_key,
    spki_sha256,
)
from hostler.plans import Planned, RpcChange
from hostler.session import Session

if TYPE_CHECKING:
    from collections.abc import Sequence

SERVICE = "CertificateAuthorityService"
_LIST = rpc(pb, SERVICE, "ListIssuedCertificates")
_GET = rpc(pb, SERVICE, "GetIssuedCertificate")


class IssueChange(RpcChange):
    """An issue whose answer is kept in a file: the certificate and its issuers, PEM, leaf first."""

    def __init__(self, method: Any, request: Any, out: Path) -> None:
        super().__init__(method, request)
        self._csr = request.csr
        self._out = out

    async def apply(self, session: Session, planned: Planned) -> Any:
        """Issue it and write the file. Raises CallFailed, OSError."""
        answer = await super().apply(session, planned)
        if not answer.pem:
            # A retry of a call that was cut off: it was issued, and the answer was lost.
            answer.pem = await newest(session, self._csr)
        files.replace(self._out, answer.pem.encode(), mode=0o644)
        return answer


async def newest(session: Session, csr: bytes) -> str:
    """The newest certificate of a request's key, which names it alone."""
    key = spki_sha256(read_key(csr))
    page = await session.call(_LIST, pb.ListIssuedCertificatesRequest(page_size=1, spki_sha256=key))
    if not page.issued:
        return ""
    serial = page.issued[0].certificate.serial
    found = await session.call(_GET, pb.GetIssuedCertificateRequest(serial=serial))
    return str(found.pem)


def read_csr(path: Path) -> bytes:
    """Read a request and look whether it is one before any host is asked. Raises ConfigError."""
    try:
        data = files.read_bounded(path, MAX_REQUEST_BYTES)
        read_key(data)
    except (OSError, ValueError) as e:
        raise ConfigError(f"{path}: {e}") from e
    except RequestInvalid as e:
        raise ConfigError(f"{path}: the request {e}") from e
    return data


def make_csr(key_path: Path, names: Sequence[str]) -> bytes:
    """Make a request for names, DNS names and addresses, by a key that is made if it is not there.

    The key is P-256 in a file that its owner alone can read. Raises ConfigError, OSError.
    """
    from ipaddress import ip_address

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization

    from hostler.core import certificates

    try:
        key = certificates.load_key(files.read_bounded(key_path, 64 * 1024))
    except FileNotFoundError:
        key = certificates.make_key()
        files.write_new(key_path, certificates.key_to_pem(key), mode=0o600)
    except (ValueError, certificates.CertificateUnreadable) as e:
        raise ConfigError(f"{key_path}: {e}") from e
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    alternatives: list[x509.GeneralName] = []
    for name in names:
        try:
            alternatives.append(x509.IPAddress(ip_address(name)))
        except ValueError:
            alternatives.append(x509.DNSName(name))
    if alternatives:
        builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)
