"""What a scan has found as messages."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import zip_longest

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from hostler.api.ssl.v1 import scan_pb2 as pb
from hostler.core.ssl.scan import words
from hostler.core.ssl.scan.ciphers import SSL2_SUITES, CipherSuite, suite
from hostler.core.ssl.scan.clients import Simulated
from hostler.core.ssl.scan.grade import Grade
from hostler.core.ssl.scan.report import Problem, Report
from hostlerd.ssl.service.chain_convert import reason


def result(of: Report) -> pb.ScanResult:
    """All of a report."""
    started, duration = Timestamp(), Duration()
    started.FromNanoseconds(round(of.started * 1e9))
    duration.FromNanoseconds(round(of.duration_s * 1e9))
    return pb.ScanResult(
        ip_address=of.address or of.endpoint.host,
        name=of.endpoint.name,
        starttls=of.endpoint.starttls,
        start_time=started,
        duration=duration,
        connections=of.connections,
        failure=_problem(of.failure) if of.failure else None,
        problems=[_problem(each) for each in of.problems],
        protocols=list(_protocols(of)),
        groups=_groups(of),
        chains=_chains(of),
        checks=None if of.failure else _checks(of),
        clients=[_client(each) for each in of.clients or ()],
        grade=_grade(of.grade) if of.grade else None,
    )


def _problem(of: Problem) -> pb.ScanProblem:
    return pb.ScanProblem(check=of.check, code=of.code, message=of.message)


def _suite(of: CipherSuite) -> pb.AcceptedSuite:
    return pb.AcceptedSuite(
        number=of.number,
        name=of.name,
        bits=of.bits,
        forward_secret=of.is_forward_secret,
        aead=of.is_aead,
        flaws=of.flaws,
    )


def _protocols(of: Report) -> Iterator[pb.ProtocolResult]:
    if of.ssl2 is not None:
        known = [SSL2_SUITES[number] for number in of.ssl2.suites if number in SSL2_SUITES]
        yield pb.ProtocolResult(
            version="SSLv2",
            accepted=of.ssl2.is_supported,
            suites=[_suite(each) for each in known],
        )
    for each in sorted(of.versions, key=lambda one: one.version):
        yield pb.ProtocolResult(
            version=words.version_name(each.version),
            accepted=each.is_supported,
            suites=[_suite(suite(number)) for number in each.suites],
            order=each.order,
            refusal=each.refusal,
        )


def _groups(of: Report) -> pb.GroupResult | None:
    if of.groups is None:
        return None
    return pb.GroupResult(
        tls13=_named(of.groups.tls13), ecdhe=_named(of.groups.ecdhe), dh_bits=of.groups.dh_bits
    )


def _named(groups: Sequence[int]) -> list[str]:
    return [words.group_name(each) for each in groups]


def _chains(of: Report) -> list[pb.ServedChain]:
    return [
        pb.ServedChain(
            auth=served.auth,
            certificates=served.chain,
            stapled_bytes=len(served.stapled),
            wants_certificate=served.wants_certificate,
            verdict=trust.verdict if trust else "",
            reason=trust.why if trust else "",
            matches_name=trust.matches_name if trust else None,
            faults=trust.faults if trust else (),
            reasons=[reason(each) for each in trust.reasons] if trust else (),
        )
        for served, trust in zip_longest(of.certificates or (), of.trust or ())
        if served is not None
    ]


def _checks(of: Report) -> pb.CheckResults:
    features, resumption = of.features, of.resumption
    made = pb.CheckResults(
        secure_renegotiation=features.secure_renegotiation if features else None,
        client_renegotiation=of.renegotiation,
        fallback_scsv=of.fallback,
        compression=of.compression,
        session_ticket=features.session_ticket if features else None,
        extended_master_secret=features.extended_master_secret if features else None,
        encrypt_then_mac=features.encrypt_then_mac if features else None,
        resumption_by_id=resumption.by_id if resumption else None,
        resumption_by_ticket=resumption.by_ticket if resumption else None,
        resumption_tls13=resumption.by_tls13 if resumption else None,
        early_data_bytes=resumption.early_data_bytes if resumption else None,
        heartbleed=of.heartbleed,
        ccs_injection=of.ccs_injection,
        robot=of.robot.verdict if of.robot else None,
        alpn=of.alpn.protocols if of.alpn else (),
    )
    if of.http is not None and of.http.max_age_s is not None:
        made.hsts_max_age.seconds = of.http.max_age_s
    return made


def _client(of: Simulated) -> pb.ClientSimulation:
    if of.refusal:
        return pb.ClientSimulation(client=of.client, refusal=of.refusal)
    return pb.ClientSimulation(
        client=of.client,
        version=words.version_name(of.version),
        suite=suite(of.suite).name,
        group=words.group_name(of.group) if of.group is not None else "",
    )


def _grade(of: Grade) -> pb.Grade:
    return pb.Grade(
        letter=of.letter,
        ignoring_trust=of.ignoring_trust,
        score=of.score,
        protocol_score=of.protocol,
        key_exchange_score=of.key_exchange,
        cipher_score=of.cipher,
        reasons=[
            pb.GradeReason(code=each.code, cap=each.cap, message=each.message)
            for each in of.reasons
        ],
    )
