"""A scan's result in lines for people. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

_FLAGS = (
    ("fallback_scsv", "downgrades are noticed"),
    ("client_renegotiation", "clients may renegotiate"),
    ("heartbleed", "Heartbleed"),
    ("ccs_injection", "CCS injection"),
)


def details(result: Mapping[str, Any]) -> Iterator[str]:
    """The lines."""
    name = f" as {result['name']}" if result["name"] else ""
    how = f" after STARTTLS in {result['starttls']}" if result["starttls"] else ""
    yield f"{result['endpoint']}{name}{how}, {result['duration_s']} s"
    yield from _grade(result["grade"])
    for version, found in result["versions"].items():
        yield from _version(version, found)
    if groups := result["groups"]:
        for kind, title in (("tls13", "groups of TLSv1.3"), ("ecdhe", "groups before")):
            if groups[kind]:
                yield f"{title}: {' '.join(groups[kind])}"
        if groups["dh_bits"]:
            yield f"prime field: {groups['dh_bits']} bits"
    for served in result["certificates"] or ():
        yield from _certificate(served)
    yield from _names(result["names"] or {})
    yield from _rest(result)
    for client in result["clients"] or ():
        got = client.get("refusal") or f"{client['version']} {client['suite']}"
        group = f", {client['group']}" if client.get("group") else ""
        yield f"  {client['client']}: {got}{group}"
    for problem in result["problems"]:
        yield f"not found out: {problem['check']}: {problem['code']}: {problem['message']}"


def _grade(grade: Mapping[str, Any]) -> Iterator[str]:
    aside = grade["ignoring_trust"]
    beside = "" if grade["letter"] == aside else f", {aside} if the certificate is trusted"
    scores = f"protocol {grade['protocol']}, key exchange {grade['key_exchange']}"
    yield f"grade {grade['letter']}{beside} ({scores}, cipher {grade['cipher']})"
    for reason in grade["reasons"]:
        yield f"  {reason['cap']:2} {reason['code']}: {reason['message']}"


def _version(version: str, found: Mapping[str, Any]) -> Iterator[str]:
    if not found["supported"]:
        refusal = f" ({found['refusal']})" if found.get("refusal") else ""
        yield f"{version}: refused{refusal}"
        return
    order = {"server": ", in the server's order", "client": ", in the client's order"}
    yield f"{version}: {len(found['suites'])} suites{order.get(found.get('order', ''), '')}"
    for suite in found["suites"]:
        flaws = f"  {' '.join(suite['flaws'])}" if suite["flaws"] else ""
        yield f"  {suite['name']}, {suite['bits']} bits{flaws}"


def _certificate(served: Mapping[str, Any]) -> Iterator[str]:
    trust = served["trust"] or {}
    leaf = trust.get("leaf")
    if leaf is None:
        yield f"certificate ({served['auth']}): {trust.get('verdict', 'not judged')}"
        return
    key = f"{leaf['key']} {leaf['key_bits']} bits"
    yield f"certificate ({served['auth']}): {leaf['subject']}, {key}"
    yield f"  for {' '.join(leaf['names'])} until {leaf['not_after'][:10]}"
    why = f": {trust['why']}" if trust["why"] else ""
    yield f"  issued by {leaf['issuer']}, {len(served['sha256'])} served, {trust['verdict']}{why}"
    for fault in trust["faults"]:
        yield f"  {fault}"
    yield f"  OCSP {'stapled' if served['stapled_bytes'] else 'not stapled'}"


def _names(names: Mapping[str, Any]) -> Iterator[str]:
    for name, found in names.items():
        got = f"SHA-256 {found['sha256'][:16]}" if found["sha256"] else found["refusal"]
        yield f"{f'name {name}' if name else 'without a name'}: {got}"


def _rest(result: Mapping[str, Any]) -> Iterator[str]:
    for name, title in _FLAGS:
        if result[name] is not None:
            yield f"{title}: {'yes' if result[name] else 'no'}"
    if result["robot"]:
        yield f"ROBOT: {result['robot']['verdict']}"
    if result["compression"] is not None:
        yield f"compression: {result['compression'] or 'none'}"
    for name in ("features", "resumption"):
        held = {key: value for key, value in (result[name] or {}).items() if value is not None}
        if held:
            said = ", ".join(f"{key.replace('_', ' ')} {_said(each)}" for key, each in held.items())
            yield f"{name}: {said}"
    if result["alpn"] and result["alpn"]["protocols"]:
        yield f"ALPN: {' '.join(result['alpn']['protocols'])}"
    if result["http"]:
        age = result["http"]["max_age_s"]
        policy = "none" if age is None else f"{age} s"
        yield f"HTTP {result['http']['status']}, HSTS {policy}"


def _said(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)
