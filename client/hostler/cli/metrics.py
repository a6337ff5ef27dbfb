"""`hostler metrics`: the state of the fleet for Prometheus or an OpenTelemetry collector."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import SplitResult

import click

from hostler.cli.context import State, pass_state
from hostler.cli.examples import examples

if TYPE_CHECKING:
    from hostler.board.metrics import Family
    from hostler.board.status import HostStatus

_QUERIES = examples(
    "max by (host) (1 - hostler_door_up) > 0                     a door that does not answer",
    "time() - hostler_host_asked_timestamp_seconds > 300         nobody has asked for five minutes",
    "hostler_drift_findings > 0                                  not as it was applied",
    "hostler_certificate_end_timestamp_seconds - time() < 86400 * 7",
    "topk(5, rate(hostler_rule_lost_packets_total[5m]))          who is being dropped",
    title="Queries:",
)


@click.command(
    epilog=examples(
        "hostler -H all metrics",
        "hostler -H all metrics --write /var/lib/prometheus/node-exporter/hostler.prom",
        "hostler -H all metrics --otlp http://127.0.0.1:4318",
    )
    + "\n\n"
    + _QUERIES
)
@click.option(
    "--write",
    "path",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Into this file, as a whole or not at all: for node_exporter's textfile collector.",
)
@click.option(
    "--otlp",
    "url",
    metavar="URL",
    help="To this OpenTelemetry collector, by OTLP over HTTP.",
)
@pass_state
def metrics(state: State, path: Path | None, url: str | None) -> None:
    """Ask the selected hosts, or all, once, and tell what `top` shows in Prometheus' text format.

    A host that does not answer has its doors at 0, and none of what nobody could say.
    """
    from hostler.board.board import Board
    from hostler.board.metrics import families_of, text_of

    if path is not None and url is not None:
        raise click.UsageError("give --write or --otlp, not both")
    place = None if url is None else _place(url)
    hosts = state.hosts_or_all
    client = state.client

    async def ask() -> Iterable[HostStatus]:
        async with Board(client, hosts, 0.0) as board:
            await board.round()
            return board.statuses

    statuses = state.run(ask())
    if place is not None:
        _export(families_of(statuses), place)
    elif path is not None:
        _write(text_of(statuses), path)
    else:
        click.echo(text_of(statuses), nl=False)


def _place(url: str) -> SplitResult:
    from hostler.board.otlp import collector

    try:
        return collector(url)
    except ValueError as error:
        raise click.UsageError(f"--otlp: {error}") from error


def _export(families: Iterable[Family], place: SplitResult) -> None:
    from hostler.board.otlp import ExportFailed, export, request

    try:
        export(request(families, time.time_ns()), place)
    except ExportFailed as error:
        raise click.ClickException(str(error)) from error


def _write(text: str, path: Path) -> None:
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        beside.write_text(text, encoding="utf-8")
        beside.replace(path)
    except OSError as error:
        raise click.UsageError(f"--write {path}: {error.strerror}") from error
    finally:
        beside.unlink(missing_ok=True)
