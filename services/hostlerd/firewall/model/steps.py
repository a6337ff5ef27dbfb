"""The steps of this domain: what a change does, as values."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from hostlerd.firewall.model.state import Shadow

CHANGES_SHOWN = 50


@dataclass(frozen=True, slots=True)
class SetSysctl:
    """Set a sysctl. The value found before the first time is remembered until it is set again."""

    name: str
    value: str
    previous: str

    def describe(self) -> str:
        """Say which, and from what to what."""
        return f"set {self.name} from {self.previous} to {self.value}"

    def inverse(self) -> SetSysctl:
        """Set it as it was."""
        return SetSysctl(self.name, self.previous, self.value)


@dataclass(frozen=True, slots=True)
class ReplaceTable:
    """Put the table `inet hostler` in place of the one there is, in one transaction.

    `text` is the table in nft's words; the counters of rules that stay are carried over.
    `changes` are the differences in an operator's words.
    """

    text: str
    previous_text: str | None
    changes: tuple[str, ...]

    def describe(self) -> str:
        """Say what changes, at most CHANGES_SHOWN things by name."""
        shown = list(self.changes[:CHANGES_SHOWN])
        if len(self.changes) > CHANGES_SHOWN:
            shown.append(f"{len(self.changes) - CHANGES_SHOWN} more")
        return "; ".join(shown)

    def inverse(self) -> ReplaceTable | DeleteTable:
        """Put back the table that was there, if one was."""
        changes = tuple(f"take back: {c}" for c in self.changes)
        if self.previous_text is None:
            return DeleteTable(self.text, changes)
        return ReplaceTable(self.previous_text, self.text, changes)


@dataclass(frozen=True, slots=True)
class DeleteTable:
    """Delete the table `inet hostler`. `previous_text` is what it was made of."""

    previous_text: str
    changes: tuple[str, ...]

    def describe(self) -> str:
        """Say what goes."""
        return ReplaceTable("", self.previous_text, self.changes).describe()

    def inverse(self) -> ReplaceTable | None:
        """Make it again; None if it was not made by us."""
        if not self.previous_text:
            return None
        return ReplaceTable(
            self.previous_text, None, tuple(f"take back: {c}" for c in self.changes)
        )


@dataclass(frozen=True, slots=True)
class Saved:
    """A ruleset as it is saved: its document, and whether a boot brings it back."""

    document: str
    persistent: bool


@dataclass(frozen=True, slots=True)
class SaveRuleset:
    """Save a ruleset, over the one of that name if there is one."""

    name: str
    saved: Saved
    previous: Saved | None

    @property
    def survives_boot(self) -> bool:
        """Whether a ruleset that a boot brings back is written or replaced."""
        return self.saved.persistent or bool(self.previous and self.previous.persistent)

    def describe(self) -> str:
        """Say which, and for how long."""
        return f"save ruleset {self.name} {_until(self.saved)}"

    def inverse(self) -> SaveRuleset | ForgetRuleset:
        """Save the one that was there, or forget it if none was."""
        if self.previous is None:
            return ForgetRuleset(self.name, self.saved)
        return SaveRuleset(self.name, self.previous, self.saved)


@dataclass(frozen=True, slots=True)
class ForgetRuleset:
    """Remove a saved ruleset. `previous` is None for one that could not be read."""

    name: str
    previous: Saved | None

    @property
    def survives_boot(self) -> bool:
        """Whether a boot would have brought it back; of one unreadable, nobody knows."""
        return self.previous is None or self.previous.persistent

    def describe(self) -> str:
        """Say which."""
        return f"forget ruleset {self.name}"

    def inverse(self) -> SaveRuleset | None:
        """Save it again."""
        if self.previous is None:
            return None
        return SaveRuleset(self.name, self.previous, None)


@dataclass(frozen=True, slots=True)
class StartShadow:
    """Put the table `inet hostler_shadow` in place of the one there is."""

    shadow: Shadow
    previous: Shadow | None

    @property
    def hashed(self) -> str:
        """What a plan's hash is made of: not the end, which moves with the clock."""
        return self.shadow.text.replace(str(self.shadow.expire_time), "")

    def describe(self) -> str:
        """Say until when."""
        end = datetime.fromtimestamp(self.shadow.expire_time, UTC)
        return f"count and log what would be dropped until {end:%Y-%m-%dT%H:%M:%SZ}"

    def inverse(self) -> StartShadow | StopShadow:
        """Put back the one that was there, if one was."""
        if self.previous is None:
            return StopShadow(self.shadow)
        return StartShadow(self.previous, self.shadow)


@dataclass(frozen=True, slots=True)
class StopShadow:
    """Delete the table `inet hostler_shadow`."""

    previous: Shadow

    def describe(self) -> str:
        """Say what ends."""
        return "end the shadow"

    def inverse(self) -> StartShadow:
        """Start it again."""
        return StartShadow(self.previous, None)


AnyStep = (
    SetSysctl | ReplaceTable | DeleteTable | SaveRuleset | ForgetRuleset | StartShadow | StopShadow
)


def _until(saved: Saved) -> str:
    return "for every boot" if saved.persistent else "until the next boot"
