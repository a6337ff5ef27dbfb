"""Profiles: for whom an authority issues, and how long; what a request asks beyond is refused."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import timedelta
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from typing import Any, NamedTuple

from hostler.core.names import MAX_ALTERNATIVE_NAMES, InvalidDnsName, InvalidField, check_dns_name

USAGES = ("server", "client")
SHORTEST = timedelta(minutes=5)
LONGEST = timedelta(days=825)
MAX_PROFILES = 100
_MAX_PATTERNS = 1000
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9_-]{0,61}[a-z0-9])?", re.ASCII)


class Fault(NamedTuple):
    """What a profile does not allow: the field or the name, and why."""

    subject: str
    reason: str


@dataclass(frozen=True, slots=True)
class Names:
    """The names that a certificate is to be for. DNS names are in lower case."""

    dns: tuple[str, ...] = ()
    addresses: tuple[IPv4Address | IPv6Address, ...] = ()

    def words(self) -> tuple[str, ...]:
        """All of them as text."""
        return (*self.dns, *map(str, self.addresses))


@dataclass(frozen=True, slots=True)
class Profile:
    """What an authority issues under one name.

    `dns_names` are exact ones, or "*.example.net" for all names below a domain, any depth, and not
    the domain itself. `wildcards` lets a certificate have a name such as "*.www.example.net", if
    all that it covers is below one of those domains.
    """

    name: str
    dns_names: tuple[str, ...] = ()
    networks: tuple[IPv4Network | IPv6Network, ...] = ()
    wildcards: bool = False
    max_validity: timedelta = timedelta(days=30)
    usages: tuple[str, ...] = ("server",)

    def faults(self, names: Names, validity: timedelta) -> tuple[Fault, ...]:
        """Answer all that this profile does not allow; empty if it allows all of it."""
        found = [Fault(name, why) for name in names.dns if (why := self._refuses_dns(name))]
        found += [
            Fault(str(a), "is in no network of the profile")
            for a in names.addresses
            if not any(a.version == n.version and a in n for n in self.networks)
        ]
        count = len(names.dns) + len(names.addresses)
        if not count:
            found.append(Fault("csr", "names nothing that the certificate would be for"))
        if count > MAX_ALTERNATIVE_NAMES:
            found.append(Fault("csr", f"has more than {MAX_ALTERNATIVE_NAMES} names"))
        if validity > self.max_validity:
            found.append(Fault("validity", f"is longer than {_words(self.max_validity)}"))
        if validity < SHORTEST:
            found.append(Fault("validity", f"is shorter than {_words(SHORTEST)}"))
        return tuple(found)

    def _refuses_dns(self, name: str) -> str:
        wildcard = name.startswith("*.")
        if wildcard and not self.wildcards:
            return "is a wildcard, which the profile does not allow"
        base = name.removeprefix("*.")
        for pattern in self.dns_names:
            domain = pattern.removeprefix("*.")
            below = base.endswith(f".{domain}") or (wildcard and base == domain)
            if below if pattern.startswith("*.") else name == pattern:
                return ""
        return "is not a name of the profile"


def read_profiles(tables: Mapping[str, Any]) -> dict[str, Profile]:
    """Read the tables of a configuration, by name. Raises InvalidField, naming the key.

    A table has the fields of `Profile`, but `max_validity_days` or `max_validity_hours`.
    """
    if len(tables) > MAX_PROFILES:
        raise InvalidField("profiles", f"more than {MAX_PROFILES}")
    return {name: _profile(name, table) for name, table in tables.items()}


def _profile(name: str, table: Any) -> Profile:
    at = f"profiles.{name[:70]}"
    if not _NAME.fullmatch(name):
        raise InvalidField(at, "a name has lower-case letters, digits and _ - inside")
    if not isinstance(table, dict):
        raise InvalidField(at, "must be a table")
    known = {f.name for f in fields(Profile)} - {"name", "max_validity"}
    odd = sorted(set(table) - known - {"max_validity_days", "max_validity_hours"})
    if odd:
        raise InvalidField(f"{at}.{odd[0]}", "is not known")
    wildcards = table.get("wildcards", False)
    if not isinstance(wildcards, bool):
        raise InvalidField(f"{at}.wildcards", "must be true or false")
    usages = _strings(table, "usages", at) or ["server"]
    if set(usages) - set(USAGES):
        raise InvalidField(f"{at}.usages", "must be of 'server' and 'client'")
    return Profile(
        name,
        tuple(_pattern(word, f"{at}.dns_names") for word in _strings(table, "dns_names", at)),
        tuple(_network(word, f"{at}.networks") for word in _strings(table, "networks", at)),
        wildcards,
        _validity(table, at),
        tuple(word for word in USAGES if word in usages),
    )


def _strings(table: Mapping[str, Any], key: str, at: str) -> Sequence[str]:
    value = table.get(key, [])
    if not isinstance(value, list) or not all(isinstance(v, str) for v in value):
        raise InvalidField(f"{at}.{key}", "must be a list of texts")
    if len(value) > _MAX_PATTERNS:
        raise InvalidField(f"{at}.{key}", f"has more than {_MAX_PATTERNS}")
    return value


def _pattern(word: str, at: str) -> str:
    try:
        base = check_dns_name(word.removeprefix("*."))
    except InvalidDnsName as e:
        raise InvalidField(at, e.reason) from e
    return f"*.{base}" if word.startswith("*.") else base


def _network(word: str, at: str) -> IPv4Network | IPv6Network:
    try:
        return ip_network(word)
    except ValueError as e:
        raise InvalidField(at, str(e)) from e


def _validity(table: Mapping[str, Any], at: str) -> timedelta:
    given = [key for key in ("max_validity_days", "max_validity_hours") if key in table]
    if not given:
        return Profile("").max_validity
    if len(given) > 1:
        raise InvalidField(f"{at}.{given[0]}", "give either days or hours")
    value = table[given[0]]
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise InvalidField(f"{at}.{given[0]}", "must be a number")
    hours = value * 24 if given[0].endswith("days") else value
    # Compared as a number: what a timedelta cannot hold is too long as well.
    if not SHORTEST / timedelta(hours=1) <= hours <= LONGEST / timedelta(hours=1):
        raise InvalidField(f"{at}.{given[0]}", f"must be 5 minutes to {LONGEST.days} days")
    return timedelta(hours=hours)


def _words(span: timedelta) -> str:
    if span >= timedelta(days=2) and not span % timedelta(days=1):
        return f"{span.days} days"
    return f"{span / timedelta(minutes=1):g} minutes"
