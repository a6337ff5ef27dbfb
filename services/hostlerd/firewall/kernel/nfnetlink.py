"""Netlink to netfilter: one socket, messages out, answers in. Nothing here knows what they mean.

Source: linux/netlink.h, linux/netfilter/nfnetlink.h.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator, Sequence

NLM_F_REQUEST, NLM_F_ACK, NLM_F_DUMP = 0x1, 0x4, 0x300
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_NETLINK_NETFILTER = 12
_SOL_NETLINK, _NETLINK_CAP_ACK = 270, 10
_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
_ERROR = struct.Struct("=i")
_TYPE_MASK = 0x3FFF
_RECEIVE_BYTES = 64 << 10
_TIMEOUT_S = 30.0


class NetfilterSocket:
    """A netlink socket. It belongs to the network namespace of the thread that opens it."""

    def __init__(self) -> None:
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC
        self._socket = socket.socket(socket.AF_NETLINK, kind, _NETLINK_NETFILTER)
        self._socket.settimeout(_TIMEOUT_S)
        self._socket.setsockopt(_SOL_NETLINK, _NETLINK_CAP_ACK, 1)
        self._socket.bind((0, 0))
        self._seq = 0

    def __enter__(self) -> NetfilterSocket:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def dump(self, kind: int, body: bytes) -> Iterator[list[memoryview]]:
        """Ask for all things of a kind; answer them as they come, a datagram's worth at a time.

        The kernel makes the next ones when these are taken: memory is bounded, however many there
        are. Messages are without the netlink header. Raises OSError.
        """
        (seq,) = self._send([(kind, NLM_F_REQUEST | NLM_F_DUMP, body)])
        while True:
            found: list[memoryview] = []
            for answered, got, payload in self._receive():
                if answered != seq:
                    continue
                if got == _NLMSG_ERROR:
                    _raise_error(payload)
                if got in (_NLMSG_ERROR, _NLMSG_DONE):
                    yield found
                    return
                found.append(payload)
            yield found

    def ask(self, kind: int, body: bytes) -> memoryview:
        """Ask for one thing; answer its message. Raises OSError."""
        (seq,) = self._send([(kind, NLM_F_REQUEST, body)])
        while True:
            for answered, got, payload in self._receive():
                if answered != seq:
                    continue
                if got == _NLMSG_ERROR:
                    _raise_error(payload)
                return payload

    def change(self, kind: int, bodies: Sequence[bytes]) -> list[int]:
        """Send changes at once, a few dozen at the most; answer the errno of each, 0 for done."""
        flags = NLM_F_REQUEST | NLM_F_ACK
        waiting = {seq: 0 for seq in self._send([(kind, flags, body) for body in bodies])}
        results = dict(waiting)
        while waiting:
            for answered, got, payload in self._receive():
                if got == _NLMSG_ERROR and waiting.pop(answered, None) is not None:
                    results[answered] = _errno(payload)
        return list(results.values())

    def _send(self, messages: Sequence[tuple[int, int, bytes]]) -> list[int]:
        sent, seqs = b"", []
        for kind, flags, body in messages:
            self._seq += 1
            seqs.append(self._seq)
            sent += _HEADER.pack(_HEADER.size + len(body), kind, flags, self._seq, 0) + body
        self._socket.sendto(sent, (0, 0))
        return seqs

    def _receive(self) -> Iterator[tuple[int, int, memoryview]]:
        return messages(self._socket.recv(_RECEIVE_BYTES))


def messages(datagram: bytes) -> Iterator[tuple[int, int, memoryview]]:
    """Answer sequence number, kind and payload of each whole message of a datagram."""
    view, at, size = memoryview(datagram), 0, len(datagram)
    while at + _HEADER.size <= size:
        length, kind, _, seq, _ = _HEADER.unpack_from(view, at)
        if length < _HEADER.size or at + length > size:
            return
        yield seq, kind, view[at + _HEADER.size : at + length]
        at += (length + 3) & ~3


def attributes(data: memoryview) -> dict[int, memoryview]:
    """Answer the attributes of a message or of a nest; the first one cut short ends them."""
    found: dict[int, memoryview] = {}
    at, size = 0, len(data)
    while at + 4 <= size:
        length, kind = _ATTRIBUTE.unpack_from(data, at)
        if length < 4 or at + length > size:
            break
        found[kind & _TYPE_MASK] = data[at + 4 : at + length]
        at += (length + 3) & ~3
    return found


def attribute(kind: int, value: bytes | memoryview, *, nested: bool = False) -> bytes:
    """Answer an attribute, padded."""
    size = 4 + len(value)
    head = _ATTRIBUTE.pack(size, kind | (0x8000 if nested else 0))
    return head + bytes(value) + b"\0" * (-size % 4)


def _errno(payload: memoryview) -> int:
    return -int(_ERROR.unpack_from(payload)[0]) if len(payload) >= 4 else 0


def _raise_error(payload: memoryview) -> None:
    error = _errno(payload)
    if error:
        raise OSError(error, os.strerror(error))
