"""`hostler firewall sets`: what address sets hold, changed without a change of any rule."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import click

from hostler.api.firewall.v1 import address_set_pb2 as pb
from hostler.channel import rpc
from hostler.cli.context import State, pass_state
from hostler.cli.examples import examples
from hostler.cli.kinds import Seconds
from hostler.cli.output import Table, moment
from hostler.firewall_elements import (
    check_count,
    check_size,
    elements,
    read_blocklist,
    read_element,
)
from hostler.plans import RpcChange

_SERVICE = "AddressSetService"


@click.group()
def sets() -> None:
    """Address sets: list, look into, add to, remove from, replace.

    Only sets that their ruleset declares as dynamic are changed here. What a set holds counts from
    the next packet on; no rule is touched.
    """


def _set_rows(answer: Any) -> Iterable[Sequence[Any]]:
    for each in answer.address_sets:
        yield (
            each.name,
            each.ruleset,
            "yes" if each.dynamic else "no",
            each.ipv4_elements,
            each.ipv6_elements,
            ", ".join(each.used_by) or "-",
        )


def _element_rows(answer: Any) -> Iterable[Sequence[Any]]:
    for each in answer.elements:
        timeout = each.timeout.ToJsonString() if each.HasField("timeout") else "-"
        yield each.address, timeout, moment(each, "expire_time")


_SETS = Table(("NAME", "RULESET", "DYNAMIC", "IPV4", "IPV6", "USED BY"), _set_rows)
_ELEMENTS = Table(("ELEMENT", "TIMEOUT", "ENDS (UTC)"), _element_rows)


@sets.command(name="list", epilog=examples("hostler -H all firewall sets list"))
@pass_state
def list_sets(state: State) -> None:
    """List the sets of hosts, and how much is in them."""
    method = rpc(pb, _SERVICE, "ListAddressSets")
    state.tell(method, pb.ListAddressSetsRequest(), _SETS)


@sets.command(epilog=examples("hostler -H h1 firewall sets show blocked"))
@click.argument("name")
@pass_state
def show(state: State, name: str) -> None:
    """List the elements that the kernel has in a set."""
    method = rpc(pb, _SERVICE, "ListElements")
    state.tell(method, pb.ListElementsRequest(name=name), _ELEMENTS, pages=True)


class _Address(click.ParamType[Any]):
    """An address, a network or a range."""

    name = "ADDRESS"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Read it; a usage error if it is none."""
        try:
            return read_element(str(value).strip())
        except ValueError as error:
            self.fail(str(error), param, ctx)


_TIMEOUT = click.option(
    "--timeout",
    "timeout_s",
    type=Seconds(),
    help="They leave the set by themselves after this time.",
)


def _with_elements(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command elements, by arguments and by files."""
    file = click.option(
        "-f",
        "--file",
        "paths",
        multiple=True,
        type=click.Path(path_type=Path, dir_okay=False),
        help="A list of them, one a line; # and ; begin comments.",
    )
    return click.argument("addresses", nargs=-1, type=_Address())(file(command))


def _words(addresses: Sequence[str], paths: Sequence[Path]) -> list[str]:
    """Everything that was named, each once. Raises ConfigError."""
    words = dict.fromkeys(addresses)
    for path in paths:
        words.update(dict.fromkeys(read_blocklist(path)))
    if not words and not paths:
        raise click.UsageError("give addresses, or a list of them by -f")
    check_count(len(words), "all together")
    return list(words)


@sets.command(
    epilog=examples(
        "hostler -H all --yes firewall sets add blocked 192.0.2.7 2001:db8::/32 --timeout 1h",
        "hostler -H all --yes firewall sets add blocked 192.0.2.1-192.0.2.9",
    )
)
@click.argument("name")
@_with_elements
@_TIMEOUT
@pass_state
def add(
    state: State,
    name: str,
    addresses: tuple[str, ...],
    paths: tuple[Path, ...],
    timeout_s: float | None,
) -> None:
    """Add addresses, networks or ranges to a set. One that is there gets the new timeout."""
    wanted = elements(_words(addresses, paths), timeout_s)
    request = pb.AddElementsRequest(name=name, elements=wanted)
    state.change(RpcChange(rpc(pb, _SERVICE, "AddElements"), check_size(request)))


@sets.command(epilog=examples("hostler -H all --yes firewall sets remove blocked 192.0.2.7"))
@click.argument("name")
@_with_elements
@pass_state
def remove(state: State, name: str, addresses: tuple[str, ...], paths: tuple[Path, ...]) -> None:
    """Remove elements from a set, as they were added. One that is not there is no error."""
    request = pb.RemoveElementsRequest(name=name, addresses=_words(addresses, paths))
    state.change(RpcChange(rpc(pb, _SERVICE, "RemoveElements"), check_size(request)))


@sets.command(
    epilog=examples(
        "hostler -H all --yes firewall sets replace blocked -f blocklist.txt",
        "hostler -H all --yes firewall sets replace blocked -f /dev/null    # empty it",
    )
)
@click.argument("name")
@_with_elements
@_TIMEOUT
@pass_state
def replace(
    state: State,
    name: str,
    addresses: tuple[str, ...],
    paths: tuple[Path, ...],
    timeout_s: float | None,
) -> None:
    """Make a set hold these elements and no others, at once: no packet sees it half full."""
    wanted = elements(_words(addresses, paths), timeout_s)
    request = pb.ReplaceElementsRequest(name=name, elements=wanted)
    state.change(RpcChange(rpc(pb, _SERVICE, "ReplaceElements"), check_size(request)))
