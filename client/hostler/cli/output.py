"""How results are printed: tables for people, json, yaml and ndjson for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TextIO

import click

from hostler.plans import PlanGroup
from hostler.results import HostResult

# Each run of fewer columns would break lines of a table that a program reads.
_PIPED_WIDTH = 10_000


@dataclass(frozen=True, slots=True)
class Table:
    """Column titles, and the rows that one host's answer makes. HOST comes before them."""

    titles: Sequence[str]
    rows: Callable[[Any], Iterable[Sequence[Any]]]


def printable(text: object) -> str:
    """Text of a host without control characters: it must not drive the reader's terminal."""
    return "".join(
        c if c.isprintable() or c == "\t" else c.encode("unicode_escape").decode()
        for c in str(text)
    )


def show(
    results: Sequence[HostResult[Any]], output: str = "table", table: Table | None = None
) -> None:
    """Print results to standard output; in tables, errors follow on standard error."""
    if output == "table":
        _show_table(results, table)
    elif output == "json":
        click.echo(json.dumps([result.as_dict() for result in results], indent=2))
    elif output == "ndjson":
        for result in results:
            click.echo(json.dumps(result.as_dict()))
    else:
        import yaml

        documents = [result.as_dict() for result in results]
        click.echo(yaml.safe_dump(documents, sort_keys=False, allow_unicode=True), nl=False)


def _show_table(results: Sequence[HostResult[Any]], table: Table | None) -> None:
    if table is None:
        table = Table(("RESULT",), lambda answer: [(str(answer).strip(),)])
    with_domain = any(result.domain for result in results)
    titles = ["HOST", *(["DOMAIN"] if with_domain else []), *table.titles]
    rows = [
        [result.host, *([result.domain] if with_domain else []), *row]
        for result in results
        if result.ok
        for row in table.rows(result.result)
    ]
    if table.titles and any(result.ok for result in results):
        print_table(titles, rows)
    show_errors(results)


def show_errors(results: Sequence[HostResult[Any]]) -> None:
    """Name every host that failed, on standard error."""
    for result in results:
        if result.error is not None:
            where = f"{result.host} {result.domain}".strip()
            click.secho(f"{where}: {printable(result.error)}", fg="red", err=True)


def print_table(
    titles: Sequence[str], rows: Iterable[Sequence[Any]], file: TextIO | None = None
) -> None:
    """Print a table; without colour and never wrapped when it is piped."""
    from rich.console import Console
    from rich.table import Table as RichTable
    from rich.text import Text

    file = file or sys.stdout
    tty = file.isatty()
    console = Console(file=file, width=None if tty else _PIPED_WIDTH, highlight=False)
    grid = RichTable(box=None, pad_edge=False, header_style="bold" if tty else "")
    for title in titles:
        grid.add_column(title, overflow="fold")
    for row in rows:
        grid.add_row(*(Text(printable(cell)) for cell in row))
    if tty:
        console.print(grid)
        return
    with console.capture() as captured:
        console.print(grid)
    for line in captured.get().splitlines():
        click.echo(line.rstrip(), file=file)


def show_plans(groups: Sequence[PlanGroup], file: TextIO) -> None:
    """Print each plan once, with the hosts that it is for."""
    for group in groups:
        count = len(group.hosts)
        hosts = f"{count} host{'s' if count != 1 else ''}: {', '.join(group.hosts)}"
        click.secho(hosts, bold=True, file=file)
        for step in group.planned.steps:
            click.echo(f"  {printable(step.description)}", file=file)
        if not group.planned.steps:
            click.echo("  nothing to do", file=file)
        for warning in group.planned.warnings:
            click.secho(f"  warning: {printable(warning)}", fg="yellow", file=file)


def change_table(describe: Callable[[Any], str] | None = None) -> Table:
    """The table of a change that was carried out."""

    def rows(answer: Any) -> Iterable[Sequence[Any]]:
        changed = "changed" if _changed(answer) else "unchanged"
        yield (changed, describe(answer)) if describe else (changed,)

    return Table(("OUTCOME", "RESULT") if describe else ("OUTCOME",), rows)


def _changed(answer: Any) -> bool:
    return bool(answer.change.changed if hasattr(answer, "change") else answer.changed)
