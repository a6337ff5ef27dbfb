"""Examples at the end of each command's help."""

from __future__ import annotations


def examples(*lines: str, title: str = "Examples:") -> str:
    """The epilog of a command: lines as they are, not wrapped. Source: click's backspace mark."""
    return "\n".join(("\b", title, *(f"  {line}" for line in lines)))
