"""Why files are not copied, and why a copy is not what it was."""

from __future__ import annotations

from hostlerd.runtime.errors import Code, DomainError


class CopyOutside(DomainError):
    """A path is below none of the folders that are for copies, or a symlink is on the way to it."""

    code, reason = Code.FAILED_PRECONDITION, "COPY_OUTSIDE"


class CopyRootsUnusable(DomainError):
    """What the administrator has declared cannot be used; the message says why."""

    code, reason = Code.FAILED_PRECONDITION, "COPY_ROOTS_UNUSABLE"


class CopyTargetExists(DomainError):
    """Something is there already; nothing is copied over it."""

    code, reason = Code.ALREADY_EXISTS, "COPY_TARGET_EXISTS"


class CopyTargetFull(DomainError):
    """The target's filesystem, or a quota, has no room for it. There is no target."""

    code, reason = Code.FAILED_PRECONDITION, "COPY_TARGET_FULL"


class CopyBusy(DomainError):
    """Something else copies to it, or as many copies go on as may."""

    code, reason = Code.FAILED_PRECONDITION, "COPY_BUSY"


class CopySourceChanged(DomainError):
    """The source was changed while it was copied. There is no target."""

    code, reason = Code.ABORTED, "COPY_SOURCE_CHANGED"


class CopyInsideSource(DomainError):
    """The target is inside of what is to be copied."""

    code, reason = Code.FAILED_PRECONDITION, "COPY_INSIDE_SOURCE"


class CopyOtherFilesystem(DomainError):
    """Another filesystem is mounted inside of the source. There is no target."""

    code, reason = Code.FAILED_PRECONDITION, "COPY_OTHER_FILESYSTEM"


class CopyTooDeep(DomainError):
    """The source has more folders in each other than are copied. There is no target."""

    code, reason = Code.FAILED_PRECONDITION, "COPY_TOO_DEEP"


class CopyNotKept(DomainError):
    """The target's filesystem does not keep what the source has. There is no target."""

    code, reason = Code.FAILED_PRECONDITION, "COPY_NOT_KEPT"


class CopyNotEqual(DomainError):
    """The disk answers something else than was written to it. There is no target."""

    code, reason = Code.DATA_LOSS, "COPY_NOT_EQUAL"


class CopyFailed(DomainError):
    """The system refused something; the message has its words. There is no target."""

    code, reason = Code.FAILED_PRECONDITION, "COPY_FAILED"


class CopyDiffers(DomainError):
    """A copy is not what its manifest says; the message names what differs."""

    code, reason = Code.DATA_LOSS, "COPY_DIFFERS"


class ManifestBad(DomainError):
    """The manifest is cut, damaged or of another version."""

    code, reason = Code.FAILED_PRECONDITION, "MANIFEST_BAD"


class CopyMalformed(DomainError):
    """What came is no stream of files; the message says why. Nothing is left."""

    code, reason = Code.INVALID_ARGUMENT, "COPY_MALFORMED"


class CopyTooMuch(DomainError):
    """What came has more files, larger ones or more pieces than are taken. Nothing is left."""

    code, reason = Code.RESOURCE_EXHAUSTED, "COPY_TOO_MUCH"


class CopyCutOff(DomainError):
    """A stream ended before its end. There is no target; what came is kept for the next one."""

    code, reason = Code.ABORTED, "COPY_CUT_OFF"


class CopyDamaged(DomainError):
    """The filesystem has not kept what it was given; the message names the file."""

    code, reason = Code.DATA_LOSS, "COPY_DAMAGED"


class CopyInterrupted(DomainError):
    """The program that copied has ended in the middle. There is no target."""

    code, reason = Code.ABORTED, "INTERRUPTED"


COPIES: tuple[type[DomainError], ...] = (
    *(CopyOutside, CopyRootsUnusable, CopyTargetExists, CopyTargetFull, CopyBusy),
    *(CopySourceChanged, CopyInsideSource, CopyOtherFilesystem, CopyTooDeep, CopyNotKept),
    *(CopyNotEqual, CopyFailed, CopyDiffers, ManifestBad),
    *(CopyMalformed, CopyTooMuch, CopyCutOff, CopyDamaged),
)
"""What the program that copies refuses, each by its reason."""
