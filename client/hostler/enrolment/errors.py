"""What keeps a host from being enrolled or retired."""

from __future__ import annotations

from hostler.config import HostlerError


class EnrolmentError(HostlerError):
    """It cannot go on. `reason` is a stable word; the message says what is and what to do.

    What a host has said may be in it, and must not steer a terminal.
    """

    exit_code = 1

    def __init__(self, reason: str, message: str, advice: str) -> None:
        message = "".join(c if c.isprintable() or c == "\n" else "?" for c in message)
        super().__init__(f"{message} [{reason}]\nWhat to do: {advice}")
        self.reason, self.message, self.advice = reason, message, advice
