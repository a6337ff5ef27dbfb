"""Reading the fields of a document: each fault is noted with its path, none stops the reading."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from enum import Enum
from ipaddress import ip_address, ip_network
from typing import Any, TypeVar

from hostlerd.firewall.model.ruleset import (
    POLICIES,
    Action,
    Address,
    Network,
    PortRange,
    Rate,
    RateUnit,
)
from hostlerd.runtime.errors import Violation

E = TypeVar("E", bound=Enum)
_WORD_WORDS = "must be 1 to 24 of a-z, 0-9, '-' and '_', beginning with a letter"

PORT_MAX = 65535
COMMENT_CHARACTERS = 64
RATE_PACKETS_MOST = 1_000_000

_NAME = re.compile(r"[a-z][a-z0-9-]{0,31}")
_WORD = re.compile(r"[a-z][a-z0-9_-]{0,23}")
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,31}")
# The kernel allows more (dev_valid_name), but a "*" is a wildcard to nft and a quote ends a string.
_IFNAME = re.compile(r"[A-Za-z0-9_.@-]{1,15}")
# Names that rules get from us: a caller's id must not be taken for one of them.
_RESERVED = (
    "forward-", "masquerade-", "isolated-", "redirect-", "source-nat-", "policy-", "fragment-",
)  # fmt: skip


class Fields:
    """The fields of one message of a document, at a path. `faults` is shared by the whole of it."""

    def __init__(self, document: object, path: str, faults: list[Violation]) -> None:
        self._values: Mapping[str, Any] = document if isinstance(document, dict) else {}
        self._path = path
        self._faults = faults
        if not isinstance(document, dict):
            faults.append(Violation(path, "must be a table of fields"))

    def path(self, key: str) -> str:
        """Answer the whole path of a field."""
        return f"{self._path}.{key}"

    def fault(self, key: str, description: str) -> None:
        """Note what is wrong with a field."""
        self._faults.append(Violation(self.path(key), description))

    @property
    def fault_count(self) -> int:
        """How many faults were noted so far, in the whole document."""
        return len(self._faults)

    def first_fault(self) -> str:
        """Answer the first fault noted so far, in words."""
        return self._faults[0].description if self._faults else ""

    def refuse_unknown(self, known: frozenset[str]) -> None:
        """Note every field that does not exist."""
        for key in sorted(set(self._values) - known):
            self.fault(key, "is not a field that exists")

    def text(self, key: str) -> str:
        """Answer a string; empty if it is absent."""
        value = self._values.get(key, "")
        if isinstance(value, str):
            return value
        self.fault(key, "must be a string")
        return ""

    def flag(self, key: str) -> bool:
        """Answer a boolean; False if it is absent."""
        value = self._values.get(key, False)
        if not isinstance(value, bool):
            self.fault(key, "must be true or false")
        return value is True

    def number(self, key: str, lowest: int, highest: int) -> int:
        """Answer an integer; 0 if it is absent, the lowest if it is out of bounds."""
        value = self._values.get(key, 0)
        whole = isinstance(value, int) and not isinstance(value, bool)
        if whole and lowest <= value <= highest:
            return int(value)
        self.fault(key, f"must be from {lowest} to {highest}")
        return lowest

    def choice(self, key: str, kind: type[E]) -> E | None:
        """Answer a member of the enumeration by its value; None if it is absent."""
        value = self._values.get(key, "")
        if value == "":
            return None
        try:
            return kind(value)
        except ValueError:
            self.fault(key, "must be one of " + _members(kind))
            return None

    def needed_choice(self, key: str, kind: type[E]) -> E | None:
        """Answer a member of the enumeration; None, with a fault noted, if there is none."""
        if self._values.get(key, "") == "":
            self.fault(key, "must be given: one of " + _members(kind))
            return None
        return self.choice(key, kind)

    def policy(self, key: str) -> Action | None:
        """Answer what becomes of packets that no rule decides; None if it is absent."""
        said = self.choice(key, Action)
        if said is Action.COUNT:
            self.fault(key, "must be one of " + ", ".join(p.value for p in POLICIES))
        return said

    def items(self, key: str, most: int) -> list[Any]:
        """Answer a list; empty if it is absent, or too long to be looked into."""
        value = self._values.get(key, [])
        if not isinstance(value, list):
            self.fault(key, "must be a list")
            return []
        if len(value) > most:
            self.fault(key, f"has {len(value)} entries; at most {most} are allowed")
            return []
        return value

    def messages(self, key: str, most: int) -> Iterator[tuple[int, Fields]]:
        """Answer the messages of a list with their indices."""
        for index, item in enumerate(self.items(key, most)):
            yield index, Fields(item, f"{self.path(key)}[{index}]", self._faults)

    def name(self, key: str) -> str:
        """Answer a ruleset's name."""
        value = self.text(key)
        fault = name_fault(value)
        if fault is not None:
            self.fault(key, fault)
        return value

    def id(self, key: str) -> str:
        """Answer a rule's id; empty if it has none."""
        value = self.text(key)
        if value and not _ID.fullmatch(value):
            self.fault(key, "must be 1 to 32 of letters, digits, '_', '.' and '-', no sign first")
        elif value.startswith(_RESERVED):
            self.fault(key, "must not begin with " + ", ".join(_RESERVED))
        return value

    def ifname(self, key: str) -> str:
        """Answer a link's name; empty if none is given."""
        value = self.text(key)
        if value and (not _IFNAME.fullmatch(value) or value in (".", "..")):
            self.fault(key, "must be 1 to 15 of letters, digits, '_', '.', '@' and '-'")
        return value

    def word(self, key: str) -> str:
        """Answer the name of a set, a zone, a service or a flowtable; empty if none is given."""
        value = self.text(key)
        if value and not _WORD.fullmatch(value):
            self.fault(key, _WORD_WORDS)
        return value

    def needed_word(self, key: str) -> str:
        """Answer such a name that must be there."""
        if self._values.get(key, "") == "":
            self.fault(key, _WORD_WORDS)
        return self.word(key)

    def words(self, key: str, most: int) -> tuple[str, ...]:
        """Answer names of that sort, each of them once."""
        return self._each(key, most, lambda v: None if _WORD.fullmatch(v) else _WORD_WORDS)

    def ifname_patterns(self, key: str, most: int) -> tuple[str, ...]:
        """Answer names of links, or their beginnings followed by "*", each of them once."""

        def judge(value: str) -> str | None:
            name = value.removesuffix("*")
            if _IFNAME.fullmatch(name) and name not in (".", ".."):
                return None
            return "must be a link's name, or the beginning of some and '*'"

        return self._each(key, most, judge)

    def one_of(self, key: str, most: int, known: frozenset[str], what: str) -> tuple[str, ...]:
        """Answer words that must be among these, each of them once."""
        return self._each(key, most, lambda v: None if v in known else f"is no {what}: {v:.40}")

    def choices(self, key: str, kind: type[E], most: int) -> tuple[E, ...]:
        """Answer members of an enumeration, each of them once."""
        known = frozenset(str(m.value) for m in kind)
        words = self._each(
            key, most, lambda v: None if v in known else "must be one of " + _members(kind)
        )
        return tuple(kind(word) for word in words if word in known)

    def message(self, key: str) -> Fields | None:
        """Answer the message of a field; None if it is absent."""
        value = self._values.get(key)
        return None if value is None else Fields(value, self.path(key), self._faults)

    def rate(self, key: str) -> Rate | None:
        """Answer a rate; None if it is absent."""
        d = self.message(key)
        if d is None:
            return None
        d.refuse_unknown(frozenset({"packets", "unit", "burst_packets"}))
        packets = d.number("packets", 1, RATE_PACKETS_MOST)
        burst = d.number("burst_packets", 0, RATE_PACKETS_MOST) or 5
        return Rate(packets, d.choice("unit", RateUnit) or RateUnit.SECOND, burst)

    def _each(self, key: str, most: int, judge: Callable[[str], str | None]) -> tuple[str, ...]:
        kept: dict[str, None] = {}
        for index, value in enumerate(self.items(key, most)):
            text = value if isinstance(value, str) else ""
            fault = judge(text)
            if fault is None and text in kept:
                fault = f"{text} is listed twice"
            if fault is None:
                kept[text] = None
            else:
                self._faults.append(Violation(f"{self.path(key)}[{index}]", fault))
        return tuple(kept)

    def comment(self, key: str) -> str:
        """Answer a comment that nft can hold between quotes."""
        value = self.text(key)
        if len(value) > COMMENT_CHARACTERS:
            self.fault(key, f"has {len(value)} characters; at most {COMMENT_CHARACTERS} fit")
        if not value.isprintable() or '"' in value or "\\" in value:
            self.fault(key, "must be printable, without '\"' and '\\'")
        return value

    def port_ranges(self, key: str, most: int) -> tuple[PortRange, ...]:
        """Answer ranges of ports; a last port of 0 means the first one alone."""
        return tuple(item._port_range() for _, item in self.messages(key, most))

    def port_range(self, key: str) -> PortRange | None:
        """Answer one range; None, with a fault noted, if there is none."""
        d = self.message(key)
        if d is None:
            self.fault(key, "must be given")
            return None
        return d._port_range()

    def _port_range(self) -> PortRange:
        self.refuse_unknown(frozenset({"first", "last"}))
        first = self.number("first", 1, PORT_MAX)
        last = self.number("last", 0, PORT_MAX) or first
        if last < first:
            self.fault("last", f"must not be less than first, which is {first}")
        return PortRange(first, last)

    def network(self, key: str) -> Network | None:
        """Answer a network; None, with a fault noted, if it is not one."""
        return self._network(self.path(key), self._values.get(key, ""))

    def networks(self, key: str, most: int) -> tuple[Network, ...]:
        """Answer networks of one family, each of them once."""
        paths = ((f"{self.path(key)}[{i}]", v) for i, v in enumerate(self.items(key, most)))
        return self._once((path, self._network(path, value)) for path, value in paths)

    def address(self, key: str) -> Address | None:
        """Answer an address; None, with a fault noted, if it is not one."""
        return self._address(self.path(key), self._values.get(key, ""))

    def addresses(self, key: str, most: int) -> tuple[Address, ...]:
        """Answer addresses of one family, each of them once."""
        paths = ((f"{self.path(key)}[{i}]", v) for i, v in enumerate(self.items(key, most)))
        return self._once((path, self._address(path, value)) for path, value in paths)

    def _once(self, found: Iterator[tuple[str, Any]]) -> tuple[Any, ...]:
        kept: dict[Any, None] = {}
        for path, value in found:
            if value is None:
                continue
            if value in kept:
                self._faults.append(Violation(path, f"{value} is listed twice"))
            elif kept and next(iter(kept)).version != value.version:
                self._faults.append(Violation(path, "mixes IPv4 and IPv6 with the ones before"))
            else:
                kept[value] = None
        return tuple(kept)

    def _network(self, path: str, value: object) -> Network | None:
        # "%" is a scope id, which the ipaddress module takes without looking at what is in it.
        if not isinstance(value, str) or not value or "%" in value or len(value) > 64:
            self._faults.append(Violation(path, "must be a network such as 10.0.0.0/24"))
            return None
        try:
            return ip_network(value)
        except ValueError:
            pass
        try:
            right = ip_network(value, strict=False)
        except ValueError:
            self._faults.append(Violation(path, "must be a network such as 10.0.0.0/24"))
        else:
            self._faults.append(Violation(path, f"has host bits set; the network is {right}"))
        return None

    def _address(self, path: str, value: object) -> Address | None:
        if isinstance(value, str) and "%" not in value and len(value) <= 64:
            try:
                return ip_address(value)
            except ValueError:
                pass
        self._faults.append(Violation(path, "must be an address such as 10.0.0.2 or fd00::2"))
        return None


def _members(kind: type[Enum]) -> str:
    return ", ".join(str(m.value) for m in kind)


def name_fault(name: str) -> str | None:
    """Answer what is wrong with a ruleset's name; None if nothing is."""
    if _NAME.fullmatch(name):
        return None
    return "must be 1 to 32 of a-z, 0-9 and '-', beginning with a letter"
