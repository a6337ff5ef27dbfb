"""Calls that send the most that they may of a message, and never its end: within flow control."""

from __future__ import annotations

import select
import ssl
import struct
import time
from typing import Any

import malformed_http2 as http2

_A_FRAME, _FIRST_WINDOW = 16_000, 65_535
_INITIAL_WINDOW = 4


class Half:
    """`count` calls on one connection, each with a message of `size_bytes` that stays unfinished.

    `sent_bytes` is what the other side has let come in of them.
    """

    def __init__(self, sock: ssl.SSLSocket, count: int, size_bytes: int) -> None:
        self.sent_bytes = 0
        self._sock, self._initial = sock, _FIRST_WINDOW
        sock.sendall(http2.START)
        sock.setblocking(False)
        streams = range(1, 1 + 2 * count, 2)
        self._window = {0: _FIRST_WINDOW, **dict.fromkeys(streams, _FIRST_WINDOW)}
        self._left = dict.fromkeys(streams, size_bytes - 100)
        self._heard = b""
        for stream in streams:
            head = struct.pack(">BI", 0, size_bytes)
            self._say(http2.opening(stream) + http2.frame(http2.DATA, 0, stream, head))
            self._spend(stream, len(head))

    def send(self, quiet_s: float, most_s: float) -> None:
        """Send until nothing more is let in for a while."""
        begun = last = time.monotonic()
        while time.monotonic() - last < quiet_s and time.monotonic() - begun < most_s:
            self._listen()
            for stream, left in self._left.items():
                more = min(left, self._window[stream], self._window[0], _A_FRAME)
                if more > 0:
                    self._say(http2.frame(http2.DATA, 0, stream, bytes(more)))
                    self._spend(stream, more)
                    self._left[stream] -= more
                    self.sent_bytes += more
                    last = time.monotonic()

    def _spend(self, stream: int, size: int) -> None:
        self._window[0] -= size
        self._window[stream] -= size

    def _say(self, data: bytes) -> None:
        while data:
            try:
                data = data[self._sock.send(data) :]
            except (ssl.SSLWantWriteError, ssl.SSLWantReadError):
                select.select([], [self._sock], [], 0.5)

    def _listen(self) -> None:
        select.select([self._sock], [], [], 0.02)
        while True:
            try:
                more = self._sock.recv(1 << 16)
            except ssl.SSLWantReadError:
                break
            assert more, "the daemon has ended the connection"
            self._heard += more
        while len(self._heard) >= 9:
            size = int.from_bytes(self._heard[:3], "big")
            if len(self._heard) < 9 + size:
                break
            kind, flags = self._heard[3], self._heard[4]
            stream = int.from_bytes(self._heard[5:9], "big")
            body, self._heard = self._heard[9 : 9 + size], self._heard[9 + size :]
            self._take(kind, flags, stream, body)

    def _take(self, kind: int, flags: int, stream: int, body: bytes) -> None:
        if kind == http2.WINDOW and stream in self._window:
            self._window[stream] += int.from_bytes(body, "big")
        elif kind == http2.SETTINGS and not flags:
            settings: dict[int, Any] = dict(struct.iter_unpack(">HI", body))
            grown = settings.get(_INITIAL_WINDOW, self._initial) - self._initial
            self._initial += grown
            for each in self._left:
                self._window[each] += grown
            self._say(http2.frame(http2.SETTINGS, 1))
        elif kind == http2.PING and not flags:
            self._say(http2.frame(http2.PING, 1, 0, body))
