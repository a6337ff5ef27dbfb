"""Packets that rules log, and the kernel's other witnesses of them: counters, packet sockets."""

from __future__ import annotations

import json
import socket
import subprocess
from collections.abc import Iterator
from typing import Any

from firewall_topology import Host

_OUTGOING = 4
#: How the hardware address begins of what hosts say of IPv6 by themselves.
MULTICAST = b"\x33\x33"


def load(host: Host, *rules: str, hook: str = "prerouting") -> None:
    """Give a host a table with these rules, each of them nft's words."""
    lines = [
        f"table inet t_{hook} {{",
        f"chain c {{ type filter hook {hook} priority -400",
        *rules,
        "}",
        "}",
    ]
    host.run(
        lambda: subprocess.run(
            ["/usr/sbin/nft", "-f", "-"], input="\n".join(lines), text=True, check=True
        )
    )


def counted(host: Host) -> int:
    """Answer how many packets the kernel's counter has counted."""
    entries = json.loads(host.exec("/usr/sbin/nft", "-j", "list", "ruleset"))["nftables"]
    terms = [t for e in entries if "rule" in e for t in e["rule"]["expr"]]
    return sum(t["counter"]["packets"] for t in terms if "counter" in t)


def send(count: int, port: int = 9, address: str = "127.0.0.1") -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        for _ in range(count):
            s.sendto(b"x", (address, port))


def sniffer(host: Host, link: str) -> socket.socket:
    """The kernel's other witness: a packet socket on the link, IP of both versions."""

    def opened() -> socket.socket:
        s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        s.bind((link, 3))
        s.settimeout(0.3)
        return s

    return host.run(opened)


def frames(s: socket.socket) -> Iterator[tuple[bytes, ...]]:
    """What came in: addresses of both layers, protocol, ports or type, length, flags."""
    while True:
        try:
            frame, origin = s.recvfrom(2000)
        except TimeoutError:
            return
        # Of what the hosts say by themselves, nothing: it comes when it likes.
        if origin[2] == _OUTGOING or frame[:2] == MULTICAST:
            continue
        v6 = frame[12:14] == b"\x86\xdd"
        if not v6 and frame[12:14] != b"\x08\0":
            continue
        source, upper = (22, 54) if v6 else (26, 14 + 4 * (frame[14] & 15))
        size, protocol = (16, frame[20]) if v6 else (4, frame[23])
        ports = frame[upper : upper + 4] if protocol in (6, 17) else b"\0\0\0" + frame[upper:][:1]
        yield (
            frame[:6], frame[6:12], frame[source : source + size],
            frame[source + size : source + 2 * size], bytes([protocol]), ports,
            (len(frame) - 14).to_bytes(4, "big"),
            frame[upper + 13 : upper + 14] if protocol == 6 else b"\0",
        )  # fmt: skip


def as_frame(p: dict[str, Any]) -> tuple[bytes, ...]:
    ports = p["source_port"].to_bytes(2, "big") + p["destination_port"].to_bytes(2, "big")
    return (
        p["destination_mac"], p["source_mac"], p["source"], p["destination"],
        bytes([p["protocol_number"]]), ports, p["length_bytes"].to_bytes(4, "big"),
        bytes([p["tcp_flags"]]),
    )  # fmt: skip
