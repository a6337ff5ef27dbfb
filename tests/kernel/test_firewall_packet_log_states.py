"""What the packet log says of a connection, beside which of nft's own `ct state` rules matched."""

from __future__ import annotations

import gzip
import os
import socket
import struct
import subprocess
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from firewall_topology import Host, hosts

from hostler.core.packet_filter import by_key, compile_filter
from hostlerd.firewall.kernel.nflog import Group
from hostlerd.firewall.kernel.packet_log import PacketLog
from hostlerd.firewall.model.packet import NAMES, unpack
from hostlerd.firewall.model.packet_log import GROUP, SNAPLEN_BYTES, statement

pytestmark = pytest.mark.kernel

WITHIN_S = 20.0
# Of a packet that belongs to no connection the kernel hands over no state at all.
TOLD = {"new": 3, "established": 1, "related": 2, "invalid": 0, "untracked": 0}
OPEN, CLOSED, UNTRACKED, ODD = 9, 10, 11, 12
RULES = "\n".join(
    [
        "table ip states {",
        "chain raw { type filter hook output priority raw",
        f"udp dport {UNTRACKED} notrack",
        "}",
        "chain in { type filter hook input priority 0",
        *(f"ct state {state} {statement(f'state/{state}', 'accept')}" for state in TOLD),
        "}",
        "}",
    ]
)


def built_to_tell() -> bool:
    """Whether the kernel was built to hand states to the log, by what it was built from."""
    built = Path("/proc/config.gz")
    if built.exists():
        text = gzip.decompress(built.read_bytes()).decode()
    else:
        text = Path(f"/boot/config-{os.uname().release}").read_text()
    return "CONFIG_NETFILTER_NETLINK_GLUE_CT=y" in text


def talk() -> None:
    """Send packets of all states over lo."""
    with (
        closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as server,
        closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as client,
        closing(socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP)) as raw,
    ):
        server.bind(("127.0.0.1", OPEN))
        server.settimeout(5)
        client.sendto(b"new", ("127.0.0.1", OPEN))
        server.sendto(b"established", server.recvfrom(100)[1])
        for port in (CLOSED, UNTRACKED):
            client.sendto(b"x", ("127.0.0.1", port))
        # Neither opens a connection nor belongs to one: SYN and FIN at once.
        odd = struct.pack("!HHIIBBHHH", ODD, ODD, 1, 0, 0x50, 0x03, 512, 0, 0)
        raw.sendto(odd, ("127.0.0.1", 0))


def tells_states() -> bool:
    """Answer what the daemon finds out about the kernel."""
    group = Group(GROUP, SNAPLEN_BYTES)
    group.close()
    return group.tells_states


def logged(host: Host) -> list[dict[str, Any]]:
    """Answer what is logged meanwhile, once a packet of each rule is there."""
    log = PacketLog()
    host.run(log.open)
    try:
        reader = log.state()[0]
        assert reader is not None
        host.run(talk)
        end = time.monotonic() + WITHIN_S
        while True:
            taken = reader.ring.take(0, 100)
            found = [
                dict(zip(NAMES, unpack(o, p), strict=True))
                for o, p in zip(taken.origins, taken.packed, strict=True)
            ]
            if {p["rule"] for p in found} >= {f"state/{s}" for s in TOLD}:
                return found
            assert time.monotonic() < end, f"only {found}"
            time.sleep(0.02)
    finally:
        log.close()


def test_states_are_those_that_nft_matched() -> None:
    with hosts("states") as names:
        host = Host(names[0])
        host.run(
            lambda: subprocess.run(["/usr/sbin/nft", "-f", "-"], input=RULES, text=True, check=True)
        )
        found = logged(host)
        tells = built_to_tell()
        assert host.run(tells_states) == tells
    for p in found:
        expected = TOLD[p["rule"].removeprefix("state/")] if tells else 0
        assert p["connection_state"] == expected, p
    passes = compile_filter("state in (established, related)", by_key)
    passed = {p["rule"] for p in found if passes(p)}
    assert passed == ({"state/established", "state/related"} if tells else set())
