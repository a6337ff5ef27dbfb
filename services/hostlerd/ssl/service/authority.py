"""The gRPC edge of the authority."""

from __future__ import annotations

import hashlib
import secrets
from typing import Any

import grpc.aio

from hostler.api.common.v1 import change_pb2
from hostler.api.ssl.v1 import authority_pb2 as pb
from hostlerd.runtime import call
from hostlerd.runtime.changes import Changes, Done
from hostlerd.runtime.domain import Runtime
from hostlerd.runtime.errors import InvalidRequest, Violation
from hostlerd.runtime.steps import Plan
from hostlerd.ssl.kernel.signer import Signer
from hostlerd.ssl.model.authority import (
    CompleteAuthority,
    IssueCertificate,
    IssueIdentity,
    MakeAuthority,
    RevokeCertificate,
)
from hostlerd.ssl.plan import authority as plan
from hostlerd.ssl.service import authority_convert as convert

MAX_CSR_BYTES = 64 * 1024
MAX_CHAIN_BYTES = 128 * 1024
MAX_NAMES = 100
_PAGE_MOST = 1000

Context = grpc.aio.ServicerContext[Any, Any]


class CertificateAuthorityService:
    """Serves hostler.api.ssl.v1.CertificateAuthorityService."""

    def __init__(self, runtime: Runtime, signer: Signer, changes: Changes) -> None:
        self.runtime = runtime
        self.signer = signer
        self.changes = changes

    async def GetAuthority(
        self, request: pb.GetAuthorityRequest, context: Context
    ) -> pb.GetAuthorityResponse:
        """Answer the authority."""
        return pb.GetAuthorityResponse(authority=await self._authority())

    async def InitAuthority(
        self, request: pb.InitAuthorityRequest, context: Context
    ) -> pb.InitAuthorityResponse:
        """Make the host an authority."""
        want = MakeAuthority(request.name, request.trust_domain, request.external)

        def make_plan() -> Plan:
            if not request.name or len(request.name) > 64 or not request.name.isprintable():
                raise _invalid("name", "must be 1 to 64 characters")
            state = self.signer.state()
            issuers = state["issuers"]
            return plan.make(
                want,
                ready=bool(issuers["service"]),
                waiting=bool(state["waiting"]),
                identities=bool(issuers["identity"]),
            )

        done = await self.changes.carry_out(request.change, make_plan)
        return pb.InitAuthorityResponse(authority=await self._authority(), change=done.change)

    async def CompleteAuthority(
        self, request: pb.CompleteAuthorityRequest, context: Context
    ) -> pb.CompleteAuthorityResponse:
        """Take the authority's certificate that was signed elsewhere."""

        def make_plan() -> Plan:
            if not request.chain or len(request.chain) > MAX_CHAIN_BYTES:
                raise _invalid("chain", f"must be 1 to {MAX_CHAIN_BYTES} bytes of PEM")
            same = self.signer.check_complete(request.chain)
            return plan.complete(CompleteAuthority(request.chain), same=same)

        done = await self.changes.carry_out(request.change, make_plan)
        return pb.CompleteAuthorityResponse(authority=await self._authority(), change=done.change)

    async def IssueCertificate(
        self, request: pb.IssueCertificateRequest, context: Context
    ) -> pb.IssueCertificateResponse:
        """Issue a certificate for a request, as the profile allows."""
        _check_csr(request.csr)
        validity_s = _seconds(request)

        def make_plan() -> Plan:
            names = self.signer.check(request.profile, request.csr, validity_s)
            return plan.issue(
                IssueCertificate(
                    *(_issue_id(request.change), request.profile, request.csr, validity_s),
                    *(_requester(), names),
                )
            )

        done = await self.changes.carry_out(request.change, make_plan)
        answer = pb.IssueCertificateResponse(change=done.change)
        if told := await self._issued(done, request.change):
            answer.pem = convert.pem(told)
            answer.certificate.CopyFrom(convert.issued(told["issued"]).certificate)
            _warn(answer.change, told)
        return answer

    async def IssueIdentity(
        self, request: pb.IssueIdentityRequest, context: Context
    ) -> pb.IssueIdentityResponse:
        """Issue an identity of Hostler."""
        _check_csr(request.csr)
        if len(request.names) > MAX_NAMES:
            raise _invalid("names", f"are more than {MAX_NAMES}")
        names = tuple(request.names)

        def make_plan() -> Plan:
            self.signer.check_identity(request.identity, request.csr, names)
            return plan.issue(
                IssueIdentity(
                    *(_issue_id(request.change), request.identity, request.csr, names),
                    _requester(),
                )
            )

        done = await self.changes.carry_out(request.change, make_plan)
        answer = pb.IssueIdentityResponse(change=done.change)
        if told := await self._issued(done, request.change):
            answer.pem = convert.pem(told)
            _warn(answer.change, told)
        return answer

    async def RevokeCertificate(
        self, request: pb.RevokeCertificateRequest, context: Context
    ) -> pb.RevokeCertificateResponse:
        """Revoke a certificate."""
        reason = convert.word_of(request.reason)
        if not reason:
            raise _invalid("reason", "is not a known value")

        def make_plan() -> Plan:
            row = self.signer.get(request.serial)["issued"]
            subject = convert.issued(row).certificate.subject
            return plan.revoke(
                RevokeCertificate(row["serial"], reason, subject),
                revoked=row["revoke_time"] is not None,
                identity=row["issuer"] == "identity",
            )

        done = await self.changes.carry_out(request.change, make_plan)
        return pb.RevokeCertificateResponse(change=done.change)

    async def GetIssuedCertificate(
        self, request: pb.GetIssuedCertificateRequest, context: Context
    ) -> pb.GetIssuedCertificateResponse:
        """Answer a certificate that was issued."""
        told = await self.runtime.blocking(self.signer.get, request.serial)
        return pb.GetIssuedCertificateResponse(
            issued=convert.issued(told["issued"]), pem=convert.pem(told)
        )

    async def ListIssuedCertificates(
        self, request: pb.ListIssuedCertificatesRequest, context: Context
    ) -> pb.ListIssuedCertificatesResponse:
        """Answer a page of what was issued, the newest first."""
        token = request.page_token
        if request.page_size < 0:
            raise _invalid("page_size", "must not be negative")
        if token and not (token.isascii() and token.isdigit() and len(token) < 16):
            raise _invalid("page_token", "is not a token of ListIssuedCertificates")

        def read() -> pb.ListIssuedCertificatesResponse:
            page = self.signer.page(
                before=int(token or 0),
                most=min(request.page_size or _PAGE_MOST, _PAGE_MOST),
                spki=request.spki_sha256.lower(),
                name=request.name,
                revoked=request.revoked,
            )
            answer = pb.ListIssuedCertificatesResponse(
                issued=[convert.issued(row) for row in page["issued"]]
            )
            answer.next_page_token = str(page["next"] or "")
            return answer

        answer: pb.ListIssuedCertificatesResponse = await self.runtime.blocking(read)
        return answer

    async def GetRevocationList(
        self, request: pb.GetRevocationListRequest, context: Context
    ) -> pb.GetRevocationListResponse:
        """Answer the newest list of revoked certificates."""
        issuer = "identity" if request.identities else "service"
        return pb.GetRevocationListResponse(
            crl=await self.runtime.blocking(self.signer.crl, issuer)
        )

    async def _authority(self) -> pb.Authority:
        def read() -> pb.Authority:
            return convert.authority(self.signer.state())

        answer: pb.Authority = await self.runtime.blocking(read)
        return answer

    async def _issued(self, done: Done, options: change_pb2.ChangeOptions) -> Any:
        """What was issued: the signer answers the same once more, for the same id."""
        if options.validate_only or not done.plan.steps:
            return None
        return await self.runtime.blocking(self.signer.carry_out, done.plan.steps[0])


def _check_csr(csr: bytes) -> None:
    if not csr or len(csr) > MAX_CSR_BYTES:
        raise _invalid("csr", f"must be 1 to {MAX_CSR_BYTES} bytes")


def _seconds(request: pb.IssueCertificateRequest) -> int:
    if not request.HasField("validity"):
        return 0
    if not 0 < request.validity.seconds < 1 << 32:
        raise _invalid("validity", "must be positive, and at most what the profile allows")
    return int(request.validity.seconds)


def _issue_id(options: change_pb2.ChangeOptions) -> str:
    """Draw the id of an issue; of a retry of the same caller, it is the same."""
    if not options.request_id:
        return secrets.token_hex(16)
    current = call.current()
    parts = (current.caller.identity, current.method.name, options.request_id)
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def _requester() -> str:
    return call.current().caller.identity


def _warn(change: change_pb2.Change, told: Any) -> None:
    for words in told["warnings"]:
        change.warnings.add(code="NOT_PUBLISHED", message=words)


def _invalid(field: str, description: str) -> InvalidRequest:
    return InvalidRequest.of([Violation(field, description)])
