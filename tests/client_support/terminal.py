"""A terminal for a program under test, and what stands on its screen after all it has written."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import termios
import time
from collections.abc import Callable
from typing import Self

_PIECES = re.compile(r"\x1b\[(\??[\d;]*)([A-Za-z])|(\r)|(\n)|([^\x1b\r\n]+)")


class Terminal:
    """A pseudo terminal. `program_side` is for the program's standard files."""

    def __init__(self, lines: int = 24, columns: int = 80) -> None:
        self._ours, self.program_side = pty.openpty()
        size = struct.pack("HHHH", lines, columns, 0, 0)
        fcntl.ioctl(self.program_side, termios.TIOCSWINSZ, size)
        self._bytes = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._ours)
        os.close(self.program_side)

    def read_until(self, ready: Callable[[], bool], within_s: float) -> None:
        """Take in what the program writes until something is so. Raises TimeoutError."""
        end = time.monotonic() + within_s
        while not (done := ready()) or self._readable(0):
            if not done and time.monotonic() > end:
                raise TimeoutError(self.written[-2000:])
            if self._readable(0.05):
                self._bytes += os.read(self._ours, 65536)

    def _readable(self, within_s: float) -> bool:
        return bool(select.select([self._ours], [], [], within_s)[0])

    @property
    def written(self) -> str:
        """All that the program has written."""
        return self._bytes.decode(errors="replace")

    @property
    def screen(self) -> list[str]:
        """The lines that stand there, of what rich writes: no lines scroll away."""
        lines, row, column = [""], 0, 0
        for found in _PIECES.finditer(self.written):
            number, final, back, down, text = found.groups()
            if final == "A":
                row = max(0, row - int(number or 1))
            elif final == "K":
                lines[row] = ""
            elif back:
                column = 0
            elif down:
                row, column = row + 1, 0
                lines += [""] * (row + 1 - len(lines))
            elif text:
                lines[row] = (
                    lines[row][:column].ljust(column) + text + lines[row][column + len(text) :]
                )
                column += len(text)
        return [line.rstrip() for line in lines]

    @property
    def cursor_shown(self) -> bool:
        """Whether the cursor is there."""
        return self.written.rfind("\x1b[?25h") >= self.written.rfind("\x1b[?25l")
