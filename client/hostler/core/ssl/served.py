"""What is wrong with a chain as it is served or filed, beside whether it is good.

A chain is to be the leaf, then each issuer after what it signed, without the root.
Source: RFC 8446, 4.4.2; RFC 5246, 7.4.2.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from itertools import pairwise

from hostler.core.ssl.certificate import Certificate


class ServedCode(StrEnum):
    """What is wrong with how a chain is served. The names are never changed."""

    MISSING = "MISSING"
    SUPERFLUOUS = "SUPERFLUOUS"
    ROOT_SERVED = "ROOT_SERVED"
    OUT_OF_ORDER = "OUT_OF_ORDER"
    LEAF_NOT_FIRST = "LEAF_NOT_FIRST"
    DUPLICATED = "DUPLICATED"
    LEAF_DUPLICATED = "LEAF_DUPLICATED"
    EXPIRED = "EXPIRED"


@dataclass(frozen=True, slots=True)
class ServedFault:
    """One thing about one certificate; `harmless` if every client takes it all the same."""

    code: ServedCode
    certificate: Certificate
    message: str
    harmless: bool = False

    def __str__(self) -> str:
        place = f" [{self.certificate.place}]" if self.certificate.place else ""
        return f"{self.code}: {self.certificate.label}{place}: {self.message}"


def leaf_of(served: Sequence[Certificate], key_hashes: frozenset[str] = frozenset()) -> Certificate:
    """Which of a file's certificates is the leaf: the one of its private key, else the first no CA.

    Raises ValueError if there is none at all. Without either, it is the first.
    """
    if not served:
        raise ValueError("no certificate")
    keyed = [c for c in served if c.spki_sha256 in key_hashes]
    return next(iter(keyed or [c for c in served if not c.is_ca] or served))


def served_faults(
    served: Sequence[Certificate],
    leaf: Certificate,
    best: Sequence[Certificate],
    roots: frozenset[Certificate],
    moment: datetime,
) -> Iterator[ServedFault]:
    """Compare what is served with the best path (empty if there is none)."""
    if served and served[0] != leaf:
        yield ServedFault(ServedCode.LEAF_NOT_FIRST, leaf, "the leaf is not the first one")
    yield from _missing(served, best, roots)
    seen: set[Certificate] = set()
    for certificate in served:
        if certificate in seen:
            code = ServedCode.LEAF_DUPLICATED if certificate == leaf else ServedCode.DUPLICATED
            yield ServedFault(code, certificate, "it is there more than once", harmless=True)
            continue
        seen.add(certificate)
        if certificate.not_after < moment:
            ended = f"{certificate.not_after:%Y-%m-%d %H:%M:%SZ}"
            yield ServedFault(ServedCode.EXPIRED, certificate, f"it ended {ended}")
        if best and certificate not in best:
            message = "it is on no way that is taken"
            yield ServedFault(ServedCode.SUPERFLUOUS, certificate, message, harmless=True)
        elif certificate in roots and certificate != leaf:
            message = "clients have the root, or do not trust it"
            yield ServedFault(ServedCode.ROOT_SERVED, certificate, message, harmless=True)
    yield from _order([c for c in dict.fromkeys(served) if c in best], best)


def _missing(
    served: Sequence[Certificate], best: Sequence[Certificate], roots: frozenset[Certificate]
) -> Iterator[ServedFault]:
    for certificate in best[1:]:
        if certificate not in served and certificate not in roots:
            yield ServedFault(ServedCode.MISSING, certificate, "it is needed and not served")


def _order(served: Sequence[Certificate], best: Sequence[Certificate]) -> Iterator[ServedFault]:
    for before, after in pairwise(served):
        if best.index(before) > best.index(after):
            message = f"it is to stand before {before.label}"
            yield ServedFault(ServedCode.OUT_OF_ORDER, after, message)
            return
