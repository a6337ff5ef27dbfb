"""Chisels of the user's own: Python files of a folder, each with a CHISEL.

They are programs, and run with the rights of whoever runs the client. So one is loaded only when
the user asks for it, never by a daemon, and never from a file that somebody else may have written.
"""

from __future__ import annotations

import os
import stat
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

from hostler.core.trace.chisel import Chisel
from hostler.core.trace.chisel_registry import all_chisels, chisel_of

MOST_FILES = 1000


class ChiselInvalid(Exception):
    """A file of the folder is no chisel, or not to be trusted; the message says which and why."""


def default_folder() -> Path:
    """`~/.config/hostler/chisels`."""
    return Path.home() / ".config" / "hostler" / "chisels"


def names(folder: Path) -> list[str]:
    """The names of the chisels in a folder, without loading any; none if there is no folder."""
    try:
        found = sorted(path.stem for path in folder.glob("*.py") if path.stem.isidentifier())
    except OSError as e:
        raise ChiselInvalid(f"{folder}: {e.strerror}") from e
    return found[:MOST_FILES]


def load(folder: Path, name: str) -> Chisel:
    """Load the chisel of a name from a folder. Raises ChiselInvalid."""
    path = folder / f"{name}.py"
    if name in all_chisels():
        raise ChiselInvalid(f"{path}: Hostler comes with a chisel {name}; call yours otherwise")
    for each in (folder, path):
        _check_trust(each)
    return _loaded(path, name)


def _check_trust(path: Path) -> None:
    try:
        status = path.stat()
    except OSError as e:
        raise ChiselInvalid(f"{path}: {e.strerror}") from e
    if status.st_uid not in (0, os.geteuid()):
        raise ChiselInvalid(f"{path} belongs to uid {status.st_uid}: only yours or root's is run")
    if stat.S_IMODE(status.st_mode) & 0o022:
        raise ChiselInvalid(f"{path} can be written by others: chmod go-w it")


def _loaded(path: Path, name: str) -> Chisel:
    spec = spec_from_file_location(f"hostler_user_chisels.{name}", path)
    if spec is None or spec.loader is None:
        raise ChiselInvalid(f"{path} is no Python file")
    module = module_from_spec(spec)
    # dataclasses look up the module of the class that they are given.
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
        return chisel_of(module, name)
    except Exception as e:
        # Somebody's program: whatever it raises is its fault, and is told with its place.
        del sys.modules[spec.name]
        raise ChiselInvalid(f"{path}: {_what(e)}") from e


def _what(error: Exception) -> str:
    line = getattr(error, "lineno", None)
    place = f" in line {line}" if line else ""
    return f"{type(error).__name__}{place}: {error}"
