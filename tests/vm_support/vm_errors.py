"""What goes wrong with guests."""

from __future__ import annotations


class GuestError(Exception):
    """A guest cannot do what was asked; the message says why, with the end of its console."""


class CommandFailed(GuestError):
    """A command in a guest ended with another status than 0, or not in time (status None)."""

    def __init__(self, name: str, argv: list[str], status: int | None, output: str) -> None:
        ended = "did not end in time" if status is None else f"ended with status {status}"
        super().__init__(f"{name}: {' '.join(argv)}: {ended}: {output.strip()[-2000:]}")
        self.status = status
        self.output = output
