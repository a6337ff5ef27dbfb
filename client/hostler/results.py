"""What hosts answered: one result per host, in host order, each an answer or an exact error."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    import grpc

T = TypeVar("T")

DETAILS_KEY = "grpc-status-details-bin"


@dataclass(frozen=True, slots=True)
class HostError:
    """Why a host did not do it.

    `code` is the gRPC status by name, `reason` the stable word for the cause (from ErrorInfo, else
    the client's own), `violations` what was wrong with which field or condition. After an
    `uncertain` one the host may have done it all the same: it was asked, and the answer was lost.
    """

    code: str
    reason: str
    message: str
    metadata: Mapping[str, str] = field(default_factory=dict)
    violations: tuple[Mapping[str, str], ...] = ()
    uncertain: bool = False

    @property
    def approval(self) -> str:
        """The id of the approval that the call waits for; empty if it was refused otherwise."""
        return self.metadata.get("approval", "") if self.reason == "APPROVAL_REQUIRED" else ""

    def as_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "code": self.code,
            "reason": self.reason,
            "message": self.message,
            "metadata": dict(self.metadata),
            "violations": [dict(violation) for violation in self.violations],
        }

    def __str__(self) -> str:
        """In one line, with each of its violations once."""
        text = f"{self.code} {self.reason}".strip() + f": {self.message}"
        # The daemons' messages begin with the first faults in the same words.
        return "; ".join((text, *(told for told in self._told() if told not in self.message)))

    @property
    def has_places(self) -> bool:
        """Whether the client has said which lines of files it is about."""
        return "place" in self.metadata or any("place" in each for each in self.violations)

    def lines(self) -> tuple[str, ...]:
        """What `str` says, with each of its violations in a line of its own."""
        told = tuple(self._told())
        head = f"{self.code} {self.reason}".strip()
        if not any(each in self.message for each in told):
            head += f": {self.message}"
        return (head, *told)

    def _told(self) -> Iterator[str]:
        for each in self.violations:
            # A client that knows the file a field came from has said so.
            place = each.get("place") or each.get("field")
            if not place:
                place = " ".join(filter(None, (each.get("type"), each.get("subject"))))
            yield f"{place}: {each.get('description', '')}"


class CallFailed(Exception):
    """A call to one host failed; `error` says how, `answer` is what the host said, if it did."""

    def __init__(self, error: HostError, answer: Any = None) -> None:
        super().__init__(str(error))
        self.error = error
        self.answer = answer


@dataclass(frozen=True)
class HostResult(Generic[T]):
    """One host's answer, or its error; exactly one of both. `domain` is set if the door matters.

    `outcome` is set for a change that was to be carried out: a word of `hostler.outcome.Outcome`.
    """

    host: str
    result: T | None = None
    error: HostError | None = None
    domain: str = ""
    outcome: str = ""

    @property
    def ok(self) -> bool:
        """Whether the host did it."""
        return self.error is None

    def value(self) -> T:
        """The answer. Raises CallFailed if there is none."""
        if self.error is not None:
            raise CallFailed(self.error)
        return self.result  # type: ignore[return-value] # T may itself be None

    def as_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        head: dict[str, Any] = {"host": self.host}
        if self.domain:
            head["domain"] = self.domain
        if self.outcome:
            head["outcome"] = str(self.outcome)
        if self.error is not None:
            return head | {"ok": False, "error": self.error.as_dict()}
        return head | {"ok": True, "result": plain(self.result)}


def exit_code(results: Sequence[HostResult[Any]]) -> int:
    """0 if every host did it, 1 if some host failed, 3 if there was none."""
    if not results:
        return 3
    return 0 if all(result.ok for result in results) else 1


def from_rpc_error(error: grpc.aio.AioRpcError) -> HostError:
    """Decode a gRPC error with the google.rpc.Status in its trailers. Source: AIP-193."""
    code = error.code().name
    fallback = {"DEADLINE_EXCEEDED": "TIMEOUT", "UNAVAILABLE": "UNAVAILABLE"}.get(code, "")
    details = error.details() or ""
    trailers: Any = error.trailing_metadata() or ()
    for key, value in trailers:
        if key == DETAILS_KEY and isinstance(value, bytes):
            return _from_status(value, HostError(code, fallback, details))
    return HostError(code, fallback, details)


def _from_status(data: bytes, bare: HostError) -> HostError:
    from google.protobuf.message import DecodeError
    from google.rpc import error_details_pb2, status_pb2

    info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    failed = error_details_pb2.PreconditionFailure()
    violations: list[Mapping[str, str]] = []
    try:
        status = status_pb2.Status.FromString(data)
        for detail in status.details:
            if detail.Unpack(bad):
                violations += [
                    {"field": v.field, "description": v.description} for v in bad.field_violations
                ]
            elif detail.Unpack(failed):
                violations += [
                    {"type": v.type, "subject": v.subject, "description": v.description}
                    for v in failed.violations
                ]
            else:
                detail.Unpack(info)
    except DecodeError:
        # Not a Status: the code and the message of the call itself still say what happened.
        return bare
    return HostError(
        code=bare.code,
        reason=info.reason or bare.reason,
        message=status.message or bare.message,
        metadata=dict(info.metadata),
        violations=tuple(violations),
    )


def plain(value: Any) -> Any:
    """Turn messages and dataclasses into what JSON can say.

    Unlike protobuf's own JSON: names as in the proto, 64-bit integers as numbers, and fields
    without presence always there, so that a script can rely on them.
    """
    if hasattr(value, "DESCRIPTOR"):
        return _plain_message(value)
    if hasattr(value, "as_dict"):
        return value.as_dict()
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, (list, tuple)):
        return [plain(entry) for entry in value]
    return value


def _plain_message(message: Any) -> Any:
    if message.DESCRIPTOR.full_name in ("google.protobuf.Timestamp", "google.protobuf.Duration"):
        return message.ToJsonString()
    result: dict[str, Any] = {}
    for each in message.DESCRIPTOR.fields:
        if each.has_presence and not message.HasField(each.name):
            continue
        result[each.name] = _plain_field(each, getattr(message, each.name))
    return result


def _plain_field(descriptor: Any, value: Any) -> Any:
    if descriptor.message_type is not None and descriptor.message_type.GetOptions().map_entry:
        return {str(key): plain(value[key]) for key in sorted(value)}
    if descriptor.enum_type is not None:
        names = descriptor.enum_type.values_by_number
        if descriptor.is_repeated:
            return [names[v].name if v in names else v for v in value]
        return names[value].name if value in names else value
    if descriptor.is_repeated:
        return [plain(entry) for entry in value]
    return plain(value)
