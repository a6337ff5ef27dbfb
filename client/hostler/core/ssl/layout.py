"""How a certificate is written: the fields of its outermost layers, as bytes.

Source: RFC 5280, 4.1 and 4.2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hostler.core.ssl import der
from hostler.core.ssl.der import DerError, Tlv


@dataclass(frozen=True, slots=True)
class Extension:
    """One extension: its identifier in numbers, whether it is critical, and its value."""

    oid: str
    critical: bool
    value: bytes


@dataclass(frozen=True, slots=True)
class Layout:
    """The fields of a certificate. `version` is 1, 2 or 3 in good ones."""

    version: int
    serial: bytes
    inner_algorithm: bytes
    issuer: bytes
    not_before: Tlv
    not_after: Tlv
    subject: bytes
    spki: bytes
    extensions: tuple[Extension, ...]
    has_unique_ids: bool
    outer_algorithm: bytes

    def extension(self, oid: str) -> Extension | None:
        """The first extension with this identifier; None if there is none."""
        return next((found for found in self.extensions if found.oid == oid), None)


def layout_of(certificate: bytes) -> Layout:
    """Take a DER certificate apart. Raises DerError."""
    outer = der.children(der.read_only(certificate).expect(der.SEQUENCE, "certificate"))
    if len(outer) != 3:
        raise DerError(f"certificate of {len(outer)} parts in place of 3")
    fields = der.children(outer[0].expect(der.SEQUENCE, "tbsCertificate"))
    version = 1
    if fields and fields[0].tag == 0xA0:
        version = 1 + int.from_bytes(der.read_only(fields.pop(0).content).content, "big")
    if len(fields) < 6:
        raise DerError("tbsCertificate that lacks fields")
    validity = der.children(fields[3].expect(der.SEQUENCE, "validity"))
    if len(validity) != 2:
        raise DerError(f"validity of {len(validity)} times in place of 2")
    rest = fields[6:]
    return Layout(
        version=version,
        serial=fields[0].expect(der.INTEGER, "serialNumber").content,
        inner_algorithm=fields[1].whole,
        issuer=fields[2].expect(der.SEQUENCE, "issuer").whole,
        not_before=validity[0],
        not_after=validity[1],
        subject=fields[4].expect(der.SEQUENCE, "subject").whole,
        spki=fields[5].expect(der.SEQUENCE, "subjectPublicKeyInfo").whole,
        extensions=_extensions(rest),
        has_unique_ids=any(field.tag & 0x1F in (1, 2) for field in rest),
        outer_algorithm=outer[1].whole,
    )


def _extensions(rest: Sequence[Tlv]) -> tuple[Extension, ...]:
    found: list[Extension] = []
    for field in rest:
        if field.tag != 0xA3:
            continue
        for one in der.children(der.read_only(field.content).expect(der.SEQUENCE, "extensions")):
            parts = der.children(one.expect(der.SEQUENCE, "extension"))
            if len(parts) not in (2, 3):
                raise DerError(f"extension of {len(parts)} parts")
            critical = len(parts) == 3 and parts[1].content != b"\0"
            found.append(
                Extension(
                    der.dotted(parts[0].expect(der.OID, "extnID").content),
                    critical,
                    parts[-1].expect(der.OCTET_STRING, "extnValue").content,
                )
            )
    return tuple(found)
