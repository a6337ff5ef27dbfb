"""What `hostler ssl compromise plan` prints: certificates, the three ways, and who has a flaw."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from hostler.cli.output import print_table, printable

if TYPE_CHECKING:
    from hostler.core.ssl.compromise import CompromisePlan, Touched
    from hostler.core.ssl.flaws import Exposed, Flaw
    from hostler.ssl_decisions import Recorded


def show_exposed(flaw: Flaw, exposed: Exposed) -> None:
    """Print which processes have a flaw."""
    what = f" ({flaw.what}; {flaw.source})" if flaw.what else ""
    click.echo(f"{flaw.cve}: {flaw.library} before {flaw.fixed_in}{what}")
    for user in (*exposed.users, *exposed.keyless):
        runs = ", ".join(filter(None, user.versions)) or "a version that is not known"
        no_key = "" if user in exposed.users else "; serves no key that is known"
        who = f"{user.comm} ({user.unit or user.pid})"
        click.echo(printable(f"  {user.host}: {who} runs {runs}{no_key}"))
    if not exposed.users and not exposed.keyless:
        click.echo("  no process that was seen has it")


def show(made: CompromisePlan, kept: Mapping[str, Recorded]) -> None:
    """Print a plan, with what was decided about its certificates before."""
    for spki in made.keys:
        on = ", ".join(made.key_hosts[spki]) or "no host that was asked"
        click.echo(f"key {spki[:16]} lies on {on}")
    for each in made.touched:
        names = ", ".join(each.names) or each.serial
        click.echo()
        click.echo(printable(f"{names}: ends {each.not_after:%Y-%m-%d}, by {each.issuer}"))
        for use in each.uses:
            at = f" at {', '.join(use.listeners)}" if use.listeners else ""
            click.echo(printable(f"  served by {use.server} on {use.host}{at}"))
        if each.fingerprint in kept:
            click.echo(printable(f"  {_kept_words(kept[each.fingerprint])}"))
        print_table(("WAY", "COST", "EXPOSED UNTIL", "RISK"), _rows(each))
    if not made.touched:
        click.echo("no certificate that was found has such a key")
    for host, why in made.silent.items():
        click.echo(printable(f"{host} did not answer, there may be more: {why}"), err=True)
    for host, path in made.unread:
        click.echo(printable(f"{host}: {path} could not be read, it may be one"), err=True)


def _kept_words(recorded: Recorded) -> str:
    decision = recorded.decision
    overdue = " (overdue)" if recorded.is_overdue(datetime.now(UTC)) else ""
    review = f"{decision.review:%Y-%m-%d}{overdue}" if decision.review else "-"
    return (
        f"kept since {recorded.time:%Y-%m-%d} by {recorded.who}: {decision.reason}; "
        f"owner {decision.owner}, review {review}"
    )


def _rows(each: Touched) -> list[Sequence[Any]]:
    rows: list[Sequence[Any]] = []
    for option in each.options:
        way = option.way.value + (" (recommended)" if option.way is each.recommended else "")
        cost = "a record"
        if option.certificates:
            cost = f"{option.certificates} new, {option.installs} hosts, {option.reloads} reloads"
        until = f"{option.exposed_until:%Y-%m-%d}" if option.exposed_until else "revoked"
        rows.append((way, cost, until, "; ".join(option.risks) or "-"))
    return rows


def flaw_as_dict(flaw: Flaw, exposed: Exposed) -> Mapping[str, Any]:
    """A flaw and who has it, as JSON has it."""
    from dataclasses import asdict

    return {
        "cve": flaw.cve,
        "library": flaw.library,
        "fixed_in": flaw.fixed_in,
        "source": flaw.source or None,
        "users": [asdict(user) for user in exposed.users],
        "users_without_keys": [asdict(user) for user in exposed.keyless],
    }


def as_dict(made: CompromisePlan, kept: Mapping[str, Recorded]) -> Mapping[str, Any]:
    """The plan as JSON has it; `execute` reads its keys."""
    return {
        "complete": made.complete,
        "keys": {spki: list(hosts) for spki, hosts in made.key_hosts.items()},
        "certificates": [_certificate(each, kept) for each in made.touched],
        "silent": dict(made.silent),
        "unread": [{"host": host, "path": path} for host, path in made.unread],
    }


def _certificate(each: Touched, kept: Mapping[str, Recorded]) -> Mapping[str, Any]:
    decision = kept.get(each.fingerprint)
    return {
        "fingerprint_sha256": each.fingerprint,
        "spki_sha256": each.spki,
        "serial": each.serial,
        "issuer": each.issuer,
        "names": list(each.names),
        "not_after": each.not_after.isoformat(),
        "hosts": list(each.hosts),
        "uses": [
            {
                "host": use.host,
                "server": use.server,
                "listeners": list(use.listeners),
                "names": list(use.names),
            }
            for use in each.uses
        ],
        "decision": decision and decision.as_dict(datetime.now(UTC)),
        "recommended": each.recommended.value,
        "ways": [
            {
                "way": option.way.value,
                "steps": list(option.steps),
                "certificates": option.certificates,
                "installs": option.installs,
                "reloads": option.reloads,
                "risks": list(option.risks),
                "exposed_until": option.exposed_until and option.exposed_until.isoformat(),
            }
            for option in each.options
        ],
    }
