"""Where OpenSSL 3.0 and GnuTLS 3.7 judge a case otherwise than the rules do, and why.

Each line is a cause, and the cases that it explains. The test fails if a disagreement has no line,
and if a line has a case on which they agree.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

# Cases that all clients of one kind fail on are what `hostler ssl chain` warns of.
_FIRST = tuple(
    f"graph/branch {kind} first"
    for kind in ("names not permitted", "code signing", "no CA", "critical extension", "no signing",
                 "to a stranger")
)  # fmt: skip
_RINGS = tuple(f"loop/{n} CAs in a ring with a way out" for n in (2, 3, 5))
_WEAK = (
    *(f"strength/{kind} in the {who}" for kind in ("rsa 1024", "p-192")
      for who in ("root", "inner", "end")),
    "strength/p224 in the leaf", "strength/k256 in the leaf", "strength/ed25519 in the leaf",
    "strength/dsa in the leaf",
)  # fmt: skip
_SERIALS = tuple(
    f"serial/{what} in the {who}"
    for what in ("zero", "negative", "21 bytes", "20 bytes with the high bit")
    for who in ("inner", "end")
)
_IDENTIFIERS = (
    "identifier/inner without its issuer's", "identifier/end without its issuer's",
    "identifier/root without its own", "identifier/inner without its own",
)  # fmt: skip
_WILDCARDS = tuple(
    f"host/wildcard {what}"
    for what in ("within a label", "not the first label", "of a top-level domain", "alone")
)

_EITHER: Mapping[str, Sequence[str]] = {
    "it does not backtrack: the first issuer that fits by name and key is the only one": (
        *_FIRST, "graph/bridge", "graph/mesh with one way out", *_RINGS,
        "graph/other key of the same name and identifier first",
    ),
    "the caller's own limit of depth is not its limit": ("graph/11 inner CAs",),
    "security level 1: keys of 80 bits are enough; curves and kinds are not the CA/B's": _WEAK,
    "SHA-224 is above its level, and below the CA/B's": (
        "strength/sha224 on the inner", "strength/sha224 on the end",
    ),
    "serial numbers are not looked at": _SERIALS,
    "missing key identifiers are not looked at (OpenSSL: with -x509_strict)": _IDENTIFIERS,
    "a key identifier that is not the issuer's rules the issuer out, which 6.1 does not say": (
        "identifier/of another key",
    ),
    "any usage in a CA is not taken for this one": ("extended/inner: any",),
    "the common name is asked where there are no alternative names": (
        "host/common name alone private", "host/common name alone web",
        "host/common name alone strict",
    ),
    "malformed names that nobody asks for are not looked at": (
        *_WILDCARDS, "host/underscore", "host/common name spelt otherwise",
        "names/email: not a mailbox",
    ),
    "a final dot is not taken off the name": ("host/with a final dot",),
    "whether alternative names are critical is not looked at": (
        "host/no subject, names not critical",
    ),
    "whether basicConstraints is critical is not looked at": (
        "basic/inner not critical", "basic/inner not critical, web",
    ),
    "a root that signs itself with the usage to sign is a CA without basicConstraints": (
        "basic/root says nothing", "basic/root says nothing, web",
    ),
    "a leaf may be a CA": ("basic/leaf is a CA", "usage/leaf may sign certificates"),
    "a wildcard is compared as text with excluded names (CVE-2025-61727 in others)": (
        "names/dns: wildcard that covers an excluded one",
    ),
    "a constraint with a leading dot is taken for one of what is below": ("names/dns: with a dot",),
    "constraints of a leaf are not looked at": ("names/layers: in a leaf",),
    "constraints that say nothing are taken": ("names/malformed: neither permitted nor excluded",),
    "its bound on comparisons is a larger one": ("names/malformed: too many to compare",),
    "which time type is used is not looked at": ("validity/GeneralizedTime before 2050",),
    "unique identifiers, and versions that do not exist, are not looked at": (
        "encoding/unique identifiers in the leaf", "encoding/version 5 in the leaf",
    ),
    "an extension that it does not need is not parsed": (
        "encoding/access to information that are garbage",
    ),
}  # fmt: skip

_OPENSSL: Mapping[str, Sequence[str]] = {
    "it does not backtrack: a self-signed one of the name is taken first": (
        "loop/signs itself and is signed",
    ),
    "an anchor that does not sign itself needs -partial_chain": ("graph/inner is the anchor",),
    "security level 1 lets SHA-1 pass in `verify` of this version": (
        "strength/sha1 on the inner", "strength/sha1 on the end",
        "strength/sha1 on the leaf, private",
    ),
    "a leaf of its CA's name and key is taken for one that signs itself": (
        "self-issued/leaf of its root's name and key",
    ),
    "the user in a URI is taken for its host": ("names/uri: with port and user",),
    "a mask with a hole is applied as it is": ("names/malformed: mask with a hole",),
    "any usage in a leaf is not taken for this one": ("extended/leaf: any, private",),
    "version 2 with extensions is taken": ("encoding/version 2 with extensions in the leaf",),
}  # fmt: skip

_GNUTLS: Mapping[str, Sequence[str]] = {
    "it does not backtrack: dates and digests do not choose the issuer either": (
        "graph/branch expired first", "graph/branch not yet valid first",
        "graph/branch signed with sha1 first",
    ),
    "an anchor that is no CA does not vouch for itself": ("graph/signs itself, trusted",),
    "names are compared byte by byte": ("graph/name in case", "graph/name in space"),
    "self-issued CAs count for the limit": (
        "self-issued/0 CAs below a new key under a limit of 0",
        "self-issued/1 CAs below a new key under a limit of 1",
    ),
    "a common name is a DNS name where there is none among the alternative names": (
        "names/dns: other type only",
    ),
    "addresses of version 6 and 4 are types of their own": (
        "names/ip: version 6 where 4 is permitted",
    ),
    "constraints of URIs are read and not applied": (
        "names/uri: other host", "names/uri: at the domain", "names/uri: name of a user",
        "names/uri: of an address", "names/uri: of no host",
    ),
    "constraints of directory names are not applied, or refuse all": (
        "names/dn: alternative name beside", "names/dn: subject beside",
        "names/dn: subject of another order", "names/dn: subject excluded beside",
    ),
    "a constraint of another type refuses all": ("names/other: none of the type below",),
    "constraints are applied to leaves alone": ("names/layers: inner CA beside",),
    "certtool compares no key usage with the purpose": (
        "usage/leaf of a serverAuth with data_encipherment",
        "usage/leaf of a serverAuth with content_commitment",
        "usage/leaf of a serverAuth with crl_sign",
        "usage/leaf of a clientAuth with key_encipherment",
        "usage/leaf of a clientAuth with data_encipherment",
    ),
    "any usage is good, and so is an empty one": (
        "extended/leaf: any", "extended/leaf: empty",
    ),
    "a UTCTime without seconds is read": ("validity/UTCTime without seconds",),
    "a malformed extension counts as absent": (
        "encoding/basic constraints that are garbage", "encoding/key usage that are garbage",
    ),
    "policyConstraints and policyMappings are critical, and not known to it": (
        "policy/wanted, and the same", "policy/wanted, and any",
        "policy/wanted, and one of several", "policy/wanted after three, and none",
        "policy/any is inhibited after one", "policy/mapped to another",
    ),
    "a critical key identifier is taken": ("identifier/critical",),
}  # fmt: skip


def explained(tool: str) -> Iterator[tuple[str, str]]:
    """Each case on which a tool disagrees, with the cause."""
    own = _OPENSSL if tool == "openssl" else _GNUTLS
    for causes in (_EITHER, own):
        for cause, cases in causes.items():
            for case in cases:
                yield case, cause
