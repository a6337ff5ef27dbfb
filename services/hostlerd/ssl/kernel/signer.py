"""Asks the signer, which alone has the authority's keys: one request, one connection, bounded."""

from __future__ import annotations

import base64
import os
import socket
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hostlerd.authority import wire
from hostlerd.authority.wire import WireBroken
from hostlerd.runtime.edge import Apply, Recoverable
from hostlerd.runtime.errors import DomainError, InvalidRequest, RequestIdReused, Violation
from hostlerd.ssl.errors import (
    AuthorityNotFound,
    AuthorityUnusable,
    CertificateNotIssued,
    NotAllowedByProfile,
    ProfileNotFound,
    SignerUnavailable,
)
from hostlerd.ssl.model.authority import (
    CompleteAuthority,
    IssueCertificate,
    IssueIdentity,
    MakeAuthority,
    RevokeCertificate,
)

SOCKET = Path("/run/hostler/ssl-signer.sock")
CONNECT_S = 10.0
# Within what callers wait for: they are told who it was that did not answer.
ANSWER_S = 20.0

_REASONS: Mapping[str, type[DomainError]] = {
    "NOT_FOUND": AuthorityNotFound,
    "PROFILE_NOT_FOUND": ProfileNotFound,
    "NOT_ALLOWED": NotAllowedByProfile,
    "CERTIFICATE_NOT_FOUND": CertificateNotIssued,
    "CSR_INVALID": InvalidRequest,
    "INVALID": InvalidRequest,
    "ID_REUSED": RequestIdReused,
}


class Signer:
    """The signer. Every method blocks, within bounds.

    All raise what stands behind the signer's reason, AuthorityUnusable and SignerUnavailable.
    """

    def __init__(self, path: Path = SOCKET) -> None:
        self._path = path

    def state(self) -> dict[str, Any]:
        """What the authority is, and what it may issue."""
        return self._ask("state")

    def check(self, profile: str, csr: bytes, validity_s: int) -> tuple[str, ...]:
        """The names for which a certificate would be issued."""
        asked = {"profile": profile, "csr": _b64(csr), "validity_s": validity_s}
        return tuple(self._ask("check", **asked)["names"])

    def check_identity(self, identity: str, csr: bytes, names: Collection[str]) -> None:
        """Have it refused now if the identity may not be issued."""
        self._ask("check_identity", identity=identity, csr=_b64(csr), names=list(names))

    def check_complete(self, chain: bytes) -> bool:
        """Have a chain refused now that is not the authority's; answer if it is there already."""
        return bool(self._ask("check_complete", chain=_b64(chain))["same"])

    def carry_out(self, step: Any) -> dict[str, Any]:
        """Carry out a step and answer what the signer does; once more, and it is as before."""
        match step:
            case MakeAuthority():
                return self._ask(
                    "init", name=step.name, trust_domain=step.trust_domain, external=step.external
                )
            case CompleteAuthority():
                return self._ask("complete", chain=_b64(step.chain))
            case IssueCertificate():
                return self._ask(
                    "issue",
                    id=step.id,
                    profile=step.profile,
                    csr=_b64(step.csr),
                    validity_s=step.validity_s,
                    requester=step.requester,
                )
            case IssueIdentity():
                return self._ask(
                    "identity",
                    id=step.id,
                    identity=step.identity,
                    csr=_b64(step.csr),
                    names=list(step.asked_names),
                    requester=step.requester,
                )
            case RevokeCertificate():
                return self._ask("revoke", serial=step.serial, reason=step.reason)
            case _:
                raise TypeError(f"{type(step).__name__} is no step of the authority")

    def get(self, serial: str) -> dict[str, Any]:
        """A certificate that was issued, with its chain."""
        return self._ask("get", serial=serial)

    def page(
        self, *, before: int, most: int, spki: str, name: str, revoked: bool
    ) -> dict[str, Any]:
        """A page of what was issued, the newest first."""
        return self._ask("list", before=before, most=most, spki=spki, name=name, revoked=revoked)

    def crl(self, issuer: str) -> bytes:
        """The newest list of revoked certificates, DER."""
        return base64.b64decode(self._ask("crl", issuer=issuer)["crl"])

    def _ask(self, op: str, **fields: Any) -> dict[str, Any]:
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as peer:
                peer.settimeout(CONNECT_S)
                peer.connect(os.fspath(self._path))
                wire.send(peer, {"op": op, **fields}, wire.MAX_REQUEST_BYTES)
                answer = wire.receive(peer, wire.MAX_ANSWER_BYTES, ANSWER_S)
        except OSError as e:
            raise SignerUnavailable(f"the authority's signer: {e.strerror or e}") from e
        except WireBroken as e:
            raise SignerUnavailable(f"the authority's signer: {e}") from e
        if answer is None:
            raise SignerUnavailable("the authority's signer closed the connection")
        if not answer["ok"]:
            raise _error(answer)
        return answer


def _error(answer: Mapping[str, Any]) -> DomainError:
    reason, message = answer["reason"], answer["message"]
    violations = [Violation(subject, why) for subject, why in answer["faults"]]
    kind = _REASONS.get(reason)
    if kind is None:
        return AuthorityUnusable(message, violations=violations, signer_reason=reason)
    return kind(message, violations=violations)


class AuthorityKernel(Recoverable):
    """Carries out the authority's steps. What a kill has cut off is done again, by its id."""

    def __init__(self, signer: Signer) -> None:
        self._signer = signer

    @property
    def kinds(self) -> Collection[type]:
        """The classes of all steps."""
        return (
            MakeAuthority,
            CompleteAuthority,
            IssueCertificate,
            IssueIdentity,
            RevokeCertificate,
        )

    @contextmanager
    def applying(self) -> Iterator[Apply]:
        """Open a session."""

        def apply(step: Any) -> None:
            self._signer.carry_out(step)

        yield apply


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode()
