"""The authority: what it does for the ssl daemon, by the host's configuration and no other.

Two issuers that share nothing: one for profiles, one for Hostler's own identities. A certificate of
a profile can therefore never open a door of Hostler, or pose as one, whatever names it has.
"""

from __future__ import annotations

import base64
import hashlib
import json
import sqlite3
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from hostler.core import certificates, files
from hostler.core.certificates import BACKDATED, CertificateUnreadable
from hostler.core.names import InvalidField, check_trust_domain, parse_serial, serial_hex
from hostler.core.ssl.authority import issue
from hostler.core.ssl.authority import request as requests
from hostler.core.ssl.authority.issue import Signer
from hostler.core.ssl.authority.request import Request, RequestInvalid
from hostler.core.ssl.authority.revocation import REASONS
from hostlerd.authority import identities, settings
from hostlerd.authority.issuer import Issuer
from hostlerd.authority.issuer_names import IDENTITY, ISSUERS, SERVICE
from hostlerd.authority.publishing import status_line
from hostlerd.authority.record import MOST, Record, Row
from hostlerd.authority.settings import Settings
from hostlerd.privileged.refused import Refused

MAX_CA_NAME = 64
_DER = serialization.Encoding.DER


class Authority:
    """The authority in its folder. Safe to use from more than one process; not from two threads."""

    def __init__(self, folder: Path, publish: Path, configuration: Path, secret: bytes) -> None:
        self._folder = folder
        self._configuration = configuration
        self.issuers = {name: Issuer(name, folder, publish, secret) for name in ISSUERS}
        self._record = Record(folder / "record.db")

    def close(self) -> None:
        """Let its files go."""
        self._record.close()

    def do(self, op: str, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Carry out an operation of `wanted.OPS`. Raises Refused, OSError, sqlite3.Error."""
        work: Callable[..., dict[str, Any]] = getattr(self, f"_{op}")
        try:
            with files.locked(self._folder):
                self._follow()
                return work(**fields)
        except InvalidField as e:
            raise Refused("INVALID", e.reason, [(e.field, e.reason)]) from e
        except RequestInvalid as e:
            raise Refused("CSR_INVALID", f"the request {e}", [("csr", str(e))]) from e
        except settings.SettingsInvalid as e:
            raise Refused("CONFIGURATION", str(e)) from e
        except CertificateUnreadable as e:
            raise Refused("INVALID", str(e), [("chain", str(e))]) from e

    def _follow(self) -> None:
        """Go on with the record that is there now: what is written to a removed one is lost."""
        if self._record.is_gone:
            self._record.close()
            self._record = Record(self._folder / "record.db")

    def refresh(self) -> None:
        """Publish anew what has grown old. Raises Refused, OSError, SettingsInvalid."""
        with files.locked(self._folder):
            current = self._settings()
            for issuer in self.issuers.values():
                if issuer.exists:
                    signer = issuer.signer(current.published(issuer.name))
                    issuer.refresh(self._record, signer, current.crl_lifetime)

    def _settings(self) -> Settings:
        return settings.read(self._configuration)

    def _signer(self, name: str, current: Settings) -> Signer:
        return self.issuers[name].signer(current.published(name))

    def _state(self) -> dict[str, Any]:
        current = self._settings()
        issued, revoked = self._record.counts(_now())
        waiting = self.issuers[SERVICE].waiting_request()
        return {
            "issuers": {
                name: [_b64(c.public_bytes(_DER)) for c in issuer.chain()]
                for name, issuer in self.issuers.items()
            },
            "waiting": _b64(waiting),
            "profiles": [_profile(p) for p in current.profiles.values()],
            "identities": list(current.identities),
            "crl_url": current.published(SERVICE).crl,
            "ocsp_url": current.published(SERVICE).ocsp,
            "crl_time": self.issuers[SERVICE].crl_time(),
            "issued": issued,
            "revoked": revoked,
        }

    def _init(self, name: str, trust_domain: str, external: bool) -> dict[str, Any]:
        if not name or len(name) > MAX_CA_NAME or not name.isprintable():
            raise InvalidField("name", f"must be 1 to {MAX_CA_NAME} characters")
        if trust_domain:
            check_trust_domain(trust_domain)
        service, identity = self.issuers[SERVICE], self.issuers[IDENTITY]
        now = datetime.now(UTC)
        # What is there stays: an init that was cut off is gone on with, another changes nothing.
        if not service.exists and external:
            service.begin(name)
        elif not service.exists:
            service.make(name, now)
        if trust_domain and not identity.exists:
            identity.make(trust_domain, now)
        self._publish_all()
        return self._state()

    def _check_complete(self, chain: bytes) -> dict[str, Any]:
        service = self.issuers[SERVICE]
        parsed = tuple(certificates.load_certificates(chain))
        if service.chain() == parsed:
            return {"same": True}
        service.check(parsed, datetime.now(UTC))
        return {"same": False}

    def _complete(self, chain: bytes) -> dict[str, Any]:
        service = self.issuers[SERVICE]
        parsed = certificates.load_certificates(chain)
        if service.chain() != tuple(parsed):
            service.complete(parsed, datetime.now(UTC))
        self._publish_all()
        return self._state()

    def _publish_all(self) -> None:
        current = self._settings()
        for issuer in self.issuers.values():
            if issuer.exists:
                signer = self._signer(issuer.name, current)
                issuer.refresh(self._record, signer, current.crl_lifetime)

    def _check(self, profile: str, csr: bytes, validity_s: int) -> dict[str, Any]:
        request, validity, _ = self._allowed(profile, csr, validity_s)
        return {
            "names": list(request.names.words()),
            "spki": request.spki_sha256,
            "validity_s": int(validity.total_seconds()),
        }

    def _allowed(
        self, profile: str, csr: bytes, validity_s: int
    ) -> tuple[Request, timedelta, Signer]:
        """Answer what would be issued, and by whom. Raises Refused, RequestInvalid."""
        current = self._settings()
        signer = self._signer(SERVICE, current)
        known = current.profiles.get(profile)
        if known is None:
            raise Refused(
                "PROFILE_NOT_FOUND", f"the host's configuration has no profile {profile!r}"
            )
        request = requests.read_request(csr)
        issue.check_not_own(request.key, self._signers(current))
        validity = timedelta(seconds=validity_s) if validity_s else known.max_validity
        if faults := known.faults(request.names, validity):
            words = "; ".join(f"{subject} {reason}" for subject, reason in faults[:5])
            raise Refused("NOT_ALLOWED", f"profile {profile}: {words}", faults[:100])
        return request, validity, signer

    def _issue(
        self, id: str, profile: str, csr: bytes, validity_s: int, requester: str
    ) -> dict[str, Any]:
        body = _body("issue", profile, csr, validity_s)
        if known := self._known(id, body):
            return self._told(known)
        request, validity, signer = self._allowed(profile, csr, validity_s)
        usages = self._settings().profiles[profile].usages
        now = datetime.now(UTC)
        made = issue.leaf(
            signer, request.key, request.names, usages, (now - BACKDATED, now + validity)
        )
        row = _row(id, body, SERVICE, made, request, requester, profile)
        return self._record_it(row, request.names.words(), made)

    def _check_identity(self, identity: str, csr: bytes, names: list[str]) -> dict[str, Any]:
        key, checked = identities.allowed(self._settings(), identity, csr, names)
        self._signer(IDENTITY, self._settings())
        return {"names": list(checked.words()), "spki": requests.spki_sha256(key), "validity_s": 0}

    def _identity(
        self, id: str, identity: str, csr: bytes, names: list[str], requester: str
    ) -> dict[str, Any]:
        body = _body("identity", identity, csr, names)
        if known := self._known(id, body):
            return self._told(known)
        current = self._settings()
        key, checked = identities.allowed(current, identity, csr, names)
        signer = self._signer(IDENTITY, current)
        issue.check_not_own(key, self._signers(current))
        made = identities.sign(signer, identity, key, checked)
        row = _row(id, body, IDENTITY, made, Request(key, checked), requester, "")
        return self._record_it(row, (identity, *checked.words()), made)

    def _signers(self, current: Settings) -> list[Signer]:
        return [self._signer(name, current) for name in ISSUERS if self.issuers[name].exists]

    def _known(self, issue_id: str, body: str) -> Row | None:
        """What was issued under an id already. Raises Refused if it was another request's."""
        row = self._record.by_id(issue_id)
        if row is not None and row.body != body:
            raise Refused("ID_REUSED", "this id belongs to another request")
        return row

    def _record_it(
        self, row: Row, names: tuple[str, ...], made: x509.Certificate
    ) -> dict[str, Any]:
        # On disk before it leaves: what nobody knows of, nobody could revoke.
        self._record.add(row, names)
        warnings = self._try_to_publish(
            lambda: self.issuers[row.issuer].publishing.add_status(
                status_line(row.serial, None, None)
            )
        )
        return {**self._told(row), "warnings": warnings}

    def _told(self, row: Row) -> dict[str, Any]:
        return {"issued": _issued(row), "chain": self._below_root(row.issuer), "warnings": []}

    def _below_root(self, name: str) -> list[str]:
        """The issuers of a certificate that its holder has to send: all but a root."""
        chain = self.issuers[name].chain()
        return [_b64(c.public_bytes(_DER)) for c in chain if c.subject != c.issuer]

    def _revoke(self, serial: str, reason: str) -> dict[str, Any]:
        row = self._find(serial)
        if reason not in REASONS:
            raise Refused("MALFORMED", "there is no such reason")
        if row.revoke_time is None:
            self._record.revoke(row.serial, _now(), reason)
            row = self._find(serial)
        current = self._settings()
        issuer = self.issuers[row.issuer]

        def publish() -> None:
            issuer.publishing.add_status(status_line(row.serial, row.revoke_time, row.reason))
            signer = self._signer(row.issuer, current)
            issuer.publish_crl(self._record, signer, current.crl_lifetime)

        return {"issued": _issued(row), "warnings": self._try_to_publish(publish)}

    def _try_to_publish(self, publish: Callable[[], None]) -> list[str]:
        """What is on record stands; answer why it could not be published yet, if it could not."""
        try:
            publish()
        except (OSError, Refused, sqlite3.Error) as e:
            return [f"recorded, and not published before the next refresh: {e}"]
        return []

    def _find(self, serial: str) -> Row:
        try:
            row = self._record.by_serial(parse_serial(serial))
        except InvalidField:
            row = None
        if row is None:
            raise Refused("CERTIFICATE_NOT_FOUND", "no such certificate was issued here")
        return row

    def _list(self, before: int, most: int, spki: str, name: str, revoked: bool) -> dict[str, Any]:
        most = min(most or MOST, MOST)
        rows = self._record.page(
            before=before, most=most + 1, spki=spki, name=name.lower(), revoked=revoked
        )
        more = rows[most - 1].number if len(rows) > most else 0
        return {"issued": [_issued(row) for row in rows[:most]], "next": more}

    def _get(self, serial: str) -> dict[str, Any]:
        return self._told(self._find(serial))

    def _crl(self, issuer: str) -> dict[str, Any]:
        if issuer not in self.issuers:
            raise Refused("MALFORMED", "there is no such issuer")
        current = self._settings()
        found = self.issuers[issuer]
        signer = self._signer(issuer, current)
        with suppress(OSError):
            found.refresh_crl(self._record, signer, current.crl_lifetime)
        return {"crl": _b64(found.publishing.read_crl() or b"")}


def _now() -> int:
    return int(datetime.now(UTC).timestamp())


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _body(*parts: Any) -> str:
    text = json.dumps([p.hex() if isinstance(p, bytes) else p for p in parts])
    return hashlib.sha256(text.encode()).hexdigest()


def _row(
    issue_id: str,
    body: str,
    issuer: str,
    made: x509.Certificate,
    request: Request,
    requester: str,
    profile: str,
) -> Row:
    return Row(
        number=0,
        id=issue_id,
        body=body,
        issuer=issuer,
        serial=serial_hex(made.serial_number),
        profile=profile,
        requester=requester,
        spki=request.spki_sha256,
        der=made.public_bytes(_DER),
        issue_time=_now(),
        not_after=int(made.not_valid_after_utc.timestamp()),
    )


def _issued(row: Row) -> dict[str, Any]:
    return {
        "der": _b64(row.der),
        "serial": row.serial,
        "issuer": row.issuer,
        "profile": row.profile,
        "requester": row.requester,
        "issue_time": row.issue_time,
        "revoke_time": row.revoke_time,
        "reason": row.reason,
    }


def _profile(profile: Any) -> dict[str, Any]:
    return {
        "name": profile.name,
        "dns_names": list(profile.dns_names),
        "networks": [str(network) for network in profile.networks],
        "wildcards": profile.wildcards,
        "max_validity_s": int(profile.max_validity.total_seconds()),
        "usages": list(profile.usages),
    }
