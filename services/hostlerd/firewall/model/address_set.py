"""What dynamic address sets hold, and the step that changes it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from hostlerd.firewall.model.elements import Span, read_span
from hostlerd.runtime.errors import InvalidRequest, Violation

CALL_MOST = 262_144
SET_MOST = 1_048_576
TIMEOUT_MOST_S = 366 * 24 * 3600
_FAULTS_TOLD = 1000
_SHOWN = 5


@dataclass(frozen=True, slots=True, order=True)
class Element:
    """An element, and when it ends in seconds since 1970; 0 means never."""

    span: Span
    expire_time: int = 0

    @property
    def line(self) -> str:
        """The element as it is written in steps and files."""
        return f"{self.span.nft} {self.expire_time}" if self.expire_time else self.span.nft


@dataclass(frozen=True, slots=True)
class Contents:
    """A dynamic set: its name, whether a boot brings its elements back, and what it holds."""

    name: str
    persistent: bool
    elements: tuple[Element, ...] = ()


@dataclass(frozen=True, slots=True)
class ChangeElements:
    """Take elements out of a dynamic set and put others in, in one transaction.

    Both are texts of a line for each element: its address, and when it ends if it does.
    """

    name: str
    added: str
    removed: str
    persistent: bool

    @property
    def survives_boot(self) -> bool:
        """Whether a boot brings back what the set holds."""
        return self.persistent

    @property
    def hashed(self) -> tuple[str, tuple[str, ...], tuple[str, ...]]:
        """What a plan's hash is made of: not the ends, which move with the clock."""
        added, removed = (
            tuple(line.partition(" ")[0] for line in text.splitlines())
            for text in (self.added, self.removed)
        )
        return self.name, added, removed

    def describe(self) -> str:
        """Say how many come and go, and the first few by name."""
        told = [
            f"{word} {len(lines)}: {', '.join(line.split(' ')[0] for line in lines[:_SHOWN])}"
            + (", ..." if len(lines) > _SHOWN else "")
            for word, text in (("add", self.added), ("remove", self.removed))
            if (lines := text.splitlines())
        ]
        return f"address set {self.name}: {'; '.join(told)}"

    def inverse(self) -> ChangeElements:
        """Put in what was taken out, and the other way round."""
        return ChangeElements(self.name, self.removed, self.added, self.persistent)


def dump(elements: Iterable[Element]) -> str:
    """Write elements as steps and files have them."""
    return "".join(f"{each.line}\n" for each in elements)


def load(text: str) -> list[Element]:
    """Read elements as `dump` wrote them. Raises ValueError."""
    found = []
    for line in text.splitlines():
        address, _, end = line.partition(" ")
        found.append(Element(read_span(address), int(end or 0)))
    return found


def read_elements(
    asked: Sequence[tuple[str, int | None]], now_unix_s: int, path: str, inner: str = ""
) -> list[Element]:
    """Read what a caller gave: addresses, and in how many seconds they end or None.

    Answers them in order, overlapping ones as one. Raises InvalidRequest with all faults.
    """
    if len(asked) > CALL_MOST:
        raise InvalidRequest.of([Violation(path, f"must be at most {CALL_MOST}")])
    faults: list[Violation] = []
    read: list[tuple[Element, int]] = []
    for index, (address, timeout_s) in enumerate(asked):
        if timeout_s is not None and not 1 <= timeout_s <= TIMEOUT_MOST_S:
            words = f"must be from 1 s to {TIMEOUT_MOST_S} s"
            faults.append(Violation(f"{path}[{index}].timeout", words))
        try:
            end = 0 if timeout_s is None else now_unix_s + timeout_s
            read.append((Element(read_span(address), end), index))
        except ValueError as e:
            faults.append(Violation(f"{path}[{index}]{inner}", str(e)))
    joined = _joined(read, path, faults)
    if faults:
        raise InvalidRequest.of(faults[:_FAULTS_TOLD])
    return joined


def read_spans(addresses: Sequence[str], path: str) -> list[Span]:
    """Read addresses that are to go, each by itself. Raises InvalidRequest with all faults."""
    if len(addresses) > CALL_MOST:
        raise InvalidRequest.of([Violation(path, f"must be at most {CALL_MOST}")])
    faults: list[Violation] = []
    found: list[Span] = []
    for index, address in enumerate(addresses):
        try:
            found.append(read_span(address))
        except ValueError as e:
            faults.append(Violation(f"{path}[{index}]", str(e)))
    if faults:
        raise InvalidRequest.of(faults[:_FAULTS_TOLD])
    return found


def join(spans: Iterable[Span]) -> list[Span]:
    """Answer spans with overlapping ones made one; those that only touch stay apart."""
    found: list[Span] = []
    for span in sorted(spans):
        before = found[-1] if found else None
        if before and before.version == span.version and span.first <= before.last:
            if span.last > before.last:
                found[-1] = Span(span.version, before.first, span.last)
        else:
            found.append(span)
    return found


def _joined(
    read: Sequence[tuple[Element, int]], path: str, faults: list[Violation]
) -> list[Element]:
    found: list[Element] = []
    held = 0
    for element, index in sorted(read):
        span = element.span
        before = found[-1] if found else None
        if not before or before.span.version != span.version or span.first > before.span.last:
            found.append(element)
            held = index
            continue
        if element.expire_time or before.expire_time:
            words = f"overlaps {path}[{held}], and one of them has a timeout"
            faults.append(Violation(f"{path}[{index}]", words))
        if span.last > before.span.last:
            wider = Span(span.version, before.span.first, span.last)
            found[-1] = Element(wider, before.expire_time)
    return found
