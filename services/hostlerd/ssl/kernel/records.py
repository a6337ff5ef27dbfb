"""What the daemon remembers of deployments: the declarations, and how getting certificates went."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hostlerd.runtime.codec import CodecInvalid, Registry
from hostlerd.ssl.errors import DeploymentUnreadable
from hostlerd.ssl.model.deployment import Attempt, Deployment

_MOST_BYTES = 4 << 20
_REGISTRY = Registry((Deployment,))


class Records:
    """Files of mode 0600 below the daemon's state. None of them holds a key of a certificate."""

    def __init__(self, state: Path) -> None:
        self._deployments = state / "deployments"
        self._attempts = state / "attempts"
        self._obtained = state / "obtained"
        self._issued = state / "issued"

    def load(self) -> dict[str, Deployment]:
        """Answer all deployments, by name. Raises DeploymentUnreadable, OSError."""
        found = {}
        for path in _files(self._deployments, ".json"):
            try:
                one: Any = _REGISTRY.decode(json.loads(_read(path)))
            except (ValueError, CodecInvalid) as e:
                raise DeploymentUnreadable(f"{path}: {e}", deployment=path.stem) from e
            found[one.name] = one
        return found

    def save(self, deployment: Deployment) -> None:
        """Record a deployment. Raises OSError."""
        told: Any = deployment
        path = self._deployments / f"{deployment.name}.json"
        write_durably(path, json.dumps(_REGISTRY.encode(told)).encode())

    def forget(self, name: str) -> None:
        """Drop all that is recorded of a deployment. Raises OSError."""
        for folder, suffix in (
            (self._deployments, ".json"),
            (self._attempts, ".json"),
            (self._obtained, ".pem"),
        ):
            remove_durably(folder / f"{name}{suffix}")

    def attempt(self, name: str) -> Attempt:
        """Answer how getting certificates went; one that cannot be read is as good as none."""
        try:
            return Attempt(**json.loads(_read(self._attempts / f"{name}.json")))
        except (OSError, ValueError, TypeError):
            return Attempt()

    def note(self, name: str, attempt: Attempt) -> None:
        """Note how it went. Raises OSError."""
        write_durably(self._attempts / f"{name}.json", json.dumps(asdict(attempt)).encode())

    def keep(self, name: str, fingerprint_sha256: str, pem: str) -> None:
        """Keep what an ACME server issued, to be installed and, one day, revoked."""
        write_durably(self._issued / name / f"{fingerprint_sha256}.pem", pem.encode())
        write_durably(self._obtained / f"{name}.pem", pem.encode())

    def obtained(self, name: str) -> str:
        """Answer what was issued last. Raises OSError."""
        return _read(self._obtained / f"{name}.pem").decode()

    def has_issued(self, name: str, fingerprint_sha256: str) -> bool:
        """Whether a certificate was issued for a deployment, and is kept."""
        return (self._issued / name / f"{fingerprint_sha256}.pem").is_file()

    def issued(self, name: str, fingerprint_sha256: str) -> str:
        """Answer a certificate that was issued for a deployment. Raises FileNotFoundError."""
        return _read(self._issued / name / f"{fingerprint_sha256}.pem").decode()


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        data = file.read(_MOST_BYTES + 1)
    if len(data) > _MOST_BYTES:
        raise ValueError(f"{path} is too large")
    return data


def _files(folder: Path, suffix: str) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(p for p in folder.iterdir() if p.suffix == suffix and p.name[0] != ".")


def write_durably(path: Path, data: bytes) -> None:
    """Write a file of mode 0600 in one go, on disk when this returns. Raises OSError."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    new = path.with_name(f".{path.name}.new")
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(fd)
    new.replace(path)
    _sync_folder(path.parent)


def remove_durably(path: Path) -> None:
    """Remove a file if it is there, for good when this returns. Raises OSError."""
    try:
        path.unlink()
    except FileNotFoundError:
        return
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
