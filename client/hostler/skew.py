"""What a host of another version cannot do, or says in words that came later: told, not crashed at.

A client that is a release older or newer than a daemon works; this is how it says what does not.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

from hostler.channel import Rpc
from hostler.results import HostError

METHOD_MISSING = "METHOD_MISSING"
_NOT_KNOWN = "NOT_KNOWN_HERE"
# What the kernel says of a door behind which nobody is; both are gRPC's way to write an errno.
_NOBODY = ("Connection refused", "No such file or directory")


def word(enum: Any, number: int) -> str:
    """A value of an enumeration as people read it, such as "volume group" for a NodeKind.

    "unknown (7)" for one that came after this client.
    """
    descriptor = enum.DESCRIPTOR
    known = descriptor.values_by_number.get(number)
    if known is None:
        return f"unknown ({number})"
    prefix = descriptor.values_by_number[0].name.removesuffix("UNSPECIFIED")
    return str(known.name.removeprefix(prefix).lower().replace("_", " "))


async def explained(
    rpc: Rpc, failure: HostError, daemon_version: Callable[[], Awaitable[str]]
) -> HostError:
    """Answer a failure in words that say what to do about it, where versions are its cause.

    `daemon_version` asks the door for its version, and answers an empty text if it does not say.
    """
    if failure.code == "UNIMPLEMENTED" and not failure.reason:
        return _missing(rpc, failure, await daemon_version())
    if failure.reason == _NOT_KNOWN:
        return _named(rpc, failure)
    if failure.reason == "UNREACHABLE" and any(words in failure.message for words in _NOBODY):
        hint = f"nobody listens there: is hostler-{rpc.domain} installed, and the host enrolled?"
        return replace(failure, message=f"{failure.message}; {hint}")
    return failure


def _missing(rpc: Rpc, failure: HostError, daemon_version: str) -> HostError:
    from importlib.metadata import version

    service, _, method = rpc.path.rpartition("/")
    client = version("hostler")
    told = f" has version {daemon_version} and" if daemon_version else ""
    return HostError(
        failure.code,
        METHOD_MISSING,
        f"its {rpc.domain} daemon{told} knows no {service.rpartition('.')[2]}.{method}, which this "
        f"client, {client}, asks for: upgrade hostler-{rpc.domain} and hostler-common there",
        metadata={
            "method": rpc.path,
            "client_version": client,
            **({"daemon_version": daemon_version} if daemon_version else {}),
        },
    )


def _named(rpc: Rpc, failure: HostError) -> HostError:
    """The daemon tells fields by their numbers, having no names for them; this client has."""
    message, violations = failure.message, []
    for each in failure.violations:
        named = _name(rpc.request_type.DESCRIPTOR, each.get("field", ""))
        violations.append({**each, "field": named})
        message = message.replace(f"{each.get('field', '')}: ", f"{named}: ")
    return replace(failure, message=message, violations=tuple(violations))


def _name(descriptor: Any, path: str) -> str:
    """The path of a field, such as `change.7`, with its last part by name if it is known here."""
    *way, last = _parts(path)
    for part in way:
        field = descriptor.fields_by_name.get(part.partition("[")[0]) if descriptor else None
        descriptor = _kind(field)
    field = descriptor.fields_by_number.get(int(last)) if descriptor and last.isdigit() else None
    return ".".join((*way, field.name)) if field else path


def _parts(path: str) -> list[str]:
    """Split a path at its dots, but for those of a map's keys."""
    parts, depth = [""], 0
    for c in path:
        depth += (c == "[") - (c == "]")
        if c == "." and not depth:
            parts.append("")
        else:
            parts[-1] += c
    return parts


def _kind(field: Any) -> Any:
    if field is None or field.message_type is None:
        return None
    if field.message_type.GetOptions().map_entry:
        return field.message_type.fields_by_name["value"].message_type
    return field.message_type
