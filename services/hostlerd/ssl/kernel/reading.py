"""Asks the reader, and makes models of what it answers."""

from __future__ import annotations

import base64
import json
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hostlerd.ssl.errors import ReaderUnavailable
from hostlerd.ssl.model.library import Library, LibraryUser, Linkage, Unseen, Use
from hostlerd.ssl.model.place import Fault, FileFound, KeyFound, Listener
from hostlerd.ssl.model.site import Reference, Role, Setting, Site

SOCKET = Path("/run/hostler/ssl-reader.sock")
TIMEOUT_S = 55.0
# A file has at most 4 MiB, of which certificates take a third more in base64.
_LINE_BYTES = 16 << 20
_MOST_LINES = 1_000_000


@dataclass(slots=True)
class Reading:
    """What the reader has found on the host."""

    listeners: list[Listener] = field(default_factory=list)
    sites: list[Site] = field(default_factory=list)
    files: list[FileFound] = field(default_factory=list)
    unseen: list[Unseen] = field(default_factory=list)


class Reader:
    """The reader's door. Every call is a connection of its own."""

    def __init__(self, path: Path = SOCKET) -> None:
        self._path = path

    def libraries(self, *, static: bool) -> tuple[list[LibraryUser], list[Unseen]]:
        """The processes with libraries, and what could not be seen. Raises ReaderUnavailable."""
        users: list[LibraryUser] = []
        unseen: list[Unseen] = []
        for kind, value in self._ask({"op": "libraries", "static": static}):
            if kind == "user":
                users.append(_user(value))
            elif kind == "unseen":
                unseen.append(Unseen(**value))
        return users, unseen

    def inventory(self, *, files: bool) -> Reading:
        """Listeners, sites and, if wanted, files with certificates and keys.

        Raises ReaderUnavailable.
        """
        made = Reading()
        makers: dict[str, Callable[[Any], None]] = {
            "listener": lambda v: made.listeners.append(Listener(**v)),
            "site": lambda v: made.sites.append(_site(v)),
            "file": lambda v: made.files.append(_file(v)),
            "unseen": lambda v: made.unseen.append(Unseen(**v)),
        }
        for kind, value in self._ask({"op": "files" if files else "listeners"}):
            makers[kind](value)
        return made

    def _ask(self, request: dict[str, object]) -> Iterator[tuple[str, Any]]:
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as door:
                door.settimeout(TIMEOUT_S)
                door.connect(str(self._path))
                door.sendall(json.dumps(request).encode() + b"\n")
                with door.makefile("rb", buffering=1 << 16) as lines:
                    for _ in range(_MOST_LINES):
                        ((kind, value),) = json.loads(lines.readline(_LINE_BYTES)).items()
                        if kind == "end":
                            return
                        if kind == "refused":
                            raise ReaderUnavailable(f"the reader refuses: {value}")
                        yield kind, value
        except OSError as e:
            raise ReaderUnavailable(f"{self._path}: {e.strerror or e}") from e
        except (ValueError, AttributeError, TypeError):
            raise ReaderUnavailable("the reader broke off before it was done") from None
        raise ReaderUnavailable(f"the reader told of more than {_MOST_LINES} things")


def _user(of: dict[str, Any]) -> LibraryUser:
    libraries = tuple(
        Library(**{**each, "linkage": Linkage(each["linkage"])}) for each in of["libraries"]
    )
    return LibraryUser(**{**of, "libraries": libraries, "use": Use(of["use"])})


def _site(of: dict[str, Any]) -> Site:
    references = tuple(Reference(**{**r, "role": Role(r["role"])}) for r in of["references"])
    settings = tuple(Setting(**each) for each in of["settings"])
    lists = {name: tuple(of[name]) for name in ("names", "listeners")}
    return Site(**{**of, **lists, "references": references, "settings": settings})


def _file(of: dict[str, Any]) -> FileFound:
    made = {
        **of,
        "paths": tuple(of["paths"]),
        "certificates": tuple(base64.b64decode(each) for each in of["certificates"]),
        "keys": tuple(KeyFound(**{**k, "weaknesses": tuple(k["weaknesses"])}) for k in of["keys"]),
        "faults": tuple(Fault(**each) for each in of["faults"]),
    }
    return FileFound(**made)
