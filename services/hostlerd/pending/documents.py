"""The files of a pending group, as values, and their one strict grammar.

A daemon writes its own part; what it says can bring about that its own group is taken back, or that
its own door counts as confirmed, and nothing else. Every reader asks the grammar again: a file is
an input. Times are nanoseconds of CLOCK_BOOTTIME where a deadline is meant, since that one goes on
while the host sleeps, of CLOCK_MONOTONIC where two moments of one boot are compared, and seconds
since 1970 where people will read them; see clock_gettime(2).
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field, fields
from typing import Any, TypeVar

# Folders of other names are nobody's, units of other names are not started.
DOMAINS = ("netns", "storage", "firewall", "tracing", "ssl")
FORMAT = 1
MAX_BYTES = 256 * 1024
MAX_ENTRIES = 64
MAX_MARKS = 1024
MAX_STEPS = 50
MAX_STEP_CHARS = 300
MAX_ENDED = 20
MAX_WORDS = 512
LONGEST_S = 3600
SHORTEST_S = 1

_MOST_NS = 1 << 63
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_TOKEN = re.compile(r"[0-9a-f]{32}")
_HASH = re.compile(r"[0-9a-f]{64}")
_CHANGE = re.compile(r"[0-9A-Za-z][0-9A-Za-z._-]{0,63}")

# How a group ends, as its record says it.
KEPT, REVERTED, UNKNOWN = "kept", "reverted", "unknown"
# What a door's own daemon may say about a group.
KEEP, REVERT = "keep", "revert"


class Malformed(Exception):
    """A file is not what its grammar says; the message names the field."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One change of a part. `order_ns` is CLOCK_MONOTONIC before its first step.

    `steps` are words for people, shortened; `more` is how many are left out.
    """

    change: str
    order_ns: int
    method: str
    plan_hash: str
    steps: tuple[str, ...] = ()
    more: int = 0


@dataclass(frozen=True, slots=True)
class Part:
    """One domain's part of a group. `token` is drawn anew whenever the part changes.

    `deadline_ns` is CLOCK_BOOTTIME in the boot `boot_id`; a joining part repeats its group's.
    """

    group: str
    identity: str
    boot_id: str
    opened_s: int
    deadline_ns: int
    deadline_s: int
    token: str
    entries: tuple[Entry, ...] = ()


@dataclass(frozen=True, slots=True)
class Group:
    """The group as the watcher took it on: from here on nobody but root can change it.

    `doors` are the domains whose doors were open then.
    """

    group: str
    identity: str
    boot_id: str
    opened_s: int
    deadline_ns: int
    deadline_s: int
    doors: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Turn:
    """Whose changes are to be taken back now: those of `domain` with an order from `from_ns` on.

    `last` says that there will be no other try: what cannot be taken back is recorded and left.
    """

    domain: str
    from_ns: int
    last: bool


@dataclass(frozen=True, slots=True)
class Armed:
    """What the watcher has seen of the group: tokens of parts by domain, and doors confirmed.

    `turn` is set while the group is being taken back, for `reason`.
    """

    group: str
    seen: dict[str, str] = field(default_factory=dict)
    confirmed: tuple[str, ...] = ()
    reason: str = ""
    turn: Turn | None = None


@dataclass(frozen=True, slots=True)
class Marks:
    """Changes of a part that are complete, or taken back, and since when, in CLOCK_MONOTONIC."""

    group: str
    changes: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a door's caller wants: KEEP or REVERT.

    `connected_ns` is CLOCK_MONOTONIC when the caller's connection was accepted, `said_ns`
    CLOCK_BOOTTIME when the answer was given.
    """

    group: str
    answer: str
    connected_ns: int
    said_ns: int


@dataclass(frozen=True, slots=True)
class Ended:
    """How a group ended: KEPT, REVERTED or UNKNOWN, and why."""

    group: str
    identity: str
    end_s: int
    outcome: str
    reason: str


@dataclass(frozen=True, slots=True)
class History:
    """The last MAX_ENDED groups, newest first."""

    groups: tuple[Ended, ...] = ()


@dataclass(frozen=True, slots=True)
class Failed:
    """What a domain's process could not take back at its last try, in words."""

    group: str
    problem: str


Document = Part | Group | Armed | Marks | Answer | History | Failed
D = TypeVar("D", Part, Group, Armed, Marks, Answer, History, Failed)


def encode(document: Document) -> bytes:
    """Answer the document as one line of JSON in ASCII."""
    text = json.dumps({"format": FORMAT, **_plain(document)}, separators=(",", ":"))
    return text.encode("ascii") + b"\n"


def decode(kind: type[D], data: bytes) -> D:
    """Answer the document that `data` holds. Raises Malformed."""
    if len(data) > MAX_BYTES:
        raise Malformed("too large")
    try:
        raw = json.loads(data)
    except (ValueError, RecursionError):
        raise Malformed("not JSON") from None
    if not isinstance(raw, dict) or raw.pop("format", None) != FORMAT:
        raise Malformed("not of a format that is known here")
    made: D = _object(kind, raw, kind.__name__)
    return made


def is_group(text: str) -> bool:
    """Whether a text can name a group: a UUID in lower case."""
    return _UUID.fullmatch(text) is not None


def is_change(text: str) -> bool:
    """Whether a text can name a change."""
    return _CHANGE.fullmatch(text) is not None


def printable(text: str, most: int) -> str:
    """Answer the text without what is not printable, and no longer than `most` characters."""
    kept = "".join(c if c.isprintable() else "?" for c in text[: most + 1])
    return kept if len(kept) <= most else kept[: most - 1] + "…"


def _plain(value: Any) -> Any:
    names = getattr(value, "__dataclass_fields__", None)
    if names is not None:
        return {name: _plain(getattr(value, name)) for name in names}
    return [_plain(item) for item in value] if isinstance(value, tuple) else value


def _object(kind: Any, raw: Any, where: str) -> Any:
    """Make a dataclass of exactly its own fields, each by its own rule."""
    if not isinstance(raw, dict):
        raise Malformed(f"{where}: not an object")
    names = [f.name for f in fields(kind)]
    if set(raw) != set(names):
        raise Malformed(f"{where}: its fields are {', '.join(names)}")
    rules = _RULES[kind]
    return kind(**{name: rules[name](raw[name], f"{where}.{name}") for name in names})


def _matching(pattern: re.Pattern[str]) -> Any:
    def rule(raw: Any, where: str) -> str:
        if not isinstance(raw, str) or not pattern.fullmatch(raw):
            raise Malformed(f"{where}: not of its form")
        return raw

    return rule


def _words(most: int) -> Any:
    def rule(raw: Any, where: str) -> str:
        if not isinstance(raw, str) or len(raw) > most or not raw.isprintable():
            raise Malformed(f"{where}: not printable text of at most {most} characters")
        return raw

    return rule


def _one_of(*allowed: str) -> Any:
    def rule(raw: Any, where: str) -> str:
        if not isinstance(raw, str) or raw not in allowed:
            raise Malformed(f"{where}: not one of {', '.join(allowed)}")
        return raw

    return rule


def _number(raw: Any, where: str) -> int:
    if type(raw) is not int or not 0 <= raw < _MOST_NS:
        raise Malformed(f"{where}: not a number from 0")
    return raw


def _truth(raw: Any, where: str) -> bool:
    if type(raw) is not bool:
        raise Malformed(f"{where}: neither true nor false")
    return raw


def _many(rule: Any, most: int) -> Any:
    def rules(raw: Any, where: str) -> tuple[Any, ...]:
        if not isinstance(raw, list) or len(raw) > most:
            raise Malformed(f"{where}: not a list of at most {most}")
        return tuple(rule(item, where) for item in raw)

    return rules


def _by(key: Any, rule: Any, most: int) -> Any:
    def rules(raw: Any, where: str) -> dict[str, Any]:
        if not isinstance(raw, dict) or len(raw) > most:
            raise Malformed(f"{where}: not an object of at most {most} fields")
        return {key(k, where): rule(v, where) for k, v in raw.items()}

    return rules


def _of(kind: Any) -> Any:
    return lambda raw, where: _object(kind, raw, where)


def _maybe(rule: Any) -> Any:
    return lambda raw, where: None if raw is None else rule(raw, where)


_GROUP = _matching(re.compile(f"(?:{_UUID.pattern})?"))
_DOMAIN = _one_of(*DOMAINS)
_HEAD = {
    "group": _GROUP,
    "identity": _words(256),
    "boot_id": _matching(_UUID),
    "opened_s": _number,
    "deadline_ns": _number,
    "deadline_s": _number,
}
_RULES: dict[Any, dict[str, Any]] = {
    Entry: {
        "change": _matching(_CHANGE),
        "order_ns": _number,
        "method": _words(256),
        "plan_hash": _matching(_HASH),
        "steps": _many(_words(MAX_STEP_CHARS), MAX_STEPS),
        "more": _number,
    },
    Turn: {"domain": _DOMAIN, "from_ns": _number, "last": _truth},
    Ended: {
        "group": _GROUP,
        "identity": _words(256),
        "end_s": _number,
        "outcome": _one_of(KEPT, REVERTED, UNKNOWN),
        "reason": _words(MAX_WORDS),
    },
}
_RULES |= {
    Part: {
        **_HEAD,
        "group": _matching(_UUID),
        "token": _matching(_TOKEN),
        "entries": _many(_of(Entry), MAX_ENTRIES),
    },
    Group: {**_HEAD, "doors": _many(_DOMAIN, len(DOMAINS))},
    Armed: {
        "group": _GROUP,
        "seen": _by(_DOMAIN, _matching(_TOKEN), len(DOMAINS)),
        "confirmed": _many(_DOMAIN, len(DOMAINS)),
        "reason": _words(MAX_WORDS),
        "turn": _maybe(_of(Turn)),
    },
    Marks: {
        "group": _matching(_UUID),
        "changes": _by(_matching(_CHANGE), _number, MAX_MARKS),
    },
    Answer: {
        "group": _matching(_UUID),
        "answer": _one_of(KEEP, REVERT),
        "connected_ns": _number,
        "said_ns": _number,
    },
    History: {"groups": _many(_of(Ended), MAX_ENDED)},
    Failed: {"group": _GROUP, "problem": _words(MAX_WORDS)},
}
