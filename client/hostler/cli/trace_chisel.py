"""`-c CHISEL` of the trace commands, and `hostler trace chisels`."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hostler.cli.examples import examples
from hostler.cli.output import grid_of, print_table

if TYPE_CHECKING:
    from hostler.core.trace.chisel import Chisel, Running
    from hostler.core.trace.chisel_results import Result, Row, Table
    from hostler.core.trace.merge import Merged

_DRAW_S = 1.0


def with_chisel(command: Any) -> Any:
    """Give a command the options of a chisel."""
    for option in (
        click.option(
            "--svg", type=click.Path(dir_okay=False, path_type=Path),
            help="Where a chisel that draws writes its picture.",
        ),
        click.option("--per-host", is_flag=True, help="The chisel tells hosts apart."),
        click.option(
            "-a", "--argument", "arguments", multiple=True, metavar="NAME=VALUE",
            help="Of the chisel; see `trace chisels NAME`.",
        ),
        click.option(
            "-c", "--chisel", metavar="CHISEL",
            help="Show what a chisel makes of the events; see `trace chisels`.",
        ),
    ):  # fmt: skip
        command = option(command)
    return command


@dataclass(frozen=True, slots=True)
class Chosen:
    """A chisel as the options have it."""

    name: str
    arguments: tuple[str, ...]
    per_host: bool
    svg: Path | None

    def start(self) -> Running:
        """Begin. Raises UsageError."""
        from hostler.core.trace.chisel import ArgumentsInvalid

        chisel = find(self.name)
        try:
            return chisel.start(chisel.named(self.arguments), per_host=self.per_host)
        except ArgumentsInvalid as error:
            raise click.UsageError(str(error)) from error


def chosen(
    chisel: str | None, arguments: Sequence[str], per_host: bool, svg: Path | None
) -> Chosen | None:
    """The chisel of the options, None if there is none. Raises UsageError."""
    if chisel is not None:
        return Chosen(chisel, tuple(arguments), per_host, svg)
    if arguments or per_host or svg:
        raise click.UsageError("-a, --per-host and --svg are about a chisel: say which with -c")
    return None


def find(name: str) -> Chisel:
    """A chisel of ours or of the user's folder. Raises UsageError."""
    from hostler.chisel_folder import ChiselInvalid, default_folder, load, names
    from hostler.core.trace.chisel_registry import ChiselUnknown
    from hostler.core.trace.chisel_registry import find as find_ours

    folder = default_folder()
    try:
        if name in names(folder):
            return load(folder, name)
        return find_ours(name)
    except (ChiselInvalid, ChiselUnknown) as error:
        raise click.UsageError(str(error)) from error


class ChiselShow:
    """Shows what a chisel makes of the events: lines as they come, all else at the end.

    With `is_live`, on a terminal, what is known so far is drawn anew each second in between.
    """

    def __init__(
        self, running: Running, output: str, svg: Path | None, *, is_live: bool = False
    ) -> None:
        self._running = running
        self._is_json = output != "table"
        self._svg = svg
        draws = is_live and not self._is_json and not running.chisel.streams
        self._screen = _Screen() if draws and sys.stdout.isatty() else None

    def take(self, merged: Merged, hosts: Sequence[str]) -> None:
        """Have the chisel look at a batch."""
        for source, name in enumerate(hosts):
            events = merged.events if len(hosts) == 1 else None
            if events is None:
                events = merged.events.select(merged.source == source)
            if len(events):
                self._running.take(events, name)
        if self._running.chisel.streams:
            self._show(self._running.result())
        elif self._screen is not None:
            self._screen.draw(self._running.result)

    def end(self) -> None:
        """Show what the chisel has made of all."""
        if self._screen is not None:
            self._screen.close()
        self._show(self._running.result())

    def _show(self, result: Result) -> None:
        from hostler.core.trace.chisel_results import Kept, Lines, Picture

        if isinstance(result, Lines):
            self._show_lines(result)
        elif isinstance(result, Picture):
            self._show_picture(result)
        elif isinstance(result, Kept):
            self._show_kept(result)
        else:
            self._show_table(result)

    def _show_lines(self, result: Any) -> None:
        if self._is_json:
            for row in result.rows:
                click.echo(json.dumps(_object(result.headings, row)))
        else:
            for line in result.lines():
                click.echo(line)
        if result.skipped:
            click.secho(f"{result.skipped} more came than can be shown", fg="yellow", err=True)
        _show_notes(result.notes)

    def _show_table(self, table: Table) -> None:
        if self._is_json:
            for row in table.rows:
                click.echo(json.dumps(_object(table.headings, row)))
        else:
            print_table(*_titles_and_words(table))
        _show_notes(table.notes)

    def _show_picture(self, picture: Any) -> None:
        if self._svg is not None:
            self._svg.write_text(picture.svg)
            click.echo(f"{self._svg} is written", err=True)
        else:
            click.echo(picture.text)
        _show_notes(picture.notes)

    def _show_kept(self, kept: Any) -> None:
        from hostler.core.trace.lines import sysdig_lines

        for host, events in kept.by_host.items():
            for line in sysdig_lines(events):
                click.echo(f"{host}: {line}" if host else line)
        if kept.skipped:
            click.secho(f"{kept.skipped} more were too many to keep", fg="yellow", err=True)


class _Screen:
    """A table or a picture of what is known so far, drawn in place, and gone at the end."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.live import Live

        self._console = Console(highlight=False)
        self._live = Live(
            console=self._console, transient=True, auto_refresh=False, vertical_overflow="crop"
        )
        self._drawn_s = -_DRAW_S

    def draw(self, result: Callable[[], Result]) -> None:
        """Draw it, unless that was done a moment ago."""
        from rich.text import Text

        from hostler.core.trace.chisel_results import Picture, Table

        if time.monotonic() - self._drawn_s < _DRAW_S:
            return
        if not self._live.is_started:
            self._live.start()
        known = result()
        if isinstance(known, Table):
            titles, words = _titles_and_words(known)
            # Titles and the line of the cursor take two lines; the top comes first.
            fit = max(1, self._console.height - 2)
            self._live.update(grid_of(titles, words[:fit], coloured=True), refresh=True)
        elif isinstance(known, Picture):
            self._live.update(Text(known.text), refresh=True)
        # What has taken long is not done all the time.
        self._drawn_s = time.monotonic()

    def close(self) -> None:
        """Take it off the screen."""
        self._live.stop()


def _titles_and_words(table: Table) -> tuple[list[str], list[list[str]]]:
    from hostler.core.trace.chisel_results import in_words

    rows = [*table.rows, *([table.other] if table.other else [])]
    words = [
        [in_words(cell, h.unit) for cell, h in zip(row, table.headings, strict=True)]
        for row in rows
    ]
    return [heading.name.upper() for heading in table.headings], words


def _object(headings: Sequence[Any], row: Row) -> dict[str, Any]:
    return {heading.name: cell for heading, cell in zip(headings, row, strict=True)}


def _show_notes(notes: Sequence[str]) -> None:
    for note in notes:
        click.secho(note, fg="yellow", err=True)


@click.command(epilog=examples("hostler trace chisels", "hostler trace chisels spectrogram"))
@click.argument("name", required=False)
def chisels(name: str | None) -> None:
    """List the chisels, or say what one does and takes.

    Those of ~/.config/hostler/chisels are listed by name; each is a file with a CHISEL.
    """
    if name is not None:
        _describe(find(name))
        return
    from hostler.chisel_folder import ChiselInvalid, default_folder
    from hostler.chisel_folder import names as names_in
    from hostler.core.trace.chisel_registry import all_chisels

    rows = [(c.name, c.category.value, c.summary) for c in all_chisels().values()]
    try:
        rows += [(each, "yours", str(default_folder())) for each in names_in(default_folder())]
    except ChiselInvalid as error:
        click.secho(str(error), fg="yellow", err=True)
    print_table(("CHISEL", "ABOUT", "SUMMARY"), rows)


def _describe(chisel: Chisel) -> None:
    click.echo(f"{chisel.name}: {chisel.summary}")
    if chisel.description:
        click.echo(f"\n{chisel.description}")
    if chisel.filter:
        click.echo(f"\nIt looks at: {chisel.filter}")
    if chisel.needs:
        needs = ", ".join(need.name.lower() for need in chisel.needs if need.name)
        click.echo(f"\nIt needs: {needs}")
    if chisel.arguments:
        click.echo()
        rows = [
            (a.name, a.kind.value, a.default if a.default is not None else "required", a.help)
            for a in chisel.arguments
        ]
        print_table(("ARGUMENT", "TYPE", "DEFAULT", "MEANING"), rows)
