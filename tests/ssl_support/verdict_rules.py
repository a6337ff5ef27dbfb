"""Cases of path length, usages, validity, critical extensions, strength, serials and encodings."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta

from certificates import CLIENT, DAY, NOW, SERVER, SHA1, ca, key, leaf, name_of, parts, tlv
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import ExtendedKeyUsageOID as Eku
from verdict_case import Case, raw, straight

from hostler.core.ssl.profile import Profile, Usage
from hostler.core.ssl.verdict import Code

LENGTH = "RFC 5280, 6.1.4 (m) and 4.2.1.9"
PRIVATE = {"profile": Profile.PRIVATE}


def cases() -> Iterator[Case]:
    yield from _path_lengths()
    yield from _basic_constraints()
    yield from _key_usages()
    yield from _extended_usages()
    yield from _validity()
    yield from _critical()
    yield from _strength()
    yield from _serials()
    yield from _encodings()
    yield from _identifiers()
    yield from _untidy_roots()


def _path_lengths() -> Iterator[Case]:
    for limit in (0, 1, 2):
        for below in (0, 1, 2, 3):
            id_ = f"length/{below} CAs below a limit of {limit}"
            line = [ca(f"{id_} Root", path_length=limit)]
            for n in range(below):
                line.append(ca(f"{id_} Inner {n}", line[-1]))
            code = Code.PATH_LENGTH_EXCEEDED if below > limit else None
            yield Case(id_, LENGTH, code, leaf(line[-1]), line[:0:-1], line[:1])
    for what, outer, inner, code in (
        ("limit in the middle", None, 0, Code.PATH_LENGTH_EXCEEDED),
        ("a longer limit below", 2, 5, None),
        ("a shorter limit below", 5, 1, None),
        ("a limit of 0 where one is below", 1, 0, Code.PATH_LENGTH_EXCEEDED),
    ):
        id_ = f"length/{what}"
        root = ca(f"{id_} Root", path_length=outer)
        middle = ca(f"{id_} Middle", root, path_length=inner)
        last = ca(f"{id_} Last", middle)
        yield Case(id_, LENGTH, code, leaf(last), [last, middle], [root])


def _basic_constraints() -> Iterator[Case]:
    rule, no = "RFC 5280, 6.1.4 (k)", Code.NOT_A_CA
    yield straight("basic/inner is no CA", rule, no, inner={"ca": False})
    yield straight("basic/inner says nothing", rule, no, inner={"ca": None})
    yield straight("basic/root is no CA", rule, no, root={"ca": False})
    yield straight("basic/root says nothing", rule, no, root={"ca": None})
    yield straight("basic/leaf says nothing", "RFC 5280, 4.2.1.9", end={"ca": None})
    free = (x509.BasicConstraints(True, None), False)
    yield straight("basic/inner not critical", "RFC 5280, 4.2.1.9: CAs mark it critical",
                   Code.EXTENSION_MISUSED, inner={"more": [free]})  # fmt: skip
    yield straight("basic/inner not critical, private", "RFC 5280, 6.1 does not ask", None,
                   inner={"more": [free]}, **PRIVATE)  # fmt: skip
    id_ = "basic/a leaf signs"
    root = ca(f"{id_} Root")
    first = leaf(root, key=f"{id_} first", subject="first")
    yield Case(id_, rule, no, leaf(first), [first], [root])
    end = {"ca": True, "uses": ("digital_signature", "key_cert_sign")}
    yield straight("basic/leaf is a CA", "CA/B BR 7.1.2.7.8", Code.CA_AS_LEAF, end=end)
    yield straight("basic/leaf is a CA, private", "RFC 5280, 6.1 does not ask", None, end=end,
                   **PRIVATE)  # fmt: skip


def _key_usages() -> Iterator[Case]:
    no, sign = Code.KEY_USAGE_FORBIDS, "RFC 5280, 6.1.4 (n)"
    for who in ("root", "inner"):
        yield straight(
            f"usage/{who} may sign CRLs alone", sign, no, **{who: {"uses": ("crl_sign",)}}
        )
        yield straight(f"usage/{who} may sign certificates alone", sign, None,
                       **{who: {"uses": ("key_cert_sign",)}})  # fmt: skip
        yield straight(f"usage/{who} says nothing", "RFC 5280, 4.2.1.3: absent allows all", None,
                       **{who: {"uses": None}})  # fmt: skip
    tls = "RFC 8446, 4.4.2.2; RFC 5246, 7.4.2"
    for uses, usage, code in (
        (("digital_signature",), Usage.SERVER, None),
        (("key_encipherment",), Usage.SERVER, None),
        (("key_agreement",), Usage.SERVER, None),
        (("data_encipherment",), Usage.SERVER, no),
        (("content_commitment",), Usage.SERVER, no),
        (("crl_sign",), Usage.SERVER, no),
        (("digital_signature",), Usage.CLIENT, None),
        (("key_agreement",), Usage.CLIENT, None),
        (("key_encipherment",), Usage.CLIENT, no),
        (("data_encipherment",), Usage.CLIENT, no),
    ):
        yield straight(f"usage/leaf of a {usage} with {uses[0]}", tls, code, end={"uses": uses},
                       usage=usage)  # fmt: skip
    yield straight("usage/leaf says nothing", "RFC 5280, 4.2.1.3", None, end={"uses": None})
    yield straight("usage/leaf may sign certificates", "RFC 5280, 4.2.1.9", no,
                   end={"uses": ("digital_signature", "key_cert_sign")})  # fmt: skip


def _extended_usages() -> Iterator[Case]:
    no, rule = Code.EXTENDED_KEY_USAGE_FORBIDS, "RFC 5280, 4.2.1.12"
    for what, ekus, usage, code in (
        ("server for a server", (SERVER,), Usage.SERVER, None),
        ("client for a server", (CLIENT,), Usage.SERVER, no),
        ("server for a client", (SERVER,), Usage.CLIENT, no),
        ("client for a client", (CLIENT,), Usage.CLIENT, None),
        ("both for a server", (SERVER, CLIENT), Usage.SERVER, None),
        ("code signing for a server", (Eku.CODE_SIGNING,), Usage.SERVER, no),
        ("unknown for a server", (x509.ObjectIdentifier("1.2.3.4"),), Usage.SERVER, no),
        ("none for a server", None, Usage.SERVER, None),
        ("none for a client", None, Usage.CLIENT, None),
    ):
        yield straight(f"extended/leaf: {what}", rule, code, end={"ekus": ekus}, usage=usage)
    yield straight("extended/leaf: any", "CA/B BR 7.1.2.7.10: never any", no,
                   end={"ekus": (Eku.ANY_EXTENDED_KEY_USAGE,)})  # fmt: skip
    yield straight("extended/leaf: any, private", rule, None,
                   end={"ekus": (Eku.ANY_EXTENDED_KEY_USAGE,)}, **PRIVATE)  # fmt: skip
    empty = raw("2.5.29.37", b"\x30\x00")
    yield straight("extended/leaf: empty", rule + ": SIZE (1..MAX)", Code.EXTENSION_MALFORMED,
                   end={"ekus": None, "more": [(empty, False)]})  # fmt: skip
    chained = "CA/B BR 7.1.2.2.3: a CA's usages limit those below it"
    for what, ekus, code in (
        ("server", (SERVER,), None),
        ("server and client", (SERVER, CLIENT), None),
        ("client", (CLIENT,), no),
        ("mail", (Eku.EMAIL_PROTECTION,), no),
        ("any", (Eku.ANY_EXTENDED_KEY_USAGE,), None),
    ):
        yield straight(f"extended/inner: {what}", chained, code, inner={"ekus": ekus})
    id_ = "extended/two CAs that allow different ones"
    root = ca(f"{id_} Root")
    upper = ca(f"{id_} Upper", root, ekus=(CLIENT,))
    lower = ca(f"{id_} Lower", upper, ekus=(SERVER,))
    yield Case(id_, chained, no, leaf(lower), [lower, upper], [root])


def _validity() -> Iterator[Case]:
    rule, old, new = "RFC 5280, 6.1.3 (a)(2)", Code.EXPIRED, Code.NOT_YET_VALID
    second = timedelta(seconds=1)
    for who in ("root", "inner", "end"):
        yield straight(f"validity/{who} ended", rule, old, **{who: {"ends": -DAY / 2}})
        yield straight(f"validity/{who} ended long ago", rule, old,
                       **{who: {"starts": -900 * DAY, "ends": -400 * DAY}})  # fmt: skip
        yield straight(f"validity/{who} begins tomorrow", rule, new, **{who: {"starts": DAY}})
    yield straight("validity/leaf outlives its CA", rule, None, inner={"ends": 10 * DAY})
    yield straight("validity/leaf is older than its CA", rule, None,
                   end={"starts": -30 * DAY})  # fmt: skip
    yield straight("validity/leaf began just now", rule, None, end={"starts": -60 * second})
    yield straight("validity/root ends in 2049", "RFC 5280, 4.1.2.5", None,
                   root={"ends": _until(2049)})  # fmt: skip
    yield straight("validity/root ends in 2050", "RFC 5280, 4.1.2.5", None,
                   root={"ends": _until(2050)})  # fmt: skip
    yield straight("validity/root never ends", "RFC 5280, 4.1.2.5: 99991231235959Z", None,
                   root={"ends": _until(9999)})  # fmt: skip
    for what, start, end, code in (
        ("UTCTime without seconds", b"2401010000Z", None, Code.UNREADABLE),
        ("UTCTime with an offset", b"240101000000+0100", None, Code.UNREADABLE),
    ):
        del end
        yield straight(f"validity/{what}", "RFC 5280, 4.1.2.5.1", code,
                       end={"rewrite": _times(tlv(0x17, start))})  # fmt: skip
    early = tlv(0x18, b"20240101000000Z")
    yield straight("validity/GeneralizedTime before 2050", "RFC 5280, 4.1.2.5",
                   Code.VALIDITY_MALFORMED, end={"rewrite": _times(early)})  # fmt: skip


def _until(year: int) -> timedelta:
    return NOW.replace(year=year, month=12, day=31, hour=23, minute=59, second=59) - NOW


def _times(not_before: bytes) -> Callable[[bytes], bytes]:
    def change(tbs: bytes) -> bytes:
        found = parts(tbs)
        found[4] = tlv(0x30, not_before + parts(found[4])[1])
        return tlv(0x30, b"".join(found))

    return change


def _critical() -> Iterator[Case]:
    rule, no = (
        "RFC 5280, 4.2: an unknown critical extension refuses",
        Code.UNKNOWN_CRITICAL_EXTENSION,
    )
    unknown = raw("1.2.3.4.5", b"\x05\x00")
    for who in ("root", "inner", "end"):
        yield straight(f"critical/unknown in the {who}", rule, no,
                       **{who: {"more": [(unknown, True)]}})  # fmt: skip
        yield straight(f"critical/unknown and not critical in the {who}", rule, None,
                       **{who: {"more": [(unknown, False)]}})  # fmt: skip
    policies = x509.CertificatePolicies(
        [x509.PolicyInformation(x509.ObjectIdentifier("2.23.140.1.2.1"), None)]
    )
    yield straight("critical/policies", "RFC 5280, 6.1: any policy is asked for", None,
                   end={"more": [(policies, True)]})  # fmt: skip
    poison = x509.PrecertPoison()
    yield straight("critical/precertificate", "RFC 6962, 3.1: never to be used", no,
                   end={"more": [(poison, True)]})  # fmt: skip
    for who in ("inner", "end"):
        id_ = f"critical/unknown in the {who} of another path"
        root = ca(f"{id_} Root")
        inner = ca(f"{id_} Inner", root)
        bad = ca(f"{id_} Other {who}", root, more=[(unknown, True)])
        yield Case(id_, "RFC 5280, 6.1: of the path alone", None, leaf(inner), [bad, inner], [root])


def _strength() -> Iterator[Case]:
    weak, rule = Code.WEAK_KEY, "CA/B BR 6.1.5"
    for who in ("root", "inner", "end"):
        yield straight(f"strength/rsa 1024 in the {who}", rule, weak,
                       **{who: {"key": f"rsa1024/{who}"}})  # fmt: skip
        yield straight(f"strength/rsa 2048 in the {who}", rule, None,
                       **{who: {"key": "rsa2048/all"}})  # fmt: skip
        yield straight(f"strength/p-192 in the {who}", rule, weak, **{who: {"key": f"p192/{who}"}})
    for curve, code in (("p224", weak), ("p384", None), ("p521", None), ("k256", weak)):
        yield straight(f"strength/{curve} in the leaf", rule, code, end={"key": f"{curve}/leaf"})
    yield straight("strength/ed25519 in the leaf", "CA/B BR 6.1.5: RSA and EC alone", weak,
                   end={"key": "ed25519/leaf"})  # fmt: skip
    yield straight("strength/ed25519 in the leaf, private", "RFC 8410", None,
                   end={"key": "ed25519/leaf"}, **PRIVATE)  # fmt: skip
    yield straight("strength/ed25519 all the way, private", "RFC 8410", None,
                   root={"key": "ed25519/r"}, inner={"key": "ed25519/i"}, **PRIVATE)  # fmt: skip
    yield straight("strength/dsa in the leaf", rule, weak, end={"key": "dsa1024/leaf"})
    digest = "CA/B BR 7.1.3.2: SHA-256 at least"
    for name, hashed, code in (
        ("sha1", SHA1, Code.WEAK_DIGEST),
        ("sha224", hashes.SHA224(), Code.ALGORITHM_UNSUPPORTED),
        ("sha384", hashes.SHA384(), None),
        ("sha512", hashes.SHA512(), None),
    ):
        for who in ("inner", "end"):
            yield straight(
                f"strength/{name} on the {who}", digest, code, **{who: {"digest": hashed}}
            )
    yield straight("strength/sha1 on the root", "an anchor's own signature proves nothing", None,
                   root={"digest": SHA1})  # fmt: skip
    yield straight("strength/sha1 on the leaf, private", "collisions are made at will",
                   Code.WEAK_DIGEST, end={"digest": SHA1}, **PRIVATE)  # fmt: skip


def _serials() -> Iterator[Case]:
    rule, no = "RFC 5280, 4.1.2.2", Code.SERIAL_MALFORMED
    for what, content, code in (
        ("zero", b"\0", no),
        ("negative", b"\xff\x01", no),
        ("21 bytes", b"\1" * 21, no),
        ("20 bytes", b"\1" * 20, None),
        ("20 bytes with the high bit", b"\0" + b"\xff" * 20, no),
    ):
        for who in ("inner", "end"):
            yield straight(f"serial/{what} in the {who}", rule, code,
                           **{who: {"rewrite": _serial(content)}})  # fmt: skip
    yield straight("serial/zero in the root", "public roots have it, and nothing asks for it", None,
                   root={"rewrite": _serial(b"\0")})  # fmt: skip
    yield straight("serial/negative, private", "RFC 5280, 4.1.2.2: be graceful", None,
                   end={"rewrite": _serial(b"\xff\x01")}, **PRIVATE)  # fmt: skip


def _serial(content: bytes) -> Callable[[bytes], bytes]:
    def change(tbs: bytes) -> bytes:
        found = parts(tbs)
        return tlv(0x30, b"".join([found[0], tlv(2, content), *found[2:]]))

    return change


def _encodings() -> Iterator[Case]:
    def inner_algorithm(tbs: bytes) -> bytes:
        found = parts(tbs)
        sha384 = bytes.fromhex("300a06082a8648ce3d040303")
        return tlv(0x30, b"".join([*found[:2], sha384, *found[3:]]))

    def version(number: int) -> Callable[[bytes], bytes]:
        return lambda tbs: tlv(
            0x30, b"".join([tlv(0xA0, tlv(2, bytes((number,)))), *parts(tbs)[1:]])
        )

    def version_1(tbs: bytes) -> bytes:
        return tlv(0x30, b"".join(parts(tbs)[1:-1]))

    def unique_ids(tbs: bytes) -> bytes:
        found = parts(tbs)
        return tlv(0x30, b"".join([*found[:-1], tlv(0x81, b"\0x"), found[-1]]))

    def no_issuer(tbs: bytes) -> bytes:
        found = parts(tbs)
        return tlv(0x30, b"".join([*found[:3], b"\x30\x00", *found[4:]]))

    def twice(tbs: bytes) -> bytes:
        found = parts(tbs)
        every = parts(parts(found[-1])[0])
        return tlv(
            0x30, b"".join([*found[:-1], tlv(0xA3, tlv(0x30, b"".join([*every, every[0]])))])
        )

    for what, rule, code, change in (
        ("another algorithm inside", "RFC 5280, 4.1.1.2", Code.ALGORITHM_MISMATCH, inner_algorithm),
        ("version 2 with extensions", "RFC 5280, 4.1.2.1", Code.UNREADABLE, version(1)),
        ("version 5", "RFC 5280, 4.1.2.1", Code.UNREADABLE, version(4)),
        ("unique identifiers", "RFC 5280, 4.1.2.8", Code.EXTENSION_MISUSED, unique_ids),
        ("an extension twice", "RFC 5280, 4.2", Code.EXTENSION_MALFORMED, twice),
        ("no issuer", "RFC 5280, 4.1.2.4", Code.ISSUER_MALFORMED, no_issuer),
    ):
        yield straight(f"encoding/{what} in the leaf", rule, code, end={"rewrite": change})
    yield straight("encoding/version 1 between", "RFC 5280, 6.1.4 (k)", Code.NOT_A_CA,
                   inner={"rewrite": version_1})  # fmt: skip
    yield straight("encoding/version 1 at the root, private", "RFC 5280, 6.1.1 (d)", None,
                   root={"rewrite": version_1}, **PRIVATE)  # fmt: skip
    other = {"rewrite": _serial(b"\7"), "resign": False}
    yield straight("encoding/signature of other bytes", "RFC 5280, 6.1.3 (a)(1)",
                   Code.SIGNATURE_INVALID, end=other)  # fmt: skip
    left_out = [x509.SubjectAlternativeName, x509.BasicConstraints, x509.KeyUsage]
    for what, oid in (
        ("alternative names", "2.5.29.17"),
        ("basic constraints", "2.5.29.19"),
        ("key usage", "2.5.29.15"),
        ("access to information", "1.3.6.1.5.5.7.1.1"),
    ):
        end = {"without": left_out, "more": [(raw(oid, b"\x04\x02ab"), False)]}
        yield straight(f"encoding/{what} that are garbage", "RFC 5280, 4.2",
                       Code.EXTENSION_MALFORMED, end=end)  # fmt: skip


def _untidy_roots() -> Iterator[Case]:
    """Roots that public stores trust, and that are not written as the rules have it."""
    rule = "RFC 5280, 6.1.1 (d): of an anchor name and key are taken"
    named = "of which issuer and serial are named"
    top = name_of(f"basic/root {named}, web Root")
    public = key(f"basic/root {named}, web Root").public_key()
    digest = x509.SubjectKeyIdentifier.from_public_key(public)
    itself = x509.AuthorityKeyIdentifier(digest.digest, [x509.DirectoryName(top)], 7)
    for what, root in (
        ("without its own identifier", {"without": [x509.SubjectKeyIdentifier]}),
        ("basic constraints not critical", {"more": [(x509.BasicConstraints(True, None), False)]}),
        (named, {"more": [(itself, False)], "serial": 7}),
        ("times of the other type", {"rewrite": _times(tlv(0x18, b"20240101000000Z"))}),
    ):
        yield straight(f"basic/root {what}, web", rule, None, root=root, profile=Profile.WEB)
    none = {"ca": None}
    yield straight("basic/root says nothing, web", "RFC 5280, 6.1.4 (k), as clients do",
                   Code.NOT_A_CA, root=none, profile=Profile.WEB)  # fmt: skip
    yield straight("basic/inner not critical, web", "RFC 5280, 4.2.1.9", Code.EXTENSION_MISUSED,
                   inner={"more": [(x509.BasicConstraints(True, None), False)]},
                   profile=Profile.WEB)  # fmt: skip


def _identifiers() -> Iterator[Case]:
    missing, misused = Code.EXTENSION_MISSING, Code.EXTENSION_MISUSED
    authority, subject = x509.AuthorityKeyIdentifier, x509.SubjectKeyIdentifier
    for who in ("inner", "end"):
        yield straight(f"identifier/{who} without its issuer's", "RFC 5280, 4.2.1.1", missing,
                       **{who: {"without": [authority]}})  # fmt: skip
        yield straight(f"identifier/{who} without its issuer's, private", "RFC 5280, 6.1", None,
                       **{who: {"without": [authority]}}, **PRIVATE)  # fmt: skip
    for who in ("root", "inner"):
        yield straight(f"identifier/{who} without its own", "RFC 5280, 4.2.1.2", missing,
                       **{who: {"without": [subject]}})  # fmt: skip
    yield straight("identifier/leaf without its own", "RFC 5280, 4.2.1.2: should", None,
                   end={"without": [subject]})  # fmt: skip
    yield straight("identifier/critical", "RFC 5280, 4.2.1.2", misused,
                   end={"more": [(subject(b"x" * 20), True)]})  # fmt: skip
    yield straight("identifier/of another key", "RFC 5280, 6.1 compares names and signatures", None,
                   end={"more": [(authority(b"y" * 20, None, None), False)]})  # fmt: skip
