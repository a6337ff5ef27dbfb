"""The gRPC edge of what rules have counted."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import Any

import grpc.aio

from hostler.api.firewall.v1 import counter_pb2 as pb
from hostlerd.firewall.kernel import Kernel
from hostlerd.firewall.model.counter import Reading, rates, set_rates, summed
from hostlerd.firewall.plan import address_set
from hostlerd.firewall.service.convert import counter
from hostlerd.runtime.domain import Runtime
from hostlerd.runtime.errors import InvalidRequest, Violation
from hostlerd.runtime.watching import MOST, Readings, Tick

Context = grpc.aio.ServicerContext[Any, Any]


class RuleCounterService:
    """Serves hostler.api.firewall.v1.RuleCounterService."""

    def __init__(self, runtime: Runtime, kernel: Kernel) -> None:
        self._kernel = kernel
        self._readings = Readings(runtime, self._read)

    async def ListRuleCounters(
        self, request: pb.ListRuleCountersRequest, context: Context
    ) -> pb.ListRuleCountersResponse:
        """Answer a page of the counters."""
        if not 0 <= request.page_size <= MOST:
            fault = Violation("page_size", f"must be from 0 to {MOST}")
            raise InvalidRequest.of([fault])
        after, label = _from_token(request.page_token)
        counters = (await self._readings.at(time.monotonic())).counters
        labels = list(counters)
        # The rule that the page before ended with may have moved, or gone.
        first = labels.index(label) + 1 if label in counters else after
        page = labels[first : first + (request.page_size or MOST)]
        end = first + len(page)
        return pb.ListRuleCountersResponse(
            counters=[counter(name, counters[name]) for name in page],
            next_page_token=f"{end}/{page[-1]}" if end < len(labels) else "",
        )

    async def WatchRuleCounters(
        self, request: pb.WatchRuleCountersRequest, context: Context
    ) -> AsyncIterator[pb.WatchRuleCountersResponse]:
        """Stream readings. Readings that the caller is too slow for are not made."""
        async for tick in self._readings.watch(request):
            yield _response(tick, request.top)

    def _read(self) -> Reading:
        at_s, time_unix_s = time.monotonic(), time.time()
        rulesets, _ = self._kernel.saved()
        used_by = {name: each.used_by for name, each in address_set.declared(rulesets).items()}
        return Reading(at_s, time_unix_s, summed(self._kernel.rule_counters()), used_by)


def _from_token(token: str) -> tuple[int, str]:
    """Answer how many came before, and the last of them. Raises InvalidRequest."""
    if not token:
        return 0, ""
    number, slash, label = token.partition("/")
    if not (number.isascii() and number.isdigit() and len(number) <= 9 and slash):
        fault = Violation("page_token", "is not a token of ListRuleCounters")
        raise InvalidRequest.of([fault])
    return int(number), label


def _response(tick: Tick[Reading], top: int) -> pb.WatchRuleCountersResponse:
    found = rates(tick.before, tick.now)
    return pb.WatchRuleCountersResponse(
        seq=tick.seq,
        dropped=tick.dropped,
        time=tick.time,
        rules=[
            pb.RuleRate(
                counter=counter(each.label, each.counter),
                packets_per_second=each.packets_per_second,
                bits_per_second=each.bits_per_second,
            )
            # As many as a table can have; more would not fit into an answer.
            for each in found[: top or MOST]
        ],
        sets=[
            pb.SetRate(
                address_set=each.label,
                packets=each.counter.packets,
                bytes=each.counter.bytes,
                packets_per_second=each.packets_per_second,
                bits_per_second=each.bits_per_second,
            )
            for each in set_rates(tick.now, found)[: top or MOST]
        ],
    )
