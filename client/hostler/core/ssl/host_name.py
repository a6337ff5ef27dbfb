"""Whether a certificate is good for a name. Source: RFC 9525 (6125), RFC 5280, 4.2.1.6.

The common name is never asked: no client does any more.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from dataclasses import dataclass

from hostler.core.ssl.certificate import AlternativeName, Certificate
from hostler.core.ssl.facts import alternative_names
from hostler.core.ssl.verdict import Code

_LABEL = re.compile(r"(?!-)[a-z0-9-]{1,63}(?<!-)")
MAX_NAME_LENGTH = 253


class NameUnusable(ValueError):
    """A text that is no DNS name, address or mailbox."""


@dataclass(frozen=True, slots=True)
class WantedName:
    """The name that a client has in mind: `kind` is dns, ip or email."""

    kind: str
    value: str

    @classmethod
    def parse(cls, text: str) -> WantedName:
        """Tell what kind of name a text is. Raises NameUnusable."""
        try:
            return cls("ip", str(ipaddress.ip_address(text.strip("[]"))))
        except ValueError:
            pass
        if "@" in text:
            local, _, host = text.rpartition("@")
            if local and is_dns_name(host.lower()):
                return cls("email", f"{local}@{host.lower()}")
            raise NameUnusable(f"{text!r} is no mailbox")
        name = text.lower().removesuffix(".")
        if not name.isascii():
            try:
                name = name.encode("idna").decode("ascii")
            except UnicodeError as error:
                raise NameUnusable(f"{text!r} is no host name: {error}") from error
        if not is_dns_name(name):
            raise NameUnusable(f"{text!r} is no host name and no address")
        return cls("dns", name)


def is_dns_name(name: str) -> bool:
    """Whether a name is letters, digits and hyphens in labels, and no address."""
    if not 0 < len(name) <= MAX_NAME_LENGTH:
        return False
    labels = name.lower().split(".")
    return all(_LABEL.fullmatch(label) for label in labels) and not labels[-1].isdigit()


def pattern_fault(pattern: str) -> str:
    """Why a dNSName cannot stand in a certificate; empty if it can, with a wildcard or without."""
    rest = pattern.removeprefix("*.")
    if pattern.startswith("*.") and "." not in rest.strip("."):
        return f"{pattern!r}: a wildcard of a whole top-level domain"
    if "*" in rest:
        return f"{pattern!r}: a wildcard that is not the whole first label"
    return "" if is_dns_name(rest) else f"{pattern!r}: no DNS name"


def matches(name: AlternativeName, wanted: WantedName) -> bool:
    """Whether a name of a certificate is the wanted one, or a pattern of it."""
    if name.kind != wanted.kind:
        return False
    if wanted.kind == "ip":
        return name.value == wanted.value
    if wanted.kind == "email":
        local, _, host = name.value.rpartition("@")
        return f"{local}@{host.lower()}" == wanted.value
    pattern = name.value.lower()
    if pattern_fault(pattern):
        return False
    if pattern.startswith("*."):
        first, dot, parent = wanted.value.partition(".")
        return bool(first and dot) and parent == pattern[2:]
    return pattern == wanted.value


def name_faults(certificate: Certificate, wanted: WantedName) -> Iterator[tuple[Code, str]]:
    """Why a leaf is not good for a name; nothing if it is."""
    names = alternative_names(certificate)
    if not names:
        yield Code.NO_ALTERNATIVE_NAMES, f"it has no alternative names, so not {wanted.value!r}"
    elif not any(matches(name, wanted) for name in names):
        listed = ", ".join(name.value for name in names[:5])
        more = f" and {len(names) - 5} more" if len(names) > 5 else ""
        yield Code.NAME_MISMATCH, f"it is for {listed}{more}, not for {wanted.value!r}"
