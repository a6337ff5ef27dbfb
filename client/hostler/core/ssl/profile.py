"""By which rules a chain is judged, and what for."""

from __future__ import annotations

from enum import StrEnum


class Profile(StrEnum):
    """The rules.

    PRIVATE is the path validation of RFC 5280, 6.1, with keys and digests that are not weak: what
    makes a chain of somebody's own CA unsafe refuses it, what is but untidy is a warning. STRICT is
    all of RFC 5280 and of the CA/B rules that a client can see. WEB is that but for the roots: ten
    of those that public stores trust are not written as the rules have it, and RFC 5280, 6.1.1 (d)
    takes of a root but its name and key, so what is but untidy about one is a warning.
    """

    PRIVATE = "private"
    WEB = "web"
    STRICT = "strict"

    @property
    def public(self) -> bool:
        """Whether the CA/B rules hold."""
        return self is not Profile.PRIVATE


class Usage(StrEnum):
    """What the leaf is to be used for; ANY asks nothing of key usages."""

    SERVER = "serverAuth"
    CLIENT = "clientAuth"
    EMAIL = "emailProtection"
    CODE = "codeSigning"
    TIMESTAMP = "timeStamping"
    OCSP = "OCSPSigning"
    ANY = "any"


USAGE_OIDS = {
    Usage.SERVER: "1.3.6.1.5.5.7.3.1",
    Usage.CLIENT: "1.3.6.1.5.5.7.3.2",
    Usage.CODE: "1.3.6.1.5.5.7.3.3",
    Usage.EMAIL: "1.3.6.1.5.5.7.3.4",
    Usage.TIMESTAMP: "1.3.6.1.5.5.7.3.8",
    Usage.OCSP: "1.3.6.1.5.5.7.3.9",
}
ANY_USAGE_OID = "2.5.29.37.0"
