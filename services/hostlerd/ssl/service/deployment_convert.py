"""Deployments between messages and models."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime

from hostler.api.ssl.v1 import certificate_pb2
from hostler.api.ssl.v1 import deployment_pb2 as pb
from hostlerd.ssl.model.deployment import (
    FILES,
    UNITS,
    AcmeSource,
    DeployedFile,
    DeployedServer,
    Deployment,
    Known,
    Listener,
    Window,
    file,
)
from hostlerd.ssl.plan.deployment import is_overdue, renew_time


def from_message(message: pb.Deployment) -> Deployment:
    """Make a deployment of a message, defaults filled in."""
    files: dict[str, DeployedFile | None] = dict.fromkeys(FILES)
    for what in FILES:
        if message.HasField(what):
            one = getattr(message, what)
            files[what] = file(what, one.path, one.owner, one.group, one.mode)
    acme = message.acme
    return Deployment(
        name=message.name,
        subject_names=tuple(dict.fromkeys(n.lower() for n in message.subject_names)),
        servers=tuple(map(_server, message.servers)),
        key_kind=message.key_kind or "ec256",
        acme=AcmeSource(acme.directory_url, acme.email, acme.webroot, acme.dns_hook)
        if message.HasField("acme")
        else None,
        reuse_key=message.reuse_key,
        **files,
    )


def _server(message: pb.DeployedServer) -> DeployedServer:
    window = message.window
    return DeployedServer(
        message.kind,
        message.unit or UNITS.get(message.kind, ""),
        tuple(message.listeners),
        message.starttls,
        Window(window.start, window.duration.seconds, window.time_zone or "UTC")
        if message.HasField("window")
        else None,
    )


def to_message(deployment: Deployment) -> pb.Deployment:
    """Make a message of a deployment."""
    made = pb.Deployment(
        name=deployment.name,
        subject_names=deployment.subject_names,
        key_kind=deployment.key_kind,
        reuse_key=deployment.reuse_key,
    )
    for what, one in deployment.files.items():
        target = getattr(made, what)
        target.path, target.owner, target.group, target.mode = (
            *(one.path, one.owner),
            *(one.group, one.mode),
        )
    for server in deployment.servers:
        added = made.servers.add(
            kind=server.kind,
            unit=server.unit,
            listeners=server.listeners,
            starttls=server.starttls,
        )
        if server.window:
            added.window.start = server.window.start
            added.window.duration.seconds = server.window.duration_s
            added.window.time_zone = server.window.time_zone
    if deployment.acme:
        acme = deployment.acme
        made.acme.directory_url, made.acme.email = acme.directory_url, acme.email
        made.acme.webroot, made.acme.dns_hook = acme.webroot, acme.dns_hook
    return made


def status(known: Known, overdue_s: float, now: datetime) -> pb.DeploymentStatus:
    """Make a message of all that is known of a deployment."""
    made = pb.DeploymentStatus(
        deployment=to_message(known.deployment),
        served=served(known.placed.served),
        problem=known.attempt.problem,
        waiting_spki_sha256=known.placed.waiting_spki_sha256,
        revocable=known.revocable,
    )
    if known.placed.certificates:
        made.installed.CopyFrom(_certificate(known.placed.certificates[0]))
    if known.attempt.success_time:
        made.install_time.FromSeconds(known.attempt.success_time)
    if known.attempt.attempt_time:
        made.attempt_time.FromSeconds(known.attempt.attempt_time)
    at = renew_time(known)
    if known.deployment.acme and at:
        made.renew_time.FromDatetime(at)
    _find(made, known, at, overdue_s, now)
    return made


def _find(
    made: pb.DeploymentStatus, known: Known, at: datetime | None, overdue_s: float, now: datetime
) -> None:
    """Say what is wrong with a deployment."""
    name, critical = known.deployment.name, certificate_pb2.SEVERITY_CRITICAL
    warning = certificate_pb2.SEVERITY_WARNING
    if not known.placed.brought:
        words = "no certificate is in place"
        made.findings.add(code="NOT_INSTALLED", message=words, severity=warning, subject=name)
    elif known.placed.brought[0].not_after <= now:
        words = f"it ended {known.placed.brought[0].not_after:%Y-%m-%d %H:%M} UTC"
        made.findings.add(code="EXPIRED", message=words, severity=critical, subject=name)
    if at and is_overdue(known, now, overdue_s):
        words = f"it was to be renewed from {at:%Y-%m-%d %H:%M} UTC on, and was not"
        made.findings.add(code="RENEWAL_OVERDUE", message=words, severity=critical, subject=name)
    if known.placed.reload_time:
        until = datetime.fromtimestamp(known.placed.reload_time, UTC)
        words = f"installed, not yet served: until {until:%Y-%m-%d %H:%M} UTC"
        made.findings.add(
            code="NOT_YET_SERVED",
            message=words,
            severity=certificate_pb2.SEVERITY_NOTE,
            subject=name,
        )
    for each in known.placed.served:
        if not each.current and not each.reload_time:
            made.findings.add(
                code="NOT_THE_FILE",
                message=each.problem,
                severity=critical,
                subject=each.listener,
            )


def served(listeners: Sequence[Listener]) -> list[pb.ServedCertificate]:
    """Make messages of what listeners serve."""
    found = []
    for each in listeners:
        made = pb.ServedCertificate(
            listener=each.listener,
            fingerprint_sha256=each.fingerprint_sha256,
            current=each.current,
            problem=each.problem,
        )
        if each.reload_time:
            made.reload_time.FromSeconds(each.reload_time)
        found.append(made)
    return found


def _certificate(text: str) -> certificate_pb2.Certificate:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    found = x509.load_pem_x509_certificate(text.encode())
    public = found.public_key()
    spki = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    made = certificate_pb2.Certificate(
        fingerprint_sha256=hashlib.sha256(found.public_bytes(Encoding.DER)).hexdigest(),
        subject=found.subject.rfc4514_string(),
        issuer=found.issuer.rfc4514_string(),
        serial=f"{found.serial_number:x}",
        self_signed=found.subject == found.issuer,
    )
    made.not_before.FromDatetime(found.not_valid_before_utc)
    made.not_after.FromDatetime(found.not_valid_after_utc)
    made.key.spki_sha256 = hashlib.sha256(spki).hexdigest()
    if isinstance(public, rsa.RSAPublicKey):
        made.key.type, made.key.size_bits = certificate_pb2.KEY_TYPE_RSA, public.key_size
    elif isinstance(public, ec.EllipticCurvePublicKey):
        made.key.type, made.key.size_bits = certificate_pb2.KEY_TYPE_EC, public.key_size
        made.key.curve = public.curve.name
    elif isinstance(public, ed25519.Ed25519PublicKey):
        made.key.type, made.key.size_bits = certificate_pb2.KEY_TYPE_ED25519, 256
    for extension in found.extensions:
        if isinstance(extension.value, x509.SubjectAlternativeName):
            for dns in extension.value.get_values_for_type(x509.DNSName):
                made.names.add(kind="dns", value=dns)
            for ip in extension.value.get_values_for_type(x509.IPAddress):
                made.names.add(kind="ip", value=str(ip))
    return made
