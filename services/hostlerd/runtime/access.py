"""Which access each method needs: read from the annotations of the protos, checked at start."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import Message

from hostler.api.common.v1 import access_pb2, change_pb2

READ = access_pb2.ACCESS_CLASS_READ
_CHANGE_OPTIONS = change_pb2.ChangeOptions.DESCRIPTOR
_CHANGE = change_pb2.Change.DESCRIPTOR

# Services that others defined carry no annotation of ours. What they do, only reads.
_THIRD_PARTY = frozenset(
    {
        "grpc.health.v1.Health",
        "grpc.reflection.v1.ServerReflection",
        "grpc.reflection.v1alpha.ServerReflection",
    }
)


class AnnotationInvalid(Exception):
    """A method's access annotation is missing or does not fit; the daemon must not start."""


@dataclass(frozen=True, slots=True)
class Method:
    """A method and the access it needs. `access_class` is the class's bare name, such as READ."""

    name: str
    access_class: str
    resource_fields: tuple[str, ...] = ()

    @property
    def changes(self) -> bool:
        """Whether it may change something."""
        return self.access_class != "READ"

    @property
    def service(self) -> str:
        """The full name of its service."""
        return self.name.split("/")[1]


def table(services: Iterable[ServiceDescriptor]) -> Mapping[str, Method]:
    """Answer every method of the services by its full name. Raises AnnotationInvalid."""
    methods = {}
    for service in services:
        for descriptor in service.methods:
            method = _method(service, descriptor)
            methods[method.name] = method
    return methods


def _method(service: ServiceDescriptor, descriptor: MethodDescriptor) -> Method:
    name = f"/{service.full_name}/{descriptor.name}"
    if service.full_name in _THIRD_PARTY:
        return Method(name, "READ")
    options = descriptor.GetOptions()
    extension: Any = access_pb2.access
    access: Any = options.Extensions[extension]
    if getattr(access, "class") == access_pb2.ACCESS_CLASS_UNSPECIFIED:
        raise AnnotationInvalid(f"{name} has no access annotation")
    enum_name = access_pb2.AccessClass.Name(getattr(access, "class"))
    method = Method(name, enum_name.removeprefix("ACCESS_CLASS_"), tuple(access.resource_fields))
    for path in method.resource_fields:
        _check_path(name, descriptor.input_type, path)
    streams = descriptor.client_streaming or descriptor.server_streaming
    if method.changes and not streams:
        _check_field(name, descriptor.input_type, _CHANGE_OPTIONS)
        _check_field(name, descriptor.output_type, _CHANGE)
    return method


def _check_path(method: str, message: Any, path: str) -> None:
    for part in path.split("."):
        found = message.fields_by_name.get(part) if message is not None else None
        if found is None:
            raise AnnotationInvalid(f"{method}: there is no field {path} to name the resource")
        message = found.message_type


def _check_field(method: str, message: Any, wanted: Any) -> None:
    found = message.fields_by_name.get("change")
    if found is None or found.message_type is not wanted:
        raise AnnotationInvalid(f"{method}: {message.name} has no field change of {wanted.name}")


def resources(request: Message, fields: Sequence[str]) -> tuple[str, ...]:
    """Answer the names of the resources that a request is about, each once, in order.

    The values of several fields make one name, joined by "/". Where any of them is repeated, each
    value is a name by itself: none may go by unjudged.
    """
    paths = [path.split(".") for path in fields]
    parts = [list(_values(request, path)) for path in paths]
    if len(parts) == 1 or any(_is_repeated(request.DESCRIPTOR, path) for path in paths):
        return tuple(dict.fromkeys(value for values in parts for value in values))
    return ("/".join(values[0] for values in parts),) if parts else ()


def _is_repeated(message: Any, path: Sequence[str]) -> bool:
    for part in path:
        field = message.fields_by_name[part]
        if field.is_repeated:
            return True
        message = field.message_type
    return False


def _values(message: Any, path: Sequence[str]) -> Iterator[str]:
    value = getattr(message, path[0])
    many = isinstance(value, Sequence) and not isinstance(value, (str, bytes))
    for item in value if many else (value,):
        if len(path) > 1:
            yield from _values(item, path[1:])
        else:
            yield str(item)
