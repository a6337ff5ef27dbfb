"""The tracing domain's own services, which read this machine, behind a door of a test."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import grpc

from hostler.api.tracing.v1 import (
    diagnosis_pb2_grpc,
    io_pb2_grpc,
    memory_pb2_grpc,
    network_pb2_grpc,
    socket_pb2_grpc,
)
from hostlerd.runtime.errors import DomainError
from hostlerd.tracing.kernel import Kernel
from hostlerd.tracing.service.diagnosis import DiagnosisService
from hostlerd.tracing.service.io import IoService
from hostlerd.tracing.service.memory import MemoryService
from hostlerd.tracing.service.network import NetworkService
from hostlerd.tracing.service.socket import SocketService


class _Here:
    async def blocking(self, work: Callable[..., Any], /, *args: Any) -> Any:
        return await asyncio.to_thread(work, *args)


class _Once:
    """A method that answers once, for a server without an event loop."""

    def __init__(self, kind: Any, name: str) -> None:
        self._kind, self._name = kind, name

    def __call__(self, request: Any, context: Any) -> Any:
        method = getattr(self._kind(_Here(), Kernel()), self._name)
        try:
            return asyncio.run(method(request, None))
        except DomainError as error:
            context.abort(grpc.StatusCode.NOT_FOUND, error.message)


class _Stream:
    """A method that streams."""

    def __init__(self, kind: Any, name: str) -> None:
        self._kind, self._name = kind, name

    def __call__(self, request: Any, context: Any) -> Iterator[Any]:
        with asyncio.Runner() as runner:
            service = self._kind(_Here(), Kernel())
            stream = getattr(service, self._name)(request, None)
            while context.is_active():
                yield runner.run(_next(stream))


async def _next(stream: Any) -> Any:
    return await anext(stream)


class _Tracing:
    DiagnoseStuck = _Once(DiagnosisService, "DiagnoseStuck")
    GetMemory = _Once(MemoryService, "GetMemory")
    ListSockets = _Once(SocketService, "ListSockets")
    WatchIo = _Stream(IoService, "WatchIo")
    WatchLinks = _Stream(NetworkService, "WatchLinks")
    WatchConnections = _Stream(NetworkService, "WatchConnections")


def add_to(server: grpc.Server) -> None:
    """Serve all of it."""
    services = _Tracing()
    diagnosis_pb2_grpc.add_DiagnosisServiceServicer_to_server(services, server)
    io_pb2_grpc.add_IoServiceServicer_to_server(services, server)
    memory_pb2_grpc.add_MemoryServiceServicer_to_server(services, server)
    network_pb2_grpc.add_NetworkServiceServicer_to_server(services, server)
    socket_pb2_grpc.add_SocketServiceServicer_to_server(services, server)
