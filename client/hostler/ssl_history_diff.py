"""What has changed between two scans of an endpoint. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

_FLAGS = ("fallback_scsv", "client_renegotiation", "heartbleed", "ccs_injection", "compression")
_PARTS = ("features", "resumption", "http")
# What follows from all checks together.
_OF_ALL = ("grade", "reason")
# How long a ticket is good is counted down by some servers.
_PASSING = frozenset({"lifetime_s"})


@dataclass(frozen=True, slots=True)
class Change:
    """What was, and what is; None is what was not there, or not looked at."""

    what: str
    before: Any
    after: Any

    def __str__(self) -> str:
        if self.before is None:
            return f"{self.what}: now {_said(self.after)}"
        if self.after is None:
            return f"{self.what}: no longer {_said(self.before)}"
        return f"{self.what}: {_said(self.before)} is now {_said(self.after)}"


def compare(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Change]:
    """Every change between two scans, as the reports tell them."""
    old, new = (dict(_facts(each)) for each in (before, after))
    # A check that was left out in one of them has not changed anything.
    looked = [set(_looked_at(each)) for each in (before, after)]
    found: list[Change] = []
    for what in sorted({*old, *new}):
        subject = what.split(":")[0].split(" ")[0]
        if subject in looked[0] ^ looked[1] or (subject in _OF_ALL and looked[0] != looked[1]):
            continue
        if old.get(what) != new.get(what):
            found.append(Change(what, old.get(what), new.get(what)))
    return found


def _looked_at(result: Mapping[str, Any]) -> Iterator[str]:
    if "failure" in result:
        return
    for name in ("groups", "certificates", "names", "alpn", "robot", *_FLAGS, *_PARTS):
        if result.get(name) is not None:
            yield name


def _facts(result: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Each thing that can change by itself, and how it is."""
    if "failure" in result:
        yield "failure", result["failure"]["code"]
        return
    yield from _of_grade(result.get("grade"))
    yield from _of_versions(result["versions"])
    yield from _of_groups(result)
    yield from _of_certificates(result)
    for name in _FLAGS:
        if result.get(name) is not None:
            yield name, result[name]
    for name in _PARTS:
        for key, value in (result.get(name) or {}).items():
            if key not in _PASSING:
                yield f"{name}: {key}", value
    if result.get("robot"):
        yield "robot", result["robot"]["verdict"]
    for protocol in (result.get("alpn") or {}).get("protocols", ()):
        yield f"alpn {protocol}", "agreed to"


def _of_grade(grade: Mapping[str, Any] | None) -> Iterator[tuple[str, Any]]:
    if grade is None:
        return
    yield "grade", grade["letter"]
    yield "grade ignoring trust", grade["ignoring_trust"]
    for reason in grade["reasons"]:
        yield f"reason {reason['code']}", reason["message"]


def _of_versions(versions: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for version, found in versions.items():
        if found["supported"]:
            yield f"version {version}", "accepted"
            if found.get("order"):
                yield f"order of {version}", found["order"]
        for suite in found["suites"]:
            yield f"suite {version} {suite['name']}", "accepted"


def _of_groups(result: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    groups = result.get("groups") or {}
    for kind in ("tls13", "ecdhe"):
        for group in groups.get(kind, ()):
            yield f"groups {kind} {group}", "accepted"
    if groups.get("dh_bits") is not None:
        yield "groups dh_bits", groups["dh_bits"]


def _of_certificates(result: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for served in result.get("certificates") or ():
        where = f"certificates {served['auth']}"
        yield f"{where} chain", [each[:16] for each in served["sha256"]]
        yield f"{where} stapled", served["stapled_bytes"] > 0
        trust = served.get("trust") or {}
        leaf = trust.get("leaf") or {}
        if trust:
            yield f"{where} trust", trust["verdict"]
        for key in ("subject", "issuer", "names", "not_after", "key", "key_bits"):
            if key in leaf:
                yield f"{where} {key}", leaf[key]
    for name, found in (result.get("names") or {}).items():
        told = found["sha256"]
        yield f"names {name or '(none)'}", told[:16] if told else found["refusal"]


def _said(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return " ".join(str(each) for each in value)
    return str(value)
