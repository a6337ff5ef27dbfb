"""What the launcher answers when it does not do what it was asked."""

from __future__ import annotations

from collections.abc import Sequence

Fault = tuple[str, str]
"""The path of a field, and what is wrong with it."""


class Refused(Exception):
    """A request that is not carried out: a stable reason, words, and the fields at fault."""

    def __init__(self, reason: str, message: str, faults: Sequence[Fault] = ()) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.faults = tuple(faults)

    def answer(self) -> dict[str, object]:
        """The refusal as it goes over the socket."""
        return {
            "ok": False,
            "reason": self.reason,
            "message": self.message,
            "violations": [{"field": f, "description": d} for f, d in self.faults],
        }
