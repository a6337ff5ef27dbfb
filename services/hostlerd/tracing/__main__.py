"""The tracing daemon."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hostler.api.tracing.v1 import (
    capture_pb2,
    capture_pb2_grpc,
    diagnosis_pb2,
    diagnosis_pb2_grpc,
    io_pb2,
    io_pb2_grpc,
    memory_pb2,
    memory_pb2_grpc,
    network_pb2,
    network_pb2_grpc,
    socket_pb2,
    socket_pb2_grpc,
    trace_pb2,
    trace_pb2_grpc,
)
from hostlerd.runtime.config import ConfigurationInvalid
from hostlerd.runtime.domain import Domain, Runtime, Service
from hostlerd.runtime.server import main
from hostlerd.tracing.kernel import Kernel
from hostlerd.tracing.kernel.probe import PROBES
from hostlerd.tracing.kernel.store import Store
from hostlerd.tracing.kernel.traces import Traces
from hostlerd.tracing.model.stored import Bounds
from hostlerd.tracing.plan.stored import making_room
from hostlerd.tracing.service.capture import CaptureService
from hostlerd.tracing.service.diagnosis import DiagnosisService
from hostlerd.tracing.service.io import IoService
from hostlerd.tracing.service.memory import MemoryService
from hostlerd.tracing.service.network import NetworkService
from hostlerd.tracing.service.socket import SocketService
from hostlerd.tracing.service.trace import TraceService


def build(runtime: Runtime) -> Domain:
    """Put the domain together. It has nothing that a boot would have to bring back.

    Raises ConfigurationInvalid.
    """
    kernel = Kernel()
    store = Store(runtime.state_dir / "captures", bounds_of(runtime.config), making_room)
    traces, changes = Traces(store), runtime.changes(store)
    return Domain(
        services=(
            _service(diagnosis_pb2, diagnosis_pb2_grpc, DiagnosisService(runtime, kernel)),
            _service(trace_pb2, trace_pb2_grpc, TraceService(runtime, traces)),
            _service(capture_pb2, capture_pb2_grpc, CaptureService(runtime, store, changes)),
            _service(io_pb2, io_pb2_grpc, IoService(runtime, kernel)),
            _service(memory_pb2, memory_pb2_grpc, MemoryService(runtime, kernel)),
            _service(network_pb2, network_pb2_grpc, NetworkService(runtime, kernel)),
            _service(socket_pb2, socket_pb2_grpc, SocketService(runtime, kernel)),
        ),
        probes=PROBES,
        tidy=store.sweep,
        due=traces.due,
        upkeep=traces.end_unwatched,
    )


def bounds_of(config: Mapping[str, Any]) -> Bounds:
    """How much is kept, as configured. Raises ConfigurationInvalid."""
    values = {"bytes": "captures_bytes", "captures": "captures"}
    found = {field: config[key] for field, key in values.items() if key in config}
    for field, value in found.items():
        least = 1 << 20 if field == "bytes" else 2
        if type(value) is not int or value < least or (field == "captures" and value > 90):
            raise ConfigurationInvalid(f"tracing.{values[field]}: {value!r} is out of range")
    return Bounds(**found)


def _service(messages: Any, generated: Any, servicer: Any) -> Service:
    """Answer a service by its servicer, whose class has the service's name."""
    name = type(servicer).__name__
    add = getattr(generated, f"add_{name}Servicer_to_server")
    return Service(messages.DESCRIPTOR.services_by_name[name], add, servicer)


if __name__ == "__main__":
    main("tracing", build)
