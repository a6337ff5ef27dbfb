"""Cases of name constraints of every type, and of host names."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Sequence

from certificates import ca, leaf, tlv
from cryptography import x509
from cryptography.x509.oid import NameOID
from verdict_case import Case, raw, straight

from hostler.core.ssl.profile import Profile
from hostler.core.ssl.verdict import Code

IN, OUT = Code.NAME_NOT_PERMITTED, Code.NAME_EXCLUDED
BAD = Code.NAME_CONSTRAINT_MALFORMED
TEXT = "RFC 5280, 4.2.1.10"
_NC = "2.5.29.30"
Row = tuple[str, Sequence[object], Sequence[object], Sequence[object], Code | None, str]


def dns(*values: str) -> list[x509.GeneralName]:
    return [x509.DNSName(value) for value in values]


def mail(*values: str) -> list[x509.GeneralName]:
    # The public way refuses what is no mailbox.
    return [x509.RFC822Name._init_without_validation(value) for value in values]


def uri(*values: str) -> list[x509.GeneralName]:
    return [x509.UniformResourceIdentifier(value) for value in values]


def net(*values: str) -> list[x509.GeneralName]:
    return [x509.IPAddress(ipaddress.ip_network(value)) for value in values]


def ip(*values: str) -> list[x509.GeneralName]:
    return [x509.IPAddress(ipaddress.ip_address(value)) for value in values]


def dn(*values: str) -> list[x509.GeneralName]:
    return [x509.DirectoryName(distinguished(value)) for value in values]


def distinguished(text: str) -> x509.Name:
    """ "O=A/OU=B/CN=c" as a name."""
    oids = {"O": NameOID.ORGANIZATION_NAME, "OU": NameOID.ORGANIZATIONAL_UNIT_NAME,
            "CN": NameOID.COMMON_NAME, "E": NameOID.EMAIL_ADDRESS}  # fmt: skip
    pairs = [part.split("=") for part in text.split("/")]
    return x509.Name([x509.NameAttribute(oids[kind], value) for kind, value in pairs])


def _other(oid: str) -> list[x509.GeneralName]:
    return [x509.OtherName(x509.ObjectIdentifier(oid), b"\x0c\x01x")]


WWW = dns("www.example.com")
ROWS: list[Row] = [
    # what, permitted, excluded, names of the leaf, verdict, rule
    ("dns: same", dns("www.example.com"), [], WWW, None, TEXT),
    ("dns: below", dns("example.com"), [], WWW, None, TEXT),
    ("dns: two below", dns("example.com"), [], dns("a.b.example.com"), None, TEXT),
    ("dns: in capitals", dns("EXAMPLE.com"), [], dns("www.Example.COM"), None, "RFC 5280, 7.2"),
    ("dns: another", dns("example.org"), [], WWW, IN, TEXT),
    ("dns: end of a label", dns("ample.com"), [], WWW, IN, TEXT),
    ("dns: above", dns("www.example.com"), [], dns("example.com"), IN, TEXT),
    ("dns: one of two", dns("example.com"), [], dns("www.example.com", "a.org"), IN, TEXT),
    ("dns: second of the permitted", dns("a.org", "example.com"), [], WWW, None, TEXT),
    ("dns: empty permits all", dns(""), [], WWW, None, TEXT),
    ("dns: empty excludes all", [], dns(""), WWW, OUT, TEXT),
    ("dns: excluded", [], dns("example.com"), WWW, OUT, TEXT),
    ("dns: excluded beside", [], dns("example.org"), WWW, None, TEXT),
    ("dns: excluded within permitted", dns("example.com"), dns("www.example.com"), WWW, OUT, TEXT),
    ("dns: permitted within excluded", dns("www.example.com"), dns("example.com"), WWW, OUT, TEXT),
    ("dns: wildcard below", dns("example.com"), [], dns("*.example.com"), None, TEXT),
    ("dns: wildcard beside", dns("www.example.com"), [], dns("*.example.com"), IN, TEXT),
    ("dns: wildcard that covers an excluded one", [], dns("www.example.com"),
     dns("*.example.com"), OUT, "CVE-2025-61727: a pattern is what it stands for"),
    ("dns: wildcard over an excluded depth", [], dns("a.b.example.com"), dns("*.example.com"),
     None, TEXT),
    ("dns: other type only", dns("example.com"), [], ip("192.0.2.1"), None,
     "RFC 5280, 4.2.1.10: only names of the type are constrained"),
    ("dns: with a dot", dns(".example.com"), [], WWW, BAD, TEXT + ": a dNSName has no leading dot"),
    ("dns: wildcard as constraint", dns("*.example.com"), [], WWW, Code.EXTENSION_MALFORMED,
     TEXT),
    ("ip: within", net("192.0.2.0/24"), [], ip("192.0.2.7"), None, TEXT),
    ("ip: beside", net("192.0.2.0/24"), [], ip("192.0.3.7"), IN, TEXT),
    ("ip: one host", net("192.0.2.7/32"), [], ip("192.0.2.7"), None, TEXT),
    ("ip: excluded", [], net("192.0.2.0/24"), ip("192.0.2.7"), OUT, TEXT),
    ("ip: all excluded", [], net("0.0.0.0/0"), ip("192.0.2.7"), OUT, TEXT),
    ("ip: all of the other version excluded", [], net("::/0"), ip("192.0.2.7"), None, TEXT),
    ("ip: version 6 within", net("2001:db8::/32"), [], ip("2001:db8::1"), None, TEXT),
    ("ip: version 6 beside", net("2001:db8::/32"), [], ip("2001:db9::1"), IN, TEXT),
    ("ip: version 6 where 4 is permitted", net("192.0.2.0/24"), [], ip("2001:db8::1"), IN, TEXT),
    ("ip: a DNS name is not constrained", net("192.0.2.0/24"), [], WWW, None, TEXT),
    ("email: mailbox", mail("a@example.com"), [], mail("a@example.com"), None, TEXT),
    ("email: other mailbox", mail("a@example.com"), [], mail("b@example.com"), IN, TEXT),
    ("email: mailbox in capitals", mail("a@example.com"), [], mail("A@example.com"), IN,
     "RFC 5280, 7.5: the local part is compared with case"),
    ("email: host in capitals", mail("a@example.com"), [], mail("a@EXAMPLE.com"), None,
     "RFC 5280, 7.5"),
    ("email: host", mail("example.com"), [], mail("a@example.com"), None, TEXT),
    ("email: below a host", mail("example.com"), [], mail("a@x.example.com"), IN, TEXT),
    ("email: below a domain", mail(".example.com"), [], mail("a@x.example.com"), None, TEXT),
    ("email: at the domain", mail(".example.com"), [], mail("a@example.com"), IN, TEXT),
    ("email: excluded host", [], mail("example.com"), mail("a@example.com"), OUT, TEXT),
    ("email: excluded mailbox", [], mail("a@example.com"), mail("a@example.com"), OUT, TEXT),
    ("email: excluded beside", [], mail("a@example.com"), mail("b@example.com"), None, TEXT),
    ("email: not a mailbox", mail("example.com"), [], mail("a@b@example.com"),
     Code.NAME_MALFORMED, "RFC 5280, 4.2.1.6: a Mailbox of RFC 2821"),
    ("uri: host", uri("www.example.com"), [], uri("https://www.example.com/x"), None, TEXT),
    ("uri: other host", uri("www.example.com"), [], uri("https://a.example.com/"), IN, TEXT),
    ("uri: below a domain", uri(".example.com"), [], uri("https://a.b.example.com/"), None, TEXT),
    ("uri: at the domain", uri(".example.com"), [], uri("https://example.com/"), IN, TEXT),
    ("uri: with port and user", uri("example.com"), [], uri("https://u@example.com:8443/"),
     None, TEXT),
    ("uri: name of a user", uri("example.com"), [], uri("https://example.com@evil.org/"), IN, TEXT),
    ("uri: excluded", [], uri("example.com"), uri("https://example.com/"), OUT, TEXT),
    ("uri: of an address", uri("example.com"), [], uri("https://192.0.2.1/"),
     Code.NAME_MALFORMED, TEXT + ": one without a host name is refused"),
    ("uri: of no host", uri("example.com"), [], uri("urn:x:y"), Code.NAME_MALFORMED, TEXT),
    ("uri: identity within", uri("td.example"), [], uri("spiffe://td.example/host/a"), None, TEXT),
    ("dn: alternative name within", dn("O=A"), [], dn("O=A/CN=x"), None, TEXT),
    ("dn: alternative name beside", dn("O=A"), [], dn("O=B/CN=x"), IN, TEXT),
    ("other: constraint of the type", _other("1.2.3"), [], _other("1.2.3"),
     Code.NAME_CONSTRAINT_UNSUPPORTED, "RFC 5280, 4.2.1.10: process it or refuse"),
    ("other: excluded of the type", [], _other("1.2.3"), _other("1.2.3"),
     Code.NAME_CONSTRAINT_UNSUPPORTED, "RFC 5280, 4.2.1.10: process it or refuse"),
    ("other: none of the type below", _other("1.2.3"), [], WWW, None, TEXT),
    ("rid: constraint of the type", [x509.RegisteredID(x509.ObjectIdentifier("1.2.3"))], [],
     [x509.RegisteredID(x509.ObjectIdentifier("1.2.3.4"))],
     Code.NAME_CONSTRAINT_UNSUPPORTED, "RFC 5280, 4.2.1.10: process it or refuse"),
]  # fmt: skip
# The subject counts as a DN: permitted, excluded, the leaf's subject, verdict.
SUBJECTS: list[tuple[str, list[x509.GeneralName], list[x509.GeneralName], str, Code | None]] = [
    ("subject within", dn("O=A"), [], "O=A/CN=x", None),
    ("subject beside", dn("O=A"), [], "O=B/CN=x", IN),
    ("subject in capitals", dn("O=a b"), [], "O=A  B/CN=x", None),
    ("subject of another order", dn("O=A/OU=B"), [], "OU=B/O=A/CN=x", IN),
    ("subject of two levels", dn("O=A/OU=B"), [], "O=A/OU=B/CN=x", None),
    ("subject excluded", [], dn("O=A"), "O=A/CN=x", OUT),
    ("subject excluded beside", [], dn("O=A/OU=B"), "O=A/OU=C/CN=x", None),
    ("mailbox of the subject", mail("example.com"), [], "CN=x/E=a@example.org", IN),
    ("mailbox of the subject within", mail("example.com"), [], "CN=x/E=a@example.com", None),
]


def cases() -> Iterator[Case]:
    for what, permitted, excluded, names, code, rule in ROWS:
        yield straight(
            f"names/{what}", rule, code, sans=names,
            # A subject is a DN as well.
            end={"subject": ""} if what.startswith("dn:") else None,
            inner={"more": [(_constraint(permitted, excluded), True)], "without": [_Constraints]},
        )  # fmt: skip
    for what, permitted, excluded, subject, code in SUBJECTS:
        yield straight(
            f"names/dn: {what}", TEXT, code, end={"subject": distinguished(subject)},
            inner={"more": [(_constraint(permitted, excluded), True)]},
        )  # fmt: skip
    yield from _layers()
    yield from _malformed()
    yield from _hosts()


_Constraints = x509.NameConstraints


def _constraint(permitted: Sequence[object], excluded: Sequence[object]) -> x509.ExtensionType:
    try:
        return x509.NameConstraints(list(permitted) or None, list(excluded) or None)  # type: ignore[arg-type]
    except ValueError:
        # What the builder refuses to write is written by hand: DNS names only.
        trees = [tlv(0x30, tlv(0x82, n.value.encode())) for n in permitted]  # type: ignore[attr-defined]
        return raw(_NC, tlv(0x30, tlv(0xA0, b"".join(trees))))


def _nc(permitted: list[x509.GeneralName]) -> list[tuple[x509.ExtensionType, bool]]:
    return [(x509.NameConstraints(permitted, None), True)]


def _layers() -> Iterator[Case]:
    rule = "RFC 5280, 6.1.4 (g): what is permitted is what every CA permits"
    for what, top, inner, code in (
        ("narrower below", dns("example.com"), dns("www.example.com"), None),
        ("wider below", dns("www.example.com"), dns("example.com"), None),
        ("disjoint", dns("example.org"), dns("example.com"), IN),
        ("other types", net("192.0.2.0/24"), dns("example.com"), None),
    ):
        yield straight(f"names/layers: {what}", rule, code, root={"more": _nc(top)},
                       inner={"more": _nc(inner)})  # fmt: skip
    rule = "RFC 5280, 6.1.3 (b): the names of CAs between are constrained as well"
    for what, name, code in (("within", "ca.example.com", None), ("beside", "ca.example.org", IN)):
        yield straight(f"names/layers: inner CA {what}", rule, code,
                       root={"more": _nc(dns("example.com"))}, inner={"sans": (name,)})  # fmt: skip
    yield straight("names/layers: not critical", TEXT, IN,
                   inner={"more": [(x509.NameConstraints(dns("a.org"), None), False)]})  # fmt: skip
    yield straight("names/layers: in a leaf", "RFC 5280, 4.2.1.10: only in a CA",
                   Code.EXTENSION_MISUSED, end={"more": _nc(dns("example.com"))})  # fmt: skip


def _malformed() -> Iterator[Case]:
    for what, value in (
        ("neither permitted nor excluded", tlv(0x30, b"")),
        ("mask with a hole", tlv(0x30, tlv(0xA0, tlv(0x30, tlv(0x87, b"\xc0\0\2\0\xff\0\xff\0"))))),
        ("address without a mask", tlv(0x30, tlv(0xA0, tlv(0x30, tlv(0x87, b"\xc0\0\2\1"))))),
    ):
        yield straight(f"names/malformed: {what}", TEXT, Code.EXTENSION_MALFORMED,
                       sans=ip("192.0.2.1"), inner={"more": [(raw(_NC, value), True)]})  # fmt: skip
    many = dns(*(f"a{n}.example.com" for n in range(600)))
    names = dns(*(f"b{n}.example.com" for n in range(600)))
    yield straight("names/malformed: too many to compare", "bounded work; CVE-2018-16875 and kin",
                   Code.NAME_CONSTRAINT_TOO_LARGE, sans=names,
                   inner={"more": [(x509.NameConstraints(None, many), True)]})  # fmt: skip


def _hosts() -> Iterator[Case]:
    wrong, match = Code.NAME_MISMATCH, "RFC 9525, 6.3"
    for what, names, name, code in (
        ("same", WWW, "www.example.com", None),
        ("in capitals", WWW, "WWW.Example.Com", None),
        ("with a final dot", WWW, "www.example.com.", None),
        ("another", WWW, "example.com", wrong),
        ("second name", dns("a.org", "www.example.com"), "www.example.com", None),
        ("wildcard", dns("*.example.com"), "www.example.com", None),
        ("wildcard of two labels", dns("*.example.com"), "a.b.example.com", wrong),
        ("wildcard and its parent", dns("*.example.com"), "example.com", wrong),
        ("address", ip("192.0.2.1"), "192.0.2.1", None),
        ("other address", ip("192.0.2.1"), "192.0.2.2", wrong),
        ("address of version 6", ip("2001:db8::1"), "2001:db8:0::1", None),
        ("address written as a name", dns("www.example.com"), "192.0.2.1", wrong),
    ):
        yield straight(f"host/{what}", match, code, sans=names, name=name)
    for what, pattern in (
        ("within a label", "w*.example.com"),
        ("not the first label", "www.*.com"),
        ("of a top-level domain", "*.com"),
        ("alone", "*"),
    ):
        yield straight(f"host/wildcard {what}", "CA/B BR 7.1.2.7.12; RFC 9525, 6.3",
                       Code.NAME_MALFORMED, sans=dns(pattern))  # fmt: skip
    yield straight("host/underscore", "CA/B BR 7.1.2.7.12: LDH labels", Code.NAME_MALFORMED,
                   sans=dns("a_b.example.com"))  # fmt: skip
    id_ = "host/common name alone"
    root = ca(f"{id_} Root")
    alone = leaf(root, subject="www.example.com", without=[x509.SubjectAlternativeName])
    for profile in Profile:
        yield Case(f"{id_} {profile}", "RFC 9525, 2: the common name is not asked",
                   Code.NO_ALTERNATIVE_NAMES, alone, [], [root], "www.example.com",
                   profile=profile)  # fmt: skip
    yield straight("host/common name spelt otherwise", "CA/B BR 7.1.4.3: an exact copy",
                   Code.NAME_MALFORMED, end={"subject": "WWW.example.com"})  # fmt: skip
    yield straight("host/no subject, names not critical", "RFC 5280, 4.2.1.6",
                   Code.EXTENSION_MISUSED, end={"subject": "", "more": [
                       (x509.SubjectAlternativeName(WWW), False)]})  # fmt: skip
    yield straight("host/no subject, names critical", "RFC 5280, 4.2.1.6", end={"subject": ""})
