"""The system calls of x86-64 Linux: names, numbers and what their arguments are.

32-bit programs have numbers of their own; a call is known by its number and by whether it came
from one. Source: `syscalls.tsv`, made from asm/unistd_64.h, unistd_32.h and events/syscalls.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

KINDS = frozenset(
    (
        *("fd", "dirfd", "path", "string", "strings", "sockaddr", "pointer", "uid", "gid"),
        *("pid", "mode", "signal", "hex", "int", "uint"),
    )
)
"""What an argument can be. `strings` is a NULL-terminated array; `dirfd` may be AT_FDCWD."""


@dataclass(frozen=True, slots=True)
class Argument:
    """An argument: its name in the kernel's source, and one of KINDS."""

    name: str
    kind: str


@dataclass(frozen=True, slots=True)
class Syscall:
    """A system call; `number` or `number_32` is None where only the other kind of program has it.

    `arguments` is None where the kernel does not tell them, as with calls it no longer has.
    """

    name: str
    number: int | None
    number_32: int | None
    arguments: tuple[Argument, ...] | None

    def index_of(self, kind: str, nth: int = 0) -> int | None:
        """Answer which argument is the nth of a kind, None if there is none."""
        found = [i for i, each in enumerate(self.arguments or ()) if each.kind == kind]
        return found[nth] if nth < len(found) else None


@cache
def all_syscalls() -> Mapping[str, Syscall]:
    """All calls by name."""
    text = files(__package__).joinpath("syscalls.tsv").read_text("ascii")
    lines = (line for line in text.splitlines() if not line.startswith("#"))
    return {call.name: call for call in map(_from_line, lines)}


@cache
def by_number(is_32_bit: bool = False) -> Mapping[int, Syscall]:
    """The calls of 64-bit programs, or those of 32-bit ones, by number."""
    numbered = ((c.number_32 if is_32_bit else c.number, c) for c in all_syscalls().values())
    return {number: call for number, call in numbered if number is not None}


def name_of(number: int, is_32_bit: bool = False) -> str:
    """The name of a call, or `syscall_NUMBER` for one that is not known."""
    known = by_number(is_32_bit).get(number)
    return known.name if known else f"syscall_{number}"


def _from_line(line: str) -> Syscall:
    name, number, number_32, arguments = line.split("\t")
    return Syscall(
        name,
        None if number == "-" else int(number),
        None if number_32 == "-" else int(number_32),
        None if arguments == "?" else _arguments(arguments),
    )


def _arguments(text: str) -> tuple[Argument, ...]:
    if text == "-":
        return ()
    return tuple(Argument(*each.split(":")) for each in text.split(" "))
