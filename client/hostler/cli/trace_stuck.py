"""`hostler trace stuck`: which processes do not go on, why, and who holds them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import click

from hostler.api.tracing.v1 import diagnosis_pb2
from hostler.channel import rpc
from hostler.cli.context import State, pass_state
from hostler.cli.examples import examples
from hostler.cli.kinds import Seconds
from hostler.cli.output import Table, printable
from hostler.skew import word

_TITLES = ("PID", "NAME", "UNIT", "STATE", "FOR", "WAITS FOR", "WHY")
_MOST_PID = 1 << 22


def _rows(answer: Any) -> Iterable[Sequence[Any]]:
    for each in answer.findings:
        yield (
            each.process.pid if each.tid == each.process.pid else f"{each.process.pid}/{each.tid}",
            each.thread_comm,
            each.process.unit or "-",
            each.state,
            f"{each.not_run_for.ToTimedelta().total_seconds():.1f} s",
            word(diagnosis_pb2.WaitKind, each.kind),
            each.sentence,
        )


@click.command(
    epilog=examples(
        "hostler -H all trace stuck                   all that are stuck on each host",
        "hostler -H h1 trace stuck sshd               what each sshd does or waits for",
        "hostler -H h1 -o json trace stuck 3138       one process, with its stack in the kernel",
    )
)
@click.argument("process", metavar="[PID|NAME]", required=False, default="")
@click.option(
    "--interval", type=Seconds(), default="200ms", show_default=True, help="Between two looks."
)
@pass_state
def stuck(state: State, process: str, interval: float) -> None:
    """Say which processes do not go on, what each waits for, and who holds it.

    Of a process that is named, each thread is told, whatever it does. FOR is how long it has not
    run, at least.
    """
    asked = diagnosis_pb2.DiagnoseStuckRequest()
    if process.isascii() and process.isdigit():
        if not 0 < int(process) <= _MOST_PID:
            raise click.UsageError(f"PID: from 1 to {_MOST_PID}.")
        asked.pid = int(process)
    else:
        asked.name = process
    asked.interval.FromNanoseconds(round(interval * 1e9))
    method = rpc(diagnosis_pb2, "DiagnosisService", "DiagnoseStuck")
    results = state.read(method, asked)
    if state.output == "table":
        for result in results:
            if result.ok and result.result is not None:
                _tell_apart(result.host, result.result)
    state.finish(results, Table(_TITLES, _rows))


def _tell_apart(host: str, answer: Any) -> None:
    """Tell what is about the whole host, on standard error."""
    for warning in answer.warnings:
        click.echo(printable(f"{host}: warning: {warning.message}"), err=True)
    if answer.left_out:
        click.echo(f"{host}: {answer.left_out} more are stuck", err=True)
    for each in answer.pressure:
        if each.full_10s_percent or each.some_10s_percent >= 10:
            click.echo(
                f"{host}: {each.resource} pressure: some tasks were held up for "
                f"{each.some_10s_percent:.0f} % of the last 10 s, all for "
                f"{each.full_10s_percent:.0f} %",
                err=True,
            )
