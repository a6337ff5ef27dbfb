"""The gRPC edge of dynamic address sets."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

import grpc.aio

from hostler.api.common.v1 import change_pb2
from hostler.api.firewall.v1 import address_set_pb2 as pb
from hostlerd.firewall.kernel import Kernel
from hostlerd.firewall.model.address_set import Contents, Element, read_elements, read_spans
from hostlerd.firewall.plan import address_set
from hostlerd.runtime.changes import Changes
from hostlerd.runtime.domain import Runtime
from hostlerd.runtime.errors import InvalidRequest, Violation
from hostlerd.runtime.steps import Plan

_PAGE_MOST = 10_000

Context = grpc.aio.ServicerContext[Any, Any]


class AddressSetService:
    """Serves hostler.api.firewall.v1.AddressSetService."""

    def __init__(self, runtime: Runtime, kernel: Kernel, changes: Changes) -> None:
        self.runtime = runtime
        self.kernel = kernel
        self.changes = changes

    async def ListAddressSets(
        self, request: pb.ListAddressSetsRequest, context: Context
    ) -> pb.ListAddressSetsResponse:
        """Answer all sets and how much they hold."""
        answer: pb.ListAddressSetsResponse = await self.runtime.blocking(self._sets)
        return answer

    async def ListElements(
        self, request: pb.ListElementsRequest, context: Context
    ) -> pb.ListElementsResponse:
        """Answer a page of what a set holds."""
        if request.page_size < 0:
            raise InvalidRequest.of([Violation("page_size", "must not be negative")])
        after = _from_token(request.page_token)
        most = min(request.page_size or _PAGE_MOST, _PAGE_MOST)
        page: pb.ListElementsResponse = await self.runtime.blocking(
            self._page, request.name, after, most
        )
        return page

    async def AddElements(
        self, request: pb.AddElementsRequest, context: Context
    ) -> pb.AddElementsResponse:
        """Have a set hold these too."""

        def make_plan() -> Plan:
            wanted = read_elements(
                _asked(request.elements), int(time.time()), "elements", ".address"
            )
            return address_set.add(wanted, self._contents(request.name))

        return pb.AddElementsResponse(change=await self._change(request.change, make_plan))

    async def RemoveElements(
        self, request: pb.RemoveElementsRequest, context: Context
    ) -> pb.RemoveElementsResponse:
        """Have a set not hold these."""

        def make_plan() -> Plan:
            spans = read_spans(request.addresses, "addresses")
            return address_set.remove(spans, self._contents(request.name))

        return pb.RemoveElementsResponse(change=await self._change(request.change, make_plan))

    async def ReplaceElements(
        self, request: pb.ReplaceElementsRequest, context: Context
    ) -> pb.ReplaceElementsResponse:
        """Have a set hold these and no others."""

        def make_plan() -> Plan:
            wanted = read_elements(
                _asked(request.elements), int(time.time()), "elements", ".address"
            )
            return address_set.replace(wanted, self._contents(request.name))

        return pb.ReplaceElementsResponse(change=await self._change(request.change, make_plan))

    async def _change(
        self, options: change_pb2.ChangeOptions, make_plan: Callable[[], Plan]
    ) -> change_pb2.Change:
        done = await self.changes.carry_out(options, make_plan)
        return done.change

    def _contents(self, name: str) -> Contents:
        rulesets, _ = self.kernel.saved()
        found = address_set.dynamic(name, rulesets)
        elements = address_set.in_force(name, self.kernel.elements(name))
        return Contents(name, found.ruleset.persistent, elements)

    def _sets(self) -> pb.ListAddressSetsResponse:
        rulesets, _ = self.kernel.saved()
        answer = pb.ListAddressSetsResponse()
        for name, each in address_set.declared(rulesets).items():
            versions = [e.span.version for e in self.kernel.elements(name) or ()]
            answer.address_sets.add(
                name=name,
                ruleset=each.ruleset.name,
                dynamic=each.address_set.dynamic,
                ipv4_elements=versions.count(4),
                ipv6_elements=versions.count(6),
                used_by=each.used_by,
            )
        return answer

    def _page(self, name: str, after: tuple[int, int], most: int) -> pb.ListElementsResponse:
        rulesets, _ = self.kernel.saved()
        address_set.get(name, rulesets)
        now = int(time.time())
        elements = address_set.in_force(name, self.kernel.elements(name))
        left = [e for e in elements if (e.span.version, e.span.first) > after]
        answer = pb.ListElementsResponse(elements=[_message(e, now) for e in left[:most]])
        if len(left) > most:
            last = left[most - 1].span
            answer.next_page_token = f"{last.version}/{last.first}"
        return answer


def _asked(elements: Iterable[pb.Element]) -> list[tuple[str, int | None]]:
    return [
        (
            e.address,
            # A part of a second is a whole one to us.
            e.timeout.seconds + (e.timeout.nanos > 0) if e.HasField("timeout") else None,
        )
        for e in elements
    ]


def _message(element: Element, now_unix_s: int) -> pb.Element:
    message = pb.Element(address=element.span.nft)
    if element.expire_time:
        message.timeout.FromSeconds(max(0, element.expire_time - now_unix_s))
        message.expire_time.FromSeconds(element.expire_time)
    return message


def _from_token(token: str) -> tuple[int, int]:
    """Answer where the last element of the page before begins. Raises InvalidRequest."""
    if not token:
        return 0, 0
    version, _, first = token.partition("/")
    if version not in ("4", "6") or not (first.isascii() and first.isdigit() and len(first) < 40):
        raise InvalidRequest.of([Violation("page_token", "is not a token of ListElements")])
    return int(version), int(first)
