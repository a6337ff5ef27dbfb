"""What is wrong with certificates, keys and sites. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta

from hostlerd.ssl.model.inventory import Certificate, Facts, Finding, Key, Place, Severity
from hostlerd.ssl.model.site import Site

SOON = timedelta(days=30)
_OTHERS_READ, _OTHERS_WRITE, _GROUP_WRITES = 0o004, 0o002, 0o020


def of_certificate(one: Certificate, now: datetime) -> Iterator[Finding]:
    """What is wrong with a certificate, whoever uses it."""
    facts = one.facts
    used = bool(one.uses)
    if facts.not_after < now:
        severity = Severity.NOTE if one.trusted and not used else Severity.CRITICAL
        yield Finding("EXPIRED", f"ended on {_day(facts.not_after)}", severity, facts.subject)
    elif facts.not_before > now:
        words = f"begins on {_day(facts.not_before)}"
        yield Finding("NOT_YET_VALID", words, Severity.CRITICAL, facts.subject)
    elif facts.not_after - now <= min(SOON, (facts.not_after - facts.not_before) / 3):
        left = (facts.not_after - now).days
        yield Finding("EXPIRES_SOON", f"ends in {left} days", Severity.WARNING, facts.subject)
    for weakness in facts.key.weaknesses:
        yield Finding("WEAK_KEY", weakness, Severity.CRITICAL, facts.subject)
    if facts.weak_signature and not facts.self_signed:
        yield Finding("WEAK_SIGNATURE", facts.weak_signature, Severity.CRITICAL, facts.subject)
    if facts.self_signed and used and not facts.authority:
        words = "is its own issuer, which no client trusts that was not told to"
        yield Finding("SELF_SIGNED", words, Severity.NOTE, facts.subject)
    for fault in facts.faults:
        yield Finding("MALFORMED", fault, Severity.WARNING, facts.subject)
    for place in one.places:
        if place.mode & _OTHERS_WRITE:
            words = f"everybody may write the file ({place.mode:04o})"
            yield Finding("FILE_WORLD_WRITABLE", words, Severity.CRITICAL, place.label)


def of_key(one: Key, subjects: Iterable[str]) -> Iterator[Finding]:
    """What is wrong with a key. `subjects` are those of the leaves that have it."""
    seen: set[str] = set()
    for place in one.places:
        if place.label not in seen:
            seen.add(place.label)
            yield from _of_key_file(place)
    for weakness in one.facts.weaknesses:
        yield Finding("WEAK_KEY", weakness, Severity.CRITICAL, one.places[0].label)
    shared = sorted(subjects)
    if len(shared) > 1:
        words = f"{len(shared)} certificates have it: {', '.join(shared[:5])}"
        yield Finding("KEY_SHARED", words, Severity.NOTE, one.places[0].label)


def _of_key_file(place: Place) -> Iterator[Finding]:
    mode = f"{place.mode:04o} {place.owner}:{place.group}"
    if place.mode & _OTHERS_READ:
        words = f"everybody may read the key ({mode})"
        yield Finding("KEY_WORLD_READABLE", words, Severity.CRITICAL, place.label)
    if place.mode & _OTHERS_WRITE:
        words = f"everybody may write the key ({mode})"
        yield Finding("FILE_WORLD_WRITABLE", words, Severity.CRITICAL, place.label)
    elif place.mode & _GROUP_WRITES:
        words = f"the group may write the key ({mode})"
        yield Finding("KEY_GROUP_WRITABLE", words, Severity.WARNING, place.label)
    # Who a number is in a container, the container says.
    if place.owner != "root" and not place.container:
        words = f"belongs to {place.owner}, who may read it and change it ({mode})"
        yield Finding("KEY_OWNER", words, Severity.NOTE, place.label)


def of_pair(leaves: list[Facts], keys: set[str], key_files: list[str]) -> Iterator[Finding]:
    """Whether each leaf of a site has its key among those that the site names."""
    if not keys:
        return
    for leaf in leaves:
        if leaf.key.spki_sha256 not in keys:
            words = f"none of the keys in {', '.join(key_files)} is that of {leaf.subject}"
            yield Finding("KEY_MISMATCH", words, Severity.CRITICAL, leaf.subject)


def of_names(site: Site, leaves: list[Facts]) -> Iterator[Finding]:
    """Which names of a site no leaf is for."""
    if not leaves:
        return
    for name in site.names:
        if name.startswith("~") or "*" in name[1:]:
            continue
        if not any(covers(pattern, name) for leaf in leaves for pattern in leaf.dns_names):
            words = f"no certificate of the site is for {name}"
            yield Finding("NAME_NOT_COVERED", words, Severity.WARNING, name)


def covers(pattern: str, name: str) -> bool:
    """Whether a name of a certificate is good for a host name or for all of a wildcard's.

    Source: RFC 9525, 6.3: the wildcard is the whole first label, and stands for one.
    """
    pattern, name = pattern.lower().rstrip("."), name.lower().rstrip(".").lstrip(".")
    if pattern == name:
        return True
    first, dot, parent = name.partition(".")
    return (
        pattern.startswith("*.") and bool(first and dot) and first != "*" and parent == pattern[2:]
    )


def of_chain(leaves: list[Facts], others: list[Facts], roots: set[bytes]) -> Iterator[Finding]:
    """Whether a leaf's issuer is sent along, unless it is a root that clients have themselves."""
    issuers = {each.subject_key for each in others}
    for leaf in leaves:
        if not (leaf.self_signed or leaf.issuer_key in issuers or leaf.issuer_key in roots):
            words = f"the certificate of {leaf.issuer} is not in the files"
            yield Finding("CHAIN_INCOMPLETE", words, Severity.WARNING, leaf.subject)


def missing_file(path: str, setting: str) -> Finding:
    """A file that a configuration names, and that has nothing in it or is not there."""
    words = f"{setting} names a file that is not there or has nothing in it"
    return Finding("FILE_MISSING", words, Severity.CRITICAL, path)


def _day(when: datetime) -> str:
    return when.strftime("%Y-%m-%d")
