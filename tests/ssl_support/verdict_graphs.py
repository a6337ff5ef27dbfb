"""Cases of branching and cross-signed graphs, loops, and self-issued certificates."""

from __future__ import annotations

from collections.abc import Iterator

from certificates import DAY, SERVER, SHA1, Spec, ca, key, leaf, name_of
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID
from verdict_case import Case

from hostler.core.ssl.verdict import Code

SEARCH = "RFC 4158, 2.4: every path is tried before a chain is called bad"
TRUST = "RFC 5280, 6.1: a path ends at a trust anchor"


def cases() -> Iterator[Case]:
    yield from _plain()
    yield from _branches()
    yield from _crossed()
    yield from _names()
    yield from _loops()
    yield from _self_issued()


def _plain() -> Iterator[Case]:
    for depth in (0, 1, 2, 5, 9, 11):
        id_ = f"graph/{depth} inner CAs"
        line = _line(id_, depth)
        code = Code.CHAIN_TOO_DEEP if depth > 10 else None
        rule = "a path of more CAs than the caller allows is refused" if code else TRUST
        yield Case(id_, rule, code, leaf(line[-1]), line[1:][::-1], line[:1])
    line = _line("graph/out of order", 3)
    yield Case("graph/out of order", SEARCH, None, leaf(line[-1]), line[1:], line[:1])
    line = _line("graph/root is sent too", 1)
    yield Case("graph/root is sent too", TRUST, None, leaf(line[-1]), line[::-1], line[:1])
    line, other = _line("graph/strangers", 1), _line("graph/strangers 2", 2)
    yield Case("graph/strangers", SEARCH, None, leaf(line[-1]), [*other, *line[1:]], line[:1])
    line = _line("graph/twice the same", 1)
    bottom = leaf(line[-1])
    given = [bottom, line[1], line[1]]
    yield Case("graph/twice the same", SEARCH, None, bottom, given, line[:1])
    line = _line("graph/inner is missing", 2)
    yield Case("graph/inner is missing", TRUST, Code.ISSUER_NOT_FOUND, leaf(line[-1]),
               line[2:], line[:1])  # fmt: skip
    line, other = _line("graph/root is a stranger", 1), _line("graph/stranger", 0)
    yield Case("graph/root is a stranger", TRUST, Code.ISSUER_NOT_FOUND, leaf(line[-1]),
               line[1:], other)  # fmt: skip
    line = _line("graph/root is sent and not trusted", 1)
    yield Case("graph/root is sent and not trusted", TRUST, Code.ROOT_NOT_TRUSTED, leaf(line[-1]),
               line[::-1], other)  # fmt: skip
    alone = Spec("graph/signs itself", sans=("www.example.com",), uses=("digital_signature",))
    yield Case("graph/signs itself", TRUST, Code.ROOT_NOT_TRUSTED, alone, [], other)
    alone = Spec("graph/signs itself, trusted", sans=("www.example.com",),
                 uses=("digital_signature",))  # fmt: skip
    yield Case("graph/signs itself, trusted", TRUST, None, alone, [], [alone])
    line = _line("graph/inner is the anchor", 1)
    yield Case("graph/inner is the anchor", TRUST, None, leaf(line[-1]), [], line[1:])


def _branches() -> Iterator[Case]:
    """Two certificates of one CA, name and key alike: one is bad, and is sent first or last."""
    nc = x509.NameConstraints([x509.DNSName("example.org")], None)
    eku = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING])
    unknown = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00")
    kinds: dict[str, dict[str, object]] = {
        "expired": {"ends": -DAY / 2},
        "not yet valid": {"starts": DAY},
        "names not permitted": {"more": [(nc, True)]},
        "code signing": {"more": [(eku, False)]},
        "signed with sha1": {"digest": SHA1},
        "no CA": {"ca": False},
        "critical extension": {"more": [(unknown, True)]},
        "no signing": {"uses": ("crl_sign",)},
    }
    for kind, bad in kinds.items():
        for order in ("first", "last"):
            id_ = f"graph/branch {kind} {order}"
            root = ca(f"{id_} Root")
            good = ca(f"{id_} Inner", root, key=f"{id_} key")
            other = ca(f"{id_} Inner", root, key=f"{id_} key", **bad)
            given = [other, good] if order == "first" else [good, other]
            yield Case(id_, SEARCH, None, leaf(good), given, [root])
    for order in ("first", "last"):
        id_ = f"graph/branch to a stranger {order}"
        root, stranger = ca(f"{id_} Root"), ca(f"{id_} Stranger")
        good = ca(f"{id_} Inner", root, key=f"{id_} key")
        other = ca(f"{id_} Inner", stranger, key=f"{id_} key")
        given = [other, good] if order == "first" else [good, other]
        yield Case(id_, SEARCH, None, leaf(good), given, [root])


def _crossed() -> Iterator[Case]:
    def world(id_: str, old_ends: object) -> tuple[Spec, Spec, Spec, Spec]:
        old = ca(f"{id_} Old", ends=old_ends)
        new = ca(f"{id_} New")
        cross = ca(f"{id_} New", old)
        return old, new, cross, ca(f"{id_} Inner", new)

    id_ = "graph/cross-signed, new root trusted"
    old, new, cross, inner = world(id_, 900 * DAY)
    yield Case(id_, TRUST, None, leaf(inner), [inner, cross], [new])
    id_ = "graph/cross-signed, old root trusted"
    old, new, cross, inner = world(id_, 900 * DAY)
    yield Case(id_, TRUST, None, leaf(inner), [inner, cross], [old])
    id_ = "graph/cross-signed, both trusted, old expired"
    old, new, cross, inner = world(id_, -DAY / 2)
    yield Case(id_, SEARCH, None, leaf(inner), [inner, cross], [old, new])
    id_ = "graph/cross-signed, old trusted, old expired"
    old, new, cross, inner = world(id_, -DAY / 2)
    yield Case(id_, "RFC 5280, 6.1.3 (a)(2)", Code.EXPIRED, leaf(inner), [inner, cross], [old])
    id_ = "graph/bridge"
    mine, theirs, bridge = ca(f"{id_} Mine"), ca(f"{id_} Theirs"), ca(f"{id_} Bridge")
    over, out = ca(f"{id_} Bridge", mine), ca(f"{id_} Theirs", bridge)
    inner = ca(f"{id_} Inner", theirs)
    back = [ca(f"{id_} Mine", bridge), ca(f"{id_} Bridge", theirs)]
    yield Case(id_, SEARCH, None, leaf(inner), [inner, *back, out, over], [mine])
    id_ = "graph/mesh with one way out"
    yield Case(id_, SEARCH, None, *_mesh(id_, trusted=True))
    id_ = "graph/mesh with no way out"
    yield Case(id_, TRUST, Code.ISSUER_NOT_FOUND, *_mesh(id_, trusted=False))


def _mesh(id_: str, *, trusted: bool) -> tuple[Spec, list[Spec], list[Spec]]:
    """Five layers of three CAs each, all of one layer of one name, each signed by all above."""
    root, stranger = ca(f"{id_} Root"), ca(f"{id_} Stranger")
    above = [ca(f"{id_} 0", stranger, key=f"{id_} 0 {n}") for n in range(3)]
    given = list(above)
    if trusted:
        last = ca(f"{id_} 0", root, key=f"{id_} 0 2")
        given.append(last)
    for layer in range(1, 5):
        here = [ca(f"{id_} {layer}", up, key=f"{id_} {layer} {n}")
                for n in range(3) for up in above]  # fmt: skip
        given += here
        above = here[::3]
    return leaf(above[0]), given, [root]


def _names() -> Iterator[Case]:
    rule = "RFC 5280, 7.1: names are compared without case and with space folded"
    for how, other in (
        ("case", "GRAPH/NAME IN CASE rOOT"),
        ("space", "graph/name  in  space Root"),
    ):
        id_ = f"graph/name in {how}"
        root = ca(f"{id_} Root")
        inner = ca(f"{id_} Inner", ca(other, key=f"{id_} Root"))
        yield Case(id_, rule, None, leaf(inner), [inner], [root])
    id_ = "graph/other key of the same name"
    root = ca(f"{id_} Root")
    inner, other = ca(f"{id_} Inner", root), ca(f"{id_} Inner", root, key=f"{id_} other")
    rule = "RFC 5280, 6.1.3 (a)(1): the signature is the issuer's"
    yield Case(id_, rule, Code.SIGNATURE_INVALID, leaf(inner), [other], [root])
    for order in ("first", "last"):
        id_ = f"graph/other key of the same name and identifier {order}"
        root = ca(f"{id_} Root")
        inner = ca(f"{id_} Inner", root)
        same = x509.SubjectKeyIdentifier.from_public_key(key(inner.key_name).public_key())
        other = ca(f"{id_} Inner", root, key=f"{id_} other", more=[(same, False)])
        given = [other, inner] if order == "first" else [inner, other]
        yield Case(id_, SEARCH, None, leaf(inner), given, [root])
    id_ = "graph/signature is of another"
    root = ca(f"{id_} Root")
    inner = ca(f"{id_} Inner", root, signer=f"{id_} forger")
    yield Case(id_, rule, Code.SIGNATURE_INVALID, leaf(inner), [inner], [root])
    id_ = "graph/leaf of another key"
    root = ca(f"{id_} Root")
    forged = leaf(root, signer=f"{id_} forger")
    yield Case(id_, rule, Code.SIGNATURE_INVALID, forged, [], [root])


def _loops() -> Iterator[Case]:
    for length in (2, 3, 5):
        id_ = f"loop/{length} CAs in a ring"
        ring = _ring(id_, length)
        yield Case(id_, TRUST, Code.LOOP, leaf(ring[0]), ring, [ca(f"{id_} Root")])
        id_ = f"loop/{length} CAs in a ring with a way out"
        ring, root = _ring(id_, length), ca(f"{id_} Root")
        way = ca(str(ring[-1].subject), root)
        yield Case(id_, SEARCH, None, leaf(ring[0]), [*ring, way], [root])
    id_ = "loop/two rings that touch"
    one, two = _ring(f"{id_} 1", 2), _ring(f"{id_} 2", 2)
    across = ca(str(one[1].subject), two[0])
    yield Case(id_, TRUST, Code.LOOP, leaf(one[0]), [*one, across, *two], [ca(f"{id_} Root")])
    id_ = "loop/signs itself and is signed"
    root = ca(f"{id_} Root")
    inner, itself = ca(f"{id_} Inner", root), ca(f"{id_} Inner")
    yield Case(id_, SEARCH, None, leaf(inner), [itself, inner], [root])


def _ring(id_: str, length: int) -> list[Spec]:
    names = [f"{id_} CA {n}" for n in range(length)]
    return [ca(name, ca(names[(n + 1) % length])) for n, name in enumerate(names)]


def _line(id_: str, depth: int) -> list[Spec]:
    line = [ca(f"{id_} Root")]
    for n in range(depth):
        line.append(ca(f"{id_} Inner {n}", line[-1]))
    return line


def _self_issued() -> Iterator[Case]:
    rule = "RFC 5280, 6.1.4 (l): self-issued CAs do not count"
    for limit in (0, 1):
        for below in (0, 1, 2):
            id_ = f"self-issued/{below} CAs below a new key under a limit of {limit}"
            root = ca(f"{id_} Root", path_length=limit)
            new = ca(f"{id_} Root", root, key=f"{id_} new")
            line = [new]
            for n in range(below):
                line.append(ca(f"{id_} Inner {n}", line[-1]))
            code = Code.PATH_LENGTH_EXCEEDED if below > limit else None
            yield Case(id_, rule, code, leaf(line[-1]), line[::-1], [root])
    rule = "RFC 5280, 6.1.3 (b): constraints are not for self-issued CAs but for every leaf"
    nc = x509.NameConstraints([x509.DNSName("example.com")], None)
    for kind in ("CA", "leaf"):
        id_ = f"self-issued/{kind} of a name that is not permitted"
        root = ca(f"{id_} Root", more=[(nc, True)])
        if kind == "CA":
            new = ca(f"{id_} Root", root, key=f"{id_} new", sans=("ca.example.org",))
            yield Case(id_, rule, None, leaf(new), [new], [root])
        else:
            bottom = leaf(root, "www.example.org", subject=name_of(f"{id_} Root"))
            yield Case(id_, rule, Code.NAME_NOT_PERMITTED, bottom, [], [root])
    id_ = "self-issued/old key signed the new one, new one trusted"
    old = ca(f"{id_} Root", key=f"{id_} old")
    new = ca(f"{id_} Root", key=f"{id_} new")
    link = ca(f"{id_} Root", new, key=f"{id_} old")
    yield Case(id_, SEARCH, None, leaf(old), [link], [new])
    id_ = "self-issued/expired link between keys"
    old = ca(f"{id_} Root", key=f"{id_} old")
    new = ca(f"{id_} Root", key=f"{id_} new")
    link = ca(f"{id_} Root", new, key=f"{id_} old", ends=-DAY / 2)
    yield Case(id_, "RFC 5280, 6.1.3 (a)(2)", Code.EXPIRED, leaf(old), [link], [new])
    id_ = "self-issued/leaf of its root's name and key"
    root = ca(f"{id_} Root")
    bottom = leaf(root, subject=name_of(f"{id_} Root"), key=f"{id_} Root")
    yield Case(id_, "RFC 5280, 6.1.3: the anchor's key signed it", None, bottom, [], [root])
    id_ = "self-issued/leaf under its own name"
    root = ca(f"{id_} Root")
    bottom = leaf(root, subject=name_of(f"{id_} Root"), ekus=(SERVER,))
    yield Case(id_, "RFC 5280, 3.2: self-issued is not self-signed", None, bottom, [], [root])
