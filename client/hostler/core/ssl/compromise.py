"""What to do about keys that others may know: what they touch, and three ways with cost and risk.

Pure: it judges what hosts have answered. A host that did not answer is named, for what it has is
not known; a plan that lacks one is not complete.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum

LONGEST_REVIEW = timedelta(days=366)
_MAX_WORDS = 1000


class Way(Enum):
    """What can be done about one certificate."""

    REVOKE = "revoke and reissue"
    REISSUE = "reissue only"
    KEEP = "keep"


class DecisionInvalid(ValueError):
    """A decision that lacks what it has to have; the message says what."""


@dataclass(frozen=True, slots=True)
class Use:
    """Where a host uses a certificate: a server, and what of it is to be reloaded."""

    host: str
    server: str
    listeners: tuple[str, ...] = ()
    names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Found:
    """A certificate as one host has it.

    `spki` is SHA-256 of its key; `key_here`, whether the private key lies there; `forward_secret`,
    whether all that is known to be negotiated is, None if nothing is known.
    """

    host: str
    fingerprint: str
    spki: str
    serial: str
    issuer: str
    names: tuple[str, ...]
    not_before: datetime
    not_after: datetime
    key_here: bool
    uses: tuple[Use, ...] = ()
    authority: bool = False
    forward_secret: bool | None = None


@dataclass(frozen=True, slots=True)
class Key:
    """A private key as one host has it."""

    host: str
    spki: str
    paths: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Inventory:
    """What is known of a fleet. `silent` are the hosts that did not answer, and why.

    `unread` are keys that could not be matched with a certificate, as (host, path): encrypted ones.
    """

    certificates: tuple[Found, ...]
    keys: tuple[Key, ...]
    silent: Mapping[str, str] = field(default_factory=dict)
    unread: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Option:
    """One way, with what it costs and what stays dangerous."""

    way: Way
    steps: tuple[str, ...]
    certificates: int
    installs: int
    reloads: int
    risks: tuple[str, ...]
    # Until when somebody with the key can pose as the names.
    exposed_until: datetime | None


@dataclass(frozen=True, slots=True)
class Touched:
    """A certificate whose key is compromised, with all the places and uses that it has."""

    fingerprint: str
    spki: str
    serial: str
    issuer: str
    names: tuple[str, ...]
    not_after: datetime
    hosts: tuple[str, ...]
    uses: tuple[Use, ...]
    authority: bool
    options: tuple[Option, ...]
    recommended: Way


@dataclass(frozen=True, slots=True)
class CompromisePlan:
    """All that compromised keys touch. `key_hosts` are the hosts that a key lies on, by key."""

    keys: tuple[str, ...]
    key_hosts: Mapping[str, tuple[str, ...]]
    touched: tuple[Touched, ...]
    silent: Mapping[str, str]
    unread: tuple[tuple[str, str], ...]

    @property
    def complete(self) -> bool:
        """Whether all hosts have answered, and all their keys could be told."""
        return not self.silent and not self.unread


@dataclass(frozen=True, slots=True)
class Decision:
    """What is done about one certificate, as it is recorded."""

    fingerprint: str
    way: Way
    reason: str = ""
    owner: str = ""
    review: datetime | None = None

    def check(self, now: datetime) -> None:
        """Raise DecisionInvalid if it keeps a certificate without reason, owner and review."""
        if self.way is not Way.KEEP:
            return
        for word, value in (("reason", self.reason), ("owner", self.owner)):
            if not value.strip():
                raise DecisionInvalid(f"{self.fingerprint[:16]} is kept: say the {word}")
            if len(value) > _MAX_WORDS:
                raise DecisionInvalid(f"the {word} is longer than {_MAX_WORDS} characters")
        if self.review is None or not now < self.review <= now + LONGEST_REVIEW:
            raise DecisionInvalid(
                f"{self.fingerprint[:16]} is kept: say a date of review within a year"
            )


def plan(
    inventory: Inventory,
    now: datetime,
    *,
    keys: Collection[str] = (),
    hosts: Collection[str] = (),
) -> CompromisePlan:
    """Answer what is touched if others know these keys and all that lie on these hosts."""
    compromised = set(keys)
    compromised |= {key.spki for key in inventory.keys if key.host in hosts}
    compromised |= {f.spki for f in inventory.certificates if f.host in hosts and f.key_here}
    grouped: dict[str, list[Found]] = {}
    for found in inventory.certificates:
        if found.spki in compromised:
            grouped.setdefault(found.fingerprint, []).append(found)
    places: dict[str, set[str]] = {spki: set() for spki in compromised}
    for key in inventory.keys:
        if key.spki in compromised:
            places[key.spki].add(key.host)
    for found in inventory.certificates:
        if found.spki in compromised and found.key_here:
            places[found.spki].add(found.host)
    touched = [_touched(group, now) for group in grouped.values()]
    return CompromisePlan(
        keys=tuple(sorted(compromised)),
        key_hosts={spki: tuple(sorted(of)) for spki, of in sorted(places.items())},
        touched=tuple(sorted(touched, key=lambda t: (t.not_after, t.fingerprint))),
        silent=dict(inventory.silent),
        unread=inventory.unread,
    )


def _touched(group: Sequence[Found], now: datetime) -> Touched:
    first = group[0]
    hosts = tuple(sorted({found.host for found in group}))
    uses = tuple(dict.fromkeys(use for found in group for use in found.uses))
    secret = _forward_secret(group)
    options = (
        _revoke(first, hosts, uses, secret),
        _reissue(first, hosts, uses, secret, now),
        _keep(first, hosts, uses, secret, now),
    )
    ended = first.not_after <= now
    return Touched(
        fingerprint=first.fingerprint,
        spki=first.spki,
        serial=first.serial,
        issuer=first.issuer,
        names=first.names,
        not_after=first.not_after,
        hosts=hosts,
        uses=uses,
        authority=first.authority,
        options=options,
        recommended=_recommended(first, uses, ended=ended),
    )


def _recommended(found: Found, uses: Sequence[Use], *, ended: bool) -> Way:
    # What has ended and nobody serves, nobody believes either; what serves needs another anyway.
    if ended:
        return Way.REISSUE if uses else Way.KEEP
    return Way.REVOKE


def _forward_secret(group: Iterable[Found]) -> bool | None:
    """Whether all is forward secret; False if anything is not, None if not all is known."""
    known = [found.forward_secret for found in group]
    if False in known:
        return False
    return None if None in known else True


def _installs(found: Found, hosts: Sequence[str], uses: Sequence[Use]) -> tuple[str, ...]:
    reloads = [f"reload {use.server} on {use.host}" for use in uses]
    return (
        f"make a new key on each of {len(hosts)} hosts: {', '.join(hosts)}",
        f"have {found.issuer} issue for {', '.join(found.names) or 'the same subject'}",
        *dict.fromkeys(reloads),
        "handshake with each, and see that the new one is served",
    )


def _cost(hosts: Sequence[str], uses: Sequence[Use]) -> tuple[int, int, int]:
    return len(hosts), len(hosts), len({(use.host, use.server) for use in uses})


def _revoke(
    found: Found, hosts: tuple[str, ...], uses: tuple[Use, ...], secret: bool | None
) -> Option:
    certificates, installs, reloads = _cost(hosts, uses)
    risks = [
        "clients that do not ask for revocations believe the old one until it ends",
        "whatever still serves the old one fails for those that do ask: revoke last",
        *_past(secret),
        *_of_authority(found),
    ]
    steps = (*_installs(found, hosts, uses), f"revoke {found.serial} at {found.issuer}")
    return Option(
        Way.REVOKE, steps, certificates, installs, reloads, tuple(risks), exposed_until=None
    )


def _reissue(
    found: Found,
    hosts: tuple[str, ...],
    uses: tuple[Use, ...],
    secret: bool | None,
    now: datetime,
) -> Option:
    certificates, installs, reloads = _cost(hosts, uses)
    risks = [*_posing(found, now), *_past(secret), *_of_authority(found)]
    return Option(
        Way.REISSUE,
        _installs(found, hosts, uses),
        *(certificates, installs, reloads, tuple(risks)),
        exposed_until=max(found.not_after, now),
    )


def _keep(
    found: Found,
    hosts: tuple[str, ...],
    uses: tuple[Use, ...],
    secret: bool | None,
    now: datetime,
) -> Option:
    risks = [*_posing(found, now), *_past(secret), *_of_authority(found)]
    if secret is not True:
        risks.append("what is recorded from now on can be read as well")
    if len(hosts) > 1:
        risks.append(f"the key stays shared by {len(hosts)} hosts: one more leak is a leak of all")
    steps = ("record the reason, an owner and a date of review",)
    return Option(Way.KEEP, steps, 0, 0, 0, tuple(risks), exposed_until=max(found.not_after, now))


def _posing(found: Found, now: datetime) -> list[str]:
    days = (found.not_after - now).days
    if found.not_after <= now:
        return []
    names = ", ".join(found.names) or "its subject"
    return [f"who has the key can pose as {names} for {days} more days, to every client"]


def _past(secret: bool | None) -> list[str]:
    if secret is True:
        return []
    known = "is not forward secret" if secret is False else "is not known to be forward secret"
    return [f"what is negotiated {known}: what was recorded can be read, whatever is done now"]


def _of_authority(found: Found) -> list[str]:
    if not found.authority:
        return []
    return ["it is an authority: all that it has issued is to be issued anew by another one"]
