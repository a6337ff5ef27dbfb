"""A deployment of one server, and certificates that take its place."""

from __future__ import annotations

import hashlib
import stat
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding
from ssl_authority import Authority, pem
from ssl_servers import Installer


def deployment(files: Path, *servers: Any, **more: Any) -> dict[str, Any]:
    def file(name: str, mode: int) -> dict[str, Any]:
        return {"path": str(files / name), "owner": "root", "group": "root", "mode": mode}

    return {
        "name": "web",
        "subject_names": ["a.test"],
        "key": file("key.pem", 0o600),
        "full_chain": file("full.pem", 0o644),
        "bundle": file("bundle.pem", 0o600),
        "servers": [
            {
                "kind": s.kind,
                "unit": s.unit,
                "listeners": [f"127.0.0.1:{s.port}"],
                "starttls": s.starttls,
            }
            for s in servers
        ],
        "key_kind": "ec256",
        **more,
    }


def sha256(certificate: Any) -> str:
    return hashlib.sha256(certificate.public_bytes(Encoding.DER)).hexdigest()


def first(installer: Installer, authority: Authority, one: dict[str, Any]) -> Any:
    """Put a first certificate in place, before any server runs."""
    bare = {**one, "servers": []}
    made = installer.ask({"op": "make_key", "deployment": bare})
    leaf = authority.issue(made["csr_pem"])
    answer = installer.install(bare, pem(leaf, authority.intermediate, authority.root))
    assert answer == {"ok": True, "served": []}
    return leaf


def renewed(installer: Installer, authority: Authority, one: dict[str, Any]) -> Any:
    """A certificate for a new key."""
    made = installer.ask({"op": "make_key", "deployment": one})
    return authority.issue(made["csr_pem"])


def contents(files: Path) -> dict[str, tuple[bytes, int, int]]:
    """Every name in the folder, hidden ones too, with bytes, inode and mode."""
    return {
        p.name: (p.read_bytes(), p.stat().st_ino, stat.S_IMODE(p.stat().st_mode))
        for p in files.iterdir()
    }
