"""`hostler ca rotate`: the CA becomes another one, in three steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hostler.cli.asking import ask, must_be_able_to_ask
from hostler.cli.authority import folder_option, key_passphrase, open_authority
from hostler.cli.context import State, pass_state
from hostler.cli.examples import examples
from hostler.cli.records import show_record
from hostler.cli.ssh_options import OpenSsh, with_fleet_ssh

if TYPE_CHECKING:
    from hostler.ca_rotation import Pair, Rotation
    from hostler.enrolment.rotate import Rotating
    from hostler.enrolment.rotation_plan import Place, Step
    from hostler.fleet import Host

_STEPS = ("trust", "reissue", "drop")
_WORDS = {
    "trust": "make a new CA beside the old one, and have {count} hosts trust both",
    "reissue": "have the new CA sign from now on: bundle, users here, and {count} hosts",
    "drop": "have {count} hosts and this machine trust the old CA no more",
}


@click.command(
    epilog=examples(
        "hostler ca rotate                   how far it is, host by host; changes nothing",
        "hostler ca rotate trust",
        "hostler ca rotate reissue",
        "hostler ca rotate drop --without web7",
    )
)
@click.argument("step", type=click.Choice(_STEPS), required=False)
@click.option("--without", multiple=True, metavar="HOST", help="Leave this host behind, by name.")
@folder_option
@with_fleet_ssh
@pass_state
def rotate(
    state: State,
    step: str | None,
    without: tuple[str, ...],
    folder: Path | None,
    open_ssh: OpenSsh,
) -> None:
    """Replace the CA by a new one while all goes on; without STEP, show how far that is.

    In three steps, each on every host of the fleet, over ssh as `hostler enroll`: trust both CAs;
    reissue what they, you and the bundle are signed with; drop the old CA. A step begins once the
    one before is seen at every door of every host. One that was cut off, or has missed a host that
    was down, is repeated. A host that is left behind is brought back by `enroll --replace`, an
    older backup of the CA is of the old one. Exit 1 if a host was missed.
    """
    from hostler.ca_rotation import Rotation

    if step is not None:
        must_be_able_to_ask(state)
    hosts = tuple(host for host in state.fleet.hosts if not host.is_local)
    if odd := sorted(set(without) - {host.name for host in hosts}):
        raise click.BadParameter(f"{odd[0]!r} is not in the fleet", param_hint="--without")
    authority = open_authority(state, folder)
    rotation = Rotation(authority.folder, (state.context.ca,), key_passphrase)
    _Rotate(state, rotation, hosts, frozenset(without), open_ssh).run(step)


class _Rotate:
    """One use of the command."""

    def __init__(
        self,
        state: State,
        rotation: Rotation,
        hosts: Sequence[Host],
        without: frozenset[str],
        open_ssh: OpenSsh,
    ) -> None:
        self._state, self._rotation, self._without = state, rotation, without
        self._open_ssh = open_ssh
        self._hosts = tuple(host for host in hosts if host.name not in without)

    def run(self, asked: str | None) -> None:
        from hostler.enrolment.rotation_plan import Step, check, next_step

        stage, pair = self._rotation.stage, self._pair()
        places = self._look(pair)
        step = Step(asked) if asked else next_step(stage, places, pair.old, pair.new)
        if asked:
            check(step, stage, places, pair.old, pair.new, self._without)
        if asked is None or self._state.plan_only or not self._state.yes:
            self._show(step, pair, places)
        if asked is None or self._state.plan_only:
            return
        ask(self._state, f"Do this step ({step})?")
        failed = self._carry_out(step, places)
        self._finish(step, failed)

    def _pair(self) -> Pair:
        from hostler.ca_rotation import Pair, Stage

        if self._rotation.stage is not Stage.NONE:
            return self._rotation.pair()
        # There is no new one yet: none trusts it.
        signing = self._rotation.authority.ca_pem
        return Pair(signing, signing)

    def _carry_out(self, step: Step, places: Sequence[Place]) -> Mapping[str, str]:
        """Do the step here, then at the hosts; answers why it failed, by host."""
        from hostler.enrolment.rotation_plan import Step

        if step is Step.TRUST:
            pair = self._rotation.begin()
        elif step is Step.REISSUE:
            pair = self._rotation.switch()
            for name in self._rotation.reissue_users():
                self._say(f"user {name}: reissue, in its place here")
        else:
            pair = self._rotation.pair()
            self._check_own(pair)
        rotating = self._rotating(pair)
        failed = self._state.run(rotating.carry_out(step, self._hosts, places))
        if step is Step.DROP and not failed:
            self._rotation.drop()
        return failed

    def _check_own(self, pair: Pair) -> None:
        """Refuse to lock ourselves out. Raises RotationRefused."""
        from hostler.core.certificates import load_certificates
        from hostler.core.trust import issuer_of
        from hostler.enrolment.rotation_plan import RotationRefused

        path = self._state.context.certificate
        if not issuer_of(load_certificates(path.read_bytes())[0], pair.new_pem):
            words = f"{path} is not of the new CA: with it, no host would let you in"
            raise RotationRefused("OWN_CERTIFICATE_OLD", words)

    def _look(self, pair: Pair) -> list[Place]:
        found: list[Place] = self._state.run(self._rotating(pair).look(self._hosts))
        return found

    def _rotating(self, pair: Pair) -> Rotating:
        from hostler.enrolment.rotate import Rotating

        state = self._state
        return Rotating(
            *(self._rotation.authority, pair, state.context, state.client),
            *(self._open_ssh, self._say),
        )

    def _say(self, words: str) -> None:
        if self._state.output == "table":
            click.echo(words, err=True)

    def _show(self, step: Step, pair: Pair, places: Sequence[Place]) -> None:
        """How far it is, and what the step would do."""
        from hostler.ca_rotation import Stage
        from hostler.enrolment.rotation_plan import missing

        begun = self._rotation.stage is not Stage.NONE
        lacking = {
            place.name: (missing(step, place, pair.old, pair.new) if begun else place.problem)
            or ("" if begun else "does not trust both CAs")
            for place in places
        }
        words = _WORDS[step].format(count=sum(map(bool, lacking.values())))
        if self._state.output != "table":
            record = {
                "next": str(step),
                "begun": begun,
                "old": pair.old,
                "new": pair.new if begun else "",
                "missing": {name: why for name, why in lacking.items() if why},
                "plan": words,
            }
            show_record(record, self._state.output)
            return
        quiet = not self._state.plan_only and self._state.yes
        if quiet:
            return
        click.echo(f"old CA  {pair.old}\nnew CA  {pair.new if begun else 'not made yet'}")
        for name, why in lacking.items():
            click.echo(f"{name}: {why or f'{step} is done'}")
        click.echo(f"next: {words}\n      hostler ca rotate {step}")

    def _finish(self, step: Step, failed: Mapping[str, str]) -> None:
        done = [host.name for host in self._hosts if host.name not in failed]
        record = {
            "step": str(step),
            "complete": not failed,
            "done": done,
            "missed": dict(failed),
            "without": sorted(self._without),
        }
        if self._state.output == "table":
            click.echo(f"{step}: {len(done)} hosts have confirmed")
            after = {
                "trust": "next: hostler ca rotate reissue",
                "reissue": "Bring users their new certificates, and other machines this ca.pem; "
                "back the CA up anew. next: hostler ca rotate drop",
                "drop": "the old CA is trusted no more",
            }
            if not failed:
                click.echo(after[step])
        else:
            show_record(record, self._state.output)
        if failed:
            for name, why in failed.items():
                click.echo(f"{name}: {why}", err=True)
            click.echo(f"Repeat it for these hosts: hostler ca rotate {step}", err=True)
            click.get_current_context().exit(1)
