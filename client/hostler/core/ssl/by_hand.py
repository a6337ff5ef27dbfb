"""What a run cannot do about compromised keys, and people have to. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from hostler.core.ssl.compromise import CompromisePlan, Touched


@dataclass(frozen=True, slots=True)
class Deployed:
    """A deployment as a host has it: the certificate in place, and whether an ACME server is asked.

    `spki` and `fingerprint` are empty if there is none in place. It is `revocable` if that server
    has issued it, for this deployment.
    """

    host: str
    name: str
    fingerprint: str
    spki: str
    acme: bool
    revocable: bool


@dataclass(frozen=True, slots=True)
class ByHand:
    """One thing to do by hand: where (a host, or the issuer), about which certificate, and what."""

    where: str
    fingerprint: str
    names: tuple[str, ...]
    what: str


def by_hand(
    made: CompromisePlan,
    deployed: Collection[Deployed],
    issued: Collection[str],
    *,
    authority: bool,
    revoke: bool,
) -> tuple[ByHand, ...]:
    """Answer what is left. `issued` are the fingerprints that the authority has issued, if any."""
    by_host: dict[str, dict[str, Deployed]] = {}
    for each in deployed:
        by_host.setdefault(each.host, {})[each.fingerprint] = each
    return tuple(
        left
        for touched in made.touched
        for left in (
            *_places(touched, by_host, authority=authority),
            *(_revocation(touched, by_host, issued) if revoke else ()),
        )
    )


def _places(
    touched: Touched, by_host: Mapping[str, Mapping[str, Deployed]], *, authority: bool
) -> Iterator[ByHand]:
    for host in touched.hosts:
        one = by_host.get(host, {}).get(touched.fingerprint)
        uses = [use for use in touched.uses if use.host == host]
        if one is not None and not one.acme and not authority:
            what = f"deployment {one.name} has no ACME server, and there is no --authority"
        elif one is None and uses:
            at = ", ".join(listener for use in uses for listener in use.listeners)
            servers = ", ".join(dict.fromkeys(use.server for use in uses))
            what = f"used by {servers}{f' at {at}' if at else ''}, and in no deployment"
        else:
            continue
        yield ByHand(host, touched.fingerprint, touched.names, what)


def _revocation(
    touched: Touched, by_host: Mapping[str, Mapping[str, Deployed]], issued: Collection[str]
) -> Iterator[ByHand]:
    found = [by_host.get(host, {}).get(touched.fingerprint) for host in touched.hosts]
    if touched.fingerprint in issued or any(one is not None and one.revocable for one in found):
        return
    what = f"revoke {touched.serial}: the authority has not issued it"
    yield ByHand(touched.issuer, touched.fingerprint, touched.names, what)
