"""Reads the counters of links inside a namespace or on the host."""

from __future__ import annotations

import array
import fcntl
import os
import socket
import struct

from hostlerd.netns.errors import NamespaceNotFound
from hostlerd.netns.kernel import handles
from hostlerd.netns.kernel.rtnetlink import RTM_GETLINK, RouteSocket, attributes, number, text
from hostlerd.netns.kernel.syscalls import in_namespace
from hostlerd.netns.model.counter import LinkCounters

_IFLA_IFNAME, _IFLA_MTU, _IFLA_STATS64 = 3, 4, 23
_LINK = struct.Struct("=BxHiII")
_STATS64 = struct.Struct("=8Q")
_ARPHRD_ETHER, _ARPHRD_LOOPBACK = 1, 772
_SIOCETHTOOL, _ETHTOOL_GSET = 0x8946, 1
_ETHTOOL_CMD_BYTES = 44
_SPEED_UNKNOWN = 0xFFFFFFFF


def read_counters(namespace: str) -> tuple[LinkCounters, ...]:
    """Read the counters of all links of a namespace, of the host if it is empty.

    Raises NamespaceNotFound. Source: rtnetlink(7), struct rtnl_link_stats64.
    """
    if not namespace:
        return _read()
    try:
        if not handles.inode(namespace):
            raise FileNotFoundError(namespace)
        fd = handles.open_handle(namespace)
    except FileNotFoundError as e:
        raise NamespaceNotFound(f"there is no network namespace {namespace}", name=namespace) from e
    try:
        return in_namespace(fd, _read)
    finally:
        os.close(fd)


def _read() -> tuple[LinkCounters, ...]:
    # Every socket takes this ioctl, and the daemon's sandbox allows no AF_INET.
    with RouteSocket() as sock, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ethtool:
        return tuple(
            _counters(message, ethtool)
            for message in sock.dump(RTM_GETLINK, _LINK.pack(0, 0, 0, 0, 0))
        )


def _counters(message: bytes, ethtool: socket.socket) -> LinkCounters:
    view = memoryview(message)
    _, hardware, _, _, _ = _LINK.unpack_from(view)
    attrs = dict(attributes(view[_LINK.size :]))
    ifname = text(attrs[_IFLA_IFNAME])
    stats = _STATS64.unpack_from(attrs[_IFLA_STATS64])
    framed = hardware in (_ARPHRD_ETHER, _ARPHRD_LOOPBACK)
    return LinkCounters(
        ifname=ifname,
        layer="L2 frame without FCS" if framed else "L3 packet",
        mtu_bytes=number(attrs[_IFLA_MTU]),
        speed_bits_per_second=_speed(ethtool, ifname),
        rx_packets=stats[0],
        tx_packets=stats[1],
        rx_bytes=stats[2],
        tx_bytes=stats[3],
        rx_errors=stats[4],
        tx_errors=stats[5],
        rx_dropped=stats[6],
        tx_dropped=stats[7],
    )


def _speed(sock: socket.socket, ifname: str) -> int:
    """Ask the driver for the link's speed in bits per second; 0 if it has none.

    Source: linux/ethtool.h, struct ethtool_cmd. sysfs would show the host's links only.
    """
    command = array.array("B", struct.pack("=I", _ETHTOOL_GSET).ljust(_ETHTOOL_CMD_BYTES, b"\0"))
    address, _ = command.buffer_info()
    request = struct.pack("16sP16x", ifname.encode(), address)
    try:
        fcntl.ioctl(sock.fileno(), _SIOCETHTOOL, request)
    except OSError:
        return 0
    low, high = struct.unpack_from("=H", command, 12)[0], struct.unpack_from("=H", command, 28)[0]
    megabits = low | high << 16
    return 0 if megabits in (0, 0xFFFF, _SPEED_UNKNOWN) else megabits * 1_000_000
