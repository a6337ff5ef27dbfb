"""Checks of one door of a host, in order: name, port, TLS on both sides, and what it answers."""

from __future__ import annotations

import asyncio
import hashlib
import socket
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from hostler.api.common.v1 import host_pb2
from hostler.channel import rpc
from hostler.config import Context
from hostler.doctor.finding import Finding, Level
from hostler.fleet import Host
from hostler.results import CallFailed, HostError

if TYPE_CHECKING:
    from hostler.aio import Client

CONNECT_S = 5.0
# A daemon that is started for it answers the handshake when it is up. Source: Retry.start_s.
HANDSHAKE_S = 20.0
SKEW = timedelta(minutes=5)
_ORDER = ("name", "port", "tls", "answer")
_GET_HOST = rpc(host_pb2, "HostService", "GetHost")
# Of OpenSSL's X509_V_ERR_*: not yet valid, expired, hostname, IP address.
_NOT_YET, _ENDED, _HOST_NAME, _ADDRESS = 9, 10, 62, 64


async def check_door(
    client: Client, context: Context | None, host: Host, domain: str, bundle_version: int
) -> list[Finding]:
    """Check one door. `bundle_version` is what it should have in force, 0 for what is unknown."""
    door = _Door(client, context, host, domain, bundle_version)
    found: list[Finding] = []
    checks = {"name": door.name, "port": door.port, "tls": door.tls, "answer": door.answer}
    for at, check in enumerate(_ORDER):
        if host.is_local and check in ("name", "tls"):
            continue
        findings = await checks[check]()
        found += findings
        if any(one.level is Level.FAILED and one.check == check for one in findings):
            found += [
                door.finding(rest, Level.SKIPPED, f"{check} failed") for rest in _ORDER[at + 1 :]
            ]
            break
    return found


async def served_fingerprint(context: Context, host: Host, domain: str) -> str:
    """SHA-256, in hex, of the certificate that a door shows; it is verified. Raises OSError."""
    return hashlib.sha256(await served_certificate(context, host, domain)).hexdigest()


async def served_certificate(context: Context, host: Host, domain: str) -> bytes:
    """The certificate that a door shows, as DER; it is verified. Raises OSError."""
    async with asyncio.timeout(HANDSHAKE_S):
        _, writer = await _handshake(context, host, domain)
    try:
        shown: bytes = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    finally:
        writer.close()
    return shown


async def _handshake(
    context: Context, host: Host, domain: str
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connect to a door with the certificates of a context. Raises OSError, ssl.SSLError."""
    tls = ssl.create_default_context(cafile=str(context.ca))
    tls.load_cert_chain(context.certificate, context.key)
    tls.set_alpn_protocols(["h2"])
    tls.minimum_version = ssl.TLSVersion.TLSv1_3
    return await asyncio.open_connection(
        host.address, host.port(domain), ssl=tls, server_hostname=host.name
    )


class _Door:
    def __init__(
        self, client: Client, context: Context | None, host: Host, domain: str, bundle: int
    ) -> None:
        self._client, self._context = client, context
        self._host, self._domain, self._bundle = host, domain, bundle

    def finding(
        self, check: str, level: Level, message: str, code: str = "", advice: str = ""
    ) -> Finding:
        return Finding(check, level, message, code, advice, self._host.name, self._domain)

    async def name(self) -> list[Finding]:
        """Whether the address of the host is one, or a name of one."""
        address, loop = self._host.address, asyncio.get_running_loop()
        try:
            async with asyncio.timeout(CONNECT_S):
                found = await loop.getaddrinfo(
                    address, self._host.port(self._domain), type=socket.SOCK_STREAM
                )
        except (OSError, UnicodeError) as error:
            words = f"{address}: {_words(error)}"
            advice = "correct the address of the host in the fleet file, or your resolver"
            return [self.finding("name", Level.FAILED, words, "NAME_UNKNOWN", advice)]
        told = ", ".join(sorted({str(one[4][0]) for one in found}))
        return [self.finding("name", Level.OK, told)]

    async def port(self) -> list[Finding]:
        """Whether something listens at the door."""
        unit = f"hostler-{self._domain}.socket"
        if self._host.is_local:
            where = self._host.socket(self._domain)
            opening = asyncio.open_unix_connection(where)
        else:
            number = self._host.port(self._domain)
            where = f"{self._host.address} port {number}"
            opening = asyncio.open_connection(self._host.address, number)
        try:
            async with asyncio.timeout(CONNECT_S):
                _, writer = await opening
        except TimeoutError:
            advice = "the host is down, or a firewall on the way drops what is sent to this port"
            words = f"{where}: no answer within {CONNECT_S:g} s"
            return [self.finding("port", Level.FAILED, words, "PORT_SILENT", advice)]
        except OSError as error:
            advice = f"on the host: systemctl status {unit}"
            words = f"{where}: {_words(error)}"
            return [self.finding("port", Level.FAILED, words, "PORT_CLOSED", advice)]
        writer.close()
        return [self.finding("port", Level.OK, where)]

    async def tls(self) -> list[Finding]:
        """Whether both sides take the certificate of the other."""
        if self._context is None:
            return [self.finding("tls", Level.SKIPPED, "there is no context with certificates")]
        try:
            async with asyncio.timeout(HANDSHAKE_S):
                reader, writer = await _handshake(self._context, self._host, self._domain)
                try:
                    # With TLS 1.3 only what is read after the handshake tells whether the host
                    # has taken our certificate: HTTP/2 begins with the settings of the server.
                    first = await reader.read(1)
                finally:
                    writer.close()
        except ssl.SSLCertVerificationError as error:
            return [self._host_refused(error)]
        except (ssl.SSLError, ConnectionError) as error:
            return [self._we_are_refused(_words(error))]
        except TimeoutError:
            advice = f"on the host: journalctl -u hostler-{self._domain}.service"
            words = f"no handshake within {HANDSHAKE_S:g} s"
            return [self.finding("tls", Level.FAILED, words, "TLS_SILENT", advice)]
        except OSError as error:
            return [self.finding("tls", Level.FAILED, _words(error), "TLS_FAILED", "ask again")]
        if not first:
            return [self._we_are_refused("the host closed the connection after the handshake")]
        return [self.finding("tls", Level.OK, f"the host is {self._host.name}, and takes us")]

    def _host_refused(self, error: ssl.SSLCertVerificationError) -> Finding:
        reissue = (
            f"hostler pki issue host {self._host.name}, and bring it to /etc/hostler/pki there"
        )
        words = error.verify_message
        if error.verify_code in (_HOST_NAME, _ADDRESS):
            advice = "the name of the host in the fleet file must be in its certificate: " + reissue
            return self.finding("tls", Level.FAILED, words, "HOST_NAME_NOT_IN_CERTIFICATE", advice)
        if error.verify_code in (_ENDED, _NOT_YET):
            advice = f"compare the clocks of both; {reissue}"
            return self.finding("tls", Level.FAILED, words, "HOST_CERTIFICATE_ENDED", advice)
        advice = f"is this the CA of this host? {reissue}"
        return self.finding("tls", Level.FAILED, words, "HOST_OF_OTHER_CA", advice)

    def _we_are_refused(self, words: str) -> Finding:
        advice = (
            "the host does not take your certificate: compare ca.pem of both, and whether it is "
            "revoked (hostler pki list)"
        )
        return self.finding("tls", Level.FAILED, words, "REFUSED_BY_HOST", advice)

    async def answer(self) -> list[Finding]:
        """What the daemon says of itself: clock, bundle, audit log, capabilities, neighbours."""
        sent = datetime.now(UTC)
        try:
            async with self._client.session(self._host) as session:
                said = await session.call(_GET_HOST.at(self._domain), host_pb2.GetHostRequest())
        except CallFailed as failed:
            return [self._no_answer(failed.error)]
        took = datetime.now(UTC) - sent
        host = said.host
        words = f"version {host.version}, you are {host.caller}"
        return [
            self.finding("answer", Level.OK, words),
            self._clock(host, sent + took / 2),
            *self._certificate(host),
            self._policies(host),
            *self._audit(host),
            *self._capabilities(host),
            *self._neighbours(host),
        ]

    def _no_answer(self, error: HostError) -> Finding:
        advice = f"on the host: journalctl -u hostler-{self._domain}.service"
        if error.code == "UNAUTHENTICATED":
            advice = "have a certificate issued that is good: hostler pki issue user NAME"
        if error.code == "PERMISSION_DENIED":
            advice = "hostler policy explain says which policy it was"
        return self.finding("answer", Level.FAILED, str(error), error.reason or error.code, advice)

    def _clock(self, host: Any, now: datetime) -> Finding:
        off = host.now.ToDatetime(UTC) - now
        words = f"{off.total_seconds():+.1f} s against this machine"
        if abs(off) > SKEW:
            advice = "set the clocks: certificates and audit logs depend on them"
            return self.finding("clock", Level.FAILED, words, "CLOCK_OFF", advice)
        if abs(off) > timedelta(seconds=30):
            advice = "is a time service running on both?"
            return self.finding("clock", Level.WARNING, words, "CLOCK_OFF", advice)
        return self.finding("clock", Level.OK, words)

    def _certificate(self, host: Any) -> Iterator[Finding]:
        if not host.HasField("certificate_expire_time"):
            advice = "bring a certificate to /etc/hostler/pki on the host"
            words = "the daemon has no certificate, and serves local callers alone"
            yield self.finding("certificate", Level.WARNING, words, "NO_CERTIFICATE", advice)
            return
        left = host.certificate_expire_time.ToDatetime(UTC) - datetime.now(UTC)
        words = f"the host's ends in {left.total_seconds() / 86400:.1f} days"
        level, code, advice = Level.OK, "", ""
        if left < timedelta(days=10):
            level, code = Level.WARNING, "HOST_CERTIFICATE_ENDS_SOON"
            advice = f"hostler pki issue host {self._host.name}"
        yield self.finding("certificate", level, words, code, advice)

    def _policies(self, host: Any) -> Finding:
        words = f"version {host.bundle_version}" if host.bundle_version else "none in force"
        if host.bundle_problem:
            words = f"{words}: {host.bundle_problem}"
            level = Level.WARNING if host.bundle_version else Level.FAILED
            advice = "hostler policy sign, then hostler policy push"
            return self.finding("bundle", level, words, "BUNDLE_PROBLEM", advice)
        if 0 < host.bundle_version < self._bundle:
            words = f"{words}, where {self._bundle} was signed"
            advice = f"hostler -H {self._host.name} policy push"
            return self.finding("bundle", Level.WARNING, words, "BUNDLE_OLD", advice)
        return self.finding("bundle", Level.OK, words)

    def _audit(self, host: Any) -> Iterator[Finding]:
        if host.audit_problem:
            advice = "make room below /var/log/hostler on the host"
            problem = host.audit_problem
            yield self.finding("audit", Level.FAILED, problem, "AUDIT_DEGRADED", advice)

    def _capabilities(self, host: Any) -> Iterator[Finding]:
        for one in host.capabilities:
            if not one.available:
                words = f"{one.name}: {one.reason}"
                advice = "what needs it is refused on this host; the rest works"
                yield self.finding(
                    "capabilities", Level.WARNING, words, "CAPABILITY_MISSING", advice
                )

    def _neighbours(self, host: Any) -> Iterator[Finding]:
        for one in host.neighbours:
            level = Level.FAILED if one.conflict else Level.WARNING
            words = f"{one.name}: {one.message}"
            yield self.finding("neighbours", level, words, one.code, one.advice)


def _words(error: BaseException) -> str:
    return str(getattr(error, "strerror", None) or error or type(error).__name__)
