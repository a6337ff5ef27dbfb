"""Asking the worker, which is root and does what changes disks.

It holds every request against its own grammar, and every device against what the plan saw; what is
sent here is already checked, so that a refusal tells of the host and not of the caller.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hostlerd.runtime.errors import DomainError, InvalidRequest, Violation
from hostlerd.runtime.steps import Step, canonical
from hostlerd.storage import errors
from hostlerd.storage.errors import backups, exports, volumes
from hostlerd.storage.errors.copies import COPIES

SOCKET = Path("/run/hostler/storage-worker.sock")
MAX_ANSWER_BYTES = 4 << 20
CONNECT_S = 20.0
ANSWER_S = 7200.0
"""More than all tools of a usual step may take together."""
SETTLE_S = 60.0
"""More than the worker waits for what was left behind."""

_KINDS: tuple[type[DomainError], ...] = (
    *(errors.DeviceGone, errors.DeviceChanged, errors.SignaturesChanged, errors.DeviceBusy),
    *(errors.DeviceLocked, errors.DeviceReadOnly, errors.NotMounted, errors.ToolFailed),
    *(errors.ToolMissing, errors.SavedNotFound, errors.SavedOfAnotherDevice),
    *(errors.SavedDamaged, errors.PutBackFailed),
    *(errors.ArrayExists, errors.ArrayBusy, errors.LastCopy),
    *(errors.DeviceTooSmall, errors.BtrfsBusy, errors.BtrfsRefused),
    *(errors.SubvolumeExists, errors.SubvolumeBusy, errors.SubvolumeChanged),
    *(backups.BackupNotFound, backups.BackupBusy, backups.BackupDamaged, backups.BackupIncomplete),
    *(backups.DrillFailed, backups.RepositoryMissing, backups.RepositoryChanged),
    *(backups.RepositoryLocked, backups.PasswordWrong, errors.SecretUnusable),
    *(backups.SnapshotNotFound, backups.SnapshotLacksIt, errors.TargetUnusable, errors.NoSpace),
    *(backups.ResticFailed, errors.RunLost, errors.RunStopped),
    *(errors.UnitNotOurs, errors.UnitChanged, errors.MountBusy, errors.MountFailed),
    *(errors.MountPointStrange, errors.LinkMissing, errors.SwapNeeded, errors.WorkerGoesOn),
    errors.NotInEnclosure,
    *(volumes.GroupChanged, volumes.GroupExists, volumes.GroupNotEmpty),
    *(volumes.VolumeExists, volumes.VolumeBusy, volumes.VolumeNeeded),
    *(volumes.PhysicalVolumeInUse, volumes.LuksKeyWrong, volumes.LuksHeaderDamaged),
    volumes.NotASystem,
    *(exports.ExportExists, exports.ExportInUse, exports.ExportFailed, exports.ExportChanged),
    *(exports.AttachmentExists, exports.AttachFailed),
    *COPIES,
)
_REASONS: Mapping[str, type[DomainError]] = {each.reason: each for each in _KINDS}


class Worker:
    """The worker, as far as the domain needs it. Every method blocks, within bounds."""

    program = "storage worker"

    def __init__(self, path: Path = SOCKET) -> None:
        self.path = path

    def apply(self, step: Step) -> dict[str, Any]:
        """Have a step carried out; answer what the worker tells of it.

        Raises what stands behind the reason of a refusal, WorkerRefused, WorkerUnavailable,
        WorkerLost if nobody knows whether it was done.
        """
        answer_s = float(getattr(step, "timeout_s", ANSWER_S))
        return self.ask(type(step).__name__, canonical(step), answer_s)

    def settle(self) -> None:
        """Return when nothing goes on of what callers that have gone had asked for.

        Raises as `apply` does, and WorkerGoesOn.
        """
        self.ask("Settle", {}, SETTLE_S)

    def ask(
        self, operation: str, fields: Mapping[str, Any], answer_s: float = ANSWER_S
    ) -> dict[str, Any]:
        """Have an operation carried out. Raises as `apply` does."""
        line = json.dumps({"op": operation, **fields}).encode() + b"\n"
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(CONNECT_S)
            try:
                connection.connect(os.fspath(self.path))
            except OSError as e:
                raise errors.WorkerUnavailable(f"{self.program}: {_words(e)}") from e
            try:
                connection.sendall(line)
                connection.settimeout(answer_s)
                with connection.makefile("rb") as lines:
                    said = lines.readline(MAX_ANSWER_BYTES)
            except OSError as e:
                raise errors.WorkerLost(f"{self.program}: {_words(e)}") from e
        if not said.endswith(b"\n"):
            raise errors.WorkerLost(f"the {self.program} closed the connection")
        answer: dict[str, Any] = json.loads(said)
        if not answer.pop("ok"):
            raise refusal(answer)
        return answer


def _words(error: OSError) -> str:
    return "did not answer in time" if isinstance(error, TimeoutError) else str(error.strerror)


def refusal(answer: Mapping[str, Any]) -> DomainError:
    """What stands behind a refusal that came over a socket."""
    reason, message = answer["reason"], answer["message"]
    violations = [Violation(v["field"], v["description"]) for v in answer["violations"]]
    if reason == "INVALID" and violations:
        return InvalidRequest.of(violations)
    metadata = {key: value for key, value in answer.get("metadata", {}).items() if value}
    kind = _REASONS.get(reason)
    if kind is not None:
        return kind(message, **metadata)
    return errors.WorkerRefused(message, worker_reason=reason, **metadata)
