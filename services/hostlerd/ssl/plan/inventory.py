"""Puts together what lies on a host and what its servers name. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from hostlerd.ssl.model.inventory import (
    Certificate,
    Facts,
    Finding,
    Inventory,
    Key,
    Place,
    Unreadable,
    Use,
)
from hostlerd.ssl.model.place import FileFound
from hostlerd.ssl.model.site import Reference, Role, Site
from hostlerd.ssl.plan import findings

MOST_PLACES = 100
_LEAF_ROLES = (Role.CERTIFICATE, Role.BOTH)


@dataclass(slots=True)
class _Content:
    """What a file has: fingerprints in order, and keys."""

    certificates: list[str] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)


def build(
    files: Iterable[FileFound],
    sites: Iterable[Site],
    facts: Mapping[bytes, Facts],
    now: datetime,
) -> Inventory:
    """Put everything together. `facts` has what each certificate says, by its DER.

    A certificate that is not among the facts could not be read.
    """
    made = Inventory()
    contents: dict[str, _Content] = {}
    for file in files:
        content = _add(made, file, facts)
        # The settings that are read name files of the host.
        for path in () if file.container else file.paths:
            contents[path] = content
    roots = {c.facts.subject_key for c in made.certificates.values() if _is_root(c)}
    for site in sites:
        made.sites.append(_site(made, site, contents, roots))
    _join(made)
    for one in made.certificates.values():
        one.findings.extend(findings.of_certificate(one, now))
    return made


def _is_root(one: Certificate) -> bool:
    return one.facts.self_signed and any(
        p.path.startswith(("/usr/", "/etc/ssl/certs/")) for p in one.places if not p.container
    )


def _add(made: Inventory, file: FileFound, facts: Mapping[bytes, Facts]) -> _Content:
    content = _Content()
    label = f"{file.container}:{file.paths[0]}" if file.container else file.paths[0]
    for entry, der in enumerate(file.certificates):
        known = facts.get(der)
        if known is None:
            made.unreadable.append(
                Unreadable(label, "CERTIFICATE_MALFORMED", f"certificate {entry}")
            )
            continue
        one = made.certificates.setdefault(known.fingerprint, Certificate(known))
        one.trusted &= file.trusted
        _extend(one.places, _places(file, entry))
        content.certificates.append(known.fingerprint)
    for entry, found in enumerate(file.keys):
        name = found.spki_sha256 or f"~{label}#{entry}"
        key = made.keys.setdefault(name, Key(found))
        _extend(key.places, _places(file, entry))
        content.keys.append(name)
    for fault in file.faults:
        made.unreadable.append(Unreadable(label, fault.code, fault.message))
    return content


def _places(file: FileFound, entry: int) -> list[Place]:
    return [
        Place(
            *(path, entry, file.format, file.owner, file.group, file.mode, file.modify_ns),
            file.container,
        )
        for path in file.paths
    ]


def _extend(places: list[Place], more: list[Place]) -> None:
    places.extend(more[: max(0, MOST_PLACES - len(places))])


def _site(
    made: Inventory, site: Site, contents: Mapping[str, _Content], roots: set[bytes]
) -> tuple[Site, list[str], list[Finding]]:
    """A site, the fingerprints that its files have, the leaf first, and what is wrong with it."""
    wrong: list[Finding] = []
    leaves: list[Facts] = []
    others: list[Facts] = []
    keys: set[str] = set()
    key_files: list[str] = []
    order: list[str] = []
    for reference in site.references:
        content = contents.get(reference.file, _Content())
        if reference.role in (Role.PASSPHRASE, Role.AUTHORITY):
            continue
        if not content.certificates and not content.keys:
            wrong.append(findings.missing_file(reference.file, reference.setting))
        use = use_of(site, reference)
        if reference.role in _LEAF_ROLES or reference.role is Role.CHAIN:
            found = [made.certificates[name] for name in content.certificates]
            for one in found:
                _use(one.uses, use)
            first = found[:1] if reference.role in _LEAF_ROLES else []
            leaves.extend(one.facts for one in first)
            others.extend(one.facts for one in found[len(first) :])
            order.extend(content.certificates)
        if reference.role in (Role.KEY, Role.BOTH):
            key_files.append(reference.file)
            for name in content.keys:
                _use(made.keys[name].uses, use)
                keys.add(name)
    locked = any(name.startswith("~") for name in keys)
    if not locked:
        wrong.extend(findings.of_pair(leaves, keys, key_files))
    wrong.extend(findings.of_names(site, leaves))
    wrong.extend(findings.of_chain(leaves, others, roots))
    for leaf in leaves:
        _tell(made.certificates[leaf.fingerprint], [f for f in wrong if f.subject == leaf.subject])
    return site, order, wrong


def _tell(one: Certificate, more: Iterable[Finding]) -> None:
    one.findings.extend(each for each in more if each not in one.findings)


def use_of(site: Site, reference: Reference) -> Use:
    """A reference of a site as a use of the file."""
    return Use(
        site.server,
        reference.path,
        reference.line,
        reference.setting,
        site.names,
        site.listeners,
    )


def _use(uses: list[Use], use: Use) -> None:
    if use not in uses and len(uses) < MOST_PLACES:
        uses.append(use)


def _join(made: Inventory) -> None:
    """Keys and the certificates that have their public halves."""
    by_key: dict[str, list[Certificate]] = defaultdict(list)
    for one in made.certificates.values():
        by_key[one.facts.key.spki_sha256].append(one)
    for name, key in made.keys.items():
        mine = by_key.get(name, [])
        key.certificates = sorted(one.facts.fingerprint for one in mine)
        for one in mine:
            one.key_places = key.places
        leaves = {f"{one.facts.subject} ({one.facts.fingerprint[:8]})" for one in mine}
        key.findings.extend(findings.of_key(key, leaves))


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which certificates are asked for; what is not set leaves it open."""

    expires_within: timedelta | None = None
    name: str = ""
    spki_sha256: str = ""
    severity: int = 0
    in_use: bool = False
    trust_stores: bool = False


def select(made: Inventory, wanted: Wanted, now: datetime) -> list[Certificate]:
    """The certificates that are asked for, by the end of their validity."""
    found = [one for one in made.certificates.values() if _is_wanted(one, wanted, now)]
    return sorted(found, key=order)


def order(one: Certificate) -> tuple[datetime, str]:
    """By the end of its validity."""
    return one.facts.not_after, one.facts.fingerprint


def _is_wanted(one: Certificate, wanted: Wanted, now: datetime) -> bool:
    facts = one.facts
    if one.trusted and not (wanted.trust_stores or one.uses):
        return False
    if wanted.expires_within is not None and facts.not_after - now > wanted.expires_within:
        return False
    if wanted.name and not any(findings.covers(each, wanted.name) for each in facts.dns_names):
        return False
    if wanted.spki_sha256 and facts.key.spki_sha256 != wanted.spki_sha256.lower():
        return False
    if wanted.severity and worst(one.findings) < wanted.severity:
        return False
    return bool(one.uses) or not wanted.in_use


def worst(of: Sequence[Finding]) -> int:
    """The severity of the worst finding, 0 for none."""
    return max((each.severity for each in of), default=0)
