"""The words of a filter: a text, and what it says. Pure.

`hostler.core.trace.filter` tells what the language is and runs it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NoReturn

from hostler.core.trace.field import Field, Kind
from hostler.core.trace.fields import FieldUnknown, find
from hostler.core.trace.filter_values import Operand, read_value
from hostler.core.trace.nearest import suggestion

MOST_CHARACTERS = 16_384
MOST_DEPTH = 32
"""How deep parentheses and `not` may nest."""

_SHOWN_CHARACTERS = 72


class FilterInvalid(ValueError):
    """A filter cannot be understood; `position` counts its characters from 1."""

    def __init__(self, message: str, text: str, position: int) -> None:
        super().__init__(f"at character {position}: {message}")
        self.message = message
        self.position = position
        self.text = text

    def caret(self) -> str:
        """Two lines: the filter, or what is around the place if it is long, and a caret below."""
        first = max(0, min(self.position - 1 - _SHOWN_CHARACTERS // 2, len(self.text)))
        shown = self.text[first : first + _SHOWN_CHARACTERS]
        # Line breaks and tabs would move the caret away from its place.
        line = "".join(character if character.isprintable() else " " for character in shown)
        return f"{line}\n{' ' * (self.position - 1 - first)}^"


@dataclass(frozen=True, slots=True)
class Test:
    """A field compared; `operator` is one of OPERATORS, `in` and `pmatch` have several operands."""

    field: Field
    operator: str
    operands: tuple[Operand, ...]


@dataclass(frozen=True, slots=True)
class Not:
    """Holds if the term does not."""

    term: Node


@dataclass(frozen=True, slots=True)
class AllOf:
    """Holds if all terms do; there are two or more."""

    terms: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class AnyOf:
    """Holds if any term does; there are two or more."""

    terms: tuple[Node, ...]


Node = Test | Not | AllOf | AnyOf

_SAME = ("=", "!=", "in", "exists")
_ORDERED = (*_SAME, "<", "<=", ">", ">=")
_IN_TEXTS = ("contains", "icontains", "startswith", "endswith")

OPERATORS: Mapping[Kind, tuple[str, ...]] = {
    **dict.fromkeys((Kind.INTEGER, Kind.DURATION, Kind.TIME, Kind.PORT), _ORDERED),
    **dict.fromkeys((Kind.BOOL, Kind.ADDRESS), _SAME),
    Kind.TEXT: (*_ORDERED, *_IN_TEXTS, "glob", "pmatch"),
    Kind.BYTES: (*_SAME, *_IN_TEXTS),
    Kind.NEARNESS: ("=",),
}
"""The operators that fields of each kind have."""

_ALL_OPERATORS = tuple(dict.fromkeys(each for some in OPERATORS.values() for each in some))
_BLANK = " \t\r\n"
_ENDS_FIELD = frozenset(_BLANK + "()!=<>")
_ENDS_VALUE = frozenset(_BLANK + "()")
_ENDS_LISTED = frozenset(_BLANK + "(),")
_JOINS = ("and", "or")


def parse(text: str) -> Node:
    """Answer what a filter says. Raises FilterInvalid."""
    if len(text) > MOST_CHARACTERS:
        message = f"longer than {MOST_CHARACTERS} characters"
        raise FilterInvalid(message, text, MOST_CHARACTERS + 1)
    try:
        text.encode(errors="surrogateescape")
    except UnicodeEncodeError as e:
        raise FilterInvalid("half a character", text, e.start + 1) from None
    parser = _Parser(text)
    node = parser.either(0)
    parser.end()
    return node


class _Parser:
    """Descends into a filter. Each level of parentheses or `not` is one of MOST_DEPTH."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0

    def end(self) -> None:
        """Raises FilterInvalid if anything is left."""
        if self._next():
            left = self._peek()
            hint = suggestion(left, _JOINS) or "; tests are joined by `and` and `or`"
            self._fail(f"{left!r} is too much{hint}")

    def either(self, depth: int) -> Node:
        """Read terms joined by `or`, which binds weaker than `and`."""
        terms = [self._both(depth)]
        while self._take("or"):
            terms.append(self._both(depth))
        return terms[0] if len(terms) == 1 else AnyOf(tuple(terms))

    def _both(self, depth: int) -> Node:
        terms = [self._term(depth)]
        while self._take("and"):
            terms.append(self._term(depth))
        return terms[0] if len(terms) == 1 else AllOf(tuple(terms))

    def _term(self, depth: int) -> Node:
        self._next()
        if depth > MOST_DEPTH:
            self._fail(f"nested deeper than {MOST_DEPTH}")
        if self._take("not"):
            return Not(self._term(depth + 1))
        if self._next() == "(":
            self._at += 1
            node = self.either(depth + 1)
            self._mark(")")
            return node
        return self._test()

    def _test(self) -> Node:
        if not self._next():
            self._fail("the filter ends where a test is due")
        start = self._at
        name = self._peek()
        if not name or name in _JOINS:
            self._fail(f"{name or self._next()!r} stands where a field is due")
        try:
            field = find(name)
        except FieldUnknown as e:
            self._fail(str(e), start)
        self._at += len(name)
        operator = self._operator(field)
        if operator == "exists":
            return Test(field, operator, ())
        if operator in ("in", "pmatch"):
            return Test(field, operator, self._listed(field, operator))
        return Test(field, operator, (self._value(field, operator, _ENDS_VALUE),))

    def _operator(self, field: Field) -> str:
        self._next()
        start = self._at
        for symbol in ("==", "!=", "<=", ">=", "=", "<", ">"):
            if self._text.startswith(symbol, start):
                self._at += len(symbol)
                break
        else:
            symbol = self._peek()
            if symbol not in _ALL_OPERATORS:
                self._no_operator(symbol, field)
            self._at += len(symbol)
        operator = "=" if symbol == "==" else symbol
        if operator not in OPERATORS[field.kind]:
            known = " ".join(OPERATORS[field.kind])
            self._fail(f"{field.name} ({field.kind}) has no {operator}; it has {known}", start)
        return operator

    def _no_operator(self, word: str, field: Field) -> NoReturn:
        if not self._next():
            self._fail(f"an operator is due after {field.name}")
        if word == "not":
            self._fail(f"`not` goes before the field: not {field.name} in (…)")
        shown = word or self._next()
        known = [each for each in OPERATORS[field.kind]]
        hint = suggestion(shown, known) or f"; {field.name} has {' '.join(known)}"
        self._fail(f"{shown[:40]!r} is no operator{hint}")

    def _listed(self, field: Field, operator: str) -> tuple[Operand, ...]:
        self._mark("(")
        values = [self._value(field, operator, _ENDS_LISTED)]
        while self._next() == ",":
            self._at += 1
            values.append(self._value(field, operator, _ENDS_LISTED))
        self._mark(")")
        return tuple(values)

    def _value(self, field: Field, operator: str, ends: frozenset[str]) -> Operand:
        first = self._next()
        start = self._at
        if not first or first in ends:
            shown = repr(first) if first else "the end"
            self._fail(f"{shown} stands where a value of {field.name} is due")
        told = self._quoted(first) if first in "\"'" else self._unquoted(ends)
        try:
            value = read_value(field.kind, told)
        except ValueError as e:
            self._fail(str(e), start)
        if field.objection is not None and operator in ("=", "!=", "in"):
            objection = field.objection(told.decode(errors="backslashreplace"))
            if objection is not None:
                self._fail(objection, start)
        return value

    def _unquoted(self, ends: frozenset[str]) -> bytes:
        start = self._at
        while self._at < len(self._text) and self._text[self._at] not in ends:
            self._at += 2 if self._text[self._at] == "\\" else 1
        self._at = min(self._at, len(self._text))
        return self._unescaped(start, self._at)

    def _quoted(self, mark: str) -> bytes:
        start = self._at
        self._at += 1
        while self._at < len(self._text) and self._text[self._at] != mark:
            self._at += 2 if self._text[self._at] == "\\" else 1
        if self._at >= len(self._text):
            self._fail("a quotation mark is not closed", start)
        self._at += 1
        return self._unescaped(start + 1, self._at - 1)

    def _unescaped(self, start: int, end: int) -> bytes:
        r"""As in sysdig: \\, \", \' and \x1f stand for a byte, other backslashes for themselves."""
        told, at = bytearray(), start
        while at < end:
            character, following = self._text[at], self._text[at + 1 : at + 2]
            if character != "\\" or at + 1 >= end:
                told += character.encode(errors="surrogateescape")
                at += 1
            elif following == "x":
                told.append(self._hexadecimal(at, end))
                at += 4
            else:
                kept = following if following in "\\\"'" else f"\\{following}"
                told += kept.encode(errors="surrogateescape")
                at += 2
        return bytes(told)

    def _hexadecimal(self, at: int, end: int) -> int:
        digits = self._text[at + 2 : min(at + 4, end)]
        if len(digits) != 2 or not all(digit in "0123456789abcdefABCDEF" for digit in digits):
            self._fail(r"\x must be followed by two hexadecimal digits", at)
        return int(digits, 16)

    def _mark(self, mark: str) -> None:
        found = self._next()
        if found != mark:
            shown = repr(self._peek()[:40] or found) if found else "the end"
            self._fail(f"{shown} stands where {mark} is due")
        self._at += 1

    def _take(self, keyword: str) -> bool:
        self._next()
        if self._peek() != keyword:
            return False
        self._at += len(keyword)
        return True

    def _next(self) -> str:
        """Skip blanks and answer the character there, empty at the end."""
        while self._at < len(self._text) and self._text[self._at] in _BLANK:
            self._at += 1
        return self._text[self._at : self._at + 1]

    def _peek(self) -> str:
        """The word there, up to what ends a field's name."""
        end = self._at
        while end < len(self._text) and self._text[end] not in _ENDS_FIELD:
            end += 1
        return self._text[self._at : end]

    def _fail(self, message: str, at: int | None = None) -> NoReturn:
        raise FilterInvalid(message, self._text, (self._at if at is None else at) + 1)
