"""Serves hostler.api.netns.v1.CounterService."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict
from typing import Any

import grpc.aio
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from hostler.api.netns.v1 import counter_pb2 as pb
from hostler.api.netns.v1 import counter_pb2_grpc
from hostlerd.netns.errors import LinkNotFound
from hostlerd.netns.kernel import Kernel
from hostlerd.netns.model.counter import LinkCounters, LinkRates, rates
from hostlerd.netns.model.parse import namespace_name_fault
from hostlerd.runtime.domain import Runtime
from hostlerd.runtime.errors import InvalidRequest, Violation

_SHORTEST_S, _LONGEST_S, _DEFAULT_S = 0.1, 3600.0, 1.0

Context = grpc.aio.ServicerContext[Any, Any]


class CounterService(counter_pb2_grpc.CounterServiceServicer):  # type: ignore[misc]
    """Reads the counters of links."""

    def __init__(self, runtime: Runtime, kernel: Kernel) -> None:
        self.runtime = runtime
        self.kernel = kernel

    async def GetCounters(
        self, request: pb.GetCountersRequest, context: Context
    ) -> pb.GetCountersResponse:
        """Get the counters once."""
        _check(request.namespace)
        links, at, _ = await self._read(request.namespace, request.ifname)
        return pb.GetCountersResponse(
            links=[_counters(request.namespace, link) for link in links], time=at
        )

    async def WatchCounters(
        self, request: pb.WatchCountersRequest, context: Context
    ) -> AsyncIterator[pb.WatchCountersResponse]:
        """Stream readings. Readings that the caller is too slow for are not made."""
        _check(request.namespace)
        interval_s = _interval_s(request)
        before: dict[str, LinkCounters] = {}
        before_s = due_s = time.monotonic()
        seq, dropped = request.after_seq, _missed(request, interval_s)
        while not 0 < request.count <= seq:
            links, at, now_s = await self._read(request.namespace, request.ifname)
            seq += 1
            yield pb.WatchCountersResponse(
                seq=seq,
                time=at,
                dropped=dropped,
                links=[
                    _reading(request.namespace, x, before.get(x.ifname), now_s - before_s)
                    for x in links
                ],
            )
            before, before_s = {link.ifname: link for link in links}, now_s
            late_s = time.monotonic() - due_s
            dropped = max(0, int(late_s / interval_s) - 1)
            due_s += max(interval_s, late_s)
            if seq != request.count:
                await asyncio.sleep(max(0.0, due_s - time.monotonic()))

    async def _read(
        self, namespace: str, ifname: str
    ) -> tuple[Sequence[LinkCounters], Timestamp, float]:
        links: Sequence[LinkCounters] = await self.runtime.blocking(self.kernel.counters, namespace)
        now_s = time.monotonic()
        at = Timestamp()
        at.GetCurrentTime()
        chosen = [link for link in links if ifname in ("", link.ifname)]
        if ifname and not chosen:
            raise LinkNotFound(f"there is no link {ifname}", namespace=namespace, ifname=ifname)
        return chosen, at, now_s


def _check(namespace: str) -> None:
    # A namespace that Hostler did not make may have any name that a file can have.
    if namespace in (".", "..") or "/" in namespace or "\0" in namespace:
        raise InvalidRequest.of([Violation("namespace", namespace_name_fault(namespace))])


def _interval_s(request: pb.WatchCountersRequest) -> float:
    faults = []
    interval_s = _DEFAULT_S
    if request.HasField("interval"):
        interval_s = request.interval.seconds + request.interval.nanos / 1e9
        if not _SHORTEST_S <= interval_s <= _LONGEST_S:
            faults.append(Violation("interval", "must be from 100 ms to 1 h"))
    for name in ("count", "after_seq"):
        if getattr(request, name) < 0:
            faults.append(Violation(name, "must not be negative"))
    if faults:
        raise InvalidRequest.of(faults)
    return interval_s


def _missed(request: pb.WatchCountersRequest, interval_s: float) -> int:
    """How many readings would have been made between an earlier stream's last and now."""
    if not request.HasField("after_time"):
        return 0
    after_s = request.after_time.seconds + request.after_time.nanos / 1e9
    return max(0, int((time.time() - after_s) / interval_s) - 1)


def _counters(namespace: str, link: LinkCounters) -> pb.LinkCounters:
    values = asdict(link)
    del values["speed_bits_per_second"]
    return pb.LinkCounters(namespace=namespace, **values)


def _reading(
    namespace: str, link: LinkCounters, before: LinkCounters | None, elapsed_s: float
) -> pb.LinkReading:
    reading = pb.LinkReading(counters=_counters(namespace, link))
    if before is not None:
        reading.rates.CopyFrom(_rates(rates(before, link, elapsed_s)))
    return reading


def _rates(values: LinkRates) -> pb.LinkRates:
    plain = asdict(values)
    interval = Duration()
    interval.FromNanoseconds(int(plain.pop("interval_s") * 1e9))
    return pb.LinkRates(interval=interval, **plain)
