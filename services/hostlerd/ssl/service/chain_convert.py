"""Chains between messages and models."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from hostler.api.ssl.v1 import chain_pb2 as pb
from hostlerd.ssl.kernel.chains import pem_of
from hostlerd.ssl.model.chain import DEFAULT_S, Query
from hostlerd.ssl.model.place import KeyFound
from hostlerd.ssl.service.convert import text
from hostlerd.ssl.service.inventory_convert import public_key, timestamp

if TYPE_CHECKING:
    from hostler.core.ssl.certificate import Certificate
    from hostler.core.ssl.chain import ChainReport
    from hostler.core.ssl.paths import Path
    from hostler.core.ssl.verdict import Reason


def from_message(message: pb.ChainQuery) -> Query:
    """Make a query of a message, defaults filled in."""
    within = message.within
    return Query(
        pem=message.pem,
        path=message.path,
        deployment=message.deployment,
        name=message.name,
        usage=message.usage or "server",
        rules=message.rules or ("private" if message.roots_pem else "web"),
        roots_pem=message.roots_pem,
        intermediates_pem=message.intermediates_pem,
        fetch=message.fetch,
        within_s=within.seconds + within.nanos / 1e9 if message.HasField("within") else DEFAULT_S,
    )


def report(of: ChainReport, unreadable: Iterable[str]) -> pb.ChainReport:
    """All of a report."""
    verdict = of.judged.verdict
    return pb.ChainReport(
        ok=of.ok,
        good=verdict.ok,
        reasons=[reason(each) for each in verdict.reasons],
        warnings=[reason(each) for each in verdict.warnings],
        good_paths=[_path(each) for each in of.judged.good],
        rejected_paths=[_path(each) for each in of.judged.rejected],
        served=[_certificate(each) for each in of.served],
        served_faults=[
            pb.ChainServedFault(
                code=str(each.code),
                subject=text(each.certificate.label),
                message=text(each.message),
                harmless=each.harmless,
            )
            for each in of.faults
        ],
        clients=[
            pb.ChainClient(
                client=str(each.client), ok=each.ok, reasons=[reason(r) for r in each.reasons]
            )
            for each in of.clients
        ],
        fetches=[
            pb.IssuerFetch(
                uri=text(each.uri), certificates=each.certificates, fault=text(each.fault)
            )
            for each in of.judged.fetches
        ],
        to_serve_pem=pem_of(of.to_serve),
        unreadable=[text(each) for each in unreadable],
    )


def reason(of: Reason) -> pb.ChainReason:
    """One thing that is wrong."""
    return pb.ChainReason(
        code=str(of.code),
        subject=text(of.subject),
        message=text(of.message),
        place=text(of.place),
    )


def _path(of: Path) -> pb.ChainPath:
    return pb.ChainPath(
        certificates=[_certificate(each) for each in of.certificates],
        anchored=of.anchored,
        reasons=[reason(each) for each in of.reasons],
        warnings=[reason(each) for each in of.warnings],
    )


def _certificate(of: Certificate) -> pb.ChainCertificate:
    key = of.key_facts
    return pb.ChainCertificate(
        subject=text(of.label),
        issuer=text(of.issuer.rfc4514_string()),
        not_before=timestamp(of.not_before),
        not_after=timestamp(of.not_after),
        key=public_key(KeyFound(key.kind, key.size_bits, key.curve, key.spki_sha256, False)),
        fingerprint_sha256=of.fingerprint_sha256,
        place=text(of.place),
    )
