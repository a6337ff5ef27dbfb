"""The table nat of iptables, as masquerades, source NAT, forwards and redirects of ours."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from ipaddress import ip_address, ip_network
from typing import Any

from hostler.api.firewall.v1 import ruleset_pb2 as pb
from hostler.firewall_import import Imported, Unsayable
from hostler.firewall_iptables_chains import Reached
from hostler.firewall_iptables_match import Match
from hostler.firewall_iptables_text import Option

_TARGET = re.compile(r"(?:\[([0-9a-fA-F:]+)\]|([0-9.]+|[0-9a-fA-F:]+?))(?::(\d{1,5}))?")
_MOST_PORTS = 256
# More does not matter here: NAT is asked for the first packet of a connection alone.
_STATES = (("new",), ())


class NatRules:
    """Adds to a ruleset what rules of the table nat say."""

    def __init__(self, ipv6: bool, made: Imported) -> None:
        self._made = made
        self._ruleset = made.ruleset
        self._anywhere = "::/0" if ipv6 else "0.0.0.0/0"

    def add(self, rules: Iterable[tuple[str, Reached]]) -> None:
        """Add rules by the built-in chain that they are reached from."""
        for base, each in rules:
            try:
                self._add(base, each)
            except Unsayable as error:
                self._made.cannot_say(each.line.number, each.line.text, str(error))

    def _add(self, base: str, reached: Reached) -> None:
        target = reached.line.target
        if (base, target) not in _TARGETS:
            raise Unsayable(f"{target or 'counting'} in {base} of nat has no words of ours")
        if reached.match.states not in _STATES:
            raise Unsayable("NAT knows no states but NEW")
        options = {str(option): option for option in reached.options}
        _TARGETS[base, target](self, reached.match, options)
        if options:
            raise Unsayable(f"{next(iter(options))} has no words of ours in NAT")

    def masquerade(self, match: Match, options: dict[str, Option]) -> None:
        """Add what MASQUERADE says. Raises Unsayable."""
        _only(match, "sources", "out_ifname", what="a masquerade")
        made = [
            pb.Masquerade(source=source, uplink=match.out_ifname) for source in self._sources(match)
        ]
        self._outside(match, options)
        self._refuse_more(options)
        self._ruleset.masquerades.extend(made)

    def source_nat(self, match: Match, options: dict[str, Option]) -> None:
        """Add what SNAT says. Raises Unsayable."""
        _only(match, "sources", "out_ifname", "destinations", what="source NAT")
        address = _address(options.pop("--to-source", None))
        self._outside(match, options)
        self._refuse_more(options)
        for source in self._sources(match):
            self._ruleset.source_nats.add(
                source=source,
                uplink=match.out_ifname,
                to_address=address,
                destinations=map(str, match.destinations),
            )

    def _sources(self, match: Match) -> list[str]:
        if match.out_ifname.endswith("+"):
            raise Unsayable("an uplink is one link, not all that begin so")
        return [str(each) for each in match.sources] or [self._anywhere]

    def _outside(self, match: Match, options: dict[str, Option]) -> None:
        """Take off what ours say of themselves: that the packet leaves the network and its link."""
        away = options.pop("! -d", None)
        if away is not None:
            sources = list(match.sources)
            if sources != [ip_network(away.word, strict=False)]:
                raise Unsayable("! -d of another network than that of -s has no words of ours")
        if "! -o" in options and match.sources and not match.out_ifname:
            link = options.pop("! -o").word
            self._made.note(f"! -o {link} is taken for the link that the network is on")

    def destination_nat(self, match: Match, options: dict[str, Option]) -> None:
        """Add what DNAT says. Raises Unsayable."""
        asked = ("protocol", "sources", "destinations", "destination_ports", "in_ifname")
        _only(match, *asked, what="a forward")
        if match.in_ifname.endswith("+"):
            raise Unsayable("a forward is for one link, not for all that begin so")
        address, to_port = _target(options.pop("--to-destination", None))
        self._refuse_more(options)
        self._made.note("forwards hold for packets to the host's own addresses")
        for port in _ports(match, to_port):
            forward = pb.Forward(
                protocol=f"PROTOCOL_{match.protocol.upper()}",
                port=port,
                addresses=_hosts(match),
                target_address=address,
                target_port=to_port if to_port != port else 0,
                sources=map(str, match.sources),
                in_ifname=match.in_ifname,
            )
            # One in OUTPUT for connections of the host itself is part of ours.
            if forward not in self._ruleset.forwards:
                self._ruleset.forwards.append(forward)

    def own_destination_nat(self, match: Match, options: dict[str, Option]) -> None:
        """DNAT in OUTPUT: said already by the forward that PREROUTING has made, or not at all."""
        before = len(self._ruleset.forwards)
        self.destination_nat(match, options)
        if len(self._ruleset.forwards) > before:
            del self._ruleset.forwards[before:]
            raise Unsayable("DNAT of the host's own connections alone has no words of ours")

    def redirect(self, match: Match, options: dict[str, Option]) -> None:
        """Add what REDIRECT says. Raises Unsayable."""
        _only(match, "protocol", "sources", "destination_ports", "in_ifname", what="a redirect")
        option = options.pop("--to-ports", None)
        if option is None or not option.word.isdecimal():
            raise Unsayable("a redirect leads to one port")
        if match.in_ifname.endswith("+"):
            raise Unsayable("a redirect is for one link, not for all that begin so")
        self._refuse_more(options)
        for port in _ports(match, int(option.word)):
            self._ruleset.redirects.add(
                protocol=f"PROTOCOL_{match.protocol.upper()}",
                port=port,
                to_port=int(option.word),
                in_ifname=match.in_ifname,
                sources=map(str, match.sources),
            )

    def _refuse_more(self, options: Mapping[str, Option]) -> None:
        if options:
            raise Unsayable(f"{next(iter(options))} has no words of ours in NAT")


_TARGETS: Mapping[tuple[str, str], Any] = {
    ("POSTROUTING", "MASQUERADE"): NatRules.masquerade,
    ("POSTROUTING", "SNAT"): NatRules.source_nat,
    ("PREROUTING", "DNAT"): NatRules.destination_nat,
    ("OUTPUT", "DNAT"): NatRules.own_destination_nat,
    ("PREROUTING", "REDIRECT"): NatRules.redirect,
}


def _only(match: Match, *names: str, what: str) -> None:
    for name in match.restricts():
        # "To an address of the host" is what forwards and redirects mean by themselves.
        if name not in (*names, "states") and (name != "to_local" or "protocol" not in names):
            raise Unsayable(f"{what} cannot ask for {name.replace('_', ' ')}")


def _ports(match: Match, to_port: int) -> list[int]:
    if match.protocol not in ("tcp", "udp") or not match.destination_ports:
        raise Unsayable("ports of TCP or UDP are needed")
    ports = [port for a, b in match.destination_ports for port in range(a, min(b, a + 999) + 1)]
    if len(ports) > _MOST_PORTS:
        raise Unsayable(f"more than {_MOST_PORTS} ports, each of which would be one of ours")
    return ports


def _hosts(match: Match) -> list[str]:
    if any(each.prefixlen != each.max_prefixlen for each in match.destinations):
        raise Unsayable("a forward is for addresses of the host, not for networks")
    return [str(each.network_address) for each in match.destinations]


def _target(option: Option | None) -> tuple[str, int]:
    found = _TARGET.fullmatch(option.word) if option else None
    if found is None:
        raise Unsayable("DNAT leads to one address, and to one port of it")
    return _read_address(found[1] or found[2]), int(found[3] or 0)


def _address(option: Option | None) -> str:
    if option is None:
        raise Unsayable("SNAT needs one address")
    return _read_address(option.word)


def _read_address(word: str) -> str:
    try:
        return str(ip_address(word))
    except ValueError as error:
        raise Unsayable(f"{word} is not one address") from error
