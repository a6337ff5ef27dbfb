"""How results are printed: tables for people, json, yaml and ndjson for programs."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TextIO

import click

from hostler.limits import shortened
from hostler.outcome import Outcome, changes_of, of_answer
from hostler.plans import PlanGroup
from hostler.results import HostResult

if TYPE_CHECKING:
    from rich.table import Table as RichTable

# The words that scripts have known from the first version on.
_OUTCOMES = {Outcome.APPLIED: "changed", Outcome.UNCHANGED: "unchanged"}
# Each run of fewer columns would break lines of a table that a program reads.
_PIPED_WIDTH = 10_000
_MOST_LINES = 50


@dataclass(frozen=True, slots=True)
class Table:
    """Column titles, and the rows that one host's answer makes. HOST comes before them.

    With `of_results` the rows are made of the whole HostResult.
    """

    titles: Sequence[str]
    rows: Callable[[Any], Iterable[Sequence[Any]]]
    of_results: bool = False


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
            show_line(result)
    else:
        import yaml

        documents = [result.as_dict() for result in results]
        click.echo(yaml.safe_dump(documents, sort_keys=False, allow_unicode=True), nl=False)


def show_line(result: HostResult[Any]) -> None:
    """Print a result as a line of JSON, at once."""
    click.echo(json.dumps(result.as_dict()))


def _show_table(results: Sequence[HostResult[Any]], table: Table | None) -> None:
    if table is None:
        table = Table(("RESULT",), lambda answer: [(str(answer).strip(),)])
    with_domain = any(result.domain for result in results)
    titles = ["HOST", *(["DOMAIN"] if with_domain else []), *table.titles]
    rows = [
        [result.host, *([result.domain] if with_domain else []), *row]
        for result in results
        if result.ok
        for row in table.rows(result if table.of_results else result.result)
    ]
    if table.titles and any(result.ok for result in results):
        print_table(titles, rows)
    show_errors(results)


def show_errors(results: Sequence[HostResult[Any]]) -> None:
    """Name every host that failed, on standard error, and what somebody else is to do about it.

    What is about lines of files is the operator's to put right: hosts that say the same of them are
    named together, and each line is told in a line of its own.
    """
    of_files: dict[tuple[str, ...], list[str]] = {}
    for result in results:
        if result.error is None:
            continue
        where = f"{result.host} {result.domain}".strip()
        if result.error.has_places:
            of_files.setdefault(result.error.lines(), []).append(where)
        else:
            click.secho(f"{where}: {printable(result.error)}", fg="red", err=True)
    for (head, *lines), hosts in of_files.items():
        click.secho(f"{shortened(hosts)}: {printable(head)}", fg="red", err=True)
        for line in lines[:_MOST_LINES]:
            click.secho(f"  {printable(line)}", fg="red", err=True)
        if len(lines) > _MOST_LINES:
            click.secho(f"  … and {len(lines) - _MOST_LINES} more", fg="red", err=True)
    for line in _approvals_needed(results):
        click.echo(printable(line), err=True)


def _approvals_needed(results: Sequence[HostResult[Any]]) -> Iterable[str]:
    """One line for each approval that calls wait for: equal calls of hosts have one id."""
    waiting: dict[str, list[str]] = {}
    for result in results:
        if result.error is not None and result.error.approval:
            waiting.setdefault(result.error.approval, []).append(result.host)
    for approval, hosts in waiting.items():
        selectors = " ".join(f"-H {host}" for host in dict.fromkeys(hosts))
        yield f"Somebody else has to run: hostler {selectors} approve {approval}"
    if waiting:
        yield "Then run this again: the same change goes through once."


def print_table(
    titles: Sequence[str], rows: Iterable[Sequence[Any]], file: TextIO | None = None
) -> None:
    """Print a table; without colour and never wrapped when it is piped."""
    from rich.console import Console

    file = file or sys.stdout
    tty = file.isatty()
    console = Console(file=file, width=None if tty else _PIPED_WIDTH, highlight=False)
    grid = grid_of(titles, rows, coloured=tty)
    if tty:
        console.print(grid)
        return
    with console.capture() as captured:
        console.print(grid)
    for line in captured.get().splitlines():
        click.echo(line.rstrip(), file=file)


def grid_of(titles: Sequence[str], rows: Iterable[Sequence[Any]], *, coloured: bool) -> RichTable:
    """Answer a table for rich to draw."""
    from rich.table import Table as RichTable
    from rich.text import Text

    grid = RichTable(box=None, pad_edge=False, header_style="bold" if coloured else "")
    for title in titles:
        grid.add_column(title, overflow="fold")
    for row in rows:
        grid.add_row(*(Text(printable(cell)) for cell in row))
    return grid


def show_plans(groups: Sequence[PlanGroup], file: TextIO) -> None:
    """Print each plan once, with the hosts that it is for."""
    for group in groups:
        click.secho(str(group), bold=True, file=file)
        for step in group.planned.steps:
            click.echo(f"  {printable(step.description)}", file=file)
        if not group.planned.steps:
            click.echo("  nothing to do", file=file)
        for warning in group.planned.warnings:
            click.secho(f"  warning: {printable(warning)}", fg="yellow", file=file)


def change_table(describe: Callable[[Any], str] | None = None) -> Table:
    """The table of a change that was carried out: what became of it, and what `describe` says."""

    def rows(result: HostResult[Any]) -> Iterable[Sequence[Any]]:
        answer = result.result
        outcome = Outcome(result.outcome) if result.outcome else of_answer(answer)
        word = _OUTCOMES.get(outcome, outcome.value.replace("_", " "))
        to_do = "; ".join(_to_do(answer))
        if describe is None:
            yield (f"{word}: {to_do}" if to_do else word,)
        else:
            yield word, to_do or _described(describe, answer)

    return Table(("OUTCOME", "RESULT") if describe else ("OUTCOME",), rows, of_results=True)


def _described(describe: Callable[[Any], str], answer: Any) -> str:
    # One whose answer was lost, and that was confirmed, has but its plan to tell of.
    whole = hasattr(answer, "change") or hasattr(answer, "answers")
    return describe(answer) if whole else ""


def _to_do(answer: Any) -> Iterable[str]:
    """What is to be done about a change that goes on, or waits."""
    for change in changes_of(answer):
        if change.job:
            yield f"hostler jobs watch {change.job.removeprefix('jobs/')}"


def moment(message: Any, field: str) -> str:
    """Answer a time of a message, by UTC, in the words of a table; "-" if it has none."""
    if not message.HasField(field):
        return "-"
    return str(getattr(message, field).ToDatetime().strftime("%Y-%m-%d %H:%M:%S"))
