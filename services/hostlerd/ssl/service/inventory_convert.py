"""Certificates, keys and their places as messages."""

from __future__ import annotations

from datetime import datetime

from google.protobuf.timestamp_pb2 import Timestamp

from hostler.api.ssl.v1 import certificate_pb2 as pb
from hostlerd.ssl.model.inventory import Certificate, Finding, Key, Place, Severity, Unreadable, Use
from hostlerd.ssl.model.place import KeyFound
from hostlerd.ssl.service.convert import text

_KINDS = {
    "rsa": pb.KEY_TYPE_RSA,
    "ec": pb.KEY_TYPE_EC,
    "ed25519": pb.KEY_TYPE_ED25519,
    "ed448": pb.KEY_TYPE_ED448,
    "dsa": pb.KEY_TYPE_DSA,
}
_SEVERITIES = {
    Severity.NOTE: pb.SEVERITY_NOTE,
    Severity.WARNING: pb.SEVERITY_WARNING,
    Severity.CRITICAL: pb.SEVERITY_CRITICAL,
}
_NAME_KINDS = {"dn": "directory"}
_MOST_NAMES = 1000
_FIRST, _LAST = -62_135_596_800, 253_402_300_799


def certificate(of: Certificate, *, der: bool = False) -> pb.Certificate:
    """A certificate; its bytes are left out unless `der`."""
    facts = of.facts
    return pb.Certificate(
        fingerprint_sha256=facts.fingerprint,
        subject=text(facts.subject),
        issuer=text(facts.issuer),
        serial=facts.serial,
        not_before=timestamp(facts.not_before),
        not_after=timestamp(facts.not_after),
        names=[
            pb.SubjectName(kind=_NAME_KINDS.get(kind, kind), value=text(value))
            for kind, value in facts.names[:_MOST_NAMES]
        ],
        key=public_key(facts.key),
        signature_algorithm=facts.signature_algorithm,
        authority=facts.authority,
        self_signed=facts.self_signed,
        places=[place(each) for each in of.places],
        uses=[use(each) for each in of.uses],
        key_places=[place(each) for each in of.key_places],
        findings=[finding(each) for each in of.findings],
        der=facts.der if der else b"",
    )


def key(of: Key) -> pb.PrivateKey:
    """A private key: its public half, and where it lies."""
    made = pb.PrivateKey(
        places=[place(each) for each in of.places],
        uses=[use(each) for each in of.uses],
        certificates=of.certificates,
        encrypted=of.facts.encrypted,
        findings=[finding(each) for each in of.findings],
    )
    if of.facts.spki_sha256:
        made.key.CopyFrom(public_key(of.facts))
    return made


def public_key(of: KeyFound) -> pb.PublicKey:
    """A public key."""
    return pb.PublicKey(
        spki_sha256=of.spki_sha256,
        type=_KINDS.get(of.kind, pb.KEY_TYPE_UNSPECIFIED),
        size_bits=of.size_bits,
        curve=of.curve,
    )


def place(of: Place) -> pb.FilePlace:
    """Where something lies."""
    made = Timestamp()
    made.FromNanoseconds(of.modify_ns)
    return pb.FilePlace(
        path=text(of.path),
        entry=of.entry,
        format=of.format,
        owner=of.owner,
        group=of.group,
        mode=of.mode,
        modify_time=made,
        container=text(of.container),
    )


def use(of: Use) -> pb.ConfigurationUse:
    """A setting that names a file."""
    return pb.ConfigurationUse(
        server=of.server,
        path=text(of.path),
        line=of.line,
        setting=of.setting,
        names=[text(each) for each in of.names],
        listeners=[text(each) for each in of.listeners],
    )


def finding(of: Finding) -> pb.Finding:
    """What is wrong."""
    return pb.Finding(
        code=of.code,
        message=text(of.message),
        severity=_SEVERITIES[of.severity],
        subject=text(of.subject),
    )


def unreadable(of: Unreadable) -> pb.UnreadableFile:
    """A file that could not be read."""
    return pb.UnreadableFile(path=text(of.path), reason=of.reason, message=text(of.message))


def timestamp(when: datetime) -> Timestamp:
    """A time as a message can carry it: no earlier than the year 1, no later than 9999."""
    return Timestamp(seconds=min(_LAST, max(_FIRST, int(when.timestamp()))))
