"""`hostler metrics`: the state of the fleet for Prometheus."""

from __future__ import annotations

import os
from pathlib import Path

import click

from hostler.cli.context import State, pass_state
from hostler.cli.examples import examples

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
@pass_state
def metrics(state: State, path: Path | None) -> None:
    """Ask the selected hosts, or all, once, and tell what `top` shows in Prometheus' text format.

    A host that does not answer has its doors at 0, and none of what nobody could say.
    """
    from hostler.board.board import Board
    from hostler.board.metrics import text_of

    hosts = state.hosts_or_all
    client = state.client

    async def ask() -> str:
        async with Board(client, hosts, 0.0) as board:
            await board.round()
            return text_of(board.statuses)

    text = state.run(ask())
    if path is None:
        click.echo(text, nl=False)
        return
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        beside.write_text(text, encoding="utf-8")
        beside.replace(path)
    except OSError as error:
        raise click.UsageError(f"--write {path}: {error.strerror}") from error
    finally:
        beside.unlink(missing_ok=True)
