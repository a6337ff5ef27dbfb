"""The CA in one encrypted file: its key, what it has issued, and who may do what.

The file is a line of JSON that says how the passphrase was stretched, and after it a Fernet token
of a tar. Keys of users and hosts are not in it: they can be issued again, and what is copied less
is stolen less. Source: Fernet's specification, RFC 7914 (scrypt); both by cryptography.
"""

from __future__ import annotations

import base64
import io
import json
import re
import secrets
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from cryptography.fernet import Fernet, InvalidToken
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from hostler.core import files
from hostler.core.certificates import MAX_PEM_BYTES, CertificateUnreadable, KeyEncrypted
from hostler.issued import INDEX_NAME, PkiDamaged, PkiError, PkiExists, PkiLocked
from hostler.pki import NEXT_CERTIFICATE, NEXT_KEY, OLD_CERTIFICATE, Authority, load_issuer
from hostler.policy import POLICIES_FOLDER, SOURCE_NAME, PolicySource

MAX_BACKUP_BYTES = 192 * 1024 * 1024
LEAST_PASSPHRASE = 12
# How far a restored CA's bundle is ahead of the one in the backup: hosts take newer ones alone, and
# may have some that were signed after it.
VERSIONS_AHEAD = 1000
_MOST_FILE_BYTES = 64 * 1024 * 1024
_FORMAT = "hostler-ca-backup"
_N, _R, _P = 2**17, 8, 1
_NAMES = re.compile(
    r"ca\.pem|ca\.key|ca\.next\.pem|ca\.next\.key|ca\.old\.pem|issued\.jsonl|policy\.toml|bundle\.json"
    r"|policies/[A-Za-z0-9_-][A-Za-z0-9._-]{0,200}\.cedar|hosts/[a-z0-9][a-z0-9._-]{0,62}\.pem",
    re.ASCII,
)
_NEEDED = frozenset({"ca.pem", "ca.key"})


@dataclass(frozen=True, slots=True)
class Restored:
    """A CA that was restored, how many files it has, and the version of its new bundle."""

    authority: Authority
    files: int
    bundle_version: int


def check_passphrase(passphrase: bytes) -> bytes:
    """Answer it without the end of its line. Raises PkiError if it is too short."""
    stripped = passphrase.rstrip(b"\r\n")
    if len(stripped) < LEAST_PASSPHRASE:
        raise PkiError(f"a passphrase of {LEAST_PASSPHRASE} bytes at least is needed")
    return stripped


def back_up(authority: Authority, target: Path, passphrase: bytes) -> int:
    """Write the backup of a CA to a file that is not there yet; answers how many files it has.

    Raises PkiError, FileExistsError, OSError, TimeoutError.
    """
    with files.locked(authority.folder):
        found = {path.relative_to(authority.folder): path for path in _files(authority.folder)}
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as tar:
            for name, path in sorted(found.items()):
                data = _read(path)
                entry = tarfile.TarInfo(str(name))
                entry.size, entry.mode = len(data), 0o600
                tar.addfile(entry, io.BytesIO(data))
    if missing := sorted(_NEEDED - {str(name) for name in found}):
        raise PkiError(f"{authority.folder / missing[0]} is not here: nothing to back up")
    salt = secrets.token_bytes(16)
    head = {_FORMAT: 1, "kdf": "scrypt", "n": _N, "r": _R, "p": _P, "salt": salt.hex()}
    token = Fernet(_key(passphrase, salt, _N, _R, _P)).encrypt(packed.getvalue())
    files.write_new(target, json.dumps(head).encode() + b"\n" + token, mode=0o600)
    return len(found)


def restore(
    source: Path,
    folder: Path,
    passphrase: bytes,
    key_passphrase: Callable[[], bytes] | None = None,
) -> Restored:
    """Put the CA of a backup into a folder that has none, and sign a bundle that hosts will take.

    What was issued, granted or revoked after the backup is not known any more. A key that was
    encrypted stays so, and `key_passphrase` is asked for its own passphrase. Raises PkiExists,
    PkiDamaged, PkiLocked, PkiError, OSError, TimeoutError.
    """
    content = _unpack(_decrypt(source, passphrase), source)
    try:
        issuer = load_issuer(content["ca.pem"], content["ca.key"], key_passphrase)
    except KeyEncrypted as e:
        raise PkiLocked(f"{source}: {e}") from e
    except CertificateUnreadable as e:
        raise PkiDamaged(f"{source}: {e}") from e
    policy = content.get(SOURCE_NAME, b"").decode()
    document = PolicySource(policy, issuer.trust_domain, f"{source}: {SOURCE_NAME}")
    document.version += VERSIONS_AHEAD
    content[SOURCE_NAME] = document.to_bytes()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with files.locked(folder):
        if (folder / "ca.pem").exists():
            raise PkiExists(f"{folder} holds a CA already, and a CA is never overwritten")
        files.sweep(folder)
        folder.chmod(0o700)
        for name in ("hosts", "users", "archive", "archive/hosts", "archive/users", "policies"):
            (folder / name).mkdir(mode=0o700, exist_ok=True)
        # By ca.pem a folder is known as a CA: it comes last, and a cut restore is begun again.
        for name in sorted(content, key=lambda name: name == "ca.pem"):
            mode = 0o644 if name.endswith((".pem", "bundle.json")) else 0o600
            files.replace(folder / name, content[name], mode=mode)
    authority = Authority.open(folder, key_passphrase)
    return Restored(authority, len(content), authority.write_bundle().version)


def _files(folder: Path) -> Iterator[Path]:
    rotation = (NEXT_KEY, NEXT_CERTIFICATE, OLD_CERTIFICATE)
    names = ("ca.pem", "ca.key", *rotation, INDEX_NAME, SOURCE_NAME, "bundle.json")
    yield from (folder / name for name in names if (folder / name).is_file())
    yield from (folder / POLICIES_FOLDER).glob("*.cedar")
    yield from (folder / "hosts").glob("*.pem")


def _read(path: Path) -> bytes:
    try:
        return files.read_bounded(path, _MOST_FILE_BYTES)
    except ValueError as e:
        raise PkiError(str(e)) from e


def _decrypt(source: Path, passphrase: bytes) -> bytes:
    try:
        line, _, token = files.read_bounded(source, MAX_BACKUP_BYTES).partition(b"\n")
        head = json.loads(line)
        numbers = tuple(head[name] for name in (_FORMAT, "n", "r", "p"))
        salt = bytes.fromhex(head["salt"])
        if head["kdf"] != "scrypt" or not all(type(number) is int for number in numbers):
            raise ValueError("another form")
    except (ValueError, KeyError, TypeError, RecursionError) as e:
        raise PkiDamaged(f"{source} is not a backup of a CA: {e}") from e
    form, n, r, p = numbers
    # The file says how much work it is: no more than four times what we write.
    if form != 1 or not 2**14 <= n <= 2**19 or n & (n - 1) or (r, p) != (_R, _P):
        raise PkiDamaged(f"{source} is of a form that this version does not read")
    try:
        return Fernet(_key(passphrase, salt, n, r, p)).decrypt(token)
    except InvalidToken:
        raise PkiError(
            f"{source}: the passphrase is another, or the file is damaged; nothing was changed"
        ) from None


def _unpack(packed: bytes, source: Path) -> dict[str, bytes]:
    content: dict[str, bytes] = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(packed), mode="r:") as tar:
            for entry in tar:
                file = tar.extractfile(entry) if entry.isreg() else None
                if file is None or not _NAMES.fullmatch(entry.name):
                    raise PkiDamaged(f"{source} has {entry.name[:100]!r} in it")
                content[entry.name] = file.read()
    except tarfile.TarError as e:
        raise PkiDamaged(f"{source}: {e}") from e
    if missing := sorted(_NEEDED - content.keys()):
        raise PkiDamaged(f"{source} has no {missing[0]} in it")
    if any(len(content[name]) > MAX_PEM_BYTES for name in _NEEDED):
        raise PkiDamaged(f"{source}: its CA is larger than {MAX_PEM_BYTES} bytes")
    return content


def _key(passphrase: bytes, salt: bytes, n: int, r: int, p: int) -> bytes:
    derived = Scrypt(salt=salt, length=32, n=n, r=r, p=p).derive(passphrase)
    return base64.urlsafe_b64encode(derived)
