"""Checks of this machine: configuration, CA, certificate, key and fleet file."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from hostler.config import ConfigError, Context, load_context
from hostler.core.certificates import (
    Certificate,
    CertificateUnreadable,
    describe,
    is_ca,
    load_certificates,
    load_key,
)
from hostler.core.names import InvalidField
from hostler.doctor.finding import Finding, Level
from hostler.fleet import Fleet, load_fleet

_ORDER = ("ca", "certificate", "key", "fleet")
_MOST_BYTES = 1 << 20


class Wrong(Exception):
    """A check that failed: its code, words, and what to do."""

    def __init__(self, code: str, message: str, advice: str) -> None:
        super().__init__(message)
        self.code, self.message, self.advice = code, message, advice


def check_here(context_name: str | None, now: datetime | None = None) -> Iterator[Finding]:
    """Check what this machine needs before it can ask anybody; stops where nothing can follow."""
    try:
        context = load_context(context_name)
    except ConfigError as error:
        advice = "hostler pki init makes one, or hostler lab up for hosts to try things on"
        yield Finding("configuration", Level.FAILED, str(error), "CONFIGURATION", advice)
        yield from (Finding(one, Level.SKIPPED, "there is no configuration") for one in _ORDER)
        return
    yield Finding("configuration", Level.OK, f"context {context.name}, {context.trust_domain}")
    here = _Here(context, now or datetime.now(UTC))
    for name in _ORDER:
        yield here.run(name)


class _Here:
    def __init__(self, context: Context, now: datetime) -> None:
        self._context, self._now = context, now
        self._cas: list[x509.Certificate] = []
        self._leaf: x509.Certificate | None = None
        self._checks: dict[str, Callable[[], Finding]] = {
            "ca": self._ca,
            "certificate": self._certificate,
            "key": self._key,
            "fleet": self._fleet,
        }

    def run(self, name: str) -> Finding:
        try:
            return self._checks[name]()
        except Wrong as wrong:
            return Finding(name, Level.FAILED, wrong.message, wrong.code, wrong.advice)

    def _ca(self) -> Finding:
        path = self._context.ca
        advice = "copy ca.pem of the CA's folder to it"
        found = _certificates(path, "CA_UNREADABLE", advice)
        self._cas = [one for one in found if is_ca(one)]
        if not self._cas:
            raise Wrong("CA_UNREADABLE", f"{path} holds no CA's certificate", advice)
        good = [one for one in self._cas if one.not_valid_after_utc > self._now]
        if not good:
            end = max(one.not_valid_after_utc for one in self._cas)
            raise Wrong("CA_ENDED", f"{path} ended {end:%Y-%m-%d}", "begin with a new CA")
        return Finding("ca", Level.OK, f"{path}, until {good[0].not_valid_after_utc:%Y-%m-%d}")

    def _certificate(self) -> Finding:
        path, trust_domain = self._context.certificate, self._context.trust_domain
        advice = "hostler pki issue user NAME, where the CA is"
        leaf = _certificates(path, "CERTIFICATE_UNREADABLE", advice)[0]
        told = _described(leaf, path, advice)
        if self._cas and not any(_issued(leaf, ca) for ca in self._cas):
            words = f"{path} was not issued by {self._context.ca}"
            raise Wrong("OTHER_CA", words, "the certificate and the CA of a context go together")
        if not told.identity.startswith(f"spiffe://{trust_domain}/"):
            words = f"{path} is of {told.identity}, not of trust domain {trust_domain}"
            raise Wrong("OTHER_TRUST_DOMAIN", words, "correct trust_domain of the context")
        if leaf.not_valid_after_utc <= self._now:
            words = f"{path} of {told.identity} ended {leaf.not_valid_after_utc:%Y-%m-%d %H:%M} UTC"
            raise Wrong("CERTIFICATE_ENDED", words, advice)
        if leaf.not_valid_before_utc > self._now:
            words = f"{path} begins {leaf.not_valid_before_utc:%Y-%m-%d %H:%M} UTC"
            raise Wrong("CLOCK_BEHIND", words, "set the clock of this machine")
        self._leaf = leaf
        end = f"{told.identity}, until {leaf.not_valid_after_utc:%Y-%m-%d %H:%M} UTC"
        life = leaf.not_valid_after_utc - leaf.not_valid_before_utc
        if self._now > leaf.not_valid_before_utc + life * 2 / 3:
            return Finding("certificate", Level.WARNING, end, "CERTIFICATE_ENDS_SOON", advice)
        return Finding("certificate", Level.OK, end)

    def _key(self) -> Finding:
        path = self._context.key
        advice = "the key lies beside the certificate that it was issued with"
        try:
            with path.open("rb") as file:
                mode, key = os.fstat(file.fileno()).st_mode, load_key(file.read(_MOST_BYTES))
        except OSError as error:
            raise Wrong("KEY_UNREADABLE", f"{path}: {error.strerror}", advice) from error
        except CertificateUnreadable as error:
            raise Wrong("KEY_UNREADABLE", f"{path}: {error}", advice) from error
        if self._leaf is not None and _public(key.public_key()) != _public(self._leaf.public_key()):
            raise Wrong("OTHER_KEY", f"{path} is not the key of the certificate", advice)
        if mode & 0o077:
            words = f"{path} can be read by others than its owner"
            return Finding("key", Level.WARNING, words, "KEY_OPEN", f"chmod 600 {path}")
        return Finding("key", Level.OK, str(path))

    def _fleet(self) -> Finding:
        path = self._context.fleet
        try:
            fleet: Fleet = load_fleet(path)
        except ConfigError as error:
            advice = f"correct {path}, or hostler fleet add NAME ADDRESS"
            raise Wrong("FLEET_UNREADABLE", str(error), advice) from error
        if not fleet.hosts:
            advice = "hostler fleet add NAME ADDRESS"
            return Finding("fleet", Level.WARNING, f"{path}: no host", "FLEET_EMPTY", advice)
        return Finding("fleet", Level.OK, f"{path}: {len(fleet.hosts)} hosts")


def _certificates(path: Path, code: str, advice: str) -> list[x509.Certificate]:
    try:
        with path.open("rb") as file:
            return load_certificates(file.read(_MOST_BYTES))
    except OSError as error:
        raise Wrong(code, f"{path}: {error.strerror}", advice) from error
    except CertificateUnreadable as error:
        raise Wrong(code, f"{path}: {error}", advice) from error


def _described(leaf: x509.Certificate, path: Path, advice: str) -> Certificate:
    try:
        return describe(leaf)
    except (CertificateUnreadable, InvalidField) as error:
        raise Wrong("CERTIFICATE_UNREADABLE", f"{path}: {error}", advice) from error


def _issued(leaf: x509.Certificate, ca: x509.Certificate) -> bool:
    try:
        leaf.verify_directly_issued_by(ca)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _public(key: object) -> bytes:
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)  # type: ignore[attr-defined,no-any-return]
