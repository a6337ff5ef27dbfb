"""A file of lxc-nat as forwards: `1.2.3.4:8080 -> www:80`, one a line."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any

from hostler.api.firewall.v1 import ruleset_pb2 as pb
from hostler.config import ConfigError
from hostler.firewall_import import MOST_LINES, Imported, ImportFailed, Unsayable

Address = IPv4Address | IPv6Address

_LINE = re.compile(
    r"(?:\[(?P<six>[0-9a-fA-F:]+)\]|(?P<from>[^\s:\[\]]*)):(?P<port>\d{1,5})(?:/(?P<protocol>\w+))?"
    r"\s*->\s*"
    r"(?:\[(?P<to_six>[0-9a-fA-F:]+)\]|(?P<to>[^\s:\[\]]+)):(?P<to_port>\d{1,5})"
)
_ANY = ("", "*", "0.0.0.0", "::")  # noqa: S104 - words of the file, nothing is bound


def import_lxc_nat(text: str, name: str, names: Mapping[str, Iterable[str]]) -> Imported:
    """Make a ruleset of forwards. `names` are the addresses of containers.

    Of a container's addresses that of the host's own family is taken, IPv4 if the line gives none.
    Raises ImportFailed if the text is too long.
    """
    made = Imported.named(name)
    lines = text.splitlines()
    if len(lines) > MOST_LINES:
        raise ImportFailed(f"{len(lines)} lines; at most {MOST_LINES} are read")
    first: dict[tuple[Any, ...], int] = {}
    for number, line in enumerate(lines, 1):
        words = line.partition("#")[0].strip()
        if not words:
            continue
        try:
            forward = _forward(words, names)
            version = ip_address(forward.target_address).version
            key = (forward.protocol, forward.port, *forward.addresses, version)
            if first.setdefault(key, number) != number:
                raise Unsayable(f"line {first[key]} forwards the same port")
        except Unsayable as error:
            made.cannot_say(number, words, str(error))
            continue
        made.ruleset.forwards.append(forward)
    made.check_size()
    return made


def _forward(words: str, names: Mapping[str, Iterable[str]]) -> Any:
    found = _LINE.fullmatch(words)
    if found is None:
        raise Unsayable("it does not read ADDRESS:PORT -> NAME:PORT")
    protocol = (found["protocol"] or "tcp").lower()
    if protocol not in ("tcp", "udp"):
        raise Unsayable(f"there is no forward of {protocol}")
    ports = int(found["port"]), int(found["to_port"])
    if not all(1 <= port <= 65535 for port in ports):
        raise Unsayable("a port is from 1 to 65535")
    at = _own_address(found["six"] or found["from"])
    version = 6 if found["six"] else at.version if at else 0
    target = _target(found["to_six"] or found["to"], names, version)
    return pb.Forward(
        protocol=f"PROTOCOL_{protocol.upper()}",
        port=ports[0],
        addresses=[str(at)] if at else [],
        target_address=str(target),
        target_port=ports[1] if ports[1] != ports[0] else 0,
    )


def _own_address(word: str) -> Address | None:
    """The address of the host; None if it is any."""
    if word in _ANY:
        return None
    try:
        return ip_address(word)
    except ValueError as error:
        raise Unsayable(f"{word} is not an address of the host") from error


def _target(word: str, names: Mapping[str, Iterable[str]], version: int) -> Address:
    try:
        found: list[Address] = [ip_address(word)]
    except ValueError:
        if word not in names:
            raise Unsayable(f"{word} has no address: give one by --map {word}=ADDRESS") from None
        found = [ip_address(each) for each in names[word]]
    fitting = [each for each in found if each.version == version] if version else found
    if not fitting:
        raise Unsayable(f"{word} has no address of IPv{version}")
    return min(fitting, key=lambda each: each.version)


def read_hosts(text: str, where: str) -> dict[str, list[str]]:
    """The addresses of names in the text of a file such as /etc/hosts. Raises ConfigError."""
    names: dict[str, list[str]] = {}
    for number, line in enumerate(text.splitlines(), 1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        try:
            ip_address(words[0])
        except ValueError as error:
            raise ConfigError(f"{where}:{number}: {words[0]!r} is not an address") from error
        if "%" in words[0]:
            # A link-local address with its link leads nowhere from elsewhere.
            continue
        for name in words[1:]:
            names.setdefault(name, []).append(words[0])
    return names
