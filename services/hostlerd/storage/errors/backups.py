"""What the storage domain refuses to do with backups, and why."""

from __future__ import annotations

from hostlerd.runtime.errors import Code, DomainError


class BackupNotFound(DomainError):
    """No backup of this host is called that."""

    code, reason = Code.NOT_FOUND, "BACKUP_NOT_FOUND"


class BackupBusy(DomainError):
    """Something of the backup goes on that has to be over before."""

    code, reason = Code.FAILED_PRECONDITION, "BACKUP_BUSY"


class BackupDamaged(DomainError):
    """What defines the backup cannot be read."""

    code, reason = Code.DATA_LOSS, "BACKUP_DAMAGED"


class BackupIncomplete(DomainError):
    """Some files could not be read: the snapshot is without them."""

    code, reason = Code.FAILED_PRECONDITION, "BACKUP_INCOMPLETE"


class DrillFailed(DomainError):
    """The backup cannot be restored as it was; the message names what is damaged."""

    code, reason = Code.DATA_LOSS, "DRILL_FAILED"


class RepositoryMissing(DomainError):
    """No repository is where one was."""

    code, reason = Code.FAILED_PRECONDITION, "REPOSITORY_MISSING"


class RepositoryChanged(DomainError):
    """Another repository is where the backup's own was."""

    code, reason = Code.FAILED_PRECONDITION, "REPOSITORY_CHANGED"


class RepositoryLocked(DomainError):
    """Somebody else works on the repository."""

    code, reason = Code.FAILED_PRECONDITION, "REPOSITORY_LOCKED"


class PasswordWrong(DomainError):
    """The password does not open the repository, or its keys are damaged."""

    code, reason = Code.FAILED_PRECONDITION, "PASSWORD_WRONG"


class SnapshotNotFound(DomainError):
    """The backup has no such snapshot."""

    code, reason = Code.NOT_FOUND, "SNAPSHOT_NOT_FOUND"


class SnapshotLacksIt(DomainError):
    """The snapshot has nothing of what was to be restored."""

    code, reason = Code.NOT_FOUND, "SNAPSHOT_LACKS_IT"


class ResticFailed(DomainError):
    """restic did not do it; the message has its words."""

    code, reason = Code.FAILED_PRECONDITION, "RESTIC_FAILED"
