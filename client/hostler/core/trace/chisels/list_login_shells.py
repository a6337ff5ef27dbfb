"""In which login shells commands were started."""

from __future__ import annotations

from hostler.core.trace.chisel import Argument, Category, Chisel, Given, Kind, Selecting
from hostler.core.trace.chisel_cells import shown
from hostler.core.trace.chisel_groups import Grouping, measured, top_argument
from hostler.core.trace.chisel_results import Heading, Unit
from hostler.core.trace.events import Column, Events
from hostler.core.trace.field import Need
from hostler.core.trace.fields_proc import arguments
from hostler.core.trace.values import by_process

_SHELL = shown("shell", "proc.loginshellid")
_COMMANDS = shown("commands", "evt.count")


def _make(given: Given) -> Selecting:
    command, args = given.text("command").encode(), given.text("arguments").encode()

    def wanted(events: Events) -> Column:
        exe, processes = events.processes["exe"], events.processes

        def has_both(row: int) -> bytes | None:
            names = events.texts[exe[row]], events.texts[processes["name"][row]]
            if command != b"*" and not any(command in name for name in names):
                return None
            return b"" if args in b" ".join(arguments(events, row)[1:]) else None

        return by_process(events, has_both).present()

    measures = ((Heading("commands", Unit.COUNT), measured(_COMMANDS.field)),)
    return Selecting(wanted, Grouping(given, (_SHELL,), measures))


CHISEL = Chisel(
    "list_login_shells",
    Category.SECURITY,
    "login shells by pid, with how many commands each started",
    _make,
    "The pids are those that proc.loginshellid has, and that spy_users shows.",
    filter="evt.type in (execve, execveat) and evt.rawres >= 0",
    arguments=(
        Argument("command", Kind.TEXT, "only shells with a command of such a name, * any", "*"),
        Argument(
            "arguments",
            Kind.TEXT,
            "only shells with a command of such arguments",
            "",
            needs=Need.CMDLINE,
        ),
        top_argument(0),
    ),
)
