"""The host's half of an enrolment: key and request, then certificate and bundle, then the doors.

    pki/  joining.key   the key, from the request on until its certificate is there
          joining.json  whose it is, and the hash of the token that may bring its certificate
          former.key, former.pem   the pair before, until it is known whether the new one serves

The key never leaves this folder. What is cut off in the middle is begun again with the same key:
the certificate is put in place last, and until then the host has the pair it had before, or none.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec

from hostler.core import certificates, files
from hostler.core.bundle import MAX_BUNDLE_BYTES, BundleInvalid, verify
from hostler.core.certificates import MAX_PEM_BYTES, CertificateUnreadable
from hostler.core.joining import is_token, make_request
from hostler.core.names import InvalidField, check_name
from hostler.core.units import UNITS, is_started

SYSTEMCTL = "/usr/bin/systemctl"
_TIMEOUT_S = 120.0


class JoinRefused(Exception):
    """The host does not do it. `reason` is a stable word, the message is for people."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Joining:
    """The half of one host: where its configuration and state lie, and who may read its key."""

    etc: Path
    state: Path
    key_group: int

    def request(self, name: str, token: str) -> bytes:
        """Answer a request for a certificate of `name`, as PEM, made with this host's key.

        From now on this token alone brings the certificate: an enrolment that was begun before
        has none any more. Raises JoinRefused, OSError.
        """
        if not is_token(token):
            raise JoinRefused("BAD_TOKEN", "a token has 64 hexadecimal digits")
        try:
            check_name("host", name)
        except InvalidField as e:
            raise JoinRefused("BAD_NAME", str(e)) from e
        with self.changing():
            key = self._key() or self._new_key()
            document = {"name": name, "token_sha256": _hash(token)}
            files.replace(self._note, json.dumps(document).encode(), mode=0o600)
            return make_request(key, name, token)

    def install(
        self, token: str, certificate: bytes, ca: bytes, bundle: bytes, *, may_go_back: bool = False
    ) -> str:
        """Put the certificate of the key in place, with its CA and the bundle; answers its serial.

        The token is used up. With `may_go_back` the pair before is kept, for `go_back()`. Raises
        JoinRefused, OSError.
        """
        with self.changing():
            name, key = self._expected(token)
            told = self._check(certificate, ca, key, name)
            try:
                verify(bundle, ca)
            except BundleInvalid as e:
                raise JoinRefused("BUNDLE_INVALID", str(e)) from e
            forget_unverifiable(self.state, ca)
            if may_go_back:
                self._keep_former()
            # The daemons go by the pair once it fits; what they need besides is there before.
            files.replace(self.pki / "ca.pem", ca, mode=0o644)
            files.replace(self.etc / "bundle.json", bundle, mode=0o644)
            key_pem = certificates.key_to_pem(key)
            owner = (os.geteuid(), self.key_group)
            files.replace(self.pki / "host.key", key_pem, mode=0o640, owner=owner)
            files.replace(self.pki / "host.pem", certificate, mode=0o644)
            self._note.unlink()
            self._pending.unlink()
            files.sync_folder(self.pki)
        return told

    def keep(self) -> None:
        """Let go of the pair before: the new one serves. Raises JoinRefused, OSError."""
        with self.changing():
            for path in self._former:
                path.unlink(missing_ok=True)
            files.sync_folder(self.pki)

    def go_back(self) -> bool:
        """Put the pair before in place again; answers whether there was one.

        Raises JoinRefused, OSError.
        """
        with self.changing():
            key, certificate = self._former
            if not (key.exists() and certificate.exists()):
                return False
            owner = (os.geteuid(), self.key_group)
            former = [files.read_bounded(path, MAX_PEM_BYTES) for path in self._former]
            files.replace(self.pki / "host.key", former[0], mode=0o640, owner=owner)
            files.replace(self.pki / "host.pem", former[1], mode=0o644)
            for path in self._former:
                path.unlink()
            files.sync_folder(self.pki)
        return True

    def _keep_former(self) -> None:
        """Keep the pair that is in place, unless one is kept already: that one was seen to serve.

        The certificate comes last: a key alone is what a cut has left, and is not gone back to.
        """
        key, certificate = self._former
        if certificate.exists():
            return
        with suppress(FileNotFoundError):
            former = files.read_bounded(self.pki / "host.key", MAX_PEM_BYTES)
            shown = files.read_bounded(self.pki / "host.pem", MAX_PEM_BYTES)
            files.replace(key, former, mode=0o600)
            files.replace(certificate, shown, mode=0o644)

    @property
    def _former(self) -> tuple[Path, Path]:
        return self.pki / "former.key", self.pki / "former.pem"

    @property
    def pki(self) -> Path:
        """The folder of ca.pem, host.key and host.pem."""
        return self.etc / "pki"

    @property
    def _pending(self) -> Path:
        return self.pki / "joining.key"

    @property
    def _note(self) -> Path:
        return self.pki / "joining.json"

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Hold the folder of key and certificate. Raises JoinRefused."""
        try:
            with files.locked(self.pki):
                files.sweep(self.pki)
                yield
        except FileNotFoundError as e:
            raise JoinRefused("NOT_INSTALLED", f"{e.filename} is not there") from e
        except TimeoutError as e:
            raise JoinRefused("BUSY", str(e)) from e

    def _key(self) -> ec.EllipticCurvePrivateKey | None:
        try:
            return certificates.load_key(files.read_bounded(self._pending, MAX_PEM_BYTES))
        except FileNotFoundError:
            return None
        except (ValueError, CertificateUnreadable):
            # Nobody has a certificate of it: another one is as good.
            self._pending.unlink()
            return None

    def _new_key(self) -> ec.EllipticCurvePrivateKey:
        key = certificates.make_key()
        files.write_new(self._pending, certificates.key_to_pem(key), mode=0o600)
        return key

    def _expected(self, token: str) -> tuple[str, ec.EllipticCurvePrivateKey]:
        """The name and the key of the enrolment that the token is of. Raises JoinRefused."""
        try:
            document = json.loads(files.read_bounded(self._note, MAX_PEM_BYTES))
            name, wanted = str(document["name"]), str(document["token_sha256"])
        except FileNotFoundError:
            raise JoinRefused("TOKEN_USED", "no enrolment waits for a certificate here") from None
        except (ValueError, KeyError, TypeError) as e:
            raise JoinRefused("DAMAGED", f"{self._note}: {e}") from e
        if not is_token(token) or not hmac.compare_digest(_hash(token), wanted):
            raise JoinRefused("TOKEN_OTHER", "another enrolment of this host has begun since")
        key = self._key()
        if key is None:
            raise JoinRefused("DAMAGED", f"{self._pending} is not there")
        return name, key

    def _check(
        self, certificate: bytes, ca: bytes, key: ec.EllipticCurvePrivateKey, name: str
    ) -> str:
        """The serial of a certificate that is this host's own. Raises JoinRefused."""
        try:
            leaf = certificates.load_certificates(certificate)[0]
            told = certificates.describe(leaf)
            issuers = certificates.load_certificates(ca)
        except CertificateUnreadable as e:
            raise JoinRefused("CERTIFICATE_UNREADABLE", str(e)) from e
        if leaf.public_key() != key.public_key():
            raise JoinRefused("OTHER_KEY", "the certificate is not of this host's key")
        if (told.kind, told.name) != ("host", name):
            raise JoinRefused("OTHER_NAME", f"the certificate is of {told.identity}")
        if not any(_issued(leaf, issuer) for issuer in issuers):
            raise JoinRefused("OTHER_CA", "the certificate is not of the CA that came with it")
        now = datetime.now(UTC)
        if not told.not_before <= now < told.not_after:
            raise JoinRefused(
                "CLOCK_OFF",
                f"by this host's clock it is {now:%Y-%m-%d %H:%M:%S} UTC, and the certificate is "
                f"good from {told.not_before:%Y-%m-%d %H:%M} to {told.not_after:%Y-%m-%d %H:%M}",
            )
        return told.serial


def forget_unverifiable(state: Path, ca: bytes) -> None:
    """Remove the pushed bundles that none of these CAs has signed: no daemon could verify them."""
    for path in pushed_bundles(state):
        try:
            verify(files.read_bounded(path, MAX_BUNDLE_BYTES), ca)
        except FileNotFoundError:
            continue
        except (BundleInvalid, ValueError):
            path.unlink(missing_ok=True)


def pushed_bundles(state: Path) -> tuple[Path, ...]:
    """Where the daemons keep what was pushed to them."""
    names = ("bundle.json", "bundle.kept.json")
    return tuple(state / domain / name for domain in UNITS for name in names)


def open_doors(domains: Sequence[str]) -> tuple[str, ...]:
    """Enable the units of these domains and start those that listen; answers which.

    Daemons that run are stopped: they may have begun without a certificate, and the next caller
    wakes them with it. Raises JoinRefused.
    """
    odd = [domain for domain in domains if domain not in UNITS]
    if odd or not domains:
        raise JoinRefused("BAD_DOMAIN", f"there is no domain {odd[0] if odd else ''!r}")
    units = [unit for domain in domains for unit in UNITS[domain]]
    _systemctl("enable", "--quiet", "--", *units)
    _systemctl("stop", "--", *(f"hostler-{domain}.service" for domain in domains))
    _systemctl("start", "--", *(unit for unit in units if is_started(unit)))
    return tuple(units)


def _systemctl(*words: str) -> None:
    argv = [SYSTEMCTL, *words]
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}
    try:
        done = subprocess.run(
            argv, capture_output=True, text=True, timeout=_TIMEOUT_S, env=environment
        )
    except subprocess.TimeoutExpired as e:
        raise JoinRefused(
            "UNITS_FAILED", f"systemctl {words[0]}: not within {e.timeout:g} s"
        ) from e
    if done.returncode != 0:
        raise JoinRefused("UNITS_FAILED", f"systemctl {words[0]}: {done.stderr.strip()[-1000:]}")


def _issued(leaf: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        leaf.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
