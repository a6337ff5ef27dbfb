"""How the progress of jobs is shown: bars on a terminal, lines in a pipe, ndjson for programs."""

from __future__ import annotations

import json
import sys
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, Self

import click

from hostler.cli.output import printable
from hostler.jobs import ENDED, method_word, state_word
from hostler.limits import shortened
from hostler.results import plain


def progress_words(job: Any) -> str:
    """How far a job is, in words; empty once it has ended, or before it has begun."""
    if job.state in ENDED or not job.HasField("progress"):
        return ""
    progress = job.progress
    words = [_amount(progress)]
    if progress.rate_per_second:
        words.append(f"{progress.rate_per_second:.3g}/s")
    if progress.HasField("remaining"):
        words.append(f"{progress.remaining.ToTimedelta().total_seconds():.0f} s left")
    text = ", ".join(filter(None, words))
    return f"{text}: {progress.activity}" if progress.activity else text


def _amount(progress: Any) -> str:
    total = f"/{progress.total}" if progress.total else ""
    return f"{progress.done}{total} {progress.unit}".strip()


class Display(AbstractContextManager["Display"]):
    """Is told of each state of each job. This one says nothing: results are printed at the end."""

    def say(self, host: str, domain: str, answer: Any) -> None:
        """Show a WatchJobResponse."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Leave what was shown as it is."""


class Lines(Display):
    """A line for each change that can be seen; `err` has them beside the results."""

    def __init__(self, *, err: bool = False) -> None:
        self._last: dict[tuple[str, str], str] = {}
        self._err = err

    def say(self, host: str, domain: str, answer: Any) -> None:
        """Print a line, unless it is the one before."""
        job = answer.job
        words = " ".join(filter(None, (state_word(job), progress_words(job))))
        if self._last.get((host, job.name)) == words:
            return
        self._last[host, job.name] = words
        click.echo(printable(f"{host} {domain} {job.name}: {words}"), err=self._err)


class Ndjson(Display):
    """A JSON document in a line for each answer."""

    def say(self, host: str, domain: str, answer: Any) -> None:
        """Print it."""
        click.echo(json.dumps({"host": host, "domain": domain, **plain(answer)}))


class Bars(Display):
    """A progress bar for each job."""

    def __init__(self) -> None:
        from rich.progress import BarColumn, Progress, TextColumn

        self._bars = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.fields[words]}", markup=False),
        )
        self._tasks: dict[tuple[str, str], Any] = {}

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop drawing; the bars stay as they are."""
        self._bars.stop()

    def say(self, host: str, domain: str, answer: Any) -> None:
        """Draw the job's bar anew."""
        job = answer.job
        key = host, job.name
        if key not in self._tasks:
            title = f"{host} {method_word(job.method)} {shortened(job.resources)}".strip()
            self._tasks[key] = self._bars.add_task(printable(title), total=None, words="")
        words = progress_words(job) or state_word(job)
        total = job.progress.total or None
        if job.state in ENDED:
            # A bar without a total would go on pulsing.
            total = total or max(1, job.progress.done)
        self._bars.update(
            self._tasks[key], total=total, completed=job.progress.done, words=printable(words)
        )


def display_for(output: str) -> Display:
    """The display for a form of output."""
    if output == "ndjson":
        return Ndjson()
    if output != "table":
        return Display()
    return Bars() if sys.stdout.isatty() else Lines()
