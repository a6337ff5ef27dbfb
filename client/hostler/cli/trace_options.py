"""The options of traces: what is traced, how it is shown, and what it is written to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hostler.cli.kinds import Bytes, Seconds
from hostler.cli.trace_chisel import ChiselShow, Chosen

if TYPE_CHECKING:
    from hostler.cli.trace_output import Show
    from hostler.core.trace.capture_writer import Rotation

_CHISEL_DATA_BYTES = 2000
Command = Callable[..., Any]


def with_style(command: Command) -> Command:
    """Give a command the options of how lines look."""
    for option in (
        click.option("--ascii", "is_ascii", is_flag=True, help="Dots for what is not printable."),
        click.option(
            "-s", "most_bytes", type=click.IntRange(0), help="How much of texts is shown.",
            default=32, show_default=True,
        ),
        click.option(
            "--style", type=click.Choice(["sysdig", "strace"]), help="Of lines.",
            default="sysdig", show_default=True,
        ),
    ):  # fmt: skip
        command = option(command)
    return command


def with_rotation(command: Command) -> Command:
    """Give a command the options of captures of several files."""
    for option in (
        click.option("--keep", type=click.IntRange(1), help="Keep so many files of a rotation."),
        click.option("--rotate-events", type=click.IntRange(1), help="Events in a file."),
        click.option("--rotate-seconds", type=Seconds(), help="Time in a file."),
        click.option("--rotate-size", type=Bytes(), help="Size of a file, before the next one."),
    ):  # fmt: skip
        command = option(command)
    return command


def with_trace(command: Command) -> Command:
    """Give a command the options of a trace that is watched, and may be written to a file."""
    return with_traced(with_file(command))


def with_file(command: Command) -> Command:
    """Give a command the options of captures that it writes."""
    return click.option(
            "-w", "--write", "file", type=click.Path(dir_okay=False, path_type=Path),
            help="Write a capture and show nothing; of several hosts one each, with its name.",
        )(with_rotation(command))  # fmt: skip


def with_traced(command: Command) -> Command:
    """Give a command the options of what is traced, and what it may cost."""
    for option in (
        click.option("--environments", is_flag=True, help="With environments of processes."),
        click.option("--command-lines", is_flag=True, help="With command lines of processes."),
        click.option(
            "--payload", type=click.IntRange(0, 65535), default=0, metavar="BYTES",
            help="With so much of what is read and written; needs a permission of its own.",
        ),
        click.option(
            "--engine", type=click.Choice(["bpf", "strace", "tracefs"]),
            help="What serves it; strace is for single processes.  [default: bpf if there is one]",
        ),
        click.option("--cpu", type=click.FloatRange(0, 2), help="CPUs of the collector, at most."),
        click.option("--events", type=click.IntRange(1), help="End after so many on a host."),
        click.option("--for", "lasting", type=Seconds(), help="How long.  [default: 1h]"),
        click.option("--cgroup", default="", help="Only processes in this control group."),
        click.option(
            "--filter", "filter_text", default="", metavar="FILTER",
            help="""Such as 'proc.name=sshd and evt.latency > 1ms'; see `trace fields`.""",
        ),
    ):  # fmt: skip
        command = option(command)
    return command


def check_filter(text: str) -> None:
    """Raise a usage error that shows where a filter is wrong."""
    from hostler.core.trace.filter import FilterInvalid, compile_filter

    try:
        compile_filter(text)
    except FilterInvalid as error:
        raise click.UsageError(f"--filter {error}\n{error.caret()}") from error


def set_budget(budget: Any, lasting: float | None, events: int | None, cpu: float | None) -> None:
    """Say what a trace may cost, as the options have it."""
    if lasting is not None:
        budget.duration.FromNanoseconds(round(lasting * 1e9))
    budget.events = events or 0
    budget.cpu_share = cpu or 0.0


def payload_spec(payload: int, command_lines: bool, environments: bool) -> Any:
    """What a trace carries beside calls, None if that is nothing."""
    from hostler.api.tracing.v1 import trace_pb2 as pb

    if not (payload or command_lines or environments):
        return None
    return pb.PayloadSpec(
        data_bytes=payload, command_lines=command_lines, environments=environments
    )


def rotation(
    rotate_size: int | None,
    rotate_seconds: float | None,
    rotate_events: int | None,
    keep: int | None,
) -> Rotation | None:
    """The rotation of the options, None if there is none. Raises UsageError."""
    from hostler.core.trace.capture_writer import Rotation

    if rotate_size is None and rotate_seconds is None and rotate_events is None:
        if keep is not None:
            raise click.UsageError("--keep is about a rotation: say when with --rotate-...")
        return None
    return Rotation(rotate_size, rotate_seconds, rotate_events, keep)


@dataclass(frozen=True, slots=True)
class Needed:
    """What a chisel needs a trace to carry."""

    data: bool = False
    command_lines: bool = False
    environments: bool = False

    def with_asked(
        self, payload: int, command_lines: bool, environments: bool
    ) -> tuple[int, bool, bool]:
        """What is asked for, and what is needed beside it."""
        return (
            payload or (_CHISEL_DATA_BYTES if self.data else 0),
            command_lines or self.command_lines,
            environments or self.environments,
        )


@dataclass(frozen=True, slots=True)
class Shape:
    """How events are shown, as the options say."""

    output: str
    style: str
    most_bytes: int
    is_ascii: bool
    to_file: bool = False
    is_live: bool = False

    def show(self, wanted: Chosen | None, filter_text: str) -> tuple[Show, str, Needed]:
        """What shows them, the filter that a trace has to have for it, and what it has to carry."""
        from hostler.cli.trace_output import Json, Lines, Nothing
        from hostler.core.trace.field import Need

        if wanted is None:
            if self.to_file:
                return Nothing(), filter_text, Needed()
            if self.output != "table":
                return Json(), filter_text, Needed()
            return Lines(self.style, self.most_bytes, self.is_ascii), filter_text, Needed()
        if self.to_file:
            raise click.UsageError("-c and -w: write first, then read what was written with -c")
        running = wanted.start()
        texts = [f"({text})" for text in (filter_text, running.chisel.filter) if text.strip()]
        needs = Needed(
            Need.DATA in running.needs,
            Need.CMDLINE in running.needs,
            Need.ENVIRON in running.needs,
        )
        show = ChiselShow(running, self.output, wanted.svg, is_live=self.is_live)
        return show, " and ".join(texts), needs
