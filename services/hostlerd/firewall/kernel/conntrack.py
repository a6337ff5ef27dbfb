"""The table of connections in the kernel, by ctnetlink: listed, counted, cut as it streams by."""

from __future__ import annotations

import errno
import os
from collections import Counter as Tally
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from hostlerd.firewall.errors import TrackingUnavailable
from hostlerd.firewall.kernel import conntrack_message as message
from hostlerd.firewall.kernel.nfnetlink import NetfilterSocket
from hostlerd.firewall.model.connection import Connection, ConnectionFilter, any_of

# NFNL_SUBSYS_CTNETLINK << 8, and the message. Source: linux/netfilter/nfnetlink_conntrack.h.
_GET, _DELETE, _GET_STATS = 0x101, 0x102, 0x105
_FAMILIES = {0: 0, 4: message.AF_INET, 6: message.AF_INET6}
# So many acknowledgements fit into a socket's buffer with room to spare.
_AT_ONCE = 32


def listed(wanted: ConnectionFilter, most: int) -> tuple[list[Connection], int]:
    """Answer connections, so many at the most, and how many match in all.

    The others are counted as they stream by: memory does not grow with the table. Raises
    TrackingUnavailable.
    """
    kept: list[Connection] = []
    total = 0
    with _socket() as sock:
        for batch in _matching(sock, (wanted,)):
            total += len(batch)
            kept += [entry.connection() for entry in batch[: most - len(kept)]]
    return kept, total


def counts(wanted: ConnectionFilter) -> Tally[tuple[int, int]]:
    """Answer how many match, by the protocol's number and TCP state. Raises TrackingUnavailable."""
    found: Tally[tuple[int, int]] = Tally()
    with _socket() as sock:
        for batch in _matching(sock, (wanted,)):
            flows = (entry.flow() for entry in batch)
            found.update((flow.protocol, flow.tcp_state) for flow in flows)
    return found


def size() -> tuple[int, int]:
    """Answer how many connections the kernel holds, and how many it can.

    Raises TrackingUnavailable.
    """
    with _socket() as sock:
        return message.read_stats(sock.ask(_GET_STATS, message.header(0)))


def cut(filters: Sequence[ConnectionFilter]) -> int:
    """Delete every connection that a filter matches; answer how many that were.

    One that goes by itself meanwhile is no error. Raises TrackingUnavailable.
    """
    done = 0
    # The kernel takes no request of a socket on which it still lists.
    with _socket() as sock, _socket() as cutter:
        for batch in _matching(sock, filters):
            bodies = [entry.deletion() for entry in batch]
            for at in range(0, len(bodies), _AT_ONCE):
                done += _cut(cutter, bodies[at : at + _AT_ONCE])
    return done


def _cut(cutter: NetfilterSocket, bodies: Sequence[bytes]) -> int:
    errors = cutter.change(_DELETE, bodies)
    bad = next((e for e in errors if e not in (0, errno.ENOENT)), 0)
    if bad:
        raise OSError(bad, os.strerror(bad))
    return errors.count(0)


def _matching(
    sock: NetfilterSocket, filters: Sequence[ConnectionFilter]
) -> Iterator[list[message.Entry]]:
    """Answer what matches as the kernel tells it, a datagram's worth at a time."""
    versions = {f.version for f in filters}
    family = _FAMILIES[versions.pop()] if len(versions) == 1 else 0
    # Nothing to judge is the commonest case, and the largest.
    meant = None if ConnectionFilter() in filters else any_of(filters)
    for batch in sock.dump(_GET, message.header(family)):
        entries = [e for e in map(message.read, batch) if e is not None]
        yield entries if meant is None else [e for e in entries if meant(e.flow())]


@contextmanager
def _socket() -> Iterator[NetfilterSocket]:
    """Open a socket; what goes wrong with it is the kernel's refusal, in its words."""
    try:
        with NetfilterSocket() as sock:
            yield sock
    except OSError as e:
        raise TrackingUnavailable(
            f"the kernel's connection tracking does not answer: {e.strerror or e}", errno=e.errno
        ) from e
