"""Pages of the kernel's ring buffer become records, all pages a step at a time. Pure.

Source: include/linux/ring_buffer.h (types of entries, and their lengths), events/header_event.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hostlerd.tracing.kernel.tracefs.formats import PageFormat

_LONGEST_OF_WORDS, _PADDING, _TIME_EXTEND, _TIME_STAMP = 28, 29, 30, 31
_LENGTH_BITS, _DELTA_BITS = 5, 27
_LENGTH_MASK = np.uint32((1 << _LENGTH_BITS) - 1)
# The upper bits of what a page holds say that records are missing before it.
_COMMIT_MASK = np.uint32((1 << 20) - 1)
# A page's own time has 59 bits; the rest of an absolute one comes from there.
_STAMP_MASK = np.uint64((1 << 59) - 1)

Words = npt.NDArray[np.uint32]
Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Found:
    """Records: when each was made, its page, and the word at which its fields begin."""

    time_ns: npt.NDArray[np.uint64]
    page: Numbers
    word: Numbers


def walk(words: Words, form: PageFormat) -> Found:
    """The records of whole pages, each a row of words; those of a page stay in their order.

    What is not as the kernel makes it ends its page, and is never read past it.
    """
    per_page = form.size_bytes // 4
    flat = words.reshape(-1)
    count = len(flat) // per_page
    first = np.arange(count, dtype=np.int64) * per_page
    committed = flat[first + form.commit // 4] & _COMMIT_MASK
    begin = first + form.data // 4
    end = np.minimum(begin + committed // 4, first + per_page)
    time_ns = flat[first].astype(np.uint64) | flat[first + 1].astype(np.uint64) << np.uint64(32)
    page, place = np.arange(count, dtype=np.int64), begin
    found: list[tuple[npt.NDArray[np.uint64], Numbers, Numbers]] = []
    while True:
        goes_on = place < end
        if not goes_on.all():
            page, place, end, time_ns = (x[goes_on] for x in (page, place, end, time_ns))
        if not len(page):
            break
        time_ns, length, payload = _step(flat, place, end, time_ns)
        told = payload > 0
        found.append((time_ns[told], page[told], place[told] + payload[told]))
        place = place + length
    if not found:
        return Found(np.zeros(0, np.uint64), np.zeros(0, np.int64), np.zeros(0, np.int64))
    times, pages, places = (np.concatenate(column) for column in zip(*found, strict=True))
    return Found(times, pages, places)


def _step(
    flat: Words, place: Numbers, end: Numbers, time_ns: npt.NDArray[np.uint64]
) -> tuple[npt.NDArray[np.uint64], Numbers, Numbers]:
    """One entry of each page: the time then, its words, and the words before its fields; or 0."""
    head = flat[place]
    kind = (head & _LENGTH_MASK).astype(np.int64)
    delta = (head >> np.uint32(_LENGTH_BITS)).astype(np.uint64)
    # Only where there is a second word; of a lone one nothing is taken.
    has_second = place + 1 < end
    second = flat[np.where(has_second, place + 1, place)].astype(np.int64)
    is_sized = kind == 0
    words = np.where(is_sized, 1 + (second + 3) // 4, 1 + kind)
    payload = np.where(is_sized, 2, 1)
    special = kind > _LONGEST_OF_WORDS
    if special.any():
        words = np.where(kind == _PADDING, 1 + (second + 3) // 4, np.where(special, 2, words))
        payload = np.where(special, 0, payload)
        wide = (second.astype(np.uint64) << np.uint64(_DELTA_BITS)) + delta
        delta = np.where(kind == _TIME_EXTEND, wide, delta)
        is_stamp = kind == _TIME_STAMP
        stamp = (wide & _STAMP_MASK) | (time_ns & ~_STAMP_MASK)
        time_ns = np.where(is_stamp, stamp, time_ns + delta)
    else:
        time_ns = time_ns + delta
    # Padding without a time fills up its page; whatever would go past the end is nothing.
    is_last = (kind == _PADDING) & (head >> np.uint32(_LENGTH_BITS) == 0)
    is_bad = is_last | (words > end - place) | ((is_sized | special) & ~has_second)
    left = end - place
    return time_ns, np.where(is_bad, left, words), np.where(is_bad, 0, payload)
