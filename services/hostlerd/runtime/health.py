"""The health service of gRPC, whose own implementation does without List and writes by itself.

Source: grpc/health/v1/health.proto.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import Any

from grpc_health.v1 import health_pb2, health_pb2_grpc

from hostlerd.runtime.errors import Code, DomainError

_Answer = health_pb2.HealthCheckResponse


class ServiceUnknown(DomainError):
    """This daemon has no service of that name."""

    code, reason = Code.NOT_FOUND, "SERVICE_UNKNOWN"


class HealthService(health_pb2_grpc.HealthServicer):  # type: ignore[misc]
    """Says that services serve: as long as a daemon answers at all, all of its own do."""

    def __init__(self, services: Iterable[str]) -> None:
        self._services = frozenset({"", *services})

    async def Check(self, request: health_pb2.HealthCheckRequest, context: Any) -> Any:
        """Answer the status of a service, or with no name that of the daemon."""
        if request.service not in self._services:
            raise ServiceUnknown("there is no such service here", service=request.service)
        return _Answer(status=_Answer.SERVING)

    async def List(self, request: health_pb2.HealthListRequest, context: Any) -> Any:
        """Answer the status of every service."""
        statuses = {name: _Answer(status=_Answer.SERVING) for name in self._services}
        return health_pb2.HealthListResponse(statuses=statuses)

    async def Watch(
        self, request: health_pb2.HealthCheckRequest, context: Any
    ) -> AsyncIterator[Any]:
        """Answer the status of a service; it stays what it is until the daemon goes."""
        known = request.service in self._services
        yield _Answer(status=_Answer.SERVING if known else _Answer.SERVICE_UNKNOWN)
        await asyncio.Event().wait()
