"""`hostler ssl compromise execute`: keys that others may know, replaced, and revoked at the end."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from hostler.cli.asking import ask, must_be_able_to_ask, refuse_terms
from hostler.cli.context import State, pass_state
from hostler.cli.examples import examples
from hostler.cli.output import printable
from hostler.config import ConfigError
from hostler.core.files import read_bounded

if TYPE_CHECKING:
    from hostler.core.ssl.by_hand import ByHand
    from hostler.core.ssl.compromise import CompromisePlan, Decision
    from hostler.fleet import Host
    from hostler.ssl_replace import Replaced

_PLAN_BYTES = 64 * 1024 * 1024
_WAYS = ("revoke-and-reissue", "reissue", "keep")


@click.command(
    epilog=examples(
        "hostler -H all ssl compromise execute --key 0f3a… --way revoke-and-reissue"
        " --authority ca1",
        "hostler -H all --batch 1,25%,100% --yes ssl compromise execute plan.json"
        " --way revoke-and-reissue --authority ca1",
        "hostler runs resume last                         once hosts that were down are back",
        "hostler -H all --yes ssl compromise execute --key 0f3a… --way keep"
        " --reason 'lab only' --owner ann --review 2030-03-01",
    )
)
@click.argument("plan", type=click.Path(path_type=Path, dir_okay=False), required=False)
@click.option("--key", "keys", multiple=True, help="A key, by the hash of its public half.")
@click.option("--way", type=click.Choice(_WAYS), required=True)
@click.option("--authority", "ca", default="", metavar="HOST", help="Whose authority issues.")
@click.option("--profile", default="", help="Its profile, if it has several for servers.")
@click.option("--reason", default="", help="With keep: why.")
@click.option("--owner", default="", help="With keep: who answers for it.")
@click.option(
    "--review",
    type=click.DateTime(["%Y-%m-%d"]),
    default=None,
    help="With keep: when it is looked at again, within a year.",
)
@click.option("--store", default="", metavar="URL", help="Where decisions are kept.")
@pass_state
def execute(
    state: State, /, plan: Path | None, keys: tuple[str, ...], way: str, ca: str, profile: str,
    store: str, **keep: Any,
) -> None:  # fmt: skip
    """Carry out a way for all certificates that keys touch on the selected hosts.

    PLAN is what `plan` wrote with -o json; its keys are meant.

    On each host every deployment with such a key gets a new one, made there, and a certificate for
    it from the authority, or from its ACME server; it is installed and seen to be served. Hosts go
    by --batch and --max-failures, that of the authority last. It revokes what it has issued for
    the old keys, each certificate once no host that was asked uses it any more. `hostler runs
    resume` goes on with what is missing.

    What is used by no deployment, or was issued elsewhere, is listed as by hand: then the status is
    1. --way keep changes no host: it records the decision, which `plan` tells from then on.
    """
    from hostler.core.ssl import compromise as planner
    from hostler.ssl_compromise import deployed_of, first_of, inventory_of, look_deployed

    refuse_terms(state)
    wanted = sorted({key.lower() for key in (*keys, *(_keys_of(plan) if plan else ()))})
    if not wanted:
        raise click.UsageError("give a PLAN or --key")
    if way != "keep" and any(keep.values()):
        raise click.UsageError("--reason, --owner and --review go with --way keep")
    kept = _kept(**keep) if way == "keep" else None
    must_be_able_to_ask(state)
    client = state.client
    results = state.run(client.each(state.hosts, look_deployed, tolerance=state.tolerance))
    inventory = inventory_of(first_of(results))
    made = planner.plan(inventory, datetime.now(UTC), keys=wanted)
    if kept is not None:
        _keep(state, made, store, kept)
    work = _Work(state, made, revoke=way == "revoke-and-reissue")
    work.carry_out(ca, profile, deployed_of(results))


def _keys_of(path: Path) -> list[str]:
    """The keys of a plan that was written down. Raises ConfigError."""
    try:
        told = json.loads(read_bounded(path, _PLAN_BYTES))
        keys = [str(key) for key in told["keys"]]
    except (OSError, ValueError, TypeError, KeyError) as error:
        words = f"not a plan of `ssl compromise plan -o json`: {error}"
        raise ConfigError(f"{path}: {words}") from error
    return keys


def _kept(reason: str, owner: str, review: date | None) -> Decision:
    """The decision to keep whatever is touched. Raises UsageError if it lacks something."""
    from hostler.core.ssl.compromise import Decision, DecisionInvalid, Way

    until = None if review is None else datetime(review.year, review.month, review.day, tzinfo=UTC)
    decision = Decision("what is touched", Way.KEEP, reason, owner, until)
    try:
        decision.check(datetime.now(UTC))
    except DecisionInvalid as error:
        raise click.UsageError(str(error)) from error
    return decision


def _keep(state: State, made: CompromisePlan, store: str, kept: Decision) -> NoReturn:
    """Record that all that is touched is kept, and leave."""
    from dataclasses import replace

    from hostler.ssl_decisions import open_decisions

    decisions = [replace(kept, fingerprint=each.fingerprint) for each in made.touched]
    count = f"{len(decisions)} certificate{'s' if len(decisions) != 1 else ''}"
    if state.plan_only:
        click.echo(f"would record that {count} of these keys are kept")
    elif decisions:
        ask(state, f"Keep {count}, by {kept.owner}?")
        with open_decisions(store) as decided:
            decided.add(decisions, state.client.who())
        review = f" until a review on {kept.review:%Y-%m-%d}" if kept.review else ""
        click.echo(f"recorded: {count} kept by {kept.owner}{review}")
    else:
        click.echo("no certificate that was found has such a key")
    for host, why in made.silent.items():
        click.echo(printable(f"{host} did not answer, there may be more: {why}"), err=True)
    click.get_current_context().exit(0 if made.complete else 1)


class _Work:
    """A plan that is carried out."""

    def __init__(self, state: State, made: CompromisePlan, *, revoke: bool) -> None:
        self._state = state
        self._made = made
        self._revoke = revoke
        self._left: tuple[ByHand, ...] = ()

    def carry_out(self, ca: str, profile: str, deployed: Sequence[Any]) -> NoReturn:
        """Roll it out, and leave."""
        from hostler.core.ssl.by_hand import by_hand
        from hostler.ssl_order import Order, ask_authority
        from hostler.ssl_replace import Replace

        state, made = self._state, self._made
        authority = state.fleet.select((ca,))[0] if ca else None
        issued: frozenset[str] = frozenset()
        if authority is not None:
            client = state.client
            (told,) = state.run(
                client.each((authority,), lambda s: ask_authority(s, made.keys, profile))
            )
            if told.result is None:
                state.finish([told])
            profile, issued = told.result
        self._left = by_hand(
            made, deployed, issued, authority=authority is not None, revoke=self._revoke
        )
        acme: dict[str, dict[str, str]] = {}
        for each in deployed:
            if each.revocable and each.spki in made.keys:
                acme.setdefault(each.host, {})[each.name] = each.fingerprint
        order = Order(
            keys=made.keys,
            hosts=tuple(state.hosts),
            authority=authority,
            profile=profile,
            revoke=self._revoke,
            places={each.fingerprint: each.hosts for each in made.touched},
            unseen=tuple(made.silent),
            acme=acme,
        )
        busy = {each.host for each in deployed if each.spki in made.keys} | set(made.silent)
        hosts = [host for host in state.hosts if host.name in busy]
        if authority is not None and authority not in hosts and self._revoke:
            hosts.append(authority)
        self._roll(Replace(order), hosts)

    def _roll(self, change: Any, hosts: Sequence[Host]) -> NoReturn:
        context = click.get_current_context()
        self._show_left()
        status = 1 if self._left else 0
        if not hosts:
            click.echo("no deployment has such a key", err=True)
            context.exit(status)
        try:
            self._state.change(change, _describe, hosts=hosts)
        except click.exceptions.Exit as ended:
            if self._left:
                click.echo(f"left to do by hand: {len(self._left)}, see above", err=True)
            context.exit(ended.exit_code or status)

    def _show_left(self) -> None:
        for each in self._left:
            name = ", ".join(each.names) or each.fingerprint[:16]
            words = f"by hand: {each.where}: {name}: {each.what}"
            click.secho(printable(words), fg="yellow", err=True)


def _describe(done: Replaced) -> str:
    """How many were replaced, and how many revoked."""
    kinds = [type(answer).__name__ for answer in done.answers.values()]
    replaced = len(done.replaced)
    revoked = sum(name.startswith("Revoke") for name in kinds)
    words = [f"{replaced} replaced"] if replaced or not revoked else []
    return ", ".join(words + ([f"{revoked} revoked"] if revoked else []))
