"""Copies on hosts, and looks at them: what `hostler storage copy` and `verify` ask hosts for."""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from typing import Any, NoReturn

import click

from hostler.cli.asking import ask, must_be_able_to_ask, refuse_terms
from hostler.cli.context import State
from hostler.cli.records import show_record
from hostler.cli.storage_graph import size

Place = tuple[str, str]
_MOST_OFTEN_S = 0.5


def copy_on_hosts(
    state: State, source: Place | None, target: Place | None, manifest: bool, resume: bool
) -> NoReturn:
    """Copy from one host's path to another's; then leave."""
    from hostler.api.storage.v1 import copy_pb2 as pb

    if source is None or target is None:
        raise click.UsageError("files are copied on this machine, or from host to host")
    if source[0] != target[0]:
        _between(state, source, target, manifest, resume)
    request = pb.CopyFilesRequest(source=source[1], target=target[1], manifest=manifest)
    _as_job(state, source[0], "CopyFiles", request)


def _between(state: State, source: Place, target: Place, manifest: bool, resume: bool) -> NoReturn:
    """Relay from a host to another one: it takes as long as this command runs."""
    from hostler.results import CallFailed, plain

    refuse_terms(state)
    _refuse_selectors(state)
    must_be_able_to_ask(state)
    shown = f"copy {source[0]}:{source[1]} to {target[0]}:{target[1]}, through this machine"
    if state.plan_only:
        click.echo(f"Would {shown}.")
        click.get_current_context().exit(0)
    ask(state, f"{shown[0].upper()}{shown[1:]}?")
    from hostler.file_copies import Between, copy_between

    chosen = replace(state, selectors=(source[0], target[0]))
    hosts = tuple(state.fleet.select((name,))[0] for name in (source[0], target[0]))
    wanted = Between(source[1], target[1], manifest)
    meter = Meter()
    try:
        outcome = state.run(copy_between(chosen.client, hosts, wanted, meter.say, resume))
    except CallFailed as failed:
        words = f"{failed}; there is no {target[1]} on {target[0]}"
        raise click.ClickException(words) from failed
    finally:
        meter.end()
    show_record(plain(outcome), state.output)
    click.get_current_context().exit(0)


class Meter:
    """Shows on a terminal how much was relayed."""

    def __init__(self) -> None:
        self._shown_s = 0.0

    def say(self, done: int, total: int) -> None:
        """Show it, at most twice a second."""
        now = time.monotonic()
        if sys.stderr.isatty() and now - self._shown_s > _MOST_OFTEN_S:
            self._shown_s = now
            click.echo(f"\r\033[K{size(done)} of {size(total)}", err=True, nl=False)

    def end(self) -> None:
        """Leave the line."""
        if self._shown_s:
            click.echo("", err=True)


def _refuse_selectors(state: State) -> None:
    if state.selectors:
        raise click.UsageError("the host is named with the path, not by -H")


def verify_on_host(state: State, manifest: Place, root: str, redundancy: bool) -> NoReturn:
    """Compare a copy on a host with its manifest, and read what it lies on; then leave."""
    from hostler.api.storage.v1 import copy_pb2 as pb

    request = pb.VerifyFilesRequest(manifest=manifest[1], root=root)
    _as_job(state, manifest[0], "VerifyFiles", request, (root or manifest[1]) * redundancy)


def _as_job(state: State, host: str, method: str, request: Any, lies: str = "") -> NoReturn:
    """Have a host do it as a job: it takes as long as the disks do.

    With a path all redundant data that it lies on are read, too.
    """
    from hostler.api.storage.v1 import copy_pb2 as pb
    from hostler.channel import rpc
    from hostler.plans import RpcChange

    _refuse_selectors(state)
    chosen = replace(state, selectors=(host,), background=True)
    change = RpcChange(rpc(pb, "CopyService", method), request)
    if lies:
        from hostler.cli.storage_redundancy import VerifyWithRedundancy

        chosen.change(VerifyWithRedundancy(change, lies), lambda looks: "")
    chosen.change(change, _after)


def _after(answer: Any) -> str:
    if not answer.HasField("outcome"):
        return ""
    ended = answer.outcome
    return f"{ended.entries} entries, {size(ended.size_bytes)}, {ended.duration.seconds} s"
