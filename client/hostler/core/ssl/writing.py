"""How a certificate is written: serial, times, version, algorithms, which extensions twice.

A reader that takes any of these its own way can be shown another certificate than its neighbour.
Source: RFC 5280, 4.1 and 4.2.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta

from hostler.core.ssl import der
from hostler.core.ssl.certificate import Certificate
from hostler.core.ssl.der import Tlv
from hostler.core.ssl.verdict import Code

MAX_SERIAL_BYTES = 20
_UTC_TIME = re.compile(rb"\d{12}Z")
_GENERALIZED_TIME = re.compile(rb"\d{14}Z")
# Not before a day, the longest life in days. Source: CA/B BR 6.3.2 (ballots SC31, SC081).
_LIVES = (("2029-03-15", 47), ("2027-03-15", 100), ("2026-03-15", 200), ("2020-09-01", 398))
_EMPTY_NAME = b"\x30\x00"
Finding = tuple[Code, str]


def unsafe_writing(certificate: Certificate) -> Iterator[Finding]:
    """What no path may have, whoever's CA it is."""
    layout = certificate.layout
    if layout.inner_algorithm != layout.outer_algorithm:
        yield Code.ALGORITHM_MISMATCH, "the signed algorithm is not the one of the signature"
    twice = [oid for oid, n in Counter(e.oid for e in layout.extensions).items() if n > 1]
    if twice:
        yield Code.EXTENSION_MALFORMED, f"extension {twice[0]} is there twice"
    elif certificate.extensions_fault:
        yield Code.EXTENSION_MALFORMED, certificate.extensions_fault
    if layout.version not in (1, 2, 3):
        yield Code.VERSION_MALFORMED, f"version {layout.version}"
    elif layout.extensions and layout.version != 3:
        yield Code.VERSION_MALFORMED, f"version {layout.version} with extensions"
    if layout.issuer == _EMPTY_NAME:
        yield Code.ISSUER_MALFORMED, "the issuer's name is empty"
    if certificate.not_after < certificate.not_before:
        yield Code.VALIDITY_MALFORMED, "it ends before it begins"


def untidy_writing(certificate: Certificate, *, anchor: bool = False) -> Iterator[Finding]:
    """What RFC 5280 forbids to write and some readers take all the same.

    Roots of public stores have the serial number zero, and nothing asks for it.
    """
    layout = certificate.layout
    if not anchor or any(layout.serial):
        yield from _serial(layout.serial)
    for name, value in (("notBefore", layout.not_before), ("notAfter", layout.not_after)):
        if fault := _time(value):
            yield Code.VALIDITY_MALFORMED, f"{name}: {fault}"
    if layout.has_unique_ids:
        yield Code.EXTENSION_MISUSED, "it has unique identifiers"
    if not certificate.spki_is_plain:
        yield Code.ALGORITHM_UNSUPPORTED, "an EC key of a curve that is spelt out, not named"


def _serial(serial: bytes) -> Iterator[Finding]:
    if not serial or serial[0] & 0x80:
        yield Code.SERIAL_MALFORMED, "the serial number is negative"
    elif not any(serial):
        yield Code.SERIAL_MALFORMED, "the serial number is zero"
    elif len(serial) > MAX_SERIAL_BYTES:
        yield (
            Code.SERIAL_MALFORMED,
            f"the serial number has {len(serial)} bytes, more than {MAX_SERIAL_BYTES}",
        )
    elif len(serial) > 1 and serial[0] == 0 and not serial[1] & 0x80:
        yield Code.SERIAL_MALFORMED, "the serial number is not the shortest form"


def _time(value: Tlv) -> str:
    if value.tag == der.UTC_TIME:
        return "" if _UTC_TIME.fullmatch(value.content) else "UTCTime without seconds or Z"
    if value.tag != der.GENERALIZED_TIME:
        return f"a time of tag {value.tag:#04x}"
    if not _GENERALIZED_TIME.fullmatch(value.content):
        return "GeneralizedTime with a fraction, or without seconds or Z"
    return "a year before 2050 as GeneralizedTime" if value.content < b"2050" else ""


def too_long(certificate: Certificate) -> str:
    """Why the CA/B rules find a leaf's life too long; empty if they do not.

    Source: CA/B BR 6.3.2: 398 days from 2020-09-01, and less for those issued from 2026 on.
    """
    life = certificate.not_after - certificate.not_before + timedelta(seconds=1)
    issued = certificate.not_before.strftime("%Y-%m-%d")
    limit = next((days for since, days in _LIVES if issued >= since), None)
    if limit is None or life <= timedelta(days=limit):
        return ""
    return f"good for {life.days} days; issued on {issued}, it may be for {limit}"
