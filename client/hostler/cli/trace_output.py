"""How the events of traces are shown: as lines, as JSON, or by a chisel."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import click

if TYPE_CHECKING:
    from hostler.core.trace.events import Events
    from hostler.core.trace.merge import Merged


class Show(Protocol):
    """Something that shows events; `hosts` are the names that sources have."""

    def take(self, merged: Merged, hosts: Sequence[str]) -> None:
        """Show a batch."""

    def end(self) -> None:
        """Show what is left."""


class Lines:
    """Each event as a line, with the host before it if there are several."""

    def __init__(self, style: str, most_bytes: int, is_ascii: bool) -> None:
        self._style = style
        self._most_bytes = most_bytes
        self._is_ascii = is_ascii

    def take(self, merged: Merged, hosts: Sequence[str]) -> None:
        """Print a batch."""
        names = [f"{name}: " for name in hosts] if len(hosts) > 1 else [""]
        lines = zip(merged.source.tolist(), self._lines(merged.events), strict=True)
        text = "".join(f"{names[source]}{line}\n" for source, line in lines)
        click.echo(text, nl=False)

    def _lines(self, events: Events) -> Iterator[str]:
        from hostler.core.trace.lines import Style, strace_lines, sysdig_lines

        if self._style == "sysdig":
            return sysdig_lines(events)
        return strace_lines(events, Style(self._most_bytes, self._is_ascii))

    def end(self) -> None:
        """Nothing is left."""


class Json:
    """Each event as an object on a line of its own."""

    def take(self, merged: Merged, hosts: Sequence[str]) -> None:
        """Print a batch."""
        sources = merged.source.tolist()
        for source, row in zip(sources, rows(merged.events), strict=True):
            click.echo(json.dumps({"host": hosts[source], **row}))

    def end(self) -> None:
        """Nothing is left."""


def rows(events: Events) -> Iterator[Mapping[str, Any]]:
    """Events as plain values, times in nanoseconds, texts with � for what is no UTF-8."""
    from hostler.core.trace.events import Flag
    from hostler.core.trace.syscalls import name_of

    texts = [text.decode(errors="replace") for text in events.texts]
    columns = {name: column.tolist() for name, column in events.columns.items()}
    for i in range(len(events)):
        process = events.processes[columns["process"][i]]
        flags = Flag(columns["flags"][i])
        row = {
            "number": columns["number"][i],
            "time_unix_ns": columns["time_ns"][i],
            "latency_ns": columns["latency_ns"][i],
            "cpu": columns["cpu"][i],
            "pid": int(process["pid"]),
            "tid": columns["tid"][i],
            "process": texts[process["name"]],
            "unit": texts[process["unit"]],
            "uid": int(process["uid"]),
            "syscall": name_of(columns["syscall"][i], bool(flags & Flag.IS_32_BIT)),
            "arguments": [columns[f"arg{n}"][i] for n in range(6)],
            "result": columns["result"][i],
            "flags": [flag.name for flag in flags if flag.name],
        }
        if columns["fd"][i] >= 0:
            row["fd"] = columns["fd"][i]
            row["file"] = texts[events.files[columns["file"][i]]["name"]]
        row |= {name: texts[columns[name][i]] for name in _TEXTS if columns[name][i]}
        yield row


_TEXTS = ("path", "path2", "data")


class Nothing:
    """Shows nothing: the events go to a file."""

    def take(self, merged: Merged, hosts: Sequence[str]) -> None:
        """Do nothing."""

    def end(self) -> None:
        """Do nothing."""
