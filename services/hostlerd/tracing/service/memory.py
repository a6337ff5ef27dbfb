"""The gRPC edge of memory."""

from __future__ import annotations

from typing import Any

import grpc.aio
from google.protobuf.timestamp_pb2 import Timestamp

from hostler.api.tracing.v1 import memory_pb2 as pb
from hostlerd.runtime.domain import Runtime
from hostlerd.tracing.kernel import Kernel
from hostlerd.tracing.model.memory import Memory
from hostlerd.tracing.plan.memory import account

Context = grpc.aio.ServicerContext[Any, Any]


class MemoryService:
    """Serves hostler.api.tracing.v1.MemoryService."""

    def __init__(self, runtime: Runtime, kernel: Kernel) -> None:
        self._runtime = runtime
        self._kernel = kernel

    async def GetMemory(
        self, request: pb.GetMemoryRequest, context: Context
    ) -> pb.GetMemoryResponse:
        """Account for all memory."""
        info, zones = await self._runtime.blocking(self._kernel.memory)
        found: Memory = account(info, zones)
        at = Timestamp()
        at.GetCurrentTime()
        return pb.GetMemoryResponse(
            time=at,
            total_bytes=found.total,
            used_bytes=found.used,
            available_bytes=found.available,
            available_is_estimate=found.is_estimate,
            free_buffers_cached_bytes=found.free_buffers_cached,
            parts=[
                pb.MemoryPart(name=p.name, bytes=p.bytes, reclaimable_bytes=p.reclaimable)
                for p in found.parts
            ],
            unaccounted_percent=found.unaccounted_percent,
            dirty_bytes=found.dirty,
            writeback_bytes=found.writeback,
            swap_total_bytes=found.swap_total,
            swap_used_bytes=found.swap_used,
            committed_bytes=found.committed,
        )
