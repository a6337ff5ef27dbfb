"""Lists the sockets of the host's network namespace with the processes that have them open."""

from __future__ import annotations

from hostlerd.tracing.errors import KernelUnreadable
from hostlerd.tracing.kernel import sockets
from hostlerd.tracing.kernel.descriptors import Openers
from hostlerd.tracing.model.finding import Unseen
from hostlerd.tracing.model.socket import (
    STATES,
    UNIX_TYPES,
    Entry,
    InternetSocket,
    UnixSocket,
    joined,
)


def entries() -> tuple[list[Entry], tuple[Unseen, ...]]:
    """All sockets, and what could not be seen."""
    openers = Openers()
    unseen = []
    found = [_internet(each, openers) for each in sockets.internet_sockets("thread-self")]
    try:
        unix = {each.inode: each for each in sockets.unix_sockets()}
        found += [_unix(each, unix, openers) for each in unix.values()]
    except KernelUnreadable as e:
        unseen.append(Unseen("UNIX_SOCKETS_HIDDEN", e.message))
    if openers.hidden:
        words = f"{openers.hidden} processes do not show what they have open"
        unseen.append(Unseen("DESCRIPTORS_HIDDEN", words))
    return found, tuple(unseen)


def _internet(of: InternetSocket, openers: Openers) -> Entry:
    return Entry(
        protocol=of.protocol,
        state=STATES.get(of.state, str(of.state)),
        local=joined(of.local, of.local_port),
        peer=joined(of.peer, of.peer_port) if of.peer_port else "",
        receive_queue=of.received_bytes,
        send_queue=of.unsent_bytes,
        inode=of.inode,
        pids=openers.holding(f"socket:[{of.inode}]") if of.inode else (),
    )


def _unix(of: UnixSocket, others: dict[int, UnixSocket], openers: Openers) -> Entry:
    peer = others.get(of.peer)
    kind = UNIX_TYPES.get(of.type, str(of.type))
    return Entry(
        protocol=f"unix-{kind}",
        state=STATES.get(of.state, str(of.state)),
        local=of.path,
        peer=(peer.path or f"inode {peer.inode}") if peer else "",
        receive_queue=of.received,
        send_queue=of.sent,
        inode=of.inode,
        pids=openers.holding(f"socket:[{of.inode}]"),
    )
