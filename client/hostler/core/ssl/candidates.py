"""Where issuers come from: anchors, what was given, and what AIA points to, fetched when needed."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from hostler.core.ssl.certificate import Certificate
from hostler.core.ssl.facts import access_uris

# Fetch a URI within some seconds. Raises FetchFailed.
Fetch = Callable[[str, float], bytes]
MAX_FETCHES = 16
MAX_URIS_EACH = 4
MAX_CERTIFICATES_EACH = 64


class FetchFailed(Exception):
    """What a URI points to could not be had; the message says why."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """One fetch: the URI, how many certificates came, and what went wrong (empty if nothing)."""

    uri: str
    certificates: int
    fault: str = ""


@dataclass
class Candidates:
    """All certificates that may be issuers, by name, and the fetches that added to them."""

    anchors: frozenset[Certificate]
    fetch: Fetch | None
    ends_at: float
    fetches: list[Fetched] = field(default_factory=list)
    _by_subject: dict[bytes, list[Certificate]] = field(default_factory=lambda: defaultdict(list))
    _known: set[Certificate] = field(default_factory=set)
    _asked: dict[str, list[Certificate]] = field(default_factory=dict)
    _fetched: set[Certificate] = field(default_factory=set)

    def add(self, certificates: Iterable[Certificate]) -> None:
        """Take certificates in; those that are there already are passed over."""
        for certificate in certificates:
            if certificate not in self._known:
                self._known.add(certificate)
                self._by_subject[certificate.subject_key].append(certificate)

    def at_hand(self, child: Certificate) -> list[Certificate]:
        """Those whose name is the child's issuer, the most promising first.

        Anchors, then those whose key is the one that the child names, then those that end last.
        """
        wanted = authority_key(child)

        def promise(issuer: Certificate) -> tuple[bool, bool, float, str]:
            named = wanted is not None and subject_key(issuer) == wanted
            end = issuer.not_after.timestamp()
            return (issuer not in self.anchors, not named, -end, issuer.fingerprint_sha256)

        return sorted(self._by_subject.get(child.issuer_key, ()), key=promise)

    def from_afar(self, child: Certificate) -> Iterator[Certificate]:
        """Those that the child's AIA points to and that were not at hand. Fetches as it goes."""
        from cryptography.x509.oid import AuthorityInformationAccessOID as Access

        if self.fetch is None:
            return
        for uri in access_uris(child, Access.CA_ISSUERS)[:MAX_URIS_EACH]:
            before = set(self._by_subject.get(child.issuer_key, ()))
            self.add(self._fetch_once(uri, self.fetch))
            for issuer in self.at_hand(child):
                if issuer not in before:
                    yield issuer

    def was_fetched(self, certificate: Certificate) -> bool:
        """Whether a certificate came from AIA alone."""
        return certificate in self._fetched

    def _fetch_once(self, uri: str, fetch: Fetch) -> list[Certificate]:
        from hostler.core.ssl.reading import read_contents

        if uri in self._asked:
            return self._asked[uri]
        self._asked[uri] = []
        left_s = self.ends_at - time.monotonic()
        if len(self._asked) > MAX_FETCHES or left_s <= 0:
            why = "no time is left" if left_s <= 0 else f"more than {MAX_FETCHES} URIs"
            self.fetches.append(Fetched(uri, 0, f"not fetched: {why}"))
            return []
        try:
            data = fetch(uri, left_s)
        except FetchFailed as error:
            self.fetches.append(Fetched(uri, 0, str(error)))
            return []
        contents = read_contents(data, uri, max_certificates=MAX_CERTIFICATES_EACH)
        found = list(contents.certificates)
        fault = str(contents.faults[0]) if contents.faults else ""
        if not found and not fault:
            fault = f"{uri}: no certificate is in it"
        self.fetches.append(Fetched(uri, len(found), fault))
        self._fetched.update(c for c in found if c not in self._known)
        self._asked[uri] = found
        return found


def authority_key(certificate: Certificate) -> bytes | None:
    """The identifier of the key that signed it, as it says; None if it says nothing."""
    from cryptography import x509

    found = certificate.extension(x509.AuthorityKeyIdentifier)
    return found.key_identifier if found else None


def subject_key(certificate: Certificate) -> bytes | None:
    """The identifier of its own key, as it says; None if it says nothing."""
    from cryptography import x509

    found = certificate.extension(x509.SubjectKeyIdentifier)
    return found.digest if found else None
