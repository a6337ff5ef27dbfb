"""What such a program answers when it does not do what it was asked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

Fault = tuple[str, str]
"""What is at fault, as the path of a field, and what is wrong with it."""


class Refused(Exception):
    """A request that is not carried out: a stable reason, words, and what is at fault."""

    def __init__(self, reason: str, message: str, faults: Sequence[Fault] = ()) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.faults = tuple(faults)

    @classmethod
    def by_system(cls, error: OSError) -> Self:
        """The refusal of a request that the kernel did not carry out."""
        return cls("SYSTEM", f"{error.filename or 'kernel'}: {error.strerror}")

    def answer(self) -> dict[str, object]:
        """The refusal as it goes over the socket."""
        return {
            "ok": False,
            "reason": self.reason,
            "message": self.message,
            "violations": [{"field": f, "description": d} for f, d in self.faults],
        }
