"""Parts of a capture: read block by block, filtered, and encoded again where that is needed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hostlerd.tracing.kernel.payloads import without_payloads
from hostlerd.tracing.model.stored import Query

if TYPE_CHECKING:
    from hostler.core.trace.capture_reader import BlockPlace, CaptureReader
    from hostler.core.trace.filter import Filter

_FILE = 1 << 32
"""Numbers of blocks in a file are below this; a block's number is that of its file times this."""
_FOREVER_NS = (1 << 63) - 1
_BLOCKS_AT_ONCE = 64


@dataclass(frozen=True, slots=True)
class Part:
    """Some events of a capture, or that none came by in a while; `problem` is what is not there."""

    seq: int
    data: bytes = b""
    events: int = 0
    lost: int = 0
    problem: str = ""


def parts(files: Sequence[Path], query: Query, *, with_payloads: bool) -> Iterator[Part]:
    """The events that are wanted, in order. Raises OSError; each step reads some blocks. Blocks."""
    from hostler.core.trace.capture_reader import CaptureReader
    from hostler.core.trace.filter import compile_filter
    from hostler.core.trace.schema import CaptureInvalid

    picking = _Picking(
        compile_filter(query.filter) if query.filter else None,
        query.begin_ns,
        query.end_ns or _FOREVER_NS,
        with_payloads,
    )
    for path in files:
        first = _number(path) * _FILE
        if first + _FILE <= query.after_seq:
            continue
        try:
            with CaptureReader(path, skip_damaged=True) as reader:
                yield from picking.of_file(reader, first, query.after_seq)
                problems = [str(damage) for damage in reader.damaged]
        except FileNotFoundError:
            problems = ["it was rotated away meanwhile"]
        except CaptureInvalid as e:
            problems = [str(e)]
        for problem in problems:
            yield Part(first + _FILE - 1, problem=f"{path.name}: {problem}")


@dataclass(frozen=True, slots=True)
class _Picking:
    wanted: Filter | None
    begin_ns: int
    end_ns: int
    with_payloads: bool

    def of_file(self, reader: CaptureReader, first: int, after: int) -> Iterator[Part]:
        """The parts of a file."""
        from hostler.core.trace.schema import CaptureInvalid

        for nth, place in enumerate(reader.blocks):
            seq = first + nth + 1
            if seq <= after or place.first_ns > self.end_ns or place.last_ns < self.begin_ns:
                continue
            try:
                data, events = self._picked(reader, place)
            except CaptureInvalid as e:
                yield Part(seq, problem=f"block at byte {place.offset}: {e}")
                continue
            if events or place.lost or nth % _BLOCKS_AT_ONCE == 0:
                yield Part(seq, data, events, place.lost)

    def _picked(self, reader: CaptureReader, place: BlockPlace) -> tuple[bytes, int]:
        """The block as it is to be told, and how many events are in it. Raises CaptureInvalid."""
        import numpy as np

        from hostler.core.trace.blocks import decode, encode, exit_ns

        encoded = reader.encoded(place)
        is_all = self.begin_ns <= place.first_ns and place.last_ns <= self.end_ns
        if self.wanted is None and is_all and self.with_payloads:
            return encoded, place.events
        events = decode(encoded, reader.header.schema)
        rows = (events["time_ns"] <= np.uint64(self.end_ns)) & (
            exit_ns(events) >= np.uint64(self.begin_ns)
        )
        if self.wanted is not None:
            rows &= self.wanted.matches(events)
        if not rows.any():
            return b"", 0
        chosen = events.select(rows).compact()
        data = encode(chosen)
        return data if self.with_payloads else without_payloads(data), len(chosen)


def _number(path: Path) -> int:
    """The number of a rotated file, from 1; 0 for one that is not numbered."""
    number = path.stem.rpartition("-")[2]
    return int(number) if number.isdigit() else 0
