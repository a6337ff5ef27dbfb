"""`hostler firewall`: rulesets, and what the kernel has."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import click

from hostler.api.firewall.v1 import ruleset_pb2
from hostler.channel import rpc
from hostler.cli.context import State, pass_state
from hostler.cli.examples import examples
from hostler.cli.firewall_apply import apply
from hostler.cli.firewall_connections import connections
from hostler.cli.firewall_counters import counters
from hostler.cli.firewall_explain import explain
from hostler.cli.firewall_export import export
from hostler.cli.firewall_import import import_
from hostler.cli.firewall_log import collect, filters, log
from hostler.cli.firewall_report import report
from hostler.cli.firewall_sets import sets
from hostler.cli.firewall_shadow import shadow
from hostler.cli.firewall_top import top
from hostler.cli.output import Table, print_table, printable, show_errors
from hostler.plans import RpcChange
from hostler.results import exit_code
from hostler.skew import word

_SERVICE = "RulesetService"


@click.group()
def firewall() -> None:
    """Rulesets, address sets, connections, packet logs, and what becomes of a packet."""


def _rows(answer: Any) -> Iterable[Sequence[Any]]:
    rulesets = answer.rulesets if hasattr(answer, "rulesets") else [answer.ruleset]
    for each in rulesets:
        yield (
            each.name,
            each.priority,
            len(each.rules),
            ", ".join(_masquerade(entry) for entry in each.masquerades),
            ", ".join(_forward(entry) for entry in each.forwards),
            ", ".join(each.isolated_networks),
            "yes" if each.persistent else "no",
        )


def _masquerade(entry: Any) -> str:
    return f"{entry.source} by {entry.uplink}" if entry.uplink else str(entry.source)


def _forward(entry: Any) -> str:
    protocol = word(ruleset_pb2.Protocol, entry.protocol)
    address = entry.target_address
    target = f"[{address}]" if ":" in address else address
    return f"{entry.port}/{protocol} to {target}:{entry.target_port or entry.port}"


_TITLES = ("NAME", "PRIORITY", "RULES", "MASQUERADES", "FORWARDS", "ISOLATED", "PERSISTENT")
_TABLE = Table(_TITLES, _rows)


@firewall.command(name="list", epilog=examples("hostler -H all firewall list"))
@pass_state
def list_rulesets(state: State) -> None:
    """List the rulesets, in the order they take effect."""
    method = rpc(ruleset_pb2, _SERVICE, "ListRulesets")
    state.tell(method, ruleset_pb2.ListRulesetsRequest(), _TABLE, pages=True)


@firewall.command(epilog=examples("hostler -H h1 -o yaml firewall get web"))
@click.argument("name")
@pass_state
def get(state: State, name: str) -> None:
    """Show a ruleset as it was applied."""
    request = ruleset_pb2.GetRulesetRequest(name=name)
    state.tell(rpc(ruleset_pb2, _SERVICE, "GetRuleset"), request, _TABLE)


@firewall.command(epilog=examples("hostler -H all --yes firewall delete web"))
@click.argument("name")
@pass_state
def delete(state: State, name: str) -> None:
    """Delete a ruleset. One that is not there is no error."""
    request = ruleset_pb2.DeleteRulesetRequest(name=name)
    state.change(RpcChange(rpc(ruleset_pb2, _SERVICE, "DeleteRuleset"), request))


@firewall.command(
    epilog=examples("hostler -H h1 firewall table", "hostler -H all -o json firewall table")
)
@click.option("--foreign", is_flag=True, help="Also the tables of others.")
@pass_state
def table(state: State, foreign: bool) -> None:
    """Read back what the kernel has: the table, its counters, sysctls and drift."""
    method = rpc(ruleset_pb2, _SERVICE, "GetTable")
    results = state.read(method, ruleset_pb2.GetTableRequest(include_foreign=foreign))
    if state.output != "table":
        state.finish(results)
    for result in results:
        if result.result is not None:
            _show(result.host, result.result)
    show_errors(results)
    click.get_current_context().exit(exit_code(results))


def _show(host: str, answer: Any) -> None:
    click.secho(f"# {host}", bold=True)
    for line in answer.nft_text.splitlines() or ["# there is no table inet hostler"]:
        click.echo(printable(line))
    if answer.counters:
        rows = [(each.rule, each.packets, each.bytes) for each in answer.counters]
        print_table(("RULE", "PACKETS", "BYTES"), rows)
    for name in sorted(answer.sysctls):
        click.echo(f"{printable(name)} = {printable(answer.sysctls[name])}")
    if answer.foreign_tables:
        click.echo(f"tables of others: {printable(', '.join(answer.foreign_tables))}")
    for line in answer.foreign_nft_text.splitlines():
        click.echo(printable(line))
    for words in answer.drift:
        click.secho(f"drift: {printable(words)}", fg="yellow")


for _command in (
    apply,
    collect,
    connections,
    counters,
    explain,
    export,
    filters,
    import_,
    log,
    report,
    sets,
    shadow,
    top,
):
    firewall.add_command(_command)
