"""Which processes serve a block device of the network. Source: sysfs of drivers/block/nbd.c."""

from __future__ import annotations

from hostlerd.tracing.kernel import proc
from hostlerd.tracing.kernel.peers import Peers

_MOST_DESCRIPTORS = 200


def of_device(numbers: str, peers: Peers) -> tuple[int, ...]:
    """Who serves a block device, by its numbers: nbd's, who handed its socket to the kernel.

    And who of this host is at the other end of that. None for other devices, and where the one
    has ended as nbd-client(8) does by default: then the socket is nobody's but the kernel's.
    """
    folder = f"/sys/dev/block/{numbers}"
    # A partition has it in the folder above.
    told = proc.text(f"{folder}/pid") or proc.text(f"{folder}/../pid")
    pid = int(told) if told.strip().isdigit() else 0
    if not proc.link(f"/proc/{pid}/exe"):
        return ()
    found = [pid]
    for fd in proc.numbers(f"/proc/{pid}/fd")[:_MOST_DESCRIPTORS]:
        name = proc.link(f"/proc/{pid}/fd/{fd}")
        if name.startswith("socket:[") and (peer := peers.of(pid, name)):
            found += peer.pids
    return tuple(dict.fromkeys(found))
