"""What certificates say, read once for each."""

from __future__ import annotations

from collections.abc import Iterable

from hostlerd.ssl.model.inventory import Facts
from hostlerd.ssl.model.place import KeyFound

_MOST_KEPT = 50_000


class Certificates:
    """Reads certificates; what one says is kept, since it never changes."""

    def __init__(self) -> None:
        self._kept: dict[bytes, Facts] = {}

    def facts(self, wanted: Iterable[bytes]) -> dict[bytes, Facts]:
        """What each certificate says, by its DER; those that cannot be read are left out."""
        found = {}
        for der in wanted:
            if der not in self._kept:
                if len(self._kept) >= _MOST_KEPT:
                    self._kept.clear()
                facts = read(der)
                if facts is None:
                    continue
                self._kept[der] = facts
            found[der] = self._kept[der]
        return found


def read(der: bytes) -> Facts | None:
    """What a certificate says; None if it is none."""
    from hostler.core.ssl.certificate import Certificate, CertificateUnreadable
    from hostler.core.ssl.facts import alternative_names, signature_algorithm
    from hostler.core.ssl.strength import weak_digest

    try:
        one = Certificate.read(der)
    except CertificateUnreadable:
        return None
    key = one.key_facts
    return Facts(
        fingerprint=one.fingerprint_sha256,
        subject=one.subject.rfc4514_string(),
        issuer=one.issuer.rfc4514_string(),
        subject_key=one.subject_key,
        issuer_key=one.issuer_key,
        serial=f"{one.serial_number:x}",
        not_before=one.not_before,
        not_after=one.not_after,
        names=tuple((name.kind, name.value) for name in alternative_names(one)),
        key=KeyFound(key.kind, key.size_bits, key.curve, key.spki_sha256, False, key.weaknesses),
        signature_algorithm=signature_algorithm(one),
        weak_signature=weak_digest(one),
        authority=one.is_ca,
        self_signed=one.self_issued,
        faults=(one.extensions_fault,) if one.extensions_fault else (),
        der=der,
    )
