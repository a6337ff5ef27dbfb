"""What an import of somebody else's rules makes: a ruleset, and all that it cannot say."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from hostler.api.firewall.v1 import ruleset_pb2
from hostler.config import HostlerError
from hostler.desired_text import to_toml

MOST_ENTRIES = 10_000
MOST_LINES = 100_000


class ImportFailed(HostlerError):
    """Nothing can be made of what was to be imported."""


class Unsayable(Exception):
    """The model has no words for a line; the message says for what of it."""


@dataclass(frozen=True, slots=True)
class Unsaid:
    """A line that the ruleset does not say, and why."""

    number: int
    line: str
    why: str

    def __str__(self) -> str:
        return f"line {self.number} is not said: {self.line}: {self.why}"


@dataclass
class Imported:
    """A ruleset in the making. `notes` are worth knowing, and lose nothing that a line says."""

    ruleset: Any
    unsaid: list[Unsaid] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    _comments: dict[str, list[str]] = field(default_factory=dict)

    @classmethod
    def named(cls, name: str) -> Imported:
        """Begin with an empty ruleset."""
        return cls(ruleset_pb2.Ruleset(name=name))

    def cannot_say(self, number: int, line: str, why: str) -> None:
        """Note a line that is not in the ruleset: where its rule would stand, too."""
        if any((each.number, each.why) == (number, why) for each in self.unsaid):
            return
        told = Unsaid(number, line, why)
        self.unsaid.append(told)
        self.remark(str(told))

    def remark(self, words: str) -> None:
        """Put a comment before the rule that comes next."""
        place = f"rules[{len(self.ruleset.rules)}]"
        self._comments.setdefault(place, []).append(words)

    def note(self, words: str) -> None:
        """Keep something worth knowing, once."""
        if words not in self.notes:
            self.notes.append(words)

    def check_size(self) -> None:
        """Raise ImportFailed if it has become larger than a host takes."""
        ruleset = self.ruleset
        kinds = (ruleset.rules, ruleset.forwards, ruleset.masquerades, ruleset.source_nats)
        if any(len(entries) > MOST_ENTRIES for entries in kinds):
            raise ImportFailed(f"this makes more than {MOST_ENTRIES} entries of a kind")

    def to_toml(self, title: Iterable[str] = ()) -> str:
        """The file that `firewall apply` takes; what is not said stands in it as comments."""
        comments = {"": [*title, *(f"note: {words}" for words in self.notes)], **self._comments}
        return to_toml(self.ruleset, comments=comments)
