"""The words of the packet log's filters: a text, and what it says. Pure.

`hostler.core.packet_filter` tells what the language is and runs it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import NoReturn

MOST_CHARACTERS = 4096
MOST_DEPTH = 32


class FilterInvalid(ValueError):
    """A filter cannot be understood; `position` counts its characters from 1."""

    def __init__(self, message: str, position: int) -> None:
        super().__init__(f"at character {position}: {message}")
        self.position = position


@dataclass(frozen=True, slots=True)
class Span:
    """All numbers from one to another."""

    first: int
    last: int


Value = str | bytes | int | Span | IPv4Network | IPv6Network


@dataclass(frozen=True, slots=True)
class Test:
    """A field compared: `comparison` is "in" (any of the values), or <, <=, >, >= with one number.

    An address is the network of itself alone, a number the span of itself; of `flags` and `state`
    the values are the field's own numbers.
    """

    field: str
    comparison: str
    values: tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class Not:
    """Holds if the term does not."""

    term: Node


@dataclass(frozen=True, slots=True)
class AllOf:
    """Holds if all terms do."""

    terms: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class AnyOf:
    """Holds if any term does."""

    terms: tuple[Node, ...]


Node = Test | Not | AllOf | AnyOf

#: Each field of the language, and what it is called in a record.
RECORD_NAMES = {
    "rule": "rule",
    "action": "action",
    "in": "in_ifname",
    "out": "out_ifname",
    "physin": "physin_ifname",
    "physout": "physout_ifname",
    "src": "source",
    "dst": "destination",
    "sport": "source_port",
    "dport": "destination_port",
    "proto": "protocol_number",
    "length": "length_bytes",
    "flags": "tcp_flags",
    "state": "connection_state",
    "mark": "mark",
    "mac": "source_mac",
}
_MOST = {"sport": 0xFFFF, "dport": 0xFFFF, "length": 0xFFFFFFFF, "mark": 0xFFFFFFFF, "proto": 0xFF}
STATES = {"established": 1, "related": 2, "new": 3, "invalid": 4, "untracked": 5}
FLAGS = {"fin": 1, "syn": 2, "rst": 4, "psh": 8, "ack": 16, "urg": 32, "ece": 64, "cwr": 128}
#: Names of protocols, from the assigned internet protocol numbers.
PROTOCOLS = {
    "icmp": 1, "igmp": 2, "ipip": 4, "tcp": 6, "udp": 17, "dccp": 33, "ipv6": 41, "gre": 47,
    "esp": 50, "ah": 51, "icmpv6": 58, "ospf": 89, "pim": 103, "vrrp": 112, "l2tp": 115,
    "sctp": 132, "udplite": 136,
}  # fmt: skip
_NUMBERS = ("sport", "dport", "length", "mark")
_ORDERED = ("<", "<=", ">", ">=")


def parse(text: str) -> Node:
    """Answer what a filter says. Raises FilterInvalid."""
    if len(text) > MOST_CHARACTERS:
        raise FilterInvalid(f"longer than {MOST_CHARACTERS} characters", MOST_CHARACTERS + 1)
    parser = _Parser(list(_tokens(text)))
    node = parser.either(0)
    parser.end()
    return node


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    position: int


_TOKEN = re.compile(
    r"""(?P<blank>[ \t\r\n]+)
    |(?P<string>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')
    |(?P<operator>==|!=|<=|>=|<|>)
    |(?P<mark>[()\[\],])
    |(?P<word>[A-Za-z0-9_.:/@%*+-]+)""",
    re.VERBOSE | re.DOTALL,
)
_KEYWORDS = frozenset({"and", "or", "not", "in"})


def _tokens(text: str) -> Iterator[_Token]:
    place = 0
    while place < len(text):
        found = _TOKEN.match(text, place)
        if found is None:
            if text[place] in "\"'":
                raise FilterInvalid("a quotation mark is not closed", place + 1)
            hint = "; equal is ==" if text[place] == "=" else ""
            raise FilterInvalid(f"{text[place]!r} means nothing here{hint}", place + 1)
        kind = str(found.lastgroup)
        if kind != "blank":
            told = found.group()
            if kind == "string":
                told = re.sub(r"\\(.)", r"\1", told[1:-1], flags=re.DOTALL)
            yield _Token(kind, told, place + 1)
        place = found.end()
    yield _Token("end", "", len(text) + 1)


class _Parser:
    """Descends into a filter. Each level of parentheses or `not` is one of MOST_DEPTH."""

    def __init__(self, tokens: Sequence[_Token]) -> None:
        self._tokens = tokens
        self._next = 0

    def end(self) -> None:
        """Raises FilterInvalid if anything is left."""
        if self._token.kind != "end":
            self._fail(f"{self._shown} is too much; tests are joined by `and` and `or`")

    def either(self, depth: int) -> Node:
        """Read terms joined by `or`."""
        terms = [self._both(depth)]
        while self._take("word", "or"):
            terms.append(self._both(depth))
        return terms[0] if len(terms) == 1 else AnyOf(tuple(terms))

    def _both(self, depth: int) -> Node:
        terms = [self._term(depth)]
        while self._take("word", "and"):
            terms.append(self._term(depth))
        return terms[0] if len(terms) == 1 else AllOf(tuple(terms))

    def _term(self, depth: int) -> Node:
        if depth > MOST_DEPTH:
            self._fail(f"nested deeper than {MOST_DEPTH}")
        if self._take("word", "not"):
            return Not(self._term(depth + 1))
        if self._take("mark", "("):
            node = self.either(depth + 1)
            self._close(")")
            return node
        return self._test()

    def _test(self) -> Node:
        field = self._token
        if field.kind != "word" or field.text not in RECORD_NAMES:
            self._fail(f"{self._shown} is no field; fields are {', '.join(RECORD_NAMES)}")
        self._next += 1
        word = self._comparison()
        if word in ("in", "not in"):
            test = Test(field.text, "in", self._values(field.text))
            return Not(test) if word == "not in" else test
        at = self._token
        value = self._value(field.text)
        if (isinstance(value, Span) and value.first != value.last) or (
            isinstance(value, IPv4Network | IPv6Network) and value.num_addresses != 1
        ):
            raise FilterInvalid(f"{at.text} is more than one: say `in`", at.position)
        if word in ("==", "!="):
            test = Test(field.text, "in", (value,))
            return Not(test) if word == "!=" else test
        single = value.first if isinstance(value, Span) else value
        return Test(field.text, word, (single,))

    def _comparison(self) -> str:
        """Read an operator that the field before it has."""
        field = self._tokens[self._next - 1].text
        token = self._token
        if self._take("word", "in"):
            return "in"
        if self._take("word", "not"):
            if not self._take("word", "in"):
                self._fail("after a field `not` must be followed by `in`")
            return "not in"
        if token.kind != "operator":
            self._fail(f"{self._shown} is no operator; they are == != < <= > >= in")
        ordered = token.text in _ORDERED
        if ordered and not (field in _NUMBERS or (field == "flags" and token.text in ("<=", ">="))):
            self._fail(f"{field} knows no {token.text}")
        self._next += 1
        return token.text

    def _values(self, field: str) -> tuple[Value, ...]:
        closing = ")" if self._take("mark", "(") else "]" if self._take("mark", "[") else ""
        values = [self._value(field)]
        while closing and self._take("mark", ","):
            values.append(self._value(field))
        if closing:
            self._close(closing)
        return tuple(values)

    def _value(self, field: str) -> Value:
        token = self._token
        if token.kind not in ("word", "string") or (
            token.kind == "word" and token.text in _KEYWORDS
        ):
            self._fail(f"{self._shown} stands where a value of {field} is due")
        self._next += 1
        try:
            return _READERS[field](token.text)
        except ValueError as e:
            raise FilterInvalid(str(e), token.position) from None

    def _close(self, mark: str) -> None:
        if not self._take("mark", mark):
            self._fail(f"{self._shown} stands where {mark} is due")

    def _take(self, kind: str, text: str) -> bool:
        token = self._token
        if (token.kind, token.text) != (kind, text):
            return False
        self._next += 1
        return True

    @property
    def _token(self) -> _Token:
        return self._tokens[self._next]

    @property
    def _shown(self) -> str:
        return repr(self._token.text[:40]) if self._token.kind != "end" else "the end"

    def _fail(self, message: str) -> NoReturn:
        raise FilterInvalid(message, self._token.position)


def _text(word: str) -> Value:
    return word


def _network(word: str) -> Value:
    try:
        return ip_network(word)
    except ValueError:
        raise ValueError(f"{word[:60]!r} is no address, and no network by its first one") from None


def _number(most: int) -> Callable[[str], Value]:
    def read(word: str) -> Value:
        first, dash, last = word.partition("-")
        span = Span(one(first), one(last) if dash else one(first))
        if span.first > span.last:
            raise ValueError(f"{word} is upside down")
        return span

    def one(word: str) -> int:
        if not re.fullmatch(r"[0-9]{1,10}|0x[0-9A-Fa-f]{1,8}", word):
            raise ValueError(f"{word[:60]!r} is no number")
        value = int(word, 16) if word.startswith("0x") else int(word)
        if value > most:
            raise ValueError(f"{word} is more than {most}")
        return value

    return read


def _protocol(word: str) -> Value:
    known = PROTOCOLS.get(word.lower())
    if known is not None:
        return Span(known, known)
    if word[:1].isdigit():
        return _number(_MOST["proto"])(word)
    raise ValueError(f"{word[:60]!r} is no protocol that is known by name; numbers do as well")


def _state(word: str) -> Value:
    if word not in STATES:
        raise ValueError(f"{word[:60]!r} is none of {', '.join(STATES)}")
    return STATES[word]


def _flags(word: str) -> Value:
    value = 0
    for name in word.lower().split(",") if word else ():
        if name.strip() not in FLAGS:
            raise ValueError(f"{name[:60]!r} is none of {', '.join(FLAGS)}")
        value |= FLAGS[name.strip()]
    return value


def _mac(word: str) -> Value:
    if not re.fullmatch(r"[0-9A-Fa-f]{2}([:-][0-9A-Fa-f]{2}){5}", word):
        raise ValueError(f"{word[:60]!r} is no hardware address")
    return bytes.fromhex(re.sub("[:-]", "", word))


_READERS: dict[str, Callable[[str], Value]] = {
    **dict.fromkeys(("rule", "action", "in", "out", "physin", "physout"), _text),
    **dict.fromkeys(("src", "dst"), _network),
    **{name: _number(_MOST[name]) for name in _NUMBERS},
    "proto": _protocol,
    "state": _state,
    "flags": _flags,
    "mac": _mac,
}
