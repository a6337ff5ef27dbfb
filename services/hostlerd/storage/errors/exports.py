"""What the storage domain refuses to do with exports and attachments, and why."""

from __future__ import annotations

from hostlerd.runtime.errors import Code, DomainError


class ExportNotFound(DomainError):
    """No export of this host is called that."""

    code, reason = Code.NOT_FOUND, "EXPORT_NOT_FOUND"


class ExportExists(DomainError):
    """There is an export of that name, of another device."""

    code, reason = Code.ALREADY_EXISTS, "EXPORT_EXISTS"


class ExportInUse(DomainError):
    """Others have it now; the metadata tells who. Nothing was done."""

    code, reason = Code.FAILED_PRECONDITION, "EXPORT_IN_USE"


class ExportFailed(DomainError):
    """The kernel does not export it; the message has its words. All is as it was before."""

    code, reason = Code.FAILED_PRECONDITION, "EXPORT_FAILED"


class ExportChanged(DomainError):
    """The export is another one than when the plan was made. Nothing was done."""

    code, reason = Code.ABORTED, "EXPORT_CHANGED"


class AttachmentNotFound(DomainError):
    """No attachment of this host is called that."""

    code, reason = Code.NOT_FOUND, "ATTACHMENT_NOT_FOUND"


class AttachmentExists(DomainError):
    """There is such an attachment, defined in another way: delete it before."""

    code, reason = Code.ALREADY_EXISTS, "ATTACHMENT_EXISTS"


class AttachFailed(DomainError):
    """The other host did not let this one in, or its device did not come."""

    code, reason = Code.FAILED_PRECONDITION, "ATTACH_FAILED"
