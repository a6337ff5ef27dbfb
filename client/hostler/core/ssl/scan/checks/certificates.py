"""Certificates as served: every chain a server has, and the OCSP responses stapled to them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from hostler.core.ssl.scan import words
from hostler.core.ssl.scan.checks.suites import Suites
from hostler.core.ssl.scan.ciphers import suite
from hostler.core.ssl.scan.connect import Dialer
from hostler.core.ssl.scan.errors import ClosedEarly, Refused, Unsupported
from hostler.core.ssl.scan.exchange import ask
from hostler.core.ssl.scan.handshake13 import handshake13
from hostler.core.ssl.scan.hello import Hello

# Which signatures a server of TLS 1.3 must have the key for. Source: RFC 8446 4.2.3.
_BY_SIGNATURE = (
    ("RSA", (0x0804, 0x0805, 0x0806, 0x0809, 0x080A, 0x080B, 0x0401, 0x0501, 0x0601)),
    ("ECDSA", (0x0403, 0x0503, 0x0603)),
    ("EdDSA", (0x0807, 0x0808)),
)
_EDDSA = 2


@dataclass(frozen=True, slots=True)
class Served:
    """A chain as it came, the server's own certificate first; DER."""

    auth: str
    version: int
    chain: tuple[bytes, ...]
    stapled: bytes = b""
    wants_certificate: bool = False


async def probe(dialer: Dialer, found: Sequence[Suites]) -> tuple[Served, ...]:
    """Fetch them. Raises ScanError.

    Chains that differ are all told, of equal ones the first; a version before 1.3 comes first.
    """
    chains: list[Served] = []
    for each in sorted(found, key=lambda one: (one.version == words.TLS13, -one.version)):
        if not each.is_supported:
            continue
        if each.version == words.TLS13:
            chains += await _of_tls13(dialer, bool(chains))
        elif not chains:
            chains += await _of_old(dialer, each)
    told: dict[tuple[bytes, ...], Served] = {}
    for served in chains:
        told.setdefault(served.chain, served)
    return tuple(told.values())


async def _of_old(dialer: Dialer, accepted: Suites) -> list[Served]:
    by_auth: dict[str, list[int]] = {}
    for number in accepted.suites:
        auth = suite(number).auth
        if auth in ("RSA", "ECDSA", "DSS"):
            by_auth.setdefault(auth, []).append(number)
    chains: list[Served] = []
    for auth, suites in by_auth.items():
        hello = Hello(accepted.version, suites, name=dialer.endpoint.name)
        answer = await ask(dialer, hello, whole=True)
        if answer.certificates:
            chains.append(
                Served(
                    auth,
                    accepted.version,
                    answer.certificates,
                    answer.stapled,
                    answer.wants_certificate,
                )
            )
    return chains


async def _of_tls13(dialer: Dialer, is_known: bool) -> list[Served]:
    # What has a chain for older clients rarely has EdDSA besides.
    asked = _BY_SIGNATURE[: _EDDSA if is_known else None]
    found = await asyncio.gather(*(_signed(dialer, auth, by) for auth, by in asked))
    return [each for each in found if each is not None]


async def _signed(dialer: Dialer, auth: str, signatures: Sequence[int]) -> Served | None:
    """The chain for some signatures."""
    try:
        async with handshake13(dialer, signatures=signatures) as session:
            agreed = session.agreed
    except (Refused, ClosedEarly, Unsupported):
        # A server without such a key refuses, by an alert or by going away.
        return None
    if not agreed.certificates:
        return None
    return Served(auth, words.TLS13, agreed.certificates, agreed.stapled, agreed.wants_certificate)
