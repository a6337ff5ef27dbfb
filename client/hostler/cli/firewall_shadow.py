"""`hostler firewall shadow`: rulesets on real packets that decide nothing, only count."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import click

from hostler.api.firewall.v1 import explain_pb2
from hostler.channel import rpc
from hostler.cli.asking import refuse_terms
from hostler.cli.context import State, pass_state
from hostler.cli.examples import examples
from hostler.cli.firewall_apply import files_of, with_files
from hostler.cli.kinds import Seconds
from hostler.cli.output import Table, moment
from hostler.firewall_apply import FilesChange
from hostler.plans import RpcChange

_SERVICE = "PreviewService"


@click.group()
def shadow() -> None:
    """Whom rulesets would have dropped: they count and log for a while, and drop nothing."""


@shadow.command(
    epilog=examples(
        "hostler -H all --yes firewall shadow start -f rules/ --for 1h",
        "hostler -H all firewall shadow show",
    )
)
@with_files
@click.option(
    "--for", "for_s", type=Seconds(), help="It ends by itself after this time.  [default: 10m]"
)
@click.option("--without", multiple=True, metavar="RULESET", help="Take a ruleset not to be there.")
@pass_state
def start(
    state: State, paths: tuple[Path, ...], for_s: float | None, without: tuple[str, ...]
) -> None:
    """Have rulesets of files count what they would do, beside the host's others.

    The files are those of 'firewall apply'. A shadow that is there is replaced.
    """
    refuse_terms(state)
    chosen, hosts = files_of(state, paths)
    if not hosts:
        raise click.UsageError("no file is for any of the selected hosts")
    request = explain_pb2.StartShadowRequest(delete_names=without)
    if for_s is not None:
        request.duration.FromMicroseconds(round(for_s * 1_000_000))
    method = rpc(explain_pb2, _SERVICE, "StartShadow")
    state.change(
        FilesChange(method, request, chosen),
        lambda answer: f"ends {moment(answer, 'expire_time')} UTC",
        hosts,
    )


def _rows(answer: Any) -> Iterable[Sequence[Any]]:
    if not answer.running:
        yield "no shadow", "-", "-", "-"
        return
    ends = moment(answer, "expire_time")
    for each in answer.counters:
        yield each.rule, each.packets, each.bytes, ends
    if not answer.counters:
        yield "nothing yet", "-", "-", ends


_TABLE = Table(("RULE", "PACKETS", "BYTES", "ENDS (UTC)"), _rows)


@shadow.command(epilog=examples("hostler -H all firewall shadow show"))
@pass_state
def show(state: State) -> None:
    """Show what the rules of the shadow would have decided so far."""
    request = explain_pb2.GetShadowRequest()
    state.tell(rpc(explain_pb2, _SERVICE, "GetShadow"), request, _TABLE)


@shadow.command(epilog=examples("hostler -H all --yes firewall shadow stop"))
@pass_state
def stop(state: State) -> None:
    """End the shadow. One that is not there is no error."""
    request = explain_pb2.StopShadowRequest()
    state.change(RpcChange(rpc(explain_pb2, _SERVICE, "StopShadow"), request))
