"""Who this host is to its callers, and who its callers are: X.509 at both ends of mTLS.

The host's key, certificate and roots are read again when their files change, and a new set is
served only after a TLS 1.3 handshake with itself has succeeded. For callers, grpcio checks the
chain and the dates while shaking hands; it knows no minimum version of TLS, and it never looks
again. `parse_client` does both on every call.
"""

from __future__ import annotations

import re
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, cast

import grpc

from hostlerd.runtime.errors import Code, DomainError

if TYPE_CHECKING:
    from cryptography import x509

_KEY, _CERTIFICATE, _ROOTS = "host.key", "host.pem", "ca.pem"
_MOST_BYTES = 1 << 20
_MOST_ABOVE = 8
_RETRY_S = 5.0
_FLIGHTS = 10
_TLS_1_3 = "TLSv1.3"
_SPIFFE_BYTES = 2048
_SPIFFE = re.compile(r"spiffe://[a-z0-9._-]{1,255}(/(?!\.{1,2}(/|\Z))[A-Za-z0-9._-]+)+")


class TlsUnusable(RuntimeError):
    """The host's key, certificate or roots cannot serve; `file` names which, `reason` says why."""

    def __init__(self, file: Path, reason: str) -> None:
        super().__init__(f"{file}: {reason}")
        self.file = file
        self.reason = reason


class TlsTooOld(DomainError):
    """The caller's connection uses a version of TLS below 1.3."""

    code, reason = Code.UNAUTHENTICATED, "TLS_TOO_OLD"


class BadIdentity(DomainError):
    """The caller's certificate does not name exactly one SPIFFE identity, or there is none."""

    code, reason = Code.UNAUTHENTICATED, "BAD_IDENTITY"


class CertificateExpired(DomainError):
    """The caller's certificate has ended, maybe while its connection went on."""

    code, reason = Code.UNAUTHENTICATED, "CERTIFICATE_EXPIRED"


class CertificateNotYetValid(DomainError):
    """The caller's certificate begins later than this host's clock says it is."""

    code, reason = Code.UNAUTHENTICATED, "CERTIFICATE_NOT_YET_VALID"


@dataclass(frozen=True, slots=True)
class ClientCertificate:
    """What a caller's certificate says. `serial` is lower-case hex, dates are in UTC.

    `chain` is the PEM of all that was shown, the certificate first.
    """

    identity: str
    serial: str
    not_before: datetime
    not_after: datetime
    tls_version: str
    chain: bytes = field(default=b"", repr=False)


def parse_client(auth_context: Mapping[str, Iterable[bytes]]) -> ClientCertificate:
    """Read a caller's certificate off `context.auth_context()` and check version and dates.

    The chain was verified in the handshake. Raises TlsTooOld, BadIdentity, CertificateExpired,
    CertificateNotYetValid.
    """
    version = _only(auth_context, "ssl_tls_version").decode("ascii", "replace")
    if version != _TLS_1_3:
        raise TlsTooOld("TLS 1.3 is needed", version=version or "none")
    pem = _only(auth_context, "x509_pem_cert")
    if not pem:
        raise BadIdentity("the caller showed no certificate")
    facts = _read_certificate(pem)
    if len(facts.uris) != 1:
        raise BadIdentity("the certificate must have exactly one URI SAN", uris=len(facts.uris))
    (identity,) = facts.uris
    if len(identity) > _SPIFFE_BYTES or not _SPIFFE.fullmatch(identity):
        raise BadIdentity("the URI SAN of the certificate is no SPIFFE identity")
    _check_dates(facts)
    chain = _only(auth_context, "x509_pem_cert_chain") or pem
    return ClientCertificate(
        identity, facts.serial, facts.not_before, facts.not_after, version, chain
    )


@lru_cache(maxsize=1024)
def is_issued_by(chain: bytes, roots: bytes) -> bool:
    """Whether a chain that was verified once leads to one of these roots.

    Dates and usages were looked at in the handshake. What cannot be read leads nowhere, nor does
    what has more certificates than any chain of ours: looking at each of them costs time.
    """
    from cryptography import x509

    try:
        current, *shown = x509.load_pem_x509_certificates(chain)
        trusted = x509.load_pem_x509_certificates(roots)
    except ValueError:
        return False
    if len(shown) > _MOST_ABOVE:
        return False
    while not any(_has_issued(root, current) for root in trusted):
        above = next((one for one in shown if _has_issued(one, current)), None)
        if above is None:
            return False
        # Each is used once, so that a circle ends.
        shown.remove(above)
        current = above
    return True


def _has_issued(issuer: x509.Certificate, certificate: x509.Certificate) -> bool:
    from cryptography.exceptions import InvalidSignature

    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _only(auth_context: Mapping[str, Iterable[bytes]], key: str) -> bytes:
    values = tuple(auth_context.get(key, ()))
    return values[0] if len(values) == 1 else b""


@dataclass(frozen=True, slots=True)
class _Facts:
    uris: tuple[str, ...]
    serial: str
    not_before: datetime
    not_after: datetime


@lru_cache(maxsize=1024)
def _read_certificate(pem: bytes) -> _Facts:
    from cryptography import x509

    try:
        certificate = x509.load_pem_x509_certificate(pem)
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        uris = tuple(names.get_values_for_type(x509.UniformResourceIdentifier))
    except x509.ExtensionNotFound:
        uris = ()
    except (ValueError, x509.DuplicateExtension) as error:
        raise BadIdentity("the certificate cannot be read") from error
    return _Facts(
        uris,
        f"{certificate.serial_number:x}",
        certificate.not_valid_before_utc,
        certificate.not_valid_after_utc,
    )


def _check_dates(facts: _Facts) -> None:
    now = datetime.now(UTC)
    if now > facts.not_after:
        raise CertificateExpired(
            "the certificate has expired",
            serial=facts.serial,
            not_after=facts.not_after.isoformat(),
        )
    if now < facts.not_before:
        raise CertificateNotYetValid(
            "the certificate is not valid yet by this host's clock",
            serial=facts.serial,
            not_before=facts.not_before.isoformat(),
            now=now.isoformat(timespec="seconds"),
        )


_Stamp = tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True)
class _Loaded:
    stamp: _Stamp
    expire_time: datetime
    configuration: grpc.ServerCertificateConfiguration
    roots: bytes


class ServerIdentity:
    """The key, certificate and roots of a folder: host.key, host.pem (with its chain), ca.pem.

    Raises TlsUnusable if they cannot serve now. If they change later into what cannot serve, the
    last good ones stay, and `problem` says what is wrong.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._problem = ""
        self._tried_s = time.monotonic()
        self._loaded = self._load()
        self._tried: _Stamp | None = self._loaded.stamp
        self._handed = self._loaded

    def credentials(self) -> grpc.ServerCredentials:
        """Make credentials that demand a client certificate and follow the files."""
        # grpcio takes None for "unchanged"; its type stubs do not know.
        fetch = cast(Callable[[], grpc.ServerCertificateConfiguration], self._fetch)
        return grpc.dynamic_ssl_server_credentials(
            self._loaded.configuration, fetch, require_client_authentication=True
        )

    @property
    def certificate_expire_time(self) -> datetime:
        """When the certificate that is served ends, in UTC."""
        return self._loaded.expire_time

    @property
    def authorities(self) -> tuple[str, ...]:
        """SHA-256, in hex, of each root that callers are taken from."""
        return _fingerprints(self._loaded.roots)

    @property
    def roots(self) -> bytes:
        """The roots that callers are taken from, as PEM."""
        return self._loaded.roots

    def refresh(self) -> None:
        """Look whether the files have changed, as each handshake does."""
        with self._lock:
            self._follow()

    @property
    def problem(self) -> str:
        """What is wrong with the files or the certificate that is served; empty if nothing is."""
        if self._problem:
            return self._problem
        if datetime.now(UTC) > self.certificate_expire_time:
            ended = self.certificate_expire_time.isoformat()
            return f"{self._folder / _CERTIFICATE}: expired at {ended}"
        return ""

    def _fetch(self) -> grpc.ServerCertificateConfiguration | None:
        # grpcio calls this for every connection, on threads of its own. None says: unchanged.
        with self._lock:
            self._follow()
            if self._handed is self._loaded:
                return None
            self._handed = self._loaded
            return self._loaded.configuration

    def _follow(self) -> None:
        try:
            self._take()
        except TlsUnusable as error:
            self._problem = str(error)

    def _take(self) -> None:
        now = time.monotonic()
        stamp = self._stamp()
        # What failed may become good without a change of the files: dates do.
        again = bool(self._problem) and now - self._tried_s >= _RETRY_S
        if stamp == self._tried and not again:
            return
        self._tried, self._tried_s = stamp, now
        loaded = self._load()
        if loaded.stamp != self._loaded.stamp:
            self._loaded = loaded
        self._problem = ""

    def _load(self) -> _Loaded:
        stamp = self._stamp()
        key, chain, roots = (self._read(name) for name in (_KEY, _CERTIFICATE, _ROOTS))
        expire_time = self._prove(roots)
        if self._stamp() != stamp:
            raise TlsUnusable(self._folder, "the files changed while they were read")
        configuration = grpc.ssl_server_certificate_configuration([(key, chain)], roots)
        return _Loaded(stamp, expire_time, configuration, roots)

    def _stamp(self) -> _Stamp:
        return tuple(self._stamp_of(self._folder / name) for name in (_KEY, _CERTIFICATE, _ROOTS))

    def _stamp_of(self, file: Path) -> tuple[int, ...]:
        try:
            found = file.stat()
        except OSError as error:
            raise TlsUnusable(file, error.strerror or "cannot be found") from error
        return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns

    def _read(self, name: str) -> bytes:
        file = self._folder / name
        try:
            with file.open("rb") as stream:
                data = stream.read(_MOST_BYTES + 1)
        except OSError as error:
            raise TlsUnusable(file, error.strerror or "cannot be read") from error
        if len(data) > _MOST_BYTES:
            raise TlsUnusable(file, f"is larger than {_MOST_BYTES} bytes")
        if b"-----BEGIN " not in data:
            raise TlsUnusable(file, "is not PEM")
        return data

    def _prove(self, roots: bytes) -> datetime:
        """Shake hands with ourselves, as a caller would; answer when the certificate ends."""
        server, client = _server_context(self._folder), _client_context(self._folder, roots)
        try:
            seen = _shake_hands(server, client)
        except ssl.SSLCertVerificationError as error:
            raise TlsUnusable(self._folder / _CERTIFICATE, error.verify_message) from error
        except ssl.SSLError as error:
            raise TlsUnusable(self._folder / _CERTIFICATE, error.reason or str(error)) from error
        return datetime.fromtimestamp(ssl.cert_time_to_seconds(str(seen["notAfter"])), UTC)


@lru_cache(maxsize=4)
def _fingerprints(roots: bytes) -> tuple[str, ...]:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes

    found = x509.load_pem_x509_certificates(roots)
    return tuple(root.fingerprint(hashes.SHA256()).hex() for root in found)


def _server_context(folder: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    key, certificate = folder / _KEY, folder / _CERTIFICATE
    try:
        # Without a password at all, OpenSSL asks for one on the terminal.
        context.load_cert_chain(certificate, key, password="")
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise TlsUnusable(key, f"does not belong to {certificate}") from error
        reason = f"cannot be used with {key}: {error.reason or error}"
        raise TlsUnusable(certificate, reason) from error
    except OSError as error:
        raise TlsUnusable(certificate, error.strerror or "cannot be read") from error
    return context


def _client_context(folder: Path, roots: bytes) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    # Callers compare names with the address they dialled; here the chain and dates are in view.
    context.check_hostname = False
    try:
        context.load_verify_locations(cadata=roots.decode("ascii"))
    except (ssl.SSLError, ValueError) as error:
        raise TlsUnusable(folder / _ROOTS, f"holds no usable root: {error}") from error
    return context


def _shake_hands(server: ssl.SSLContext, client: ssl.SSLContext) -> Mapping[str, object]:
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    caller = client.wrap_bio(to_client, to_server)
    sides = [caller, server.wrap_bio(to_server, to_client, server_side=True)]
    for _ in range(_FLIGHTS):
        for side in tuple(sides):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
            sides.remove(side)
        if not sides:
            return caller.getpeercert() or {}
    raise ssl.SSLError("the handshake with ourselves did not end")
