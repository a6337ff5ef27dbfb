"""What goes wrong with a lab."""

from __future__ import annotations


class LabError(Exception):
    """The lab cannot do what was asked; the message says why, and what would help."""


class ToolFailed(LabError):
    """A program ended with another status than 0, or not in time."""

    def __init__(self, argv: list[str], status: int | None, output: str) -> None:
        ended = "did not end in time" if status is None else f"ended with status {status}"
        super().__init__(f"{' '.join(argv)}: {ended}: {output.strip()[-2000:] or 'no output'}")
        self.argv = argv
        self.status = status
        self.output = output
