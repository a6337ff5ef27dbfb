"""What a scan has found, as a value and as plain data."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hostler.core.ssl.scan import words
from hostler.core.ssl.scan.ciphers import SSL2_SUITES, CipherSuite, suite
from hostler.core.ssl.scan.connect import Endpoint

if TYPE_CHECKING:
    from hostler.core.ssl.scan.checks.alpn import Alpn
    from hostler.core.ssl.scan.checks.certificates import Served
    from hostler.core.ssl.scan.checks.features import Features
    from hostler.core.ssl.scan.checks.groups import Groups
    from hostler.core.ssl.scan.checks.http import Http
    from hostler.core.ssl.scan.checks.names import Named
    from hostler.core.ssl.scan.checks.resumption import Resumption
    from hostler.core.ssl.scan.checks.robot import Robot
    from hostler.core.ssl.scan.checks.ssl2 import Ssl2
    from hostler.core.ssl.scan.checks.suites import Suites
    from hostler.core.ssl.scan.clients import Simulated
    from hostler.core.ssl.scan.grade import Grade
    from hostler.core.ssl.scan.trust import Trust


@dataclass(frozen=True, slots=True)
class Problem:
    """A check that came to nothing, and why."""

    check: str
    code: str
    message: str


@dataclass(slots=True)
class Report:
    """What was found at an endpoint. None is a check that was not asked for, or failed.

    `failure` is set if there is no TLS to be found; then there is nothing else.
    """

    endpoint: Endpoint
    address: str = ""
    started: float = 0.0
    duration_s: float = 0.0
    connections: int = 0
    bytes_read: int = 0
    failure: Problem | None = None
    problems: tuple[Problem, ...] = ()
    ssl2: Ssl2 | None = None
    versions: tuple[Suites, ...] = ()
    groups: Groups | None = None
    certificates: tuple[Served, ...] | None = None
    trust: tuple[Trust, ...] | None = None
    names: tuple[Named, ...] | None = None
    alpn: Alpn | None = None
    features: Features | None = None
    fallback: bool | None = None
    compression: str | None = None
    resumption: Resumption | None = None
    renegotiation: bool | None = None
    heartbleed: bool | None = None
    ccs_injection: bool | None = None
    robot: Robot | None = None
    http: Http | None = None
    clients: tuple[Simulated, ...] | None = None
    grade: Grade | None = None

    def supported(self) -> dict[int, Suites]:
        """What each accepted version accepts, the newest first."""
        found = sorted(self.versions, key=lambda each: -each.version)
        return {each.version: each for each in found if each.is_supported}

    def suites(self) -> dict[int, CipherSuite]:
        """Every suite that any version accepts."""
        found = {n: suite(n) for each in self.supported().values() for n in each.suites}
        if self.ssl2 is not None:
            found |= {n: SSL2_SUITES[n] for n in self.ssl2.suites if n in SSL2_SUITES}
        return found


def as_dict(report: Report) -> dict[str, Any]:
    """Plain data for JSON. Certificates are told by their SHA-256, and come as PEM once."""
    head: dict[str, Any] = {
        "endpoint": str(report.endpoint),
        "host": report.endpoint.host,
        "port": report.endpoint.port,
        "name": report.endpoint.name,
        "starttls": report.endpoint.starttls,
        "address": report.address,
        "started": report.started,
        "duration_s": round(report.duration_s, 3),
        "connections": report.connections,
        "bytes_read": report.bytes_read,
    }
    if report.failure is not None:
        return {**head, "failure": _plain(report.failure)}
    return {
        **head,
        "grade": None if report.grade is None else report.grade.as_dict(),
        "versions": _versions(report),
        "groups": _groups(report.groups),
        "certificates": _certificates(report),
        "names": _names(report.names),
        "alpn": _plain(report.alpn),
        "features": _plain(report.features),
        "fallback_scsv": report.fallback,
        "compression": report.compression,
        "resumption": _plain(report.resumption),
        "client_renegotiation": report.renegotiation,
        "heartbleed": report.heartbleed,
        "ccs_injection": report.ccs_injection,
        "robot": _plain(report.robot),
        "http": _plain(report.http),
        "clients": None if report.clients is None else [each.as_dict() for each in report.clients],
        "problems": [_plain(each) for each in report.problems],
    }


def fingerprint(der: bytes) -> str:
    """SHA-256 of a certificate, in hex."""
    return hashlib.sha256(der).hexdigest()


def _plain(value: Any) -> Any:
    if value is None:
        return None
    return {name: getattr(value, name) for name in value.__dataclass_fields__}


def _suite(found: CipherSuite) -> Mapping[str, Any]:
    return {
        "number": f"0x{found.number:04x}",
        "name": found.name,
        "kx": found.kx,
        "auth": found.auth,
        "enc": found.enc,
        "bits": found.bits,
        "aead": found.is_aead,
        "forward_secret": found.is_forward_secret,
        "flaws": list(found.flaws),
    }


def _versions(report: Report) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if report.ssl2 is not None:
        chosen = [SSL2_SUITES[n] for n in report.ssl2.suites if n in SSL2_SUITES]
        found["SSLv2"] = {
            "supported": report.ssl2.is_supported,
            "suites": [_suite(each) for each in chosen],
        }
    for each in sorted(report.versions, key=lambda one: one.version):
        found[words.version_name(each.version)] = {
            "supported": each.is_supported,
            "order": each.order,
            "refusal": each.refusal,
            "suites": [_suite(suite(number)) for number in each.suites],
        }
    return found


def _groups(groups: Groups | None) -> Any:
    if groups is None:
        return None
    return {
        "tls13": [words.group_name(each) for each in groups.tls13],
        "ecdhe": [words.group_name(each) for each in groups.ecdhe],
        "dh_bits": groups.dh_bits,
    }


def _certificates(report: Report) -> Any:
    if report.certificates is None:
        return None
    judged = report.trust or (None,) * len(report.certificates)
    return [
        {
            "auth": served.auth,
            "seen_with": words.version_name(served.version),
            "sha256": [fingerprint(der) for der in served.chain],
            "pem": [pem(der) for der in served.chain],
            "stapled_bytes": len(served.stapled),
            "wants_certificate": served.wants_certificate,
            "trust": _trust(trust),
        }
        for served, trust in zip(report.certificates, judged, strict=True)
    ]


def _trust(trust: Trust | None) -> Any:
    if trust is None:
        return None
    found = {**_plain(trust), "reasons": [_plain(reason) for reason in trust.reasons]}
    if trust.leaf is not None:
        leaf = _plain(trust.leaf)
        leaf["not_before"] = trust.leaf.not_before.isoformat()
        leaf["not_after"] = trust.leaf.not_after.isoformat()
        found["leaf"] = leaf
    return found


def _names(names: tuple[Named, ...] | None) -> Any:
    if names is None:
        return None
    return {
        each.name: {
            "sha256": fingerprint(each.chain[0]) if each.chain else None,
            "refusal": each.refusal,
        }
        for each in names
    }


def pem(der: bytes) -> str:
    """DER as PEM. Source: RFC 7468."""
    import base64
    import textwrap

    body = "\n".join(textwrap.wrap(base64.b64encode(der).decode(), 64))
    return f"-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n"
