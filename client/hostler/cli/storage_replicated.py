"""`hostler storage replicated-volume`: one volume of legs from several hosts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

import click

from hostler.cli.asking import refuse_terms
from hostler.cli.context import State, pass_state
from hostler.cli.examples import examples
from hostler.cli.output import Table
from hostler.fleet import Host
from hostler.replicated import TYPES, Leg, Volume, VolumeInvalid


class HostDevice(click.ParamType[Any]):
    """A leg."""

    name = "HOST:DEVICE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Leg:
        """Read it; a usage error if it is none."""
        try:
            return value if isinstance(value, Leg) else Leg.parse(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


_on = click.option("--on", required=True, metavar="HOST", help="The host that has the volume.")


@click.group(name="replicated-volume")
def replicated_volume() -> None:
    """Volumes that have a copy on each of several hosts, and outlive all of them but one.

    Each host exports its legs by iSCSI to the one that has the volume, which mirrors them.
    """


@replicated_volume.command(
    epilog=examples(
        "hostler --plan storage replicated-volume create data --on h1 --mount /srv/data \\",
        "    --leg h1:WD-A --leg h2:WD-B --leg h3:WD-C \\",
        "    --portal h2=10.0.0.12:3260 --portal h3=10.0.0.13:3260",
    )
)
@click.argument("name")
@click.option("--leg", "legs", type=HostDevice(), multiple=True, required=True)
@_on
@click.option("--mount", "where", required=True, metavar="PATH", help="Where it is mounted.")
@click.option("--portal", "portals", multiple=True, metavar="HOST=ADDRESS:PORT")
@click.option("--type", "kind", type=click.Choice(TYPES), default="ext4", show_default=True)
@pass_state
def create(
    state: State,
    name: str,
    legs: tuple[Leg, ...],
    on: str,
    where: str,
    portals: tuple[str, ...],
    kind: str,
) -> None:
    """Make NAME of the legs, and mount it: over all that the devices hold.

    With several legs of each host, the first ones are one mirror, the second ones another, and
    the volume is striped over all mirrors. Asked for again, it goes on where it stopped.
    """
    from hostler.replicate import Replicate

    refuse_terms(state)
    at: dict[str, str] = {}
    for each in portals:
        host, equals, portal = each.partition("=")
        if not equals or host in at:
            raise click.UsageError(f"--portal {each}: is one HOST=ADDRESS:PORT for each host")
        at[host] = portal
    try:
        volume = Volume.of(name, legs, on, where, at, kind)
    except VolumeInvalid as error:
        raise click.UsageError(str(error)) from error
    hosts = {one: _host(state, one) for one in {on, *volume.hosts}}
    state.change(Replicate(volume, hosts), _parts, hosts=[hosts[on]])


def _host(state: State, name: str) -> Host:
    found = state.fleet.select((name,))
    if len(found) != 1 or found[0].name != name:
        raise click.UsageError(f"{name!r} is not the name of one host")
    return found[0]


def _parts(done: Any) -> str:
    return ", ".join(name for name, answer in done.answers.items() if answer.change.changed)


@replicated_volume.command(epilog=examples("hostler storage replicated-volume status data --on h1"))
@click.argument("name")
@_on
@pass_state
def status(state: State, name: str, on: str) -> NoReturn:
    """Show the legs of NAME, and whether each is whole."""
    from hostler.replicate_repair import state as look

    host = _host(state, on)
    results = state.run(state.client.each([host], lambda session: look(session, name)))
    state.finish(results, _LEGS)


def _legs(volume: Any) -> Iterable[Sequence[Any]]:
    for leg in volume.legs:
        yield (
            leg.name,
            leg.mirror,
            leg.portal or "this host",
            leg.session or "-",
            leg.device or "-",
            leg.role,
            volume.syncing or "-",
        )


_LEGS = Table(("LEG", "MIRROR", "PORTAL", "SESSION", "DEVICE", "ROLE", "SYNCHRONISING"), _legs)


@replicated_volume.command(epilog=examples("hostler storage replicated-volume repair data --on h1"))
@click.argument("name")
@_on
@click.option("--wait", default=86400.0, help="Seconds to wait for what is copied. 0: do not wait.")
@pass_state
def repair(state: State, name: str, on: str, wait: float) -> None:
    """Bring back the legs of NAME whose hosts are there again.

    Logged in, added to their mirrors again; of each only what has changed is copied.
    """
    from hostler.replicate_repair import Repair

    refuse_terms(state)
    state.change(Repair(name, wait), _parts, hosts=[_host(state, on)])
