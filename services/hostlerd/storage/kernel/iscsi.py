"""Exports and attachments as they are: the worker keeps them, and root sees their sessions."""

from __future__ import annotations

from dataclasses import dataclass

from hostlerd.storage.kernel.worker_client import Worker
from hostlerd.storage.model.iscsi import Attachment, AttachmentState, Export, ExportState


@dataclass(frozen=True, slots=True)
class Iscsi:
    """Asks the worker. Every method blocks, within bounds, and raises DomainError."""

    worker: Worker

    def exports(self) -> tuple[ExportState, ...]:
        """All exports, by name."""
        return tuple(
            ExportState(
                Export.read(one["export"]),
                bool(one["is_up"]),
                str(one["message"]),
                tuple(map(str, one["sessions"])),
                str(one["mark"]),
            )
            for one in self.worker.ask("ListExports", {})["items"]
        )

    def attachments(self) -> tuple[AttachmentState, ...]:
        """All attachments, by name."""
        return tuple(
            AttachmentState(Attachment.read(one["attachment"]), str(one["session"]))
            for one in self.worker.ask("ListAttachments", {})["items"]
        )

    def lend(self, name: str, secret: str) -> bool:
        """Give the worker a secret for the step that comes; answer whether it is another one.

        It stays in the worker's memory: no step has it, for steps are shown and written down.
        """
        return bool(self.worker.ask("LendSecret", {"name": name, "secret": secret})["is_new"])
