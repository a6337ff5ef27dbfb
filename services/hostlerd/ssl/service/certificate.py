"""The gRPC edge of certificates and keys."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import grpc.aio

from hostler.api.ssl.v1 import certificate_pb2 as pb
from hostlerd.runtime.domain import Runtime
from hostlerd.runtime.errors import InvalidRequest, Violation
from hostlerd.ssl.errors import CertificateNotFound
from hostlerd.ssl.model.inventory import Certificate, Key
from hostlerd.ssl.plan.inventory import Wanted, select
from hostlerd.ssl.service import convert, inventory_convert, pages
from hostlerd.ssl.service.observing import Observer

_PAGE, _PAGE_MOST, _UNREADABLE_MOST = 1000, 5000, 1000
_HEX, _HASH_CHARS, _NAME_CHARS = frozenset("0123456789abcdefABCDEF"), 64, 253
_MOST_DAYS = 366_000

Context = grpc.aio.ServicerContext[Any, Any]


class CertificateService:
    """Serves hostler.api.ssl.v1.CertificateService."""

    def __init__(self, runtime: Runtime, observer: Observer) -> None:
        self._runtime = runtime
        self._observer = observer

    async def ListCertificates(
        self, request: pb.ListCertificatesRequest, context: Context
    ) -> pb.ListCertificatesResponse:
        """Answer a page of the certificates."""
        size, after = pages.checked(request.page_size, request.page_token, _PAGE, _PAGE_MOST)
        wanted = _wanted(request)
        made, unseen = await self._runtime.blocking(
            lambda: self._observer.inventory(again=bool(after))
        )
        found, token = pages.page(
            select(made, wanted, datetime.now(UTC)), _certificate_key, after, size
        )
        unreadable = [] if after else made.unreadable[:_UNREADABLE_MOST]
        return pb.ListCertificatesResponse(
            certificates=[inventory_convert.certificate(each) for each in found],
            next_page_token=token,
            unreadable=[inventory_convert.unreadable(each) for each in unreadable],
            warnings=[convert.warning(each) for each in unseen],
        )

    async def GetCertificate(
        self, request: pb.GetCertificateRequest, context: Context
    ) -> pb.GetCertificateResponse:
        """Answer one certificate with its bytes."""
        _check_hash("fingerprint_sha256", request.fingerprint_sha256, needed=True)
        made, _ = await self._runtime.blocking(lambda: self._observer.inventory(again=False))
        name = request.fingerprint_sha256.lower()
        one = made.certificates.get(name)
        if one is None:
            raise CertificateNotFound("no certificate of that fingerprint", fingerprint=name)
        return pb.GetCertificateResponse(certificate=inventory_convert.certificate(one, der=True))

    async def ListKeys(self, request: pb.ListKeysRequest, context: Context) -> pb.ListKeysResponse:
        """Answer a page of the keys."""
        size, after = pages.checked(request.page_size, request.page_token, _PAGE, _PAGE_MOST)
        _check_hash("spki_sha256", request.spki_sha256, needed=False)
        made, unseen = await self._runtime.blocking(
            lambda: self._observer.inventory(again=bool(after))
        )
        asked = request.spki_sha256.lower()
        keys = [k for k in made.keys.values() if not asked or k.facts.spki_sha256 == asked]
        found, token = pages.page(sorted(keys, key=_key_order), _key_order, after, size)
        unreadable = [] if after else made.unreadable[:_UNREADABLE_MOST]
        return pb.ListKeysResponse(
            keys=[inventory_convert.key(each) for each in found],
            next_page_token=token,
            unreadable=[inventory_convert.unreadable(each) for each in unreadable],
            warnings=[convert.warning(each) for each in unseen],
        )


def _wanted(request: pb.ListCertificatesRequest) -> Wanted:
    """What is asked for. Raises InvalidRequest."""
    _check_hash("spki_sha256", request.spki_sha256, needed=False)
    faults = []
    if len(request.name) > _NAME_CHARS:
        faults.append(Violation("name", f"must have at most {_NAME_CHARS} characters"))
    within = None
    if request.HasField("expires_within"):
        seconds = request.expires_within.seconds
        if not 0 <= seconds <= _MOST_DAYS * 86400:
            faults.append(Violation("expires_within", f"must be from 0 to {_MOST_DAYS} days"))
        else:
            within = timedelta(seconds=seconds)
    if faults:
        raise InvalidRequest.of(faults)
    return Wanted(
        within,
        request.name,
        request.spki_sha256,
        int(request.severity),
        request.in_use,
        request.trust_stores,
    )


def _check_hash(field: str, value: str, *, needed: bool) -> None:
    if not value and not needed:
        return
    if len(value) != _HASH_CHARS or not set(value) <= _HEX:
        raise InvalidRequest.of([Violation(field, "must be 64 digits in hex")])


def _certificate_key(one: Certificate) -> str:
    return f"{one.facts.not_after.isoformat()}\0{one.facts.fingerprint}"


def _key_order(one: Key) -> str:
    return one.order
