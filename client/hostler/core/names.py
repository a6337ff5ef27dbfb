"""Names and addresses that certificates, policies and the bundle may hold."""

from __future__ import annotations

import re
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Literal, NamedTuple

Kind = Literal["host", "user"]

MAX_ALTERNATIVE_NAMES = 100
_MAX_NAME = 63
_MAX_DNS = 253
# The whole identity goes into a URI SAN; SPIFFE allows 255 bytes of trust domain, a DNS name 253.
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,61}[a-z0-9])?", re.ASCII)
_GROUP = re.compile(r"[a-z0-9](?:[a-z0-9_-]{0,61}[a-z0-9])?", re.ASCII)
_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?", re.ASCII)
_IDENTITY = re.compile(r"spiffe://([^/]+)/(host|user)/([^/]+)", re.ASCII)
_SERIAL = re.compile(r"[0-9a-f]{1,40}", re.ASCII)


class InvalidField(ValueError):
    """A value that breaks the rules of its field. `field` and `reason` are for the caller."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")
        self.field = field
        self.reason = reason


class InvalidName(InvalidField):
    """The name of a host, a user or a group."""


class InvalidTrustDomain(InvalidField):
    """A trust domain."""


class InvalidDnsName(InvalidField):
    """A DNS name of a host."""


class InvalidAddress(InvalidField):
    """An IP address of a host."""


class InvalidIdentity(InvalidField):
    """An identity written whole."""


class InvalidSerial(InvalidField):
    """The serial number of a certificate."""


class Identity(NamedTuple):
    """Who a certificate speaks for. `str()` writes it whole, as policies and the bundle have it."""

    trust_domain: str
    kind: Kind
    name: str

    def __str__(self) -> str:
        return f"spiffe://{self.trust_domain}/{self.kind}/{self.name}"

    @classmethod
    def parse(cls, text: str) -> Identity:
        """Take a whole identity apart. Raises InvalidIdentity."""
        found = _IDENTITY.fullmatch(text)
        if not found:
            raise InvalidIdentity(
                "identity", f"{text[:300]!r} is not spiffe://TRUST-DOMAIN/user|host/NAME"
            )
        kind: Kind = "host" if found[2] == "host" else "user"
        try:
            return cls(check_trust_domain(found[1]), kind, check_name(kind, found[3]))
        except InvalidField as e:
            raise InvalidIdentity("identity", f"{text[:300]!r}: {e.reason}") from e

    @classmethod
    def of(cls, text: str, trust_domain: str) -> Identity:
        """Understand `NAME` (a user), `user/NAME`, `host/NAME` or a whole identity.

        Raises InvalidIdentity, also for an identity of another trust domain.
        """
        whole = text
        if "://" not in text:
            whole = f"spiffe://{trust_domain}/{text if '/' in text else f'user/{text}'}"
        identity = cls.parse(whole)
        if identity.trust_domain != trust_domain:
            raise InvalidIdentity("identity", f"{text!r} is not of trust domain {trust_domain}")
        return identity


def check_name(kind: Kind, name: str) -> str:
    """Answer the name as it is. Raises InvalidName.

    A host's name is a DNS name as well, since clients expect it in the host's certificate.
    """
    field = f"{kind} name"
    _check_length(InvalidName, field, name, _MAX_NAME)
    if not _NAME.fullmatch(name) or ".." in name:
        raise InvalidName(
            field,
            f"{name!r} must be lower-case letters, digits and . _ - inside, "
            "and begin and end with a letter or digit",
        )
    if kind == "host":
        try:
            check_dns_name(name)
        except InvalidDnsName as e:
            raise InvalidName(field, e.reason) from e
    return name


def check_group(group: str) -> str:
    """Answer the group's name as it is. Raises InvalidName."""
    _check_length(InvalidName, "group", group, _MAX_NAME)
    if not _GROUP.fullmatch(group):
        raise InvalidName(
            "group",
            f"{group!r} must be lower-case letters, digits and _ - inside, "
            "and begin and end with a letter or digit",
        )
    return group


def check_trust_domain(trust_domain: str) -> str:
    """Answer the trust domain as it is: DNS labels in lower case. Raises InvalidTrustDomain."""
    _check_length(InvalidTrustDomain, "trust domain", trust_domain, _MAX_DNS)
    for label in trust_domain.split("."):
        if not _LABEL.fullmatch(label):
            raise InvalidTrustDomain(
                "trust domain",
                f"{trust_domain!r} must be labels of lower-case letters, digits and -, "
                "joined by dots",
            )
    return trust_domain


def check_dns_name(dns_name: str) -> str:
    """Answer the DNS name in lower case. Raises InvalidDnsName. Wildcards are refused."""
    _check_length(InvalidDnsName, "DNS name", dns_name, _MAX_DNS)
    lower = dns_name.lower()
    labels = lower.split(".")
    for label in labels:
        if not _LABEL.fullmatch(label):
            raise InvalidDnsName(
                "DNS name",
                f"{dns_name!r}: {label!r} is not a label of 1 to 63 letters, digits and - "
                "(no wildcard, no dot at the end; IDNs as xn--…)",
            )
    if labels[-1].isdigit():
        raise InvalidDnsName("DNS name", f"{dns_name!r} ends in a number and reads as an address")
    return lower


def check_address(address: str) -> IPv4Address | IPv6Address:
    """Parse the address of one host. Raises InvalidAddress."""
    try:
        parsed = ip_address(address)
    except ValueError:
        raise InvalidAddress(
            "IP address", f"{address[:100]!r} is not an IPv4 or IPv6 address"
        ) from None
    if isinstance(parsed, IPv6Address) and parsed.scope_id is not None:
        raise InvalidAddress("IP address", f"{address!r} has a zone, which certificates cannot say")
    if parsed.is_unspecified or parsed.is_multicast:
        raise InvalidAddress("IP address", f"{address!r} is not the address of one host")
    return parsed


def check_alternative_names(
    dns_names: Sequence[str], ip_addresses: Sequence[str]
) -> tuple[tuple[str, ...], tuple[IPv4Address | IPv6Address, ...]]:
    """Check a host's DNS names and addresses, in order and without repeats.

    Raises InvalidDnsName, InvalidAddress, InvalidField if there are more than 100.
    """
    if len(dns_names) + len(ip_addresses) > MAX_ALTERNATIVE_NAMES:
        raise InvalidField(
            "alternative names", f"more than {MAX_ALTERNATIVE_NAMES} DNS names and addresses"
        )
    checked = dict.fromkeys(check_dns_name(name) for name in dns_names)
    addresses = dict.fromkeys(check_address(address) for address in ip_addresses)
    return tuple(checked), tuple(addresses)


def serial_hex(serial: int) -> str:
    """Write a serial number as policies and the bundle do: lower-case hex, no leading zeros."""
    return f"{serial:x}"


def parse_serial(text: str) -> str:
    """Read a serial number as openssl(1) and others write it: `0A:1B`, `0x0a1b`, `A1B`.

    Answers it as `serial_hex()` would. Raises InvalidSerial.
    """
    digits = text.strip().lower().removeprefix("0x").replace(":", "").lstrip("0")
    if not _SERIAL.fullmatch(digits):
        raise InvalidSerial("serial", f"{text[:100]!r} is not 1 to 40 hexadecimal digits")
    return digits


def _check_length(error: type[InvalidField], field: str, text: str, limit: int) -> None:
    if not text:
        raise error(field, "must not be empty")
    if len(text) > limit:
        raise error(field, f"{text[:limit]!r}… is longer than {limit} characters")
