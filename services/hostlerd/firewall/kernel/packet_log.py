"""The packet log: who follows it, the thread that reads it, and when reading ends."""

from __future__ import annotations

import secrets
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from hostlerd.firewall.errors import PacketLogUnavailable
from hostlerd.firewall.kernel.nflog import RCVBUF_BYTES, THRESHOLD, Group
from hostlerd.firewall.kernel.nflog_parse import Batch, Way, parse
from hostlerd.firewall.kernel.packet_ring import Ring
from hostlerd.firewall.model.packet import Origin
from hostlerd.firewall.model.packet_log import GROUP, SNAPLEN_BYTES, read_prefix
from hostlerd.runtime.errors import DomainError
from hostlerd.runtime.log import get_log

log = get_log("firewall.packet_log")

#: How long it is read after the last follower has left.
KEEP_S = 120.0
MOST_PACKETS = 400_000
# More than the largest takes: 118, an IPv6 packet with both hardware addresses.
MOST_BYTES_EACH = 160
# What may be configured; 4 million take up to 500 MB.
PACKETS_RANGE = range(1000, 4_000_001)
# The kernel holds packets back for 100 ms: what has not come by then is not on its way.
_QUIET_S = 0.25
_SEQ_MASK = 0xFFFFFFFF
_LINKS_S = 1.0
_WAYS_MOST = 4096


class Links:
    """The names of links by index, at most a second old; one that has just gone is known still."""

    def __init__(self) -> None:
        self._names: dict[int, str] = {}
        self._before: dict[int, str] = {}

    def look(self) -> None:
        """Read them anew."""
        try:
            now = dict(socket.if_nameindex())
        except OSError:
            return
        self._before, self._names = self._names, now

    def name(self, index: int) -> str:
        """Answer a link's name, "if" and the index if there is none; empty for index 0."""
        if index == 0:
            return ""
        return self._names.get(index) or self._before.get(index) or f"if{index}"


class Reader:
    """Reads a group into a ring, in a thread of its own, until it is closed."""

    def __init__(self, group: Group, ring: Ring) -> None:
        self.name = secrets.token_hex(8)
        self.ring = ring
        self.malformed = 0
        self.problem = ""
        self._group = group
        self._stop = threading.Event()
        self._links = Links()
        self._ways: dict[Way, Origin] = {}
        self._looked_s = 0.0
        self._expected: int | None = None
        self._full = False
        self._drops = 0
        self._told_at_socket = 0
        # A thread of the caller's: it reads the caller's network namespace.
        self._thread = threading.Thread(target=self._run, name="packet-log", daemon=True)

    def start(self) -> None:
        """Begin to read."""
        self._thread.start()

    def close(self) -> None:
        """End, and leave the group to others."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join()
        self._group.close()

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                self._turn()
        except OSError as e:
            log.error("the packet log cannot be read any more", problem=e)
            self.problem = f"reading ended: {e.strerror}"
        finally:
            # Whatever it was, followers must not wait for what will never come.
            if not self._stop.is_set():
                self.problem = self.problem or "reading ended by a fault of the daemon's own"

    def _turn(self) -> None:
        try:
            data = self._group.read(_QUIET_S)
        except BlockingIOError:
            self._full = True
            return
        if data is not None:
            self._take(parse(data))
        elif self._full:
            self._full = False
            self._estimate()

    def _take(self, batch: Batch) -> None:
        self.malformed += batch.malformed
        if batch.first is not None and batch.last is not None:
            self._count(batch.first, batch.last, len(batch.packed))
        if batch.packed:
            self.ring.put(self._origins(batch.ways), batch.packed)

    def _count(self, first: int, last: int, packets: int) -> None:
        """Tell what is missing before and in a datagram, by the kernel's numbers of its packets."""
        lost = 0 if self._expected is None else first - self._expected & _SEQ_MASK
        lost += max(0, (last - first & _SEQ_MASK) + 1 - packets)
        self._expected = last + 1 & _SEQ_MASK
        if lost or self._told_at_socket:
            # The kernel's numbers are exact; what its count of datagrams made us tell is taken
            # back for them.
            told, self._told_at_socket = self._told_at_socket, 0
            self.ring.put_loss(lost - told, -told)
        if lost:
            self._drops = self._group.drops()

    def _estimate(self) -> None:
        """Tell what is missing at the end, by the kernel's count: no later packet shows it yet."""
        drops = self._group.drops()
        lost, self._drops = (drops - self._drops) * THRESHOLD, drops
        if lost > 0:
            self._told_at_socket += lost
            self.ring.put_loss(lost, lost)

    def _origins(self, ways: list[Way]) -> list[Origin]:
        now_s = time.monotonic()
        if now_s - self._looked_s > _LINKS_S or len(self._ways) > _WAYS_MOST:
            self._looked_s = now_s
            self._links.look()
            self._ways.clear()
        known = self._ways
        try:
            return [known[way] for way in ways]
        except KeyError:
            return [known.get(way) or self._origin(way) for way in ways]

    def _origin(self, way: Way) -> Origin:
        prefix, *indexes = way
        rule, action = read_prefix(prefix.rstrip(b"\0").decode(errors="replace"))
        name = self._links.name
        first, second, third, fourth = indexes
        made = (rule, action, name(first), name(second), name(third), name(fourth))
        self._ways[way] = made
        return made


def configured(config: Mapping[str, Any]) -> int:
    """Answer how many packets are kept, `packet_log_records`. Raises ValueError."""
    most = config.get("packet_log_records", MOST_PACKETS)
    if type(most) is not int or most not in PACKETS_RANGE:
        raise ValueError(f"must be a number from {PACKETS_RANGE[0]} to {PACKETS_RANGE[-1]}")
    return most


class PacketLog:
    """Reads while somebody follows, and for KEEP_S after that. Any thread may call."""

    def __init__(self, rcvbuf_bytes: int = RCVBUF_BYTES, most_packets: int | None = None) -> None:
        self._rcvbuf_bytes = rcvbuf_bytes
        self._most_packets = most_packets
        self._lock = threading.Lock()
        self._reader: Reader | None = None
        self._followers = 0
        self._left_s = 0.0

    def open(self) -> None:
        """Begin to read, if nobody does. Raises PacketLogBusy, PacketLogUnavailable. Blocks."""
        with self._lock:
            if self._reader is not None and self._reader.problem:
                self._close()
            if self._reader is None:
                group = Group(GROUP, SNAPLEN_BYTES, self._rcvbuf_bytes)
                most = self._most_packets or MOST_PACKETS
                self._reader = Reader(group, Ring(most, MOST_BYTES_EACH * most))
                self._reader.start()
                log.info(
                    "the packet log is read", reader=self._reader.name, states=group.tells_states
                )
            self._left_s = time.monotonic()

    @contextmanager
    def followed(self) -> Iterator[Reader]:
        """Keep it read while the block goes on, once it is open. Raises PacketLogUnavailable."""
        with self._lock:
            reader = self._reader
            if reader is None:
                raise PacketLogUnavailable("reading has just ended")
            self._followers += 1
        try:
            yield reader
        finally:
            with self._lock:
                self._followers -= 1
                self._left_s = time.monotonic()

    def state(self) -> tuple[Reader | None, int, str]:
        """Answer the reader, how many follow, and what keeps it from being read."""
        with self._lock:
            if self._reader is not None:
                return self._reader, self._followers, self._reader.problem
            try:
                Group(GROUP, SNAPLEN_BYTES).close()
            except DomainError as e:
                return None, 0, e.message
            return None, 0, ""

    def due(self) -> float | None:
        """Answer in how many seconds reading has to end; None if nobody reads."""
        with self._lock:
            if self._reader is None:
                return None
            if self._followers:
                return KEEP_S
            return self._left_s + KEEP_S - time.monotonic()

    def end(self) -> bool:
        """End reading if nobody has wanted it for long enough; answers whether it did."""
        left_s = self.due()
        with self._lock:
            if left_s is None or left_s > 0 or self._followers:
                return False
            self._close()
            return True

    def close(self) -> None:
        """End reading, whoever follows."""
        with self._lock:
            self._close()

    def _close(self) -> None:
        if self._reader is not None:
            self._reader.close()
            log.info("the packet log is read no more", reader=self._reader.name)
            self._reader = None
