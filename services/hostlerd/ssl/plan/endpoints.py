"""Names at listening sockets, and whether what is served is what the files have. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from hostlerd.ssl.model.inventory import Endpoint, Finding, Inventory, Served, Severity
from hostlerd.ssl.model.place import Listener
from hostlerd.ssl.model.site import Role, Site
from hostlerd.ssl.plan.inventory import use_of

MOST_ENDPOINTS = 5000
# Protocols that TLS is begun in where nothing else is known, by the ports that they are known for.
_STARTTLS = {
    25: "smtp",
    587: "smtp",
    143: "imap",
    110: "pop3",
    389: "ldap",
    21: "ftp",
    5432: "postgres",
}


def endpoints(inventory: Inventory, listeners: Sequence[Listener]) -> list[Endpoint]:
    """What the configurations say, then the listeners that none of them names."""
    by_place = {each.place: each for each in listeners}
    made: dict[tuple[str, str], Endpoint] = {}
    for site, order, wrong in inventory.sites:
        for place in site.listeners:
            for name in _names(site, order, inventory):
                if len(made) < MOST_ENDPOINTS and (place, name) not in made:
                    made[place, name] = _endpoint(
                        site, place, name, order, wrong, by_place, inventory
                    )
    known = {place for place, _ in made} | {_partner(place) for place, _ in made}
    for each in listeners:
        if each.place not in known and len(made) < MOST_ENDPOINTS:
            starttls = _STARTTLS.get(port_of(each.place), "")
            made[each.place, ""] = Endpoint(
                each.place, "", starttls, each.server, each.pid, each.comm, each.unit
            )
    return sorted(made.values(), key=lambda each: each.order)


def port_of(place: str) -> int:
    """The port of ADDRESS:PORT, 0 if it is none."""
    text = place.rpartition(":")[2]
    return int(text) if text.isdigit() and len(text) < 6 else 0


def _partner(place: str) -> str:
    """A socket for all IPv6 addresses takes those of IPv4 as well."""
    return f"[::]:{place[2:]}" if place.startswith("*:") else place


def _names(site: Site, order: Sequence[str], inventory: Inventory) -> list[str]:
    names = list(site.names)
    if site.by_certificate and order:
        names = list(inventory.certificates[order[0]].facts.dns_names)
    return ([""] if site.default or not names else []) + names


def _endpoint(
    site: Site,
    place: str,
    name: str,
    order: Sequence[str],
    wrong: Sequence[Finding],
    by_place: Mapping[str, Listener],
    inventory: Inventory,
) -> Endpoint:
    holder = by_place.get(place) or by_place.get(_partner(place))
    made = Endpoint(place, name, site.starttls, site.server)
    if holder:
        made.pid, made.comm, made.unit = holder.pid, holder.comm, holder.unit
    made.uses = tuple(use_of(site, r) for r in site.references if r.role is not Role.PASSPHRASE)
    made.configured = tuple(dict.fromkeys(order))
    made.leaves = tuple(_leaves(site, inventory))
    made.settings = site.settings
    made.findings = [
        each for each in wrong if each.code != "NAME_NOT_COVERED" or each.subject == name
    ]
    if holder is None:
        made.listens = False
        words = "nothing listens there, whatever the configuration says"
        made.findings.append(Finding("NOT_LISTENING", words, Severity.NOTE, place))
    return made


def _leaves(site: Site, inventory: Inventory) -> Iterable[str]:
    files = {r.file for r in site.references if r.role in (Role.CERTIFICATE, Role.BOTH)}
    for name, one in inventory.certificates.items():
        if any(
            not place.container and place.path in files and place.entry == 0 for place in one.places
        ):
            yield name


def judge(endpoint: Endpoint, served: Served, fingerprints: Sequence[str]) -> None:
    """Note what a handshake showed, and whether it is what the files have."""
    endpoint.served = tuple(fingerprints)
    endpoint.negotiated = served.negotiated
    if served.problem:
        code = "HANDSHAKE_FAILED" if endpoint.uses else "NO_TLS"
        severity = Severity.WARNING if endpoint.uses else Severity.NOTE
        endpoint.findings.append(Finding(code, served.problem, severity, endpoint.listener))
    elif endpoint.leaves and endpoint.served and endpoint.served[0] not in endpoint.leaves:
        words = "what is served is not the certificate that the files have: reload the server"
        where = f"{endpoint.listener} {endpoint.name}".strip()
        endpoint.findings.append(Finding("NOT_THE_FILE", words, Severity.CRITICAL, where))
