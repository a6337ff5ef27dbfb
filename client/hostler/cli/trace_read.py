"""`hostler trace read`: captures, shown and turned into other formats."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hostler.cli.context import State, pass_state
from hostler.cli.examples import examples
from hostler.cli.trace_chisel import chosen, with_chisel
from hostler.cli.trace_options import Shape, check_filter, with_style

if TYPE_CHECKING:
    from hostler.core.trace.events import Events
    from hostler.core.trace.merge import Merged
    from hostler.trace_files import Captures

_NEW = click.Path(dir_okay=False, path_type=Path)


@click.command(
    epilog=examples(
        "hostler trace read boot.htrace --filter 'evt.latency > 10ms'",
        "hostler trace read web.h1.htrace web.h2.htrace       merged, in order",
        "hostler trace read boot.htrace -c topfiles_bytes",
        "hostler trace read boot.htrace --scap boot.scap      for sysdig -r",
        "hostler trace read boot.scap --parquet boot.parquet  for notebooks",
    )
)
@click.argument(
    "files",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    nargs=-1,
    required=True,
    metavar="FILE...",
)
@click.option("--filter", "filter_text", default="", metavar="FILTER", help="See `trace fields`.")
@click.option("--scap", type=_NEW, help="Write a file that sysdig reads, and show nothing.")
@click.option("--parquet", type=_NEW, help="Write a Parquet file, and show nothing.")
@with_chisel
@with_style
@pass_state
def read(
    state: State,
    files: Sequence[Path],
    filter_text: str,
    scap: Path | None,
    parquet: Path | None,
    style: str,
    most_bytes: int,
    is_ascii: bool,
    chisel: str | None,
    arguments: Sequence[str],
    per_host: bool,
    svg: Path | None,
) -> None:
    """Read captures, Hostler's own or sysdig's; several are merged in the order of time.

    What a capture lacks, such as the end that a crash has cut off, is told.
    """
    from hostler.trace_files import Captures

    check_filter(filter_text)
    if scap is not None and len(files) > 1:
        raise click.UsageError("--scap takes one capture: sysdig knows of one host")
    shaped = Shape(state.output, style, most_bytes, is_ascii)
    show, _, _ = shaped.show(chosen(chisel, arguments, per_host, svg), filter_text)
    captures = Captures(files)
    try:
        if scap is not None:
            _write_scap(files[0], filter_text, scap, captures.hosts[0])
        elif parquet is not None:
            _write_parquet(parquet, chosen_of(captures, filter_text))
        else:
            for merged in chosen_of(captures, filter_text):
                show.take(merged, captures.hosts)
            show.end()
    finally:
        captures.close()
    for problem in captures.problems:
        click.secho(problem, fg="yellow", err=True)


def chosen_of(captures: Captures, filter_text: str) -> Iterator[Merged]:
    """What passes a filter, in the order in which it ended. Raises CaptureUnreadable."""
    from hostler.core.trace.filter import compile_filter
    from hostler.core.trace.merge import Merged

    wanted = compile_filter(filter_text)
    for merged in captures.merged():
        passing = wanted.matches(merged.events)
        if passing.any():
            yield Merged(merged.events.select(passing), merged.source[passing])


def _write_scap(source: Path, filter_text: str, target: Path, host: str) -> None:
    from hostler.core.trace.scap import export
    from hostler.trace_files import Captures

    def batches() -> Iterator[Events]:
        again = Captures([source])
        try:
            for merged in chosen_of(again, filter_text):
                yield merged.events
        finally:
            again.close()

    with _refusing(target), target.open("xb") as out:
        done = export(batches, out, host)
    click.echo(f"{target}: {done.events} events", err=True)


def _write_parquet(target: Path, merged: Iterator[Merged]) -> None:
    from hostler.core.trace.parquet import write_parquet

    with _refusing(target):
        count = write_parquet(target, (each.events for each in merged))
    click.echo(f"{target}: {count} events", err=True)


class _refusing:
    """Turn what cannot be written into a message, and leave no half of a file."""

    def __init__(self, target: Path) -> None:
        self._target = target

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, _: Any) -> None:
        from hostler.core.trace.parquet import ParquetMissing

        if isinstance(error, FileExistsError):
            raise click.UsageError(f"{self._target} is there already") from error
        if isinstance(error, ParquetMissing):
            raise click.UsageError(str(error)) from error
        if error is not None:
            with suppress(OSError):
                self._target.unlink()
        if isinstance(error, OSError):
            raise click.UsageError(f"{self._target}: {error.strerror}") from error
