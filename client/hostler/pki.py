"""The internal CA in a folder: its key, what it has issued, and the bundle it has signed.

    pki/  ca.pem  ca.key  issued.jsonl  policy.toml  policies/*.cedar  bundle.json
          hosts/NAME.{pem,key}  users/NAME.{pem,key}  archive/{hosts,users}/NAME-SERIAL.{pem,key}

Every change holds the folder's lock and goes to disk in an order that a kill cannot make wrong:
the index line first, then the key, then the certificate. A key without its certificate is what an
interrupted issue left, and the next issue of that name takes it up.
"""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec

from hostler import cedar, issued
from hostler.core import bundle as bundles
from hostler.core import certificates, files
from hostler.core.bundle import MAX_BUNDLE_BYTES, Bundle, BundleInvalid
from hostler.core.certificates import (
    DEFAULT_VALIDITY,
    MAX_PEM_BYTES,
    CertificateUnreadable,
    Issued,
    Issuer,
    KeyEncrypted,
    Validity,
)
from hostler.core.names import (
    Identity,
    InvalidSerial,
    Kind,
    check_name,
    check_trust_domain,
    parse_serial,
)
from hostler.issued import (
    FOLDERS,
    Entry,
    PkiDamaged,
    PkiError,
    PkiExists,
    PkiLocked,
    PkiNotFound,
)
from hostler.policy import (
    POLICIES_FOLDER,
    SOURCE_NAME,
    PolicyError,
    PolicySource,
    collect_policies,
)

__all__ = ["Authority", "Entry", "PkiDamaged", "PkiError", "PkiExists", "PkiLocked", "PkiNotFound"]

# What a rotation of the CA keeps here; see `hostler.ca_rotation`.
NEXT_KEY, NEXT_CERTIFICATE, OLD_CERTIFICATE = "ca.next.key", "ca.next.pem", "ca.old.pem"
_ARCHIVES = ("archive", "archive/hosts", "archive/users")


class Authority:
    """An internal CA in its folder. Safe to use from more than one process at once.

    `passphrase` is asked for when something is signed with a key that is encrypted.
    """

    def __init__(
        self, folder: Path, ca_pem: bytes, passphrase: Callable[[], bytes] | None = None
    ) -> None:
        """Use a CA whose certificates are read already; `open()` and `create()` read them."""
        self._passphrase = passphrase
        self.folder = folder
        self.ca_path = folder / "ca.pem"
        self.bundle_path = folder / "bundle.json"
        self.ca_pem = ca_pem
        try:
            self.ca = certificates.read_certificate(ca_pem)
        except CertificateUnreadable as e:
            raise PkiDamaged(f"{self.ca_path}: {e}") from e
        self.trust_domain = self.ca.name
        if self.ca.kind != "ca" or not self.trust_domain:
            raise PkiDamaged(f"{self.ca_path} is not the certificate of a Hostler CA")

    @classmethod
    def create(
        cls, folder: Path, trust_domain: str, *, validity: Validity = DEFAULT_VALIDITY
    ) -> Authority:
        """Make a new CA. The folder may be there, but no CA in it.

        Raises InvalidTrustDomain, PkiExists, PkiError, OSError.
        """
        check_trust_domain(trust_domain)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with files.locked(folder):
            if (folder / "ca.pem").exists():
                raise PkiExists(f"{folder} holds a CA already")
            _check_private(folder, 0o700)
            files.sweep(folder)
            key = _take_up_key(folder / "ca.key")
            made = certificates.make_ca(trust_domain, key=key, validity=validity)
            if key is None:
                files.write_new(folder / "ca.key", made.key_pem, mode=0o600)
            for name in ("hosts", "users", *_ARCHIVES, POLICIES_FOLDER):
                _make_folder(folder, name)
            files.write_new(folder / "ca.pem", made.pem, mode=0o644)
        return cls(folder, made.pem)

    @classmethod
    def open(cls, folder: Path, passphrase: Callable[[], bytes] | None = None) -> Authority:
        """Open the CA of a folder. Raises PkiNotFound, PkiDamaged, PkiError, OSError."""
        try:
            ca_pem = files.read_bounded(folder / "ca.pem", MAX_PEM_BYTES)
        except FileNotFoundError:
            raise PkiNotFound(f"{folder} holds no CA; make one with: hostler pki init") from None
        except ValueError as e:
            raise PkiDamaged(str(e)) from e
        _check_private(folder, 0o700)
        return cls(folder, ca_pem, passphrase)

    def encrypt_key(self, passphrase: bytes) -> None:
        """Have the CA's key on disk encrypted, or not any more if the passphrase is empty.

        Raises PkiError, OSError, TimeoutError.
        """
        with self.changing():
            keys = {self.folder / "ca.key": self._issuer().key}
            # The one that a rotation has made comes with it: both are asked for in one way.
            following = self.folder / NEXT_KEY
            if following.exists():
                keys[following] = self.load_key(following)
            for path, key in keys.items():
                files.replace(path, certificates.key_to_pem(key, passphrase), mode=0o600)

    def load_key(self, path: Path) -> ec.EllipticCurvePrivateKey:
        """Load a key, with the passphrase if it is encrypted. Raises PkiError, OSError."""
        try:
            pem = files.read_bounded(path, MAX_PEM_BYTES)
            _check_private(path, 0o600)
            asks = self._passphrase is not None and certificates.is_encrypted(pem)
            return certificates.load_key(
                pem, self._passphrase() if self._passphrase and asks else b""
            )
        except FileNotFoundError:
            raise PkiNotFound(f"{path} is not here: this machine cannot sign") from None
        except KeyEncrypted as e:
            raise PkiLocked(f"{path}: {e}") from e
        except (ValueError, CertificateUnreadable) as e:
            raise PkiDamaged(f"{path}: {e}") from e

    def key_as_kept(self, key: ec.EllipticCurvePrivateKey) -> bytes:
        """A new key as PEM, under the passphrase of the CA's key if that has one.

        Raises PkiLocked, PkiError, OSError.
        """
        path = self.folder / "ca.key"
        # What does not open the one must not close the other.
        self.load_key(path)
        locked = certificates.is_encrypted(files.read_bounded(path, MAX_PEM_BYTES))
        secret = self._passphrase() if locked and self._passphrase else b""
        return certificates.key_to_pem(key, secret)

    def issue_host(
        self,
        name: str,
        dns_names: Sequence[str] = (),
        ip_addresses: Sequence[str] = (),
        *,
        renew: bool = False,
        validity: Validity = DEFAULT_VALIDITY,
    ) -> Entry:
        """Issue a host's certificate and key into hosts/.

        With `renew` the pair that is there goes to archive/, and if no names and addresses are
        given, those of its last certificate stay. Raises InvalidField, PkiExists, PkiError,
        OSError, TimeoutError.
        """
        check_name("host", name)

        def make(key: ec.EllipticCurvePrivateKey | None) -> Issued:
            names, addresses = dns_names, ip_addresses
            if renew and not names and not addresses:
                names, addresses = self._last_alternatives(name)
            return certificates.issue_host(
                self._issuer(), name, names, addresses, key=key, validity=validity
            )

        return self._issue("host", name, make, renew=renew)

    def sign_host(
        self,
        name: str,
        key: ec.EllipticCurvePublicKey,
        dns_names: Sequence[str] = (),
        ip_addresses: Sequence[str] = (),
        *,
        renew: bool = False,
    ) -> Entry:
        """Sign a host's certificate for a key that stays on the host. Else as `issue_host()`."""
        check_name("host", name)
        path = self.certificate_path("host", name)
        with self.changing(path.parent):
            present = path.exists()
            if present and not renew:
                raise PkiExists(f"{path} is there already; replace it with --renew")
            signed = certificates.sign_host(self._issuer(), name, key, dns_names, ip_addresses)
            told = certificates.describe(signed)
            issued.append(self.folder, told)
            if present:
                self._archive(path)
            files.write_new(path, certificates.to_pem(signed), mode=0o644)
        return Entry(told, "current", path)

    def issue_user(
        self, name: str, *, renew: bool = False, validity: Validity = DEFAULT_VALIDITY
    ) -> Entry:
        """Issue a user's certificate and key into users/. Otherwise as `issue_host()`."""
        check_name("user", name)

        def make(key: ec.EllipticCurvePrivateKey | None) -> Issued:
            return certificates.issue_user(self._issuer(), name, key=key, validity=validity)

        return self._issue("user", name, make, renew=renew)

    def certificate_path(self, kind: Kind, name: str) -> Path:
        """Answer where the current certificate of a name is, or would be; its key is beside it."""
        return self.folder / FOLDERS[kind] / f"{name}.pem"

    def list(self) -> tuple[Entry, ...]:
        """List all that was ever issued, oldest first. Raises PkiDamaged, PolicyError, OSError."""
        revocations = self.policy_source().revocations()
        revoked = frozenset(revocation.serial for revocation in revocations)
        return issued.entries(self.folder, revoked, datetime.now(UTC))

    def show(self, name_or_serial: str) -> Entry:
        """Find the last certificate of a name, or the one of a serial number.

        Names are as `Identity.of()` takes them, but a bare one may be a host's as well. Raises
        PkiNotFound, PkiError if a bare name is both a host and a user; PkiDamaged, OSError.
        """
        return issued.find(self.list(), name_or_serial)[-1]

    def policy_source(self) -> PolicySource:
        """Read policy.toml. Raises PolicyError, OSError."""
        return PolicySource.load(self.folder, self.trust_domain)

    def read_bundle(self) -> Bundle | None:
        """Read and verify the bundle last signed, None if there is none.

        Raises PkiDamaged, OSError.
        """
        try:
            with self.bundle_path.open("rb") as stream:
                return bundles.verify(stream.read(MAX_BUNDLE_BYTES + 1), self.ca_pem)
        except FileNotFoundError:
            return None
        except BundleInvalid as e:
            raise PkiDamaged(f"{self.bundle_path}: {e}") from e

    def write_bundle(self) -> Bundle:
        """Sign a bundle of the source as it is, with the next version.

        Raises PolicyError, PkiError, OSError, TimeoutError.
        """
        with self.changing():
            return self._sign(self.policy_source())

    def grant(self, user: str, group: str) -> Bundle | None:
        """Put a user (`Identity.of()`) into a group and sign; None if it is in it already.

        Raises InvalidIdentity, InvalidName, and what `write_bundle()` raises.
        """
        identity = Identity.of(user, self.trust_domain)
        return self._edit(lambda source: source.grant(identity, group))

    def ungrant(self, user: str, group: str) -> Bundle | None:
        """Take a user off a group and sign; None if it is not in it. Raises as `grant()`."""
        identity = Identity.of(user, self.trust_domain)
        return self._edit(lambda source: source.ungrant(identity, group))

    def revoke(self, name_or_serial: str) -> Bundle | None:
        """Revoke by serial number, or all certificates of a name that have not ended, and sign.

        None if they are revoked already. A serial number need not be in the index. Raises
        PkiNotFound, and what `write_bundle()` raises.
        """
        now = datetime.now(UTC)
        revoking = self._to_revoke(name_or_serial, now)

        def change(source: PolicySource) -> bool:
            done = [source.revoke(serial, identity, now) for serial, identity in revoking]
            return any(done)

        return self._edit(change)

    def _to_revoke(self, name_or_serial: str, now: datetime) -> Sequence[tuple[str, str]]:
        try:
            found = issued.find(self.list(), name_or_serial)
        except PkiNotFound:
            try:
                return [(parse_serial(name_or_serial), "")]
            except InvalidSerial:
                pass
            raise
        live = [e for e in found if len(found) == 1 or e.certificate.not_after > now] or found[-1:]
        return [(e.certificate.serial, e.certificate.identity) for e in live]

    def _edit(self, change: Callable[[PolicySource], bool]) -> Bundle | None:
        with self.changing():
            source = self.policy_source()
            return self._sign(source) if change(source) else None

    def _sign(self, source: PolicySource) -> Bundle:
        before = self.read_bundle()
        source.version = max(source.version, before.version if before else 0) + 1
        policies = collect_policies(source, self.folder)
        cedar.check_syntax(policies)
        unsigned = source.bundle(policies, datetime.now(UTC))
        try:
            data = bundles.sign(bundles.compose(unsigned), self._issuer().key)
            signed = bundles.verify(data, self.ca_pem)
        except BundleInvalid as e:
            raise PolicyError(f"{self.folder / SOURCE_NAME}: {e}") from e
        # The source first: a kill between the two skips a version, and never repeats one.
        files.replace(self.folder / SOURCE_NAME, source.to_bytes(), mode=0o600)
        files.replace(self.bundle_path, data, mode=0o644)
        return signed

    def _issue(
        self,
        kind: Kind,
        name: str,
        make: Callable[[ec.EllipticCurvePrivateKey | None], Issued],
        *,
        renew: bool,
    ) -> Entry:
        path = self.certificate_path(kind, name)
        key_path = path.with_suffix(".key")
        with self.changing(path.parent):
            present = path.exists()
            if present and not renew:
                raise PkiExists(f"{path} is there already; replace it with --renew")
            key = None if present else _take_up_key(key_path)
            made = make(key)
            issued.append(self.folder, made.certificate)
            if present:
                self._archive(path)
            if key is None:
                files.write_new(key_path, made.key_pem, mode=0o600)
            files.write_new(path, made.pem, mode=0o644)
        return Entry(made.certificate, "current", path)

    def _archive(self, path: Path) -> None:
        target = issued.archive_path(self.folder, issued.read_file(path))
        for name in _ARCHIVES:
            _make_folder(self.folder, name)
        # The certificate first: left alone, the key is taken up by the next issue.
        files.move(path, target)
        key_path = path.with_suffix(".key")
        if key_path.exists():
            files.move(key_path, target.with_suffix(".key"))

    @contextmanager
    def changing(self, *swept: Path) -> Iterator[None]:
        """Hold the folder, swept of what was cut off. Raises TimeoutError, OSError."""
        with files.locked(self.folder):
            for folder in (self.folder, *swept):
                files.sweep(folder)
            yield

    def _issuer(self) -> Issuer:
        key = self.load_key(self.folder / "ca.key")
        try:
            return Issuer.of(self.ca_pem, key)
        except CertificateUnreadable as e:
            raise PkiDamaged(f"{self.folder / 'ca.key'}: {e}") from e

    def _last_alternatives(self, name: str) -> tuple[Sequence[str], Sequence[str]]:
        for certificate in reversed(issued.read(self.folder)):
            if (certificate.kind, certificate.name) == ("host", name):
                return certificate.dns_names, certificate.ip_addresses
        return (), ()


def load_issuer(ca_pem: bytes, key_pem: bytes, passphrase: Callable[[], bytes] | None) -> Issuer:
    """Load a CA that can sign, asking for a passphrase only if its key is encrypted.

    Raises CertificateUnreadable, KeyEncrypted, and what asking raises.
    """
    asks = passphrase is not None and certificates.is_encrypted(key_pem)
    return Issuer.load(ca_pem, key_pem, passphrase() if passphrase and asks else b"")


def _take_up_key(path: Path) -> ec.EllipticCurvePrivateKey | None:
    try:
        return certificates.load_key(files.read_bounded(path, MAX_PEM_BYTES))
    except FileNotFoundError:
        return None
    except (ValueError, CertificateUnreadable) as e:
        raise PkiDamaged(f"{path}: {e}") from e


def _make_folder(folder: Path, name: str) -> None:
    path = folder / name
    path.mkdir(mode=0o700, exist_ok=True)
    files.sync_folder(path.parent)


def _check_private(path: Path, wanted: int) -> None:
    """Refuse what other users could read or change: it holds keys, or decides what is signed."""
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        raise PkiError(f"{path} is open to others ({mode:o}); run: chmod {wanted:o} {path}")
