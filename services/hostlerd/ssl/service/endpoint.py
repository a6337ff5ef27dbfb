"""The gRPC edge of endpoints."""

from __future__ import annotations

from typing import Any

import grpc.aio
from google.protobuf.timestamp_pb2 import Timestamp

from hostler.api.ssl.v1 import endpoint_pb2 as pb
from hostlerd.runtime.domain import Runtime
from hostlerd.ssl.model.inventory import Endpoint, Inventory
from hostlerd.ssl.model.library import Unseen
from hostlerd.ssl.service import convert, inventory_convert, pages
from hostlerd.ssl.service.observing import Observer

_PAGE, _PAGE_MOST = 1000, 5000

Context = grpc.aio.ServicerContext[Any, Any]
_Found = tuple[list[Endpoint], str, list[Unseen], Inventory]


class EndpointService:
    """Serves hostler.api.ssl.v1.EndpointService."""

    def __init__(self, runtime: Runtime, observer: Observer) -> None:
        self._runtime = runtime
        self._observer = observer

    async def ListEndpoints(
        self, request: pb.ListEndpointsRequest, context: Context
    ) -> pb.ListEndpointsResponse:
        """Answer a page of the endpoints, and shake hands with those of the page if asked to."""
        size, after = pages.checked(request.page_size, request.page_token, _PAGE, _PAGE_MOST)
        found, token, unseen, shown = await self._runtime.blocking(
            self._look, size, after, request.handshake
        )
        return pb.ListEndpointsResponse(
            endpoints=[_endpoint(each) for each in found],
            next_page_token=token,
            served_certificates=[
                inventory_convert.certificate(each) for each in shown.certificates.values()
            ],
            warnings=[convert.warning(each) for each in unseen],
        )

    def _look(self, size: int, after: str, shakes: bool) -> _Found:
        every, made, unseen = self._observer.endpoints(again=bool(after))
        # Without a handshake nobody knows whether TLS is spoken where no configuration says so.
        wanted = every if shakes else [each for each in every if each.uses]
        found, token = pages.page(wanted, lambda each: each.order, after, size)
        shown = self._observer.shake_hands(found) if shakes else Inventory()
        for name in made.certificates.keys() & shown.certificates.keys():
            del shown.certificates[name]
        speak = [each for each in found if each.uses or each.served]
        return speak, token, unseen, shown


def _endpoint(of: Endpoint) -> pb.Endpoint:
    made = pb.Endpoint(
        listener=convert.text(of.listener),
        name=convert.text(of.name),
        starttls=of.starttls,
        server=of.server,
        pid=of.pid,
        comm=of.comm,
        unit=of.unit,
        uses=[inventory_convert.use(each) for each in of.uses],
        configured=of.configured,
        served=of.served,
        negotiated=of.negotiated,
        settings=[
            pb.Setting(
                name=each.name,
                value=convert.text(each.value),
                path=convert.text(each.path),
                line=each.line,
            )
            for each in of.settings
        ],
        findings=[inventory_convert.finding(each) for each in of.findings],
    )
    if of.handshake_ns:
        at = Timestamp()
        at.FromNanoseconds(of.handshake_ns)
        made.handshake_time.CopyFrom(at)
    return made
