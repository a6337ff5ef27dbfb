"""Answers to the requests of the grammar: models as JSON, each with the name of its kind."""

from __future__ import annotations

import base64
import itertools
import tomllib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from hostlerd.ssl.model.library import LibraryUser, Unseen
from hostlerd.ssl.model.place import FileFound
from hostlerd.ssl.model.site import Role, Site
from hostlerd.ssl.reader import grammar, opening, servers
from hostlerd.ssl.reader.files import DEFAULT_FOLDERS, Inventory
from hostlerd.ssl.reader.libraries import Libraries

CONFIGURATION = Path("/etc/hostler/hostler.toml")
_PASSPHRASE_BYTES, _CONFIGURATION_BYTES, _MOST_FOLDERS = 64 << 10, 1 << 20, 1000
_KINDS: dict[type, str] = {LibraryUser: "user", Unseen: "unseen"}


class Answers:
    """What is read for callers. It is kept between calls as far as files have not changed."""

    def __init__(self, configuration: Path = CONFIGURATION) -> None:
        self._configuration = configuration
        self._libraries = Libraries()
        self._inventory = Inventory()

    def to(self, request: grammar.Request, until: float) -> Iterator[tuple[str, Any]]:
        """Answer each thing found, by its kind. `until` is monotonic."""
        if request.op == "libraries":
            for each in self._libraries.look(static=request.static, until=until):
                yield _KINDS[type(each)], asdict(each)
        else:
            yield from self._files(until, with_files=request.op == "files")

    def _files(self, until: float, *, with_files: bool) -> Iterator[tuple[str, Any]]:
        listening = servers.listeners()
        for listener in listening:
            yield "listener", asdict(listener)
        sites: list[Site] = []
        for parsed in servers.configurations(listening):
            sites.extend(parsed.sites)
            for unseen in parsed.unseen:
                yield "unseen", asdict(unseen)
        for site in sites:
            yield "site", asdict(replace(site, passphrase=""))
        if not with_files:
            return
        folders, problem = configured(self._configuration)
        if problem:
            yield "unseen", asdict(Unseen("CONFIGURATION_INVALID", problem, "ssl.folders"))
        named = [r.file for site in sites for r in site.references if r.role is not Role.PASSPHRASE]
        for each in itertools.chain(
            self._inventory.look(folders, named, _passphrases(sites), until),
            self._inventory.look_inside(folders, until),
        ):
            if isinstance(each, Unseen):
                yield "unseen", asdict(each)
            else:
                yield "file", _file(each)


def configured(path: Path) -> tuple[Sequence[str], str]:
    """The folders to look through, and what is wrong with those of hostler.toml if anything is."""
    try:
        table = tomllib.loads(opening.read(str(path), _CONFIGURATION_BYTES).decode())
    except FileNotFoundError:
        return DEFAULT_FOLDERS, ""
    except (OSError, ValueError) as e:
        return DEFAULT_FOLDERS, f"{path}: {e}"
    own = table.get("ssl", {})
    folders = own.get("folders", list(DEFAULT_FOLDERS)) if isinstance(own, dict) else None
    if not isinstance(folders, list) or len(folders) > _MOST_FOLDERS:
        return DEFAULT_FOLDERS, "must be a list of folders"
    if not all(isinstance(each, str) and each.startswith("/") for each in folders):
        return DEFAULT_FOLDERS, "must be a list of folders by their whole paths"
    return folders, ""


def _passphrases(sites: Sequence[Site]) -> Mapping[str, Sequence[bytes]]:
    """What to try for keys that are encrypted: what the configurations have for them."""
    found: dict[str, list[bytes]] = defaultdict(list)
    for site in sites:
        words = [site.passphrase.encode()] if site.passphrase else []
        for each in site.references:
            if each.role is Role.PASSPHRASE:
                words.extend(_lines(each.file))
        for each in site.references:
            if words and each.role in (Role.KEY, Role.BOTH):
                found[each.file].extend(words)
    return found


def _lines(path: str) -> list[bytes]:
    try:
        data = opening.read(path, _PASSPHRASE_BYTES)
    except OSError:
        return []
    return [line.rstrip(b"\r") for line in data.split(b"\n") if line]


def _file(of: FileFound) -> dict[str, Any]:
    told = asdict(replace(of, certificates=()))
    told["certificates"] = [base64.b64encode(der).decode("ascii") for der in of.certificates]
    return told
