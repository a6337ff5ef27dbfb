"""The kernel's end of the packet log: a netlink socket that reads an NFLOG group.

Source: include/uapi/linux/netfilter/nfnetlink_log.h, net/netfilter/nfnetlink_log.c, netlink(7).
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from pathlib import Path

from hostlerd.firewall.errors import PacketLogBusy, PacketLogUnavailable

_NETLINK_NETFILTER = 12
_CONFIG = 0x0401
_REQUEST, _ACK = 0x01, 0x04
_CFG_CMD, _CFG_MODE, _CFG_NLBUFSIZ, _CFG_TIMEOUT, _CFG_QTHRESH, _CFG_FLAGS = 1, 2, 3, 4, 5, 6
_CMD_BIND, _COPY_PACKET = 1, 2
_FLAG_SEQ, _FLAG_CONNTRACK = 1, 4
_SO_RCVBUFFORCE = 33

#: Packets of a datagram; rules say the same, and the smaller number counts.
THRESHOLD = 64
# With conntrack's attributes a packet takes about 450 bytes.
_NLBUFSIZ = 64 << 10
DATAGRAM_MOST = 256 << 10
# How long a packet waits for others, in hundredths of a second.
_TIMEOUT = 10
RCVBUF_BYTES = 32 << 20
_SOCKETS = Path("/proc/thread-self/net/netlink")
_SOCKETS_MOST_BYTES = 8 << 20


class Group:
    """A socket that reads a group, for as long as it is open.

    `rcvbuf_bytes` is what the kernel keeps for it while it does not read; `tells_states` whether
    the kernel hands over the states of connections. Raises PacketLogBusy if
    another program reads the group, PacketLogUnavailable.
    """

    def __init__(self, group: int, snaplen: int, rcvbuf_bytes: int = RCVBUF_BYTES) -> None:
        try:
            self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER)
        except OSError as e:
            raise PacketLogUnavailable(f"no netlink socket: {e.strerror}") from e
        self._may = False
        self.tells_states = True
        try:
            self._configure(group, snaplen, rcvbuf_bytes)
        except OSError as e:
            self._socket.close()
            if self._bound_by_another(e):
                raise PacketLogBusy(
                    f"another program reads NFLOG group {group}", group=group
                ) from e
            raise PacketLogUnavailable(
                f"NFLOG group {group} cannot be read: {e.strerror}", group=group
            ) from e
        self._buffer = bytearray(DATAGRAM_MOST)
        self._view = memoryview(self._buffer)

    def _configure(self, group: int, snaplen: int, rcvbuf_bytes: int) -> None:
        self._socket.settimeout(2.0)
        self._socket.bind((0, 0))
        self._port = self._socket.getsockname()[0]
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, rcvbuf_bytes)
        self._may = True
        self._ask(group, _CFG_CMD, struct.pack("B", _CMD_BIND))
        self._ask(group, _CFG_MODE, struct.pack("!IBB", snaplen, _COPY_PACKET, 0))
        self._ask(group, _CFG_NLBUFSIZ, struct.pack("!I", _NLBUFSIZ))
        self._ask(group, _CFG_QTHRESH, struct.pack("!I", THRESHOLD))
        self._ask(group, _CFG_TIMEOUT, struct.pack("!I", _TIMEOUT))
        try:
            self._ask(group, _CFG_FLAGS, struct.pack("!H", _FLAG_SEQ | _FLAG_CONNTRACK))
        except OSError:
            # A kernel without NETFILTER_NETLINK_GLUE_CT cannot tell the state.
            self.tells_states = False
            self._ask(group, _CFG_FLAGS, struct.pack("!H", _FLAG_SEQ))

    def _bound_by_another(self, e: OSError) -> bool:
        # The kernel says EPERM to whoever is not the group's reader, EBUSY if both come at once.
        # Who lacks the right has been told so by the socket option before.
        return self._may and e.errno in (errno.EPERM, errno.EBUSY)

    def _ask(self, group: int, kind: int, content: bytes) -> None:
        attribute = struct.pack("=HH", 4 + len(content), kind) + content
        attribute += bytes(-len(attribute) % 4)
        body = struct.pack("!BBH", socket.AF_UNSPEC, 0, group) + attribute
        head = struct.pack("=IHHII", 16 + len(body), _CONFIG, _REQUEST | _ACK, kind, 0)
        self._socket.send(head + body)
        while True:
            # Once bound, packets may come before the answer. They are lost to the log, which
            # begins when it is open; the kernel counts packets only from the last question on.
            answer = self._socket.recv(DATAGRAM_MOST)
            if len(answer) >= 20 and answer[4:6] == struct.pack("=H", 2):
                failed: int = -struct.unpack_from("=i", answer, 16)[0]
                if failed:
                    raise OSError(failed, os.strerror(failed))
                return

    def read(self, wait_s: float) -> memoryview | None:
        """Answer the next datagram, None if none comes. It is good until the next call.

        Raises BlockingIOError if the kernel had no room for others: then it drops all until none
        is left to be read.
        """
        self._socket.settimeout(wait_s)
        try:
            size = self._socket.recv_into(self._buffer)
        except TimeoutError:
            return None
        except OSError as e:
            if e.errno == errno.ENOBUFS:
                raise BlockingIOError(e.errno, e.strerror) from e
            raise
        return self._view[:size]

    @property
    def rcvbuf_bytes(self) -> int:
        """What the kernel keeps of datagrams that were not read, by its own count."""
        return self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)

    def drops(self) -> int:
        """Answer how many datagrams the kernel had no room for, in all. 0 if it does not say."""
        try:
            with _SOCKETS.open() as file:
                lines = file.read(_SOCKETS_MOST_BYTES).splitlines()
        except OSError:
            return 0
        wanted = [str(_NETLINK_NETFILTER), str(self._port)]
        for line in lines:
            columns = line.split()
            if len(columns) == 10 and columns[1:3] == wanted and columns[8].isdigit():
                return int(columns[8])
        return 0

    def close(self) -> None:
        """Leave the group to others."""
        self._socket.close()
