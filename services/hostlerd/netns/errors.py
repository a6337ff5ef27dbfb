"""What the netns domain raises."""

from __future__ import annotations

from hostlerd.runtime.errors import Code, DomainError


class NamespaceNotFound(DomainError):
    """There is no network namespace of that name."""

    code, reason = Code.NOT_FOUND, "NAMESPACE_NOT_FOUND"


class NamespaceDiffers(DomainError):
    """The name is in use by a namespace of ours that has another shape."""

    code, reason = Code.ALREADY_EXISTS, "NAMESPACE_DIFFERS"


class NamespaceForeign(DomainError):
    """The name is in use by a namespace that Hostler did not make, which is never changed."""

    code, reason = Code.FAILED_PRECONDITION, "NAMESPACE_FOREIGN"


class NamespaceBusy(DomainError):
    """Processes are in the namespace; the metadata has their PIDs on the host."""

    code, reason = Code.FAILED_PRECONDITION, "NAMESPACE_BUSY"


class PoolExhausted(DomainError):
    """The pool has no network left that collides with nothing."""

    code, reason = Code.RESOURCE_EXHAUSTED, "POOL_EXHAUSTED"


class LinkNotFound(DomainError):
    """There is no link of that name where the counters were asked for."""

    code, reason = Code.NOT_FOUND, "LINK_NOT_FOUND"


class LauncherRefused(DomainError):
    """The launcher, which alone acts as root, did not do what it was asked."""

    code, reason = Code.FAILED_PRECONDITION, "LAUNCHER_REFUSED"


class RestoreFailed(DomainError):
    """Some persistent namespaces could not be brought back; the message names each."""

    code, reason = Code.FAILED_PRECONDITION, "RESTORE_FAILED"


class LauncherUnavailable(DomainError):
    """The launcher did not answer; what it was asked may have been done or not."""

    code, reason = Code.UNAVAILABLE, "LAUNCHER_UNAVAILABLE"


class NamespaceNotPersistent(DomainError):
    """What is to survive a boot would find its namespace gone."""

    code, reason = Code.FAILED_PRECONDITION, "NAMESPACE_NOT_PERSISTENT"


class ProcessNotFound(DomainError):
    """There is no process of that name in that namespace."""

    code, reason = Code.NOT_FOUND, "PROCESS_NOT_FOUND"


class ProcessDiffers(DomainError):
    """The name is in use by a process that runs in another shape."""

    code, reason = Code.ALREADY_EXISTS, "PROCESS_DIFFERS"


class ProcessStopping(DomainError):
    """The process of that name is being stopped."""

    code, reason = Code.FAILED_PRECONDITION, "PROCESS_STOPPING"


class ProcessNotRunning(DomainError):
    """The process has ended, or has not begun yet."""

    code, reason = Code.FAILED_PRECONDITION, "PROCESS_NOT_RUNNING"


class ProcessNotStarted(DomainError):
    """systemd could not start the process; the message is what it said, and nothing is left."""

    code, reason = Code.FAILED_PRECONDITION, "PROCESS_NOT_STARTED"


class TooManyTasks(DomainError):
    """There are more tasks than one answer of the launcher takes."""

    code, reason = Code.RESOURCE_EXHAUSTED, "TOO_MANY_TASKS"
