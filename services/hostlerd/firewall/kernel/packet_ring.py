"""What the reader of the packet log has read last, bounded, for followers that come at their pace.

Each packet takes a number, counted from 1. So does each loss, in the place where it was: a caller
that comes back and names the last number it has seen is told of each packet and each loss once.
"""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from hostlerd.firewall.model.packet import Origin

#: What Python keeps beside a packet's bytes: its object, and its place in two lists.
OVERHEAD_BYTES = 33 + 16
# Packets that come one by one share a chunk: with one for each, a ring takes four times what it
# counts, and who comes back late walks through all of them again and again.
_CHUNK_PACKETS = 256
# What goes when the ring is full is a chunk.
_CHUNKS_LEAST = 8


@dataclass(slots=True)
class Chunk:
    """Packets with no loss between them; the first has the number `first`."""

    first: int
    origins: list[Origin]
    packed: list[bytes]
    size_bytes: int

    @property
    def last(self) -> int:
        """The number of the last one."""
        return self.first + len(self.packed) - 1


@dataclass(frozen=True, slots=True)
class Loss:
    """The loss with the number `seq`, and all up to and including it: how many, and of how much."""

    seq: int
    count: int
    lost: int
    lost_at_socket: int


@dataclass(frozen=True, slots=True)
class Taken:
    """What a follower is given: numbers, origins and bytes of packets.

    `seq` is how far that goes, `lost` what was lost on the way from where it was.
    """

    numbers: Sequence[int]
    origins: Sequence[Origin]
    packed: Sequence[bytes]
    seq: int
    lost: int
    lost_at_socket: int


# Losses are remembered for longer than packets. Of too many, every second one is remembered as a
# part of the one after it: sums stay what they are, for all but who was between the two.
_LOSSES_MOST = 4096


class Ring:
    """Bounded by packets and bytes: the oldest go. One thread puts, any may take."""

    def __init__(self, most_packets: int, most_bytes: int) -> None:
        self._most_packets, self._most_bytes = most_packets, most_bytes
        self._lock = threading.Lock()
        self._chunks: deque[Chunk] = deque()
        self._losses: list[Loss] = [Loss(0, 0, 0, 0)]
        self._packets = self._bytes = 0
        self._seq = 0
        self._evicted = 0

    def put(self, origins: Sequence[Origin], packed: Sequence[bytes]) -> None:
        """Add packets."""
        size = sum(map(len, packed)) + OVERHEAD_BYTES * len(packed)
        with self._lock:
            last = self._chunks[-1] if self._chunks else None
            if last is not None and self._has_room(last, len(packed), size):
                last.origins += origins
                last.packed += packed
                last.size_bytes += size
            else:
                self._chunks.append(Chunk(self._seq + 1, list(origins), list(packed), size))
            self._seq += len(packed)
            self._packets += len(packed)
            self._bytes += size
            while len(self._chunks) > 1 and (
                self._packets > self._most_packets or self._bytes > self._most_bytes
            ):
                gone = self._chunks.popleft()
                self._packets -= len(gone.packed)
                self._bytes -= gone.size_bytes
                self._evicted = gone.last

    def _has_room(self, last: Chunk, packets: int, size_bytes: int) -> bool:
        most = min(_CHUNK_PACKETS, self._most_packets // _CHUNKS_LEAST)
        # A loss has a number of its own: what comes after it begins a chunk.
        return (
            last.last == self._seq
            and len(last.packed) + packets <= most
            and last.size_bytes + size_bytes <= self._most_bytes // _CHUNKS_LEAST
        )

    def put_loss(self, lost: int, at_socket: int) -> None:
        """Add a loss; a negative one takes back what an earlier one has told too much."""
        with self._lock:
            self._seq += 1
            before = self._losses[-1]
            self._losses.append(
                Loss(
                    self._seq,
                    before.count + 1,
                    before.lost + lost,
                    before.lost_at_socket + at_socket,
                )
            )
            if len(self._losses) > _LOSSES_MOST:
                self._losses = [*self._losses[:-1:2], self._losses[-1]]

    @property
    def state(self) -> tuple[int, int, int]:
        """The last number, the first that is still here, and how many were lost in all."""
        with self._lock:
            return self._seq, min(self._evicted, self._seq) + 1, self._losses[-1].lost

    def take(self, after: int, most: int) -> Taken:
        """Answer up to `most` packets that come after a number, and what was lost on the way."""
        with self._lock:
            after = min(max(after, 0), self._seq)
            start = max(after, self._evicted)
            numbers: list[int] = []
            origins: list[Origin] = []
            packed: list[bytes] = []
            for chunk in self._from(start):
                skip = max(0, start + 1 - chunk.first)
                upto = min(len(chunk.packed), skip + most - len(packed))
                numbers += range(chunk.first + skip, chunk.first + upto)
                origins += chunk.origins[skip:upto]
                packed += chunk.packed[skip:upto]
                if len(packed) >= most:
                    break
            seq = numbers[-1] if len(packed) >= most else self._seq
            was, now = self._up_to(after), self._up_to(seq)
            lost, at_socket = now.lost - was.lost, now.lost_at_socket - was.lost_at_socket
            if start > after:
                lost += start - after - (self._up_to(start).count - was.count)
        return Taken(numbers, origins, packed, seq, lost, at_socket)

    def _from(self, start: int) -> list[Chunk]:
        """Answer the chunks that hold what comes after a number. Followers are near the end."""
        found = []
        for chunk in reversed(self._chunks):
            if chunk.last <= start:
                break
            found.append(chunk)
        found.reverse()
        return found

    def _up_to(self, seq: int) -> Loss:
        """Answer the last loss up to a number; the list begins with one of nothing at 0."""
        return self._losses[bisect_right(self._losses, seq, key=lambda loss: loss.seq) - 1]
