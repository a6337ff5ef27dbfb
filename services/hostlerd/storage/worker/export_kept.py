"""Definitions of exports and their secrets, as they are kept: a file of root's for each."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hostlerd.storage.model.iscsi import SECRET, Export, export_faults
from hostlerd.storage.worker import secret_file

FOLDER = Path("/var/lib/hostler-storage-worker/exports")
REPORT = Path("/run/hostler-storage-exports/report.json")
_MARK_BYTES = 8


@dataclass(frozen=True, slots=True)
class Kept:
    """A definition; `mark` is another one each time that it is written."""

    export: Export
    secret: str
    """Empty if a file has it."""
    mark: str
    previous: str = ""
    """The secret before this definition was written, for as long as it may have to be put back."""

    def told_secret(self) -> str:
        """The secret, wherever it is. Raises Refused."""
        path = self.export.chap_secret_file
        return of_file(path) if path else self.secret


def of_file(path: str) -> str:
    """The secret that a file of root's has in its one line. Raises Refused."""
    text = secret_file.read(path, "chap_secret_file").decode("utf-8", "replace").rstrip("\r\n")
    if not SECRET.fullmatch(text):
        words = "is to hold one line, the secret: 12 to 64 visible characters of ASCII"
        raise secret_file.unusable("chap_secret_file", path, words)
    return text


def fresh(export: Export, secret: str, previous: str = "") -> Kept:
    """A definition to be written, and the secret before."""
    return Kept(export, secret, secrets.token_hex(_MARK_BYTES), previous)


def read(folder: Path) -> dict[str, Kept]:
    """All definitions, by name; one that is damaged is not among them."""
    found = {}
    for path in sorted(folder.glob("*.json")):
        try:
            told: Mapping[str, Any] = json.loads(path.read_bytes())
            words = (str(told["secret"]), str(told["mark"]), str(told.get("previous", "")))
            one = Kept(Export.read(told["export"]), *words)
        except (OSError, KeyError, TypeError, ValueError):
            continue
        if one.export.name == path.stem and not export_faults(one.export):
            found[one.export.name] = one
    return found


def write(folder: Path, kept: Kept) -> None:
    """Keep a definition, in full or as it was. Raises OSError."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = folder / f"{kept.export.name}.json"
    save(path, json.dumps(asdict(kept)).encode(), 0o600)


def remove(folder: Path, name: str) -> None:
    """Keep it no more. Raises OSError."""
    (folder / f"{name}.json").unlink(missing_ok=True)
    sync(folder)


def save(path: Path, content: bytes, mode: int) -> None:
    """Write a file that is there in full or as it was, also after a crash. Raises OSError."""
    draft = path.with_name(f".{path.name}.draft")
    draft.unlink(missing_ok=True)
    fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    with os.fdopen(fd, "wb") as file:
        os.fchmod(fd, mode)
        file.write(content)
        file.flush()
        os.fsync(fd)
    draft.rename(path)
    sync(path.parent)


def sync(folder: Path) -> None:
    """Have the names in a folder on disk. Raises OSError."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def report(path: Path = REPORT) -> dict[str, str]:
    """Why which export is not to be had, as the program said last."""
    try:
        told = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return {str(name): str(words) for name, words in told.items()}
