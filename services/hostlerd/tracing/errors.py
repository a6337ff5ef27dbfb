"""What the tracing domain refuses, and why."""

from __future__ import annotations

from hostlerd.runtime.errors import Code, DomainError


class ProcessNotFound(DomainError):
    """There is no such process, or it ended while it was looked at."""

    code, reason = Code.NOT_FOUND, "PROCESS_NOT_FOUND"


class ProcessUntraceable(DomainError):
    """A trace of this process could tell nothing; the message says why."""

    code, reason = Code.FAILED_PRECONDITION, "PROCESS_UNTRACEABLE"


class KernelUnreadable(DomainError):
    """The kernel does not tell what was asked; the message has its words."""

    code, reason = Code.FAILED_PRECONDITION, "KERNEL_UNREADABLE"


class TraceNotFound(DomainError):
    """There is no trace of that name."""

    code, reason = Code.NOT_FOUND, "TRACE_NOT_FOUND"


class TooManyTraces(DomainError):
    """As many traces run as may at once."""

    code, reason = Code.RESOURCE_EXHAUSTED, "TOO_MANY_TRACES"


class NotTheOwner(DomainError):
    """The trace is somebody else's."""

    code, reason = Code.PERMISSION_DENIED, "NOT_THE_OWNER"


class EngineUnavailable(DomainError):
    """This host cannot trace what is asked for; the message says why."""

    code, reason = Code.FAILED_PRECONDITION, "ENGINE_UNAVAILABLE"


class FilterSeesPayloads(DomainError):
    """What a trace was filtered by is not for this caller to see, and so what it picked is not."""

    code, reason = Code.PERMISSION_DENIED, "FILTER_SEES_PAYLOADS"


class CaptureNotFound(DomainError):
    """There is no capture of that name."""

    code, reason = Code.NOT_FOUND, "CAPTURE_NOT_FOUND"


class CaptureExists(DomainError):
    """There is a capture, or a trace, of that name already."""

    code, reason = Code.ALREADY_EXISTS, "CAPTURE_EXISTS"


class CaptureInUse(DomainError):
    """The capture is still written."""

    code, reason = Code.FAILED_PRECONDITION, "CAPTURE_IN_USE"


class StoreFull(DomainError):
    """There is no room for a capture, and nothing that may make room for it."""

    code, reason = Code.RESOURCE_EXHAUSTED, "STORE_FULL"
