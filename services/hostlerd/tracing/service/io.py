"""The gRPC edge of who reads and writes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc.aio

from hostler.api.tracing.v1 import io_pb2 as pb
from hostlerd.runtime.domain import Runtime
from hostlerd.runtime.watching import MOST, Readings
from hostlerd.tracing.kernel import Kernel
from hostlerd.tracing.model.evidence import Process
from hostlerd.tracing.model.io import DeviceRate, ProcessRate
from hostlerd.tracing.plan.io import device_rates, process_rates
from hostlerd.tracing.service import convert

Context = grpc.aio.ServicerContext[Any, Any]


class IoService:
    """Serves hostler.api.tracing.v1.IoService."""

    def __init__(self, runtime: Runtime, kernel: Kernel) -> None:
        self._runtime = runtime
        self._kernel = kernel
        self._readings = Readings(runtime, kernel.io)

    async def WatchIo(
        self, request: pb.WatchIoRequest, context: Context
    ) -> AsyncIterator[pb.WatchIoResponse]:
        """Stream readings."""
        async for tick in self._readings.watch(request):
            answer = pb.WatchIoResponse(
                seq=tick.seq,
                dropped=tick.dropped,
                time=tick.time,
                delay_accounting=tick.now.counts_delays,
                hidden=tick.now.hidden,
            )
            if tick.before is not None:
                busy = process_rates(tick.before, tick.now, request.top or MOST)
                named = await self._runtime.blocking(
                    self._kernel.named, [rate.count.pid for rate in busy]
                )
                answer.processes.extend(_process(rate, named[rate.count.pid]) for rate in busy)
                answer.devices.extend(map(_device, device_rates(tick.before, tick.now)))
            yield answer


def _process(rate: ProcessRate, named: Process) -> pb.ProcessIo:
    process = convert.process(named)
    # One that has ended meanwhile keeps the name that it was read with.
    process.comm = rate.count.comm
    made = pb.ProcessIo(
        process=process,
        is_kernel_thread=rate.count.is_kernel,
        explanation=rate.explanation,
        read_bytes_per_second=rate.read,
        write_bytes_per_second=rate.written,
        cancelled_write_bytes_per_second=rate.cancelled,
        read_bytes=rate.count.read,
        write_bytes=rate.count.written,
        runs_per_second=rate.runs,
    )
    if rate.blocked_percent is not None:
        made.blocked_percent = rate.blocked_percent
    return made


def _device(rate: DeviceRate) -> pb.DeviceIo:
    return pb.DeviceIo(
        name=rate.count.name,
        read_bytes_per_second=rate.read,
        write_bytes_per_second=rate.written,
        busy_percent=rate.busy_percent,
        in_flight=rate.count.in_flight,
    )
