"""Audit records as syslog messages. Source: RFC 5424; frames over TCP: RFC 6587, 3.4.1."""

from __future__ import annotations

import errno
import fcntl
import select
import socket
import struct
import termios
import time
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import SplitResult

from hostler.core.audit import Record

_TIMEOUT_S = 10.0
_SETTLE_S = 2.0
# A syslog server has nothing to say.
_TRASH_BYTES = 4096
_LOG_AUDIT = 13  # The facility; see RFC 5424, 6.2.1.
_NOTICE, _WARNING = 5, 4
# The number that RFC 5612 sets aside for documents; no enterprise has it.
_SD_ID = "hostler@32473"
_MOST_DATAGRAM_BYTES = 60_000
_FIELDS = ("kind", "identity", "method", "status", "reason", "run", "hash")


@dataclass(frozen=True, slots=True)
class Source:
    """Where records come from, as messages name it."""

    hostname: str
    domain: str


def message(record: Record, line: bytes, source: Source, most_bytes: int = 0) -> bytes:
    """Make the message of a record: its line is the text; what to filter by is structured data."""
    bad = record.get("status", "OK") not in ("OK", "") or record.get("kind") == "degraded"
    priority = _LOG_AUDIT * 8 + (_WARNING if bad else _NOTICE)
    told = {"seq": record["seq"], "domain": source.domain}
    told |= {name: value for name in _FIELDS if (value := record.get(name))}
    data = " ".join(f'{name}="{_escaped(value)}"' for name, value in told.items())
    kind = _word(record.get("kind") or "-")
    head = f"<{priority}>1 {record.get('time', '-')} {_word(source.hostname)}"
    head += f" hostler-{source.domain} - {kind[:32]} [{_SD_ID} {data}] "
    text = line.rstrip(b"\n")
    room = most_bytes - len(head.encode())
    if most_bytes and len(text) > room:
        text = b"(too long for a datagram; the host has it)"
    return head.encode() + text


def _escaped(value: object) -> str:
    text = str(value)[:1024].replace("\\", "\\\\")
    return text.replace('"', '\\"').replace("]", "\\]").replace("\n", " ")


def _word(value: object) -> str:
    return "".join(c for c in str(value)[:255] if "!" <= c <= "~") or "-"


class Syslog:
    """A connection to a syslog server, opened when there is something to send."""

    def __init__(self, url: SplitResult, source: Source) -> None:
        self._way = url.scheme.removeprefix("syslog+")
        self._place = (url.hostname or "", url.port or 514)
        self._path = url.path
        self._source = source
        self._socket: socket.socket | None = None

    def send(self, records: Sequence[tuple[Record, bytes]]) -> None:
        """Send records. Returns when the other side's kernel has them all. Raises OSError.

        Nobody acknowledges a datagram: over UDP and a local socket, sent is all that is known.
        """
        sock = self._socket or self._open()
        if self._way == "tcp":
            made = (message(record, line, self._source) for record, line in records)
            sock.sendall(b"".join(b"%d %s" % (len(each), each) for each in made))
            _wait_for_acknowledgement(sock)
            return
        for record, line in records:
            sock.send(message(record, line, self._source, _MOST_DATAGRAM_BYTES))

    @property
    def settle_s(self) -> float:
        """A kernel that has acknowledged is no server that has read: it may go before it does."""
        return _SETTLE_S if self._way == "tcp" else 0.0

    def check(self) -> None:
        """Raise OSError if the server has hung up."""
        if self._socket is None or self._way != "tcp":
            return
        readable, _, _ = select.select([self._socket], [], [], 0)
        if readable and self._socket.recv(_TRASH_BYTES) == b"":
            raise OSError(errno.ECONNRESET, "the syslog server has hung up")

    def close(self) -> None:
        """Close the connection; the next `send` opens another."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _open(self) -> socket.socket:
        if self._way == "tcp":
            sock = socket.create_connection(self._place, _TIMEOUT_S)
        elif self._way == "udp":
            found = socket.getaddrinfo(*self._place, type=socket.SOCK_DGRAM)
            family, kind, protocol, _, address = found[0]
            sock = socket.socket(family, kind, protocol)
            sock.connect(address)
        else:
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            sock.connect(self._path)
        sock.settimeout(_TIMEOUT_S)
        self._socket = sock
        return sock


def _wait_for_acknowledgement(sock: socket.socket) -> None:
    """Wait until nothing that was sent is unacknowledged. Raises OSError."""
    end = time.monotonic() + _TIMEOUT_S
    while True:
        (left,) = struct.unpack("i", fcntl.ioctl(sock, termios.TIOCOUTQ, bytes(4)))
        if left == 0:
            return
        if time.monotonic() > end:
            raise OSError(errno.ETIMEDOUT, "the syslog server acknowledges nothing")
        time.sleep(0.005)
