"""The steps of changes to exports and attachments. Each is one operation of the worker.

No step holds a secret: steps are shown, and written down.
"""

from __future__ import annotations

from dataclasses import dataclass

from hostlerd.runtime.steps import Step
from hostlerd.storage.model.iscsi import Attachment, Export
from hostlerd.storage.model.target import Target

_TIMEOUT_S = 300.0


@dataclass(frozen=True, slots=True)
class ApplyExport:
    """Export a device, or change how it is exported.

    `mark` is that of the definition that the plan saw. `goes_back` puts back what was before: the
    secret too, if a definition was written since.
    """

    export: Export
    before: Export | None
    device: Target
    new_secret: bool = False
    force: bool = False
    mark: str = ""
    goes_back: bool = False
    survives_boot = True
    timeout_s = _TIMEOUT_S

    def describe(self) -> str:
        """Say what it does."""
        one = self.export
        words = "export" if self.before is None else "go on to export, in another way,"
        who = ", ".join(one.initiators)
        secret = f"the secret in {one.chap_secret_file}" if one.chap_secret_file else "a secret"
        if self.new_secret:
            ends = "" if self.before is None else ", and the one before is good no more"
            secret = f"a new secret that is told once{ends}"
        return (
            f"{words} {self.device.describe()} as {one.target} at {one.portal} to {who}, "
            f"who is {one.chap_user} with {secret}; nothing here can use it meanwhile"
        )

    def inverse(self) -> Step:
        """Export it as it was, or not at all."""
        if self.before is None:
            return DeleteExport(self.export, force=True)
        return ApplyExport(
            *(self.before, self.export, self.device),
            force=True,
            mark=self.mark,
            goes_back=True,
        )


@dataclass(frozen=True, slots=True)
class DeleteExport:
    """End an export."""

    before: Export
    force: bool = False
    survives_boot = True
    one_way = True
    timeout_s = _TIMEOUT_S

    def describe(self) -> str:
        """Say what it does."""
        cut = ", and cut off who has it" if self.force else ""
        return f"export {self.before.link} as {self.before.target} no more{cut}; it stays as it is"

    def inverse(self) -> Step | None:
        """Its secret is gone with it; whoever had it has to be told another one."""
        return None


@dataclass(frozen=True, slots=True)
class ApplyAttachment:
    """Log in to a target, at each boot too."""

    attachment: Attachment
    before: Attachment | None
    survives_boot = True
    timeout_s = _TIMEOUT_S

    def describe(self) -> str:
        """Say what it does."""
        one = self.attachment
        words = "attach" if self.before is None else "log in again to"
        return (
            f"{words} {one.target} at {one.portal} as {one.name}, by the name {one.initiator}, "
            f"who is {one.chap_user}; reads and writes fail {one.timeout_s} s after it is lost"
        )

    def inverse(self) -> Step | None:
        """Log out, if it was not attached before."""
        if self.before is not None:
            return None
        return DeleteAttachment(self.attachment, (), whatever_came=True)


@dataclass(frozen=True, slots=True)
class DeleteAttachment:
    """Log out of a target, and no more log in at boots. `devices` are what nobody uses by now.

    `whatever_came` says that others may have come of it since: nobody may use those either.
    """

    before: Attachment
    devices: tuple[Target, ...]
    whatever_came: bool = False
    survives_boot = True
    one_way = True
    timeout_s = _TIMEOUT_S

    def describe(self) -> str:
        """Say what it does."""
        of = "; ".join(one.describe() for one in self.devices) or "no device now"
        return f"log out of {self.before.target} at {self.before.portal}, which is {of}"

    def inverse(self) -> Step | None:
        """Its secret is gone with it."""
        return None


STEPS: tuple[type, ...] = (ApplyExport, DeleteExport, ApplyAttachment, DeleteAttachment)
