"""Name constraints of every type: which names a CA may put into certificates below it.

Source: RFC 5280, 4.2.1.10 and 6.1.4 (b), (c); RFC 8398 for mailboxes of other scripts, which are
refused here. A constraint of a type that is not known refuses each name of that type below it.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from hostler.core.ssl.certificate import Certificate, canonical_value
from hostler.core.ssl.host_name import is_dns_name, pattern_fault
from hostler.core.ssl.verdict import Code

if TYPE_CHECKING:
    from cryptography import x509

MAX_COMPARISONS = 250_000
_EMAIL_ATTRIBUTE = "1.2.840.113549.1.9.1"
# A dot-atom or a quoted string. Source: RFC 5321, 4.1.2.
_LOCAL_PART = re.compile(r'[^\s"(),:;<>@\[\\\]]{1,64}|"[^"\\]{0,62}"')
_IpNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network
_Rdns = tuple[frozenset[tuple[str, str]], ...]


class Malformed(ValueError):
    """A constraint or a name that cannot be compared."""


@dataclass(frozen=True, slots=True)
class Name:
    """A name in the form that is compared: its kind as in AlternativeName, and its value."""

    kind: str
    value: str | _Rdns | _IpNetwork | ipaddress.IPv4Address | ipaddress.IPv6Address

    def __str__(self) -> str:
        if isinstance(self.value, tuple):
            return ",".join("+".join(f"{o}={v}" for o, v in sorted(rdn)) for rdn in self.value)
        return str(self.value)


@dataclass(frozen=True)
class Constraints:
    """The constraints of one CA. Made by `constraints_of`."""

    permitted: tuple[Name, ...]
    excluded: tuple[Name, ...]

    @cached_property
    def size(self) -> int:
        """How many comparisons one name costs at most."""
        return len(self.permitted) + len(self.excluded)


def constraints_of(certificate: Certificate) -> Constraints | None:
    """Read a CA's constraints; None if it has none. Raises Malformed."""
    from cryptography import x509

    found = certificate.extension(x509.NameConstraints)
    if found is None:
        return None
    permitted, excluded = found.permitted_subtrees or [], found.excluded_subtrees or []
    if not permitted and not excluded:
        raise Malformed("neither permitted nor excluded names")
    return Constraints(
        tuple(_constraint(name) for name in permitted),
        tuple(_constraint(name) for name in excluded),
    )


def names_of(certificate: Certificate) -> tuple[Name, ...]:
    """All names of a certificate that constraints apply to. Raises Malformed.

    Mailboxes in the subject count where there is none among the alternative names.
    """
    from cryptography import x509

    found: list[Name] = []
    if certificate.subject.rdns:
        found.append(Name("dn", _rdns(certificate.subject)))
    alternative = list(certificate.extension(x509.SubjectAlternativeName) or ())
    if len(alternative) * 10 > MAX_COMPARISONS:
        raise Malformed(f"{len(alternative)} alternative names")
    found.extend(_name(name) for name in alternative)
    if not any(name.kind == "email" for name in found):
        found.extend(
            Name("email", str(attribute.value))
            for attribute in certificate.subject
            if attribute.oid.dotted_string == _EMAIL_ATTRIBUTE
        )
    return tuple(found)


def broken(constraints: Constraints, names: Sequence[Name]) -> Iterator[tuple[Code, str]]:
    """Each name that a CA's constraints do not allow."""
    if constraints.size * len(names) > MAX_COMPARISONS:
        yield (
            Code.NAME_CONSTRAINT_TOO_LARGE,
            f"{constraints.size} constraints for {len(names)} names: not compared",
        )
        return
    for name in names:
        yield from _broken_by(constraints, name)


def _broken_by(constraints: Constraints, name: Name) -> Iterator[tuple[Code, str]]:
    permitted = [c for c in constraints.permitted if c.kind == name.kind]
    excluded = [c for c in constraints.excluded if c.kind == name.kind]
    if not permitted and not excluded:
        return
    if name.kind not in _WITHIN:
        message = f"constraints of the type {name.kind}, and a name of that type"
        yield Code.NAME_CONSTRAINT_UNSUPPORTED, message
        return
    within = _WITHIN[name.kind]
    try:
        if any(within(name, c, True) for c in excluded):
            yield Code.NAME_EXCLUDED, f"{name.kind} {name} is excluded"
        elif permitted and not any(within(name, c, False) for c in permitted):
            yield Code.NAME_NOT_PERMITTED, f"{name.kind} {name} is not permitted"
    except Malformed as error:
        yield Code.NAME_MALFORMED, str(error)


# Reading


def _constraint(name: x509.GeneralName) -> Name:
    from cryptography import x509

    if isinstance(name, x509.DNSName):
        value = name.value.lower()
        if value and not is_dns_name(value):
            raise Malformed(f"DNS constraint {name.value!r}: no DNS name")
        return Name("dns", value)
    if isinstance(name, x509.IPAddress):
        if not isinstance(name.value, ipaddress.IPv4Network | ipaddress.IPv6Network):
            raise Malformed(f"address constraint {name.value} without a mask")
        return Name("ip", name.value)
    if isinstance(name, x509.RFC822Name):
        return Name("email", _email_constraint(name.value))
    if isinstance(name, x509.UniformResourceIdentifier):
        host = name.value.lower()
        if host and not is_dns_name(host.removeprefix(".")):
            raise Malformed(f"URI constraint {name.value!r}: no host and no domain")
        return Name("uri", host)
    return _other(name)


def _email_constraint(value: str) -> str:
    local, at, host = value.rpartition("@")
    if at and not local:
        raise Malformed(f"mailbox constraint {value!r} without a mailbox")
    if host and not is_dns_name(host.lower().removeprefix("." if not at else "")):
        raise Malformed(f"mailbox constraint {value!r}: no mailbox, host or domain")
    return f"{local}@{host.lower()}" if at else host.lower()


def _name(name: x509.GeneralName) -> Name:
    from cryptography import x509

    if isinstance(name, x509.DNSName):
        return Name("dns", name.value.lower())
    if isinstance(name, x509.IPAddress):
        if isinstance(name.value, ipaddress.IPv4Network | ipaddress.IPv6Network):
            raise Malformed(f"address {name.value} with a mask")
        return Name("ip", name.value)
    if isinstance(name, x509.RFC822Name):
        return Name("email", name.value)
    if isinstance(name, x509.UniformResourceIdentifier):
        return Name("uri", name.value)
    return _other(name)


def _other(name: x509.GeneralName) -> Name:
    from cryptography import x509

    if isinstance(name, x509.DirectoryName):
        return Name("dn", _rdns(name.value))
    if isinstance(name, x509.RegisteredID):
        return Name("rid", name.value.dotted_string)
    return Name("other", getattr(getattr(name, "type_id", None), "dotted_string", ""))


def _rdns(name: x509.Name) -> _Rdns:
    return tuple(
        frozenset((a.oid.dotted_string, canonical_value(a.value)) for a in rdn) for rdn in name.rdns
    )


# Comparing: whether a name is within a constraint; `broadly` for exclusions, where a pattern is
# within if any name that it stands for is.


def _dns_within(name: Name, constraint: Name, broadly: bool) -> bool:
    value, limit = str(name.value), str(constraint.value)
    if fault := pattern_fault(value):
        raise Malformed(fault)
    if not limit:
        return True
    if _is_below(value.removeprefix("*."), limit):
        return True
    # *.example.com stands for foo.example.com, which an exclusion of it covers.
    return broadly and value.startswith("*.") and limit.partition(".")[2] == value[2:]


def _ip_within(name: Name, constraint: Name, broadly: bool) -> bool:
    network = constraint.value
    assert isinstance(network, ipaddress.IPv4Network | ipaddress.IPv6Network)  # noqa: S101
    return name.value in network


def _email_within(name: Name, constraint: Name, broadly: bool) -> bool:
    local, at, host = str(name.value).rpartition("@")
    host, limit = host.lower(), str(constraint.value)
    if not at or not _LOCAL_PART.fullmatch(local) or not is_dns_name(host):
        raise Malformed(f"{name}: no mailbox")
    if "@" in limit:
        return f"{local}@{host}" == limit
    return host.endswith(limit) if limit.startswith(".") else not limit or host == limit


def _uri_within(name: Name, constraint: Name, broadly: bool) -> bool:
    try:
        host = (urlsplit(str(name.value)).hostname or "").lower()
    except ValueError as error:
        raise Malformed(f"{name}: {error}") from error
    if not is_dns_name(host):
        # RFC 5280: one without a host that is a name cannot be within a constraint, so is refused.
        raise Malformed(f"{name}: a URI whose host is no name")
    limit = str(constraint.value)
    return host.endswith(limit) if limit.startswith(".") else not limit or host == limit


def _dn_within(name: Name, constraint: Name, broadly: bool) -> bool:
    assert isinstance(name.value, tuple) and isinstance(constraint.value, tuple)  # noqa: S101
    return name.value[: len(constraint.value)] == constraint.value


def _is_below(name: str, domain: str) -> bool:
    return name == domain or name.endswith(f".{domain}")


_WITHIN = {
    "dns": _dns_within,
    "ip": _ip_within,
    "email": _email_within,
    "uri": _uri_within,
    "dn": _dn_within,
}
