"""Why a change cannot wait to be confirmed, or a confirmation does not count."""

from __future__ import annotations

from hostlerd.runtime.errors import Code, DomainError


class ConfirmPending(DomainError):
    """Something of this host waits to be confirmed, and this change is not part of that."""

    code, reason = Code.FAILED_PRECONDITION, "CONFIRM_PENDING"


class ConfirmNeedsOutside(DomainError):
    """A caller on the host itself could not notice that he has cut others off."""

    code, reason = Code.FAILED_PRECONDITION, "CONFIRM_NEEDS_OUTSIDE"


class ConfirmUnavailable(DomainError):
    """What takes changes back does not answer, so none is begun that might have to be."""

    code, reason = Code.UNAVAILABLE, "CONFIRM_UNAVAILABLE"


class ConfirmNotCounted(DomainError):
    """The confirmation proves nothing, or comes from somebody else; nothing is changed by it."""

    code, reason = Code.FAILED_PRECONDITION, "CONFIRM_NOT_COUNTED"


class GroupNotPending(DomainError):
    """No group of that name waits: it has ended, its time is over, or it never was."""

    code, reason = Code.FAILED_PRECONDITION, "GROUP_NOT_PENDING"
