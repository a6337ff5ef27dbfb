"""Changes as records: what rebuilds one later, without anything that is a secret."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator, Mapping
from importlib import import_module
from pkgutil import iter_modules
from typing import Any, Protocol, runtime_checkable

from hostler.channel import Rpc
from hostler.config import HostlerError
from hostler.fleet import Host
from hostler.plans import Change

_PATH = re.compile(r"/(hostler\.api\.([a-z]+)\.v[0-9]+)\.([A-Za-z]+)/([A-Za-z]+)", re.ASCII)

# Who rebuilds which kind. Records name kinds, never code.
_KINDS: Mapping[str, tuple[str, str]] = {
    "rpc": ("hostler.plans", "RpcChange"),
    "isolate": ("hostler.isolate", "Isolate"),
    "isolate-remove": ("hostler.isolate", "Remove"),
    "push-bundle": ("hostler.push", "PushBundle"),
    "replicate": ("hostler.replicate", "Replicate"),
    "replicate-repair": ("hostler.replicate_repair", "Repair"),
    "ssl-replace": ("hostler.ssl_replace", "Replace"),
}


class RecordInvalid(HostlerError):
    """A record that this version cannot rebuild a change from."""


class NotRecordable(Exception):
    """A change holds what must not be stored. `fields` says where, `secrets` what."""

    def __init__(self, fields: tuple[str, ...], secrets: tuple[str, ...]) -> None:
        super().__init__(f"{', '.join(fields)} must not be stored")
        self.fields = fields
        self.secrets = secrets


@runtime_checkable
class Recordable(Protocol):
    """A change that can be rebuilt from a record.

    Its class also has `from_record(record)`, and is in the table of kinds.
    """

    kind: str

    def to_record(self, host: Host) -> dict[str, Any]:
        """What JSON can say and `from_record` rebuilds it from. Raises NotRecordable."""
        ...


def from_record(kind: str, record: Mapping[str, Any]) -> Change:
    """Rebuild a change. Raises RecordInvalid."""
    if kind not in _KINDS:
        raise RecordInvalid(f"recorded by another version: no change of kind {kind!r} is known")
    module, name = _KINDS[kind]
    try:
        change: Change = getattr(import_module(module), name).from_record(record)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise RecordInvalid(f"the record of a change of kind {kind!r} is not whole") from error
    return change


def check_secrets(*messages: Any) -> None:
    """Raise NotRecordable if a message has a field set that its proto marks as redacted."""
    found = [entry for message in messages for entry in _redacted(message, "")]
    if found:
        raise NotRecordable(
            tuple(dict.fromkeys(path for path, _ in found)),
            tuple(dict.fromkeys(text for _, texts in found for text in texts)),
        )


def message_record(message: Any) -> str:
    """A message as text. Raises NotRecordable if it holds secrets."""
    check_secrets(message)
    return base64.b64encode(message.SerializeToString(deterministic=True)).decode()


def message_from_record(kind: Any, text: str) -> Any:
    """The message that was recorded. Raises RecordInvalid."""
    from google.protobuf.message import DecodeError

    try:
        return kind.FromString(base64.b64decode(text, validate=True))
    except (DecodeError, ValueError) as error:
        raise RecordInvalid(f"the record holds no {kind.DESCRIPTOR.full_name}") from error


def rpc_from_record(path: str, domain: str) -> Rpc:
    """The method of a recorded path, at a domain's door. Raises RecordInvalid."""
    from google.protobuf import descriptor_pool, message_factory

    found = _PATH.fullmatch(path)
    if found is None:
        raise RecordInvalid(f"{path!r} is not a method of Hostler")
    package, _, service, method = found.groups()
    try:
        folder = import_module(package)
        for module in iter_modules(folder.__path__):
            if module.name.endswith("_pb2"):
                import_module(f"{package}.{module.name}")
        pool = descriptor_pool.Default()
        descriptor = pool.FindServiceByName(f"{package}.{service}").methods_by_name[method]
    except (ImportError, KeyError) as error:
        raise RecordInvalid(f"recorded by another version: there is no method {path}") from error
    return Rpc(
        domain=domain,
        path=path,
        request_type=message_factory.GetMessageClass(descriptor.input_type),
        response_type=message_factory.GetMessageClass(descriptor.output_type),
    )


def _redacted(message: Any, where: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    """The set fields that are marked `debug_redact`, each with the texts in it."""
    for field, value in message.ListFields():
        place = f"{where}.{field.name}" if where else field.name
        if field.GetOptions().debug_redact:
            yield place, tuple(_texts(field, value))
        elif field.message_type is not None and not field.message_type.GetOptions().map_entry:
            for each in value if field.is_repeated else (value,):
                yield from _redacted(each, place)


def _texts(field: Any, value: Any) -> Iterator[str]:
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        yield from (str(value[key]) for key in value)
    elif field.message_type is not None:
        return
    elif field.is_repeated:
        yield from (str(each) for each in value)
    else:
        yield value.decode(errors="replace") if isinstance(value, bytes) else str(value)
