"""`hostler ssl compromise`: what to do about keys that others may know."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from hostler.cli.context import State, pass_state
from hostler.cli.examples import examples
from hostler.cli.lazy import LazyGroup
from hostler.config import ConfigError

if TYPE_CHECKING:
    from hostler.core.ssl.compromise import CompromisePlan, Inventory
    from hostler.core.ssl.flaws import Exposed, Flaw
    from hostler.ssl_decisions import Recorded


_COMMANDS: Mapping[str, tuple[str, str]] = {
    "execute": (
        "hostler.cli.ssl_compromise_execute:execute",
        "Replace keys, see the new ones served, revoke the old certificates.",
    ),
    "plan": ("hostler.cli.ssl_compromise:plan", "What keys touch, and three ways for each."),
}


@click.group(cls=LazyGroup, lazy=_COMMANDS)
def compromise() -> None:
    """Keys that others may know: what they touch, and what can be done at which cost and risk."""


@click.command(
    epilog=examples(
        "hostler -H all ssl compromise plan --key 0f3a…",
        "hostler -H all -o json ssl compromise plan --of-host web1 > plan.json",
        "hostler -H all ssl compromise plan --cve CVE-2014-0160",
        "hostler -H all ssl compromise plan --cve CVE-2030-1 --library openssl --fixed-in 3.0.99",
    )
)
@click.option("--key", "keys", multiple=True, help="A key, by the hash of its public half.")
@click.option("--of-host", "hosts", multiple=True, help="All keys that lie on a host.")
@click.option("--cve", default="", help="All keys of services that run a library with this flaw.")
@click.option("--library", default="", help="With --cve: such as libssl, or a family: openssl.")
@click.option("--fixed-in", default="", help="With --cve: the first version without it.")
@click.option("--store", default="", metavar="URL", help="Where decisions are kept.")
@pass_state
def plan(
    state: State,
    keys: tuple[str, ...],
    hosts: tuple[str, ...],
    cve: str,
    library: str,
    fixed_in: str,
    store: str,
) -> None:
    """Tell every certificate and service that keys touch on the selected hosts.

    For each certificate three ways stand side by side: revoke and reissue, reissue only, keep (with
    a recorded reason, an owner and a date of review). Changes nothing. The status is 1 if a host
    did not answer, or has keys that could not be read: then there may be more.

    A few flaws are known by their CVE; of any other, and where a distribution has put one right in
    a version of its own, say library and version as for `hostler ssl affected`.
    """
    from hostler.cli.ssl_compromise_output import as_dict, flaw_as_dict, show, show_exposed
    from hostler.core.ssl import compromise as planner

    if not keys and not hosts and not cve:
        raise click.UsageError("give --key, --of-host or --cve")
    asked = {host.name for host in state.hosts}
    if unknown := sorted(set(hosts) - asked):
        raise ConfigError(f"{unknown[0]} is not among the selected hosts")
    flaw = _flaw(cve, library, fixed_in)
    found, exposed = _look(state, flaw)
    wanted = [*(key.lower() for key in keys), *(exposed.keys if exposed else ())]
    made = planner.plan(found, datetime.now(UTC), keys=wanted, hosts=hosts)
    kept = _decided(made, store)
    if state.output == "table":
        if flaw and exposed:
            show_exposed(flaw, exposed)
        show(made, kept)
    else:
        told = as_dict(made, kept)
        if flaw and exposed:
            told = {**told, "flaw": flaw_as_dict(flaw, exposed)}
        click.echo(json.dumps(told, indent=2))
    click.get_current_context().exit(0 if made.complete else 1)


def _flaw(cve: str, library: str, fixed_in: str) -> Flaw | None:
    """The flaw that is meant, if one is. Raises UsageError."""
    from hostler.core.ssl.flaws import KNOWN, Flaw

    if not cve:
        if library or fixed_in:
            raise click.UsageError("--library and --fixed-in go with --cve")
        return None
    if bool(library) != bool(fixed_in):
        raise click.UsageError("give both --library and --fixed-in")
    if library:
        return Flaw(cve, library, fixed_in)
    if cve.upper() not in KNOWN:
        known = ", ".join(KNOWN)
        words = f"{cve} is not known here ({known} are): give --library and --fixed-in"
        raise click.UsageError(words)
    return KNOWN[cve.upper()]


def _look(state: State, flaw: Flaw | None) -> tuple[Inventory, Exposed | None]:
    from hostler.ssl_compromise import exposed_of, first_of, inventory_of, look, look_libraries

    client = state.client
    if flaw is None:
        results = state.run(client.each(state.hosts, look, tolerance=state.tolerance))
        return inventory_of(results), None
    both = state.run(
        client.each(state.hosts, lambda s: look_libraries(s, flaw), tolerance=state.tolerance)
    )
    found = inventory_of(first_of(both))
    return found, exposed_of(flaw, both, found)


def _decided(made: CompromisePlan, store: str) -> Mapping[str, Recorded]:
    """What was decided about certificates before, by fingerprint.

    A store that cannot be read is told and no more: a plan is wanted when things are bad.
    """
    from hostler.ssl_decisions import DecisionsError, default_place, open_decisions

    if not made.touched or not (store or default_place().exists()):
        return {}
    try:
        with open_decisions(store) as decisions:
            return decisions.newest([each.fingerprint for each in made.touched])
    except DecisionsError as error:
        click.echo(f"what was decided before is not known: {error}", err=True)
        return {}
