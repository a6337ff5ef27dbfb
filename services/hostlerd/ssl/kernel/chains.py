"""Builds chains by the core's judge, of what lies on this host and with what it trusts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from hostlerd.runtime.errors import InvalidRequest, Violation
from hostlerd.ssl.errors import ChainNotFound, NoGoodChain, NoTrustStore
from hostlerd.ssl.model.chain import Built, Query
from hostlerd.ssl.model.inventory import Inventory

if TYPE_CHECKING:
    from hostler.core.ssl.certificate import Certificate
    from hostler.core.ssl.chain import ChainReport
    from hostler.core.ssl.paths import Rules

# What the core needs is imported where a chain is built: few callers of the daemon want one.

_MOST_SERVED, _MOST_KNOWN = 100, 2000


@dataclass(frozen=True, slots=True)
class Served:
    """The certificates that clients are sent, hashes of the keys beside them, what is unreadable.

    `known` are the CAs that lie elsewhere on this host.
    """

    certificates: tuple[Certificate, ...]
    keys: frozenset[str] = frozenset()
    unreadable: tuple[str, ...] = ()
    known: tuple[Certificate, ...] = ()


def fetches(table: Mapping[str, Any]) -> bool:
    """Whether hostler.toml lets the host fetch issuers. Raises ValueError."""
    value = table.get("fetch_issuers", False)
    if not isinstance(value, bool):
        raise ValueError("fetch_issuers must be true or false")
    return value


def of_pem(text: str, field: str, inventory: Inventory) -> Served:
    """What a caller has sent. Raises InvalidRequest."""
    from hostler.core.ssl.reading import read_contents

    found = read_contents(text.encode(), field, max_certificates=_MOST_SERVED)
    faults = tuple(map(str, found.faults))
    if not found.certificates:
        raise InvalidRequest.of([Violation(field, "; ".join(faults) or "has no certificate")])
    return Served(found.certificates, frozenset(), faults, _known(inventory))


def of_file(path: str, inventory: Inventory) -> Served:
    """What a file of the inventory holds, in its order. Raises ChainNotFound."""
    places = [
        (place.entry, one.facts.der)
        for one in inventory.certificates.values()
        for place in one.places
        if place.path == path and not place.container
    ]
    if not places:
        raise ChainNotFound("the inventory has no such file with certificates", path=path)
    keys = frozenset(
        name
        for name, key in inventory.keys.items()
        if any(place.path == path and not place.container for place in key.places)
    )
    found = [(f"{path}#{entry}", der) for entry, der in sorted(places)[:_MOST_SERVED]]
    wrong = tuple(u.message for u in inventory.unreadable if u.path == path)
    return Served(_read(found), keys, wrong, _known(inventory))


def of_placed(texts: Sequence[str], where: str, spki_sha256: str, inventory: Inventory) -> Served:
    """What the installer has told of a place, and of the key there. Raises ChainNotFound."""
    from hostler.core.ssl.reading import read_contents

    found = read_contents("".join(texts).encode(), where, max_certificates=_MOST_SERVED)
    if not found.certificates:
        raise ChainNotFound("no certificate is in place there", path=where)
    return Served(found.certificates, frozenset({spki_sha256}), (), _known(inventory))


def build(query: Query, served: Served, *, may_fetch: bool) -> ChainReport:
    """Build and judge. Answers within about the query's time. Raises InvalidRequest."""
    from hostler.core.ssl.chain import report
    from hostler.core.ssl.fetch import HttpFetcher
    from hostler.core.ssl.served import leaf_of

    more = _sent(query.intermediates_pem, "query.intermediates_pem")
    return report(
        served.certificates,
        leaf_of(served.certificates, served.keys),
        _roots(query),
        _rules(query),
        fetch=HttpFetcher() if query.fetch and may_fetch else None,
        known=(*more, *served.known),
        within_s=query.within_s,
    )


def to_write(report: ChainReport, hint: str) -> Built:
    """The chain to be served, of a report. Raises NoGoodChain."""
    if not report.to_serve:
        why = "; ".join(map(str, report.judged.verdict.reasons[:5]))
        raise NoGoodChain(
            f"there is no good path: {why}{f'; {hint}' if hint else ''}", subject=report.leaf.label
        )
    return Built(pem_of(report.to_serve), named(report.to_serve), named(report.served))


def pem_of(chain: Sequence[Certificate]) -> str:
    """Certificates in PEM, in this order."""
    from hostler.core.ssl import pem

    return b"".join(pem.written(each.data) for each in chain).decode("ascii")


def named(chain: Sequence[Certificate]) -> tuple[tuple[str, str], ...]:
    """Fingerprint and subject of each."""
    return tuple((each.fingerprint_sha256, each.label) for each in chain)


def _read(found: Sequence[tuple[str, bytes]]) -> tuple[Certificate, ...]:
    from hostler.core.ssl.certificate import Certificate

    return tuple(Certificate.read(der, place) for place, der in found)


def _known(inventory: Inventory) -> tuple[Certificate, ...]:
    """The CAs of the inventory. They may be on a way, and are trusted no more for lying here."""
    cas = [one for one in inventory.certificates.values() if one.facts.authority]
    return _read([(one.places[0].label, one.facts.der) for one in cas[:_MOST_KNOWN] if one.places])


def _roots(query: Query) -> Sequence[Certificate]:
    from hostler.core.ssl.stores import read_store, system_store

    if query.roots_pem:
        return _sent(query.roots_pem, "query.roots_pem")
    store = system_store()
    if store is None:
        raise NoTrustStore("this host has no store of roots that is known: send some")
    try:
        return read_store(store)
    except (ValueError, OSError) as e:
        raise NoTrustStore(f"{store}: {e}") from e


def _sent(text: str, field: str) -> tuple[Certificate, ...]:
    from hostler.core.ssl.reading import read_contents

    if not text:
        return ()
    found = read_contents(text.encode(), field)
    if not found.certificates:
        raise InvalidRequest.of([Violation(field, "has no certificate in PEM")])
    return found.certificates


def _rules(query: Query) -> Rules:
    from hostler.core.ssl.host_name import NameUnusable, WantedName
    from hostler.core.ssl.paths import Rules
    from hostler.core.ssl.profile import Profile, Usage

    usages = {"server": Usage.SERVER, "client": Usage.CLIENT, "any": Usage.ANY}
    try:
        wanted = WantedName.parse(query.name) if query.name else None
    except NameUnusable as e:
        raise InvalidRequest.of([Violation("query.name", str(e))]) from e
    return Rules(datetime.now(UTC), usages[query.usage], wanted, Profile(query.rules))
