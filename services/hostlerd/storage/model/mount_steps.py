"""The steps of changes to mounts and swap areas. Each is one operation of the worker."""

from __future__ import annotations

from dataclasses import dataclass

from hostlerd.runtime.steps import Step
from hostlerd.storage.model.mount import State
from hostlerd.storage.model.target import Target

_TIMEOUT_S = 1500.0
"""More than starting, seeing, stopping and starting again may take together."""


@dataclass(frozen=True, slots=True)
class SetMount:
    """Make a place such as `after` says, with its unit and its mount; it is as `before` says."""

    where: str
    device: Target | None
    """None if it has gone: then nothing can be mounted there."""
    before: State
    after: State
    survives_boot = True
    # What was brought up may be in use by the time that it would be taken back.
    one_way = True
    timeout_s = _TIMEOUT_S

    def describe(self) -> str:
        """Say what it does."""
        return _words(self.where, self.device, self.before, self.after)

    def inverse(self) -> Step:
        """Make it as it was."""
        return SetMount(self.where, self.device, self.after, self.before)


@dataclass(frozen=True, slots=True)
class SetSwap:
    """Make a swap area such as `after` says, with its unit; it is as `before` says."""

    what: str
    device: Target | None
    before: State
    after: State
    survives_boot = True
    # What was brought up may be in use by the time that it would be taken back.
    one_way = True
    timeout_s = _TIMEOUT_S

    def describe(self) -> str:
        """Say what it does."""
        return _words("", self.device, self.before, self.after)

    def inverse(self) -> Step:
        """Make it as it was."""
        return SetSwap(self.what, self.device, self.after, self.before)


def _words(where: str, device: Target | None, before: State, after: State) -> str:
    on = f" on {where}" if where else ""
    of = device.describe() if device is not None else "a device that is not there"
    if after.unit is None:
        gone = f", and remove {before.unit.name}" if before.unit is not None else ""
        if before.is_active:
            return f"{'unmount' if where else 'swap no more to'} {of}{on}{gone}"
        return f"forget {of}{on}{gone}"
    unit = after.unit
    how = f"{unit.type}, {','.join(unit.options) or 'defaults'}"
    how += f", within {unit.timeout_s} s" if unit.timeout_s else ""
    lasts = "at each boot" if unit.lasting else "until the next boot"
    if not after.is_active:
        return f"leave {of}{on} unused now, with {unit.name} ({how}; {lasts})"
    verb = "mount" if where else "swap to"
    if before.is_active:
        verb = "go on to have" if where else "go on to swap to"
    return f"{verb} {of}{on} by {unit.name} ({how}; {lasts})"


STEPS: tuple[type, ...] = (SetMount, SetSwap)
