"""Rulesets in files: one TOML file is one ruleset, and says for itself which hosts have it.

A file has the names of the API's Ruleset, and at its top `hosts`, which the client alone knows.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hostler.api.firewall.v1 import ruleset_pb2
from hostler.config import ConfigError
from hostler.desired import Document, Problems, fill
from hostler.fleet import Fleet, Host, matches
from hostler.skew import word

HOSTS = "hosts"
MOST_FILES = 1000
_OUTPUT_ONLY = ("etag", "update_time")
_ENTRY = re.compile(r"(rules|fragments)\[(\d+)\]")
_NUMBERED = re.compile(r"(rule|masquerade|source-nat|isolated)-(\d+)")
_OF_PORT = re.compile(r"(forward|redirect)-([a-z]+)-(\d+)")
_LISTS = {
    "rule": "rules",
    "masquerade": "masquerades",
    "source-nat": "source_nats",
    "isolated": "isolated_networks",
}


@dataclass(frozen=True)
class RulesetFile:
    """A ruleset, its file, and the selectors of the hosts that have it; none means all."""

    document: Document
    ruleset: Any = field(repr=False)
    selectors: tuple[str, ...] = ()

    def is_for(self, host: Host) -> bool:
        """Whether a host has it."""
        return not self.selectors or any(matches(host, each) for each in self.selectors)

    def where(self, key_path: str) -> str:
        """A value of it in words: `FILE:LINE: rule ID: key path`."""
        words = (self.document.place(key_path), entry_of(self.document, key_path), key_path)
        return ": ".join(filter(None, words))

    def where_rule(self, rule: str) -> str:
        """An entry by the id that the host knows it by: `FILE:LINE: rule ID`."""
        return f"{self.document.place(self._path_of(rule))}: rule {rule}"

    def _path_of(self, rule: str) -> str:
        for kind, prefix in (("rules", ""), ("fragments", "fragment-")):
            for index, each in enumerate(getattr(self.ruleset, kind)):
                if prefix + each.id == rule:
                    return f"{kind}[{index}]"
        if found := _NUMBERED.fullmatch(rule):
            return f"{_LISTS[found[1]]}[{int(found[2]) - 1}]"
        if found := _OF_PORT.fullmatch(rule):
            kind = f"{found[1]}s"
            for index, each in enumerate(getattr(self.ruleset, kind)):
                protocol = word(ruleset_pb2.Protocol, each.protocol)
                if (protocol, str(each.port)) == found.group(2, 3):
                    return f"{kind}[{index}]"
        hook = rule.removeprefix("policy-").removesuffix("_forward")
        return f"{hook}_policy" if rule.startswith("policy-") else ""


def entry_of(document: Document, key_path: str) -> str:
    """The rule or fragment that a key path is in, such as `rule web`; empty if it is in none."""
    found = _ENTRY.match(key_path)
    if found is None:
        return ""
    kind, index = found[1], int(found[2])
    listed = document.table.get(kind)
    entry = listed[index] if isinstance(listed, list) and index < len(listed) else None
    own = entry.get("id") if isinstance(entry, dict) else None
    word = kind.removesuffix("s")
    return f"{word} {own if isinstance(own, str) and own else f'{word}-{index + 1}'}"


def load_rulesets(paths: Sequence[Path]) -> tuple[RulesetFile, ...]:
    """Read rulesets from files, and from all *.toml of folders, by name.

    Raises one ConfigError that lists the mistakes of all files.
    """
    faults: list[str] = []
    loaded = []
    for path in _files(paths):
        try:
            loaded.append(_load(path))
        except ConfigError as error:
            faults += str(error).splitlines()
    if faults:
        raise ConfigError("\n".join(faults))
    return tuple(loaded)


def _files(paths: Sequence[Path]) -> list[Path]:
    found: dict[Path, None] = {}
    for path in paths:
        if not path.is_dir():
            found[path] = None
            continue
        inside = sorted(each for each in path.glob("*.toml") if each.is_file())
        if not inside:
            raise ConfigError(f"{path}: there is no *.toml in it")
        found.update(dict.fromkeys(inside))
    if len(found) > MOST_FILES:
        raise ConfigError(f"{len(found)} files; at most {MOST_FILES} are read at once")
    return list(found)


def _load(path: Path) -> RulesetFile:
    return ruleset_of(Document.read(path))


def ruleset_of(document: Document) -> RulesetFile:
    """The ruleset that a document says. Raises one ConfigError that lists its mistakes."""
    problems = Problems(document, lambda where: entry_of(document, where))
    table = dict(document.table)
    selectors = _selectors(table.pop(HOSTS, []), problems)
    for key in _OUTPUT_ONLY:
        if key in table:
            problems.add(key, "the host says this; it cannot be set")
            del table[key]
    ruleset = ruleset_pb2.Ruleset()
    fill(ruleset, table, problems)
    if not ruleset.name and not any(where == "name" for where in problems.places()):
        problems.add("name", "a name is needed")
    _note_doubles(ruleset, problems)
    problems.check()
    return RulesetFile(document, ruleset, selectors)


def _note_doubles(ruleset: Any, problems: Problems) -> None:
    """A rule is known by its id: two of one id could not be told apart in any error."""
    first: dict[str, int] = {}
    for index, rule in enumerate(ruleset.rules):
        if rule.id and first.setdefault(rule.id, index) != index:
            problems.add(
                f"rules[{index}].id", f"{rule.id!r} is the id of rule {first[rule.id] + 1}"
            )


def _selectors(value: Any, problems: Problems) -> tuple[str, ...]:
    if not isinstance(value, list):
        problems.add(HOSTS, 'a list of selectors is needed, such as ["role=web", "db*"]')
        return ()
    for index, each in enumerate(value):
        if not isinstance(each, str) or not each:
            problems.add(
                f"{HOSTS}[{index}]", "a selector is needed: a name, a glob, label=value or @group"
            )
    if value == [] and HOSTS in problems.document.table:
        problems.add(HOSTS, "selects no host; leave it out to have it on all")
    return tuple(each for each in value if isinstance(each, str))


def for_hosts(
    files: Sequence[RulesetFile], hosts: Iterable[Host], fleet: Fleet | None
) -> dict[str, tuple[RulesetFile, ...]]:
    """The files of each host, in their order; only those hosts that have any.

    Raises ConfigError if two files of one host have the same ruleset, or a selector matches no host
    of the fleet: a misspelt one must not leave hosts out in silence. Without a fleet none is held
    against it.
    """
    faults: dict[str, None] = dict.fromkeys(_unmatched(files, fleet) if fleet else ())
    chosen: dict[str, tuple[RulesetFile, ...]] = {}
    for host in hosts:
        mine = tuple(each for each in files if each.is_for(host))
        first: dict[str, RulesetFile] = {}
        for each in mine:
            before = first.setdefault(each.ruleset.name, each)
            if before is not each:
                faults[
                    f"{each.document.place('name')}: name: {host.name} has ruleset "
                    f"{each.ruleset.name!r} from {before.document.place('name')}, too"
                ] = None
        if mine:
            chosen[host.name] = mine
    if faults:
        raise ConfigError("\n".join(faults))
    return chosen


def _unmatched(files: Sequence[RulesetFile], fleet: Fleet) -> Iterator[str]:
    for each in files:
        for index, selector in enumerate(each.selectors):
            if not any(matches(host, selector) for host in fleet.hosts):
                place = f"{HOSTS}[{index}]"
                yield f"{each.document.place(place)}: {place}: no host matches {selector!r}"
