"""The gRPC edge of what rules have counted."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator
from typing import Any

import grpc.aio
from google.protobuf.timestamp_pb2 import Timestamp

from hostler.api.firewall.v1 import counter_pb2 as pb
from hostlerd.firewall.kernel import Kernel
from hostlerd.firewall.model.counter import Rate, Reading, rates
from hostlerd.firewall.service.convert import counter
from hostlerd.firewall.service.readings import Readings
from hostlerd.runtime.domain import Runtime
from hostlerd.runtime.errors import InvalidRequest, Violation

_SHORTEST_S, _LONGEST_S, _DEFAULT_S = 0.1, 3600.0, 1.0
_RULES_MOST = 10_000

Context = grpc.aio.ServicerContext[Any, Any]


class RuleCounterService:
    """Serves hostler.api.firewall.v1.RuleCounterService."""

    def __init__(self, runtime: Runtime, kernel: Kernel) -> None:
        self._readings = Readings(runtime, kernel.rule_counters)

    async def ListRuleCounters(
        self, request: pb.ListRuleCountersRequest, context: Context
    ) -> pb.ListRuleCountersResponse:
        """Answer a page of the counters."""
        if not 0 <= request.page_size <= _RULES_MOST:
            fault = Violation("page_size", f"must be from 0 to {_RULES_MOST}")
            raise InvalidRequest.of([fault])
        after, label = _from_token(request.page_token)
        counters = (await self._readings.at(time.monotonic())).counters
        labels = list(counters)
        # The rule that the page before ended with may have moved, or gone.
        first = labels.index(label) + 1 if label in counters else after
        page = labels[first : first + (request.page_size or _RULES_MOST)]
        end = first + len(page)
        return pb.ListRuleCountersResponse(
            counters=[counter(name, counters[name]) for name in page],
            next_page_token=f"{end}/{page[-1]}" if end < len(labels) else "",
        )

    async def WatchRuleCounters(
        self, request: pb.WatchRuleCountersRequest, context: Context
    ) -> AsyncIterator[pb.WatchRuleCountersResponse]:
        """Stream readings. Readings that the caller is too slow for are not made."""
        interval_s = _interval_s(request)
        seq, dropped = request.after_seq, _missed(request, interval_s)
        before: Reading | None = None
        due_s = time.monotonic()
        tick = math.floor(due_s / interval_s)
        while True:
            now = await self._readings.at(due_s)
            seq += 1
            yield _response(seq, dropped, now, rates(before, now, request.top))
            before = now
            # All who watch at the same interval are due at the same times, and share a reading.
            last, tick = tick, math.floor(time.monotonic() / interval_s) + 1
            dropped = max(0, tick - last - 1)
            due_s = tick * interval_s
            await asyncio.sleep(due_s - time.monotonic())


def _from_token(token: str) -> tuple[int, str]:
    """Answer how many came before, and the last of them. Raises InvalidRequest."""
    if not token:
        return 0, ""
    number, slash, label = token.partition("/")
    if not (number.isascii() and number.isdigit() and len(number) <= 9 and slash):
        fault = Violation("page_token", "is not a token of ListRuleCounters")
        raise InvalidRequest.of([fault])
    return int(number), label


def _interval_s(request: pb.WatchRuleCountersRequest) -> float:
    faults = []
    interval_s = _DEFAULT_S
    if request.HasField("interval"):
        interval_s = request.interval.seconds + request.interval.nanos / 1e9
        if not _SHORTEST_S <= interval_s <= _LONGEST_S:
            faults.append(Violation("interval", "must be from 100 ms to 1 h"))
    if not 0 <= request.top <= _RULES_MOST:
        faults.append(Violation("top", f"must be from 0 to {_RULES_MOST}"))
    if request.after_seq < 0:
        faults.append(Violation("after_seq", "must not be negative"))
    if faults:
        raise InvalidRequest.of(faults)
    return interval_s


def _missed(request: pb.WatchRuleCountersRequest, interval_s: float) -> int:
    """How many readings would have been made between an earlier stream's last and now."""
    if not request.HasField("after_time"):
        return 0
    after_s = request.after_time.seconds + request.after_time.nanos / 1e9
    return max(0, int((time.time() - after_s) / interval_s) - 1)


def _response(
    seq: int, dropped: int, now: Reading, found: list[Rate]
) -> pb.WatchRuleCountersResponse:
    at = Timestamp()
    at.FromNanoseconds(round(now.time_unix_s * 1e9))
    return pb.WatchRuleCountersResponse(
        seq=seq,
        dropped=dropped,
        time=at,
        rules=[
            pb.RuleRate(
                counter=counter(each.label, each.counter),
                packets_per_second=each.packets_per_second,
                bits_per_second=each.bits_per_second,
            )
            # As many as a table can have; more would not fit into an answer.
            for each in found[:_RULES_MOST]
        ],
    )
