"""`hostler firewall report`: what a store of packet logs has seen."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hostler.cli.audit_doors import Moment
from hostler.cli.context import State, pass_state
from hostler.cli.examples import examples
from hostler.cli.firewall_log import store_option, where_option

if TYPE_CHECKING:
    from hostler.packet_report import Report

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@click.command(
    epilog=examples(
        "hostler firewall report --since 24h",
        "hostler firewall report --since 7d --html report.html",
        "hostler -o json firewall report --where 'dport == 22 and action == \"drop\"'",
    )
)
@store_option
@where_option
@click.option("--since", type=Moment(), help="From this time on, or so long ago: 24h, 2026-11-01.")
@click.option("--top", type=click.IntRange(1, 1000), default=10, show_default=True)
@click.option(
    "--html",
    "html_path",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write a page with plots, too. It needs nothing but itself.",
)
@pass_state
def report(
    state: State, url: str, where: str, since: datetime | None, top: int, html_path: Path | None
) -> None:
    """Tell who sent most, where to, by which rules, and when; from what was collected.

    Losses that hosts have told of come first: the numbers do not have them.
    """
    from hostler.packet_report import make_report
    from hostler.packet_store import open_packets

    since_ns = 0 if since is None else int((since - _EPOCH).total_seconds()) * 10**9
    with open_packets(url) as store:
        made = make_report(store, since_ns, where, top)
    if html_path is not None:
        from hostler.packet_html import page

        html_path.write_text(page(made), encoding="utf-8")
    if state.output == "table":
        _show(made)
    elif state.output == "yaml":
        import yaml

        click.echo(yaml.safe_dump(_document(made), sort_keys=False, allow_unicode=True), nl=False)
    else:
        click.echo(json.dumps(_document(made), indent=2 if state.output == "json" else None))


def _document(made: Report) -> dict[str, Any]:
    from hostler.packet_row import moment

    return {
        "records": made.records,
        "lost": made.lost,
        "unwanted": made.unwanted,
        "where": made.where,
        "first": None if made.first is None else moment(made.first),
        "last": None if made.last is None else moment(made.last),
        "losses": [
            {"host": each.host, "lost": each.lost, "lost_at_socket": each.lost_at_socket}
            for each in made.losses
        ],
        **{
            name: [{"name": label, "records": count} for label, count in rows]
            for name, rows in made.tables.items()
        },
        "hours": [
            {"hour": moment(start), "records": sum(values.values()), "actions": dict(values)}
            for start, values in made.hours
        ],
    }


def _show(made: Report) -> None:
    from hostler.cli.output import print_table
    from hostler.packet_html import TABLES
    from hostler.packet_row import moment

    for each in made.losses:
        click.secho(
            f"{each.host}: {each.lost} records were lost, {each.lost_at_socket} of them at its "
            "socket; the numbers below do not have them",
            fg="red",
            bold=True,
        )
    click.echo(f"{made.records} records" + (f" for which {made.where}" if made.where else ""))
    if made.first is not None and made.last is not None:
        click.echo(f"from {moment(made.first)} to {moment(made.last)}")
    if made.unwanted:
        click.echo(
            f"{made.unwanted} more were not stored, for want of a filter that holds for them"
        )
    for name, (title, column) in TABLES.items():
        if made.tables[name]:
            click.echo()
            click.secho(title, bold=True)
            rows = [
                (label, count, f"{count / made.records:.1%}") for label, count in made.tables[name]
            ]
            print_table((column.upper(), "RECORDS", "SHARE"), rows)
    if made.hours:
        click.echo()
        click.secho("Records per hour", bold=True)
        hours = [
            (
                moment(start)[:13].replace("T", " ") + ":00",
                sum(values.values()),
                ", ".join(f"{action} {count}" for action, count in sorted(values.items())),
            )
            for start, values in made.hours
        ]
        print_table(("HOUR", "RECORDS", "ACTIONS"), hours)
