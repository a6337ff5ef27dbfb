"""Keys that others may know, replaced: new ones are served first, then the old ones revoked.

On each host every deployment whose key is compromised gets a new key, made there, and a certificate
for it from the internal authority or the deployment's ACME server. Those that share a server are
installed together, so that it is reloaded once, and seen to be served. The host of the authority
comes last; it revokes what no host uses any more.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from hostler.api.ssl.v1 import authority_pb2, deployment_pb2
from hostler.channel import rpc
from hostler.group import refuse_jobs
from hostler.isolation import Part, combine
from hostler.outcome import settled
from hostler.plans import Planned, PlannedStep, RpcChange, to_apply
from hostler.results import CallFailed, HostError
from hostler.ssl_authority import newest
from hostler.ssl_install import GONE, Brought, are_gone, install, of, patiently
from hostler.ssl_order import Order, in_use

if TYPE_CHECKING:
    from hostler.fleet import Host
    from hostler.session import Session

_DEPLOYMENTS = "DeploymentService"
_LIST = rpc(deployment_pb2, _DEPLOYMENTS, "ListDeployments")
_CSR = rpc(deployment_pb2, _DEPLOYMENTS, "CreateSigningRequest")
_RENEW = rpc(deployment_pb2, _DEPLOYMENTS, "RenewDeployment")
_REVOKE_ACME = rpc(deployment_pb2, _DEPLOYMENTS, "RevokeDeployedCertificate")
_AUTHORITY = "CertificateAuthorityService"
_ISSUE = rpc(authority_pb2, _AUTHORITY, "IssueCertificate")
_ISSUED = rpc(authority_pb2, _AUTHORITY, "ListIssuedCertificates")
_REVOKE = rpc(authority_pb2, _AUTHORITY, "RevokeCertificate")
# What takes back a certificate, and is done when all is served.
_REVOCATIONS = {
    authority_pb2.RevokeCertificateRequest: _REVOKE,
    deployment_pb2.RevokeDeployedCertificateRequest: _REVOKE_ACME,
}
# An order at an ACME server may take five minutes.
_ORDER_S = 330.0


@dataclass(slots=True)
class Replaced:
    """What came of it on a host: the answers of its own daemon, by what was done.

    `replaced` are the deployments whose new certificates are in place.
    """

    planned: Planned
    answers: dict[str, Any] = field(default_factory=dict)
    replaced: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        from hostler.results import plain

        return {
            **self.planned.as_dict(),
            "replaced": self.replaced,
            "done": {name: plain(answer) for name, answer in self.answers.items()},
        }


class Replace:
    """Replaces compromised keys on hosts. See `hostler.plans.Change`.

    What is planned is what is still missing: a run that goes on does nothing twice.
    """

    kind = "ssl-replace"

    def __init__(self, order: Order) -> None:
        self._order = order

    async def plan(self, session: Session) -> Planned:
        """Ask the host which of its deployments have such a key, and what the authority revokes."""
        refuse_jobs(session)
        _refuse_confirm(session)
        answer = await session.call(_LIST, deployment_pb2.ListDeploymentsRequest())
        parts: list[Part] = []
        for status in answer.deployments:
            parts += await self._of_deployment(session, status)
        is_authority = self._is_authority(session.host)
        if is_authority and self._order.revoke:
            parts += await self._revocations(session)
        return replace(combine(parts), last=is_authority)

    async def apply(self, session: Session, planned: Planned) -> Replaced:
        """Do it, part by part; the others are tried if one fails. Raises one CallFailed for all."""
        done = Replaced(planned)
        problems: list[HostError] = []
        parts = [part for part in planned.response if type(part.request) not in _REVOCATIONS]
        brought: list[Brought] = []
        for part in parts:
            try:
                pem = await self._obtain(session, part, planned, done)
                brought.append(Brought(part.name, pem, part.before))
            except CallFailed as failed:
                problems.append(of(part.name, failed))
                if failed.error.code in GONE:
                    break
        if not are_gone(problems):
            made = await install(session, brought, lambda what: _derived(planned, what))
            done.answers.update(made.answers)
            done.replaced += made.names
            problems += made.problems
        if not are_gone(problems):
            problems += await self._revoke(session, planned, done)
        if problems:
            raise CallFailed(_all(problems, done), done)
        return done

    def to_record(self, host: Host) -> dict[str, Any]:
        """What `from_record` takes."""
        return self._order.as_dict()

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Replace:
        """The change that was recorded."""
        return cls(Order.from_dict(record))

    def _is_authority(self, host: Host) -> bool:
        authority = self._order.authority
        return authority is not None and authority.name == host.name

    async def _of_deployment(self, session: Session, status: Any) -> list[Part]:
        order, deployment = self._order, status.deployment
        if deployment.HasField("acme"):
            return await self._of_acme(session, status)
        if order.authority is None or status.installed.key.spki_sha256 not in order.keys:
            return []
        request = deployment_pb2.CreateSigningRequestRequest(name=deployment.name)
        planned = await RpcChange(_CSR, request).plan(session)
        names = ", ".join(deployment.subject_names)
        words = f"have {order.authority.name} issue for {names} by profile {order.profile}"
        steps = (*planned.steps, PlannedStep("IssueCertificate", words))
        return [_replacing(status, replace(planned, steps=steps), request)]

    async def _of_acme(self, session: Session, status: Any) -> list[Part]:
        order, name = self._order, status.deployment.name
        parts = []
        old = order.acme.get(session.host.name, {}).get(name, "")
        if status.installed.key.spki_sha256 in order.keys:
            old = status.installed.fingerprint_sha256
            renew = deployment_pb2.RenewDeploymentRequest(
                name=name, force=True, new_key=True, obtain_only=True
            )
            planned = await RpcChange(_RENEW, renew).plan(session)
            parts.append(_replacing(status, planned, renew))
            old = old if status.revocable else ""
        if old and order.revoke:
            request = deployment_pb2.RevokeDeployedCertificateRequest(
                name=name, fingerprint_sha256=old, reason="keyCompromise"
            )
            planned = await RpcChange(_REVOKE_ACME, request).plan(session)
            parts.append(Part(f"{name}, {old[:16]}", planned, request, old))
        return parts

    async def _revocations(self, session: Session) -> list[Part]:
        """What the authority has issued for the keys, wherever it lies, and has not revoked."""
        parts, now = [], time.time()
        for key in self._order.keys:
            asked = authority_pb2.ListIssuedCertificatesRequest(spki_sha256=key)
            listed = await session.list_all(_ISSUED, asked)
            for each in listed.issued:
                certificate = each.certificate
                if each.HasField("revoke_time") or certificate.not_after.seconds <= now:
                    continue
                request = authority_pb2.RevokeCertificateRequest(
                    serial=certificate.serial,
                    reason=authority_pb2.REVOCATION_REASON_KEY_COMPROMISE,
                )
                planned = await RpcChange(_REVOKE, request).plan(session)
                parts.append(
                    Part(certificate.serial, planned, request, certificate.fingerprint_sha256)
                )
        return parts

    async def _obtain(self, session: Session, part: Part, planned: Planned, done: Replaced) -> str:
        """Have a key made and a certificate issued for it; answer that, PEM. Raises CallFailed.

        Empty if the host has got it itself, from its ACME server.
        """
        own = replace(part.planned, request_id=_derived(planned, part.name))
        if isinstance(part.request, deployment_pb2.RenewDeploymentRequest):
            issued = await _ask(session, _RENEW, part.request, own, within_s=_ORDER_S)
            done.answers[f"{part.name}, order"] = issued
            return ""
        return await self._issue(session, part, own, done)

    async def _issue(self, session: Session, part: Part, own: Planned, done: Replaced) -> str:
        name, authority = part.name, self._order.authority
        made = await _ask(session, _CSR, part.request, own)
        done.answers[f"{name}, key"] = made
        if not made.csr_pem or authority is None:
            # A daemon that came back knows that it made the key, and not the request any more.
            raise CallFailed(HostError("ABORTED", "INTERRUPTED", "the request for its key is lost"))
        asked = authority_pb2.IssueCertificateRequest(
            profile=self._order.profile, csr=made.csr_pem.encode()
        )
        asked.change.request_id = _derived(own, "issue")
        async with session.beside(authority) as doors:
            issued = settled(await doors.call(_ISSUE, asked))
            return str(issued.pem or await newest(doors, asked.csr))

    async def _revoke(self, session: Session, planned: Planned, done: Replaced) -> list[HostError]:
        """Revoke what no host uses any more; answer what stands against it."""
        parts = [part for part in planned.response if type(part.request) in _REVOCATIONS]
        if not parts:
            return []
        problems: list[HostError] = []
        users = await in_use(session, self._order, [part.before for part in parts])
        for part in parts:
            try:
                if users[part.before]:
                    raise CallFailed(_still(users[part.before]))
                own = replace(part.planned, request_id=_derived(planned, part.name))
                method = _REVOCATIONS[type(part.request)]
                done.answers[part.name] = await _ask(session, method, part.request, own)
            except CallFailed as failed:
                problems.append(of(part.name, failed))
        return problems


async def _ask(
    session: Session, method: Any, request: Any, planned: Planned, *, within_s: float = 0.0
) -> Any:
    message = method.request_type()
    message.CopyFrom(request)
    asked = to_apply(session, message, planned)
    return settled(await patiently(session, method, asked, within_s))


def _replacing(status: Any, planned: Planned, request: Any) -> Part:
    """A part that brings a deployment a new certificate; before it, the servers that it has."""
    deployment = status.deployment
    at = ", ".join(each for server in deployment.servers for each in server.listeners)
    words = f"install it for {deployment.name} in place of {_short(status)}"
    install = PlannedStep("InstallCertificate", words + (f", served at {at}" if at else ""))
    whole = replace(planned, steps=(*planned.steps, install))
    units = frozenset(server.unit for server in deployment.servers)
    return Part(deployment.name, whole, request, units)


def _refuse_confirm(session: Session) -> None:
    if session.terms.confirm_within_s is not None:
        message = "what is revoked cannot be taken back"
        raise CallFailed(HostError("INVALID_ARGUMENT", "NOT_UNDER_CONFIRM", message))


def _still(users: tuple[str, ...]) -> HostError:
    words = f"not revoked: {'; '.join(users)}"
    return HostError("FAILED_PRECONDITION", "STILL_IN_USE", words)


def _derived(planned: Planned, what: str) -> str:
    """The id of one request of several: of a retry it is the same."""
    return str(uuid.uuid5(uuid.UUID(planned.request_id), what))


def _short(status: Any) -> str:
    return str(status.installed.fingerprint_sha256[:16])


def _all(problems: list[HostError], done: Replaced) -> HostError:
    """One error of several: the code and reason of the first, the words of all."""
    first = problems[0]
    message = "; ".join(problem.message for problem in problems)
    metadata = {**first.metadata, "done": ",".join(done.answers)}
    uncertain = any(problem.uncertain for problem in problems)
    return HostError(first.code, first.reason, message, metadata, uncertain=uncertain)
