"""Connections to one endpoint, all of them bounded: how many, how long, how many bytes."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

from hostler.core.ssl.scan.errors import (
    ClosedEarly,
    GivenUp,
    NotTls,
    TimedOut,
    TooMuch,
    Unreachable,
)

_LEAST_QUIET_S, _PATIENCE = 0.2, 4
_MOST_AT_ONCE = 16 * 1024
# What a family of addresses wants to connect to, and the family beside it.
Address = tuple[Any, ...]
Found = tuple[int, Address]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """What is scanned. `name` is sent as server name, none if it is empty."""

    host: str
    port: int = 443
    name: str = ""
    starttls: str = ""

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Limits:
    """What a scan may cost an endpoint, and may wait for.

    `quiet_s` is the longest that a peer is listened to that may rightly have nothing to say.
    `most_timeouts` conversations may time out before the endpoint is given up.
    """

    at_once: int = 8
    connect_s: float = 5.0
    conversation_s: float = 5.0
    quiet_s: float = 1.0
    scan_s: float = 120.0
    bytes_each: int = 256 * 1024
    in_all: int = 1500
    most_timeouts: int = 12


@dataclass(slots=True)
class Spent:
    """What a scan has cost so far."""

    connections: int = 0
    bytes_read: int = 0
    timeouts: int = 0


class Channel:
    """One connection. Every reading and writing raises a ScanError when it goes wrong.

    It is a socket and no transport of asyncio's, which would take two thirds of the work of a scan:
    most connections are there for one answer. What came before a connection was reset can still be
    read: a server that refuses often does not read what it was sent meanwhile.
    """

    def __init__(self, connection: socket.socket, limits: Limits, spent: Spent) -> None:
        self.limits = limits
        self._connection = connection
        self._fd = connection.fileno()
        self._loop = asyncio.get_running_loop()
        self._spent = spent
        self._left = limits.bytes_each
        self._buffer = bytearray()
        self._unsent = b""
        self._ended = ""
        self._written = 0.0
        self._taken_s = 0.0

    def begin(self, address: Address) -> bool:
        """Begin to connect; answers whether that is all. Raises OSError."""
        number = self._connection.connect_ex(address)
        if number == errno.EINPROGRESS:
            return self._is_connected()
        _check(number)
        return True

    async def connected(self) -> None:
        """Wait until it is connected. Raises OSError."""
        await self._wait(self._loop.add_writer, self._loop.remove_writer)
        _check(self._connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))

    @property
    def quiet_s(self) -> float:
        """How long to listen to a peer that may have nothing to say: it has been quicker so far."""
        return min(self.limits.quiet_s, max(_LEAST_QUIET_S, _PATIENCE * self._taken_s))

    async def write(self, data: bytes) -> None:
        """Write all of it. What a peer no longer takes is lost; reading tells."""
        if self._ended:
            raise ClosedEarly(self._ended)
        self._written = time.monotonic()
        is_under_way = bool(self._unsent)
        self._unsent += data
        if not is_under_way:
            self._send()
            if self._unsent:
                self._loop.add_writer(self._fd, self._send_rest)

    def take(self, size_bytes: int) -> bytes:
        """So many bytes if they are there already, else nothing: most of a flight comes at once."""
        if len(self._buffer) < size_bytes:
            return b""
        self._count(size_bytes)
        self._taken_s = max(self._taken_s, time.monotonic() - self._written)
        return self._take(size_bytes)

    async def read(self, size_bytes: int) -> bytes:
        """Read exactly so many bytes."""
        self._count(size_bytes)
        while len(self._buffer) < size_bytes:
            if self._ended:
                got = len(self._buffer)
                raise ClosedEarly(
                    f"{self._ended} after {got} of {size_bytes} bytes" if got else self._ended
                )
            await self._receive()
        self._taken_s = max(self._taken_s, time.monotonic() - self._written)
        return self._take(size_bytes)

    async def read_some(self, most_bytes: int) -> bytes:
        """Read what is there, at least a byte; nothing at the end."""
        while not self._buffer and not self._ended:
            await self._receive()
        data = self._take(min(most_bytes, len(self._buffer)))
        self._count(len(data))
        return data

    async def read_line(self, most_bytes: int = 2048) -> bytes:
        """Read a line with its end."""
        while (end := self._buffer.find(b"\n")) < 0:
            if len(self._buffer) > most_bytes:
                raise NotTls(f"a line of more than {most_bytes} bytes")
            if self._ended:
                raise ClosedEarly(self._ended)
            await self._receive()
        self._count(end + 1)
        return self._take(end + 1)

    def close(self) -> None:
        """End the connection; what the peer has not taken yet is lost."""
        if self._unsent:
            self._loop.remove_writer(self._fd)
        self._connection.close()

    def _is_connected(self) -> bool:
        """Whether there is a peer already, as this machine itself is at once."""
        try:
            self._connection.getpeername()
        except OSError:
            return False
        return True

    def _take(self, size_bytes: int) -> bytes:
        data = bytes(self._buffer[:size_bytes])
        del self._buffer[:size_bytes]
        return data

    async def _receive(self) -> None:
        """Wait until there is more, or the end."""
        await self._wait(self._loop.add_reader, self._loop.remove_reader)
        try:
            data = self._connection.recv(_MOST_AT_ONCE)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._ended = f"closed by the peer: {_why(error)}"
            return
        self._buffer += data
        if not data:
            self._ended = "closed by the peer"

    async def _wait(self, begin: Callable[..., object], end: Callable[..., object]) -> None:
        """Wait until the socket can be read or written."""
        waiter = self._loop.create_future()
        begin(self._fd, _wake, waiter)
        try:
            await waiter
        finally:
            end(self._fd)

    def _send(self) -> None:
        try:
            sent = self._connection.send(self._unsent)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            sent = len(self._unsent)
        self._unsent = self._unsent[sent:]

    def _send_rest(self) -> None:
        """Called by the loop as soon as the peer takes more."""
        self._send()
        if not self._unsent:
            self._loop.remove_writer(self._fd)

    def _count(self, size_bytes: int) -> None:
        self._left -= size_bytes
        self._spent.bytes_read += size_bytes
        if self._left < 0:
            raise TooMuch("more bytes than a conversation may have")


class Dialer:
    """Opens connections to an endpoint within the limits of its scan.

    An address is looked up once, so that all conversations are with the same server. `shared` is
    what all scans of a run have to go through: time that is spent waiting there is no peer's.
    """

    def __init__(
        self, endpoint: Endpoint, limits: Limits, shared: asyncio.Semaphore | None = None
    ) -> None:
        self.endpoint = endpoint
        self.limits = limits
        self._shared = shared or nullcontext()
        self.spent = Spent()
        self.address = ""
        self._found: Found | None = None
        self._slots = asyncio.Semaphore(limits.at_once)
        self._finding = asyncio.Lock()
        self._until = time.monotonic() + limits.scan_s

    @asynccontextmanager
    async def open(self, extra_s: float = 0.0) -> AsyncIterator[Channel]:
        """A connection, gone over to TLS if the endpoint wants that. Raises ScanError.

        The whole conversation has the time that the limits give it, and `extra_s` more.
        """
        from hostler.core.ssl.scan.starttls import go_over

        async with self._slots, self._shared:
            self._check()
            family, address = await self._find()
            self.spent.connections += 1
            channel = self._channel(family)
            try:
                await self._connect(channel, address)
                async with asyncio.timeout(self.limits.conversation_s + extra_s):
                    if self.endpoint.starttls:
                        await go_over(channel, self.endpoint)
                    yield channel
            except TimeoutError as error:
                self.spent.timeouts += 1
                raise TimedOut(
                    f"no answer within {self.limits.conversation_s + extra_s:g} s"
                ) from error
            finally:
                channel.close()

    def _check(self) -> None:
        if time.monotonic() > self._until:
            raise GivenUp(f"the scan has taken more than {self.limits.scan_s:g} s")
        if self.spent.connections >= self.limits.in_all:
            raise GivenUp(f"the scan has made {self.limits.in_all} connections")
        if self.spent.timeouts >= self.limits.most_timeouts:
            raise GivenUp(f"{self.spent.timeouts} conversations were left unanswered")

    async def _find(self) -> Found:
        async with self._finding:
            if self._found is None:
                self._found = _of_number(self.endpoint) or await self._look_up()
                self.address = str(self._found[1][0])
        return self._found

    async def _look_up(self) -> Found:
        loop = asyncio.get_running_loop()
        host, port = self.endpoint.host, self.endpoint.port
        try:
            async with asyncio.timeout(self.limits.connect_s):
                found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except TimeoutError as error:
            raise Unreachable("the name is not resolved in time") from error
        except (OSError, UnicodeError) as error:
            raise Unreachable(f"the name is not resolved: {_why(error)}") from error
        return found[0][0], found[0][4]

    def _channel(self, family: int) -> Channel:
        try:
            connection = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        except OSError as error:
            raise Unreachable(_why(error)) from error
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return Channel(connection, self.limits, self.spent)

    async def _connect(self, channel: Channel, address: Address) -> None:
        try:
            if not channel.begin(address):
                async with asyncio.timeout(self.limits.connect_s):
                    await channel.connected()
        except TimeoutError as error:
            self.spent.timeouts += 1
            raise Unreachable(f"no connection within {self.limits.connect_s:g} s") from error
        except OSError as error:
            raise Unreachable(_why(error)) from error


def _of_number(endpoint: Endpoint) -> Found | None:
    """What an address that is written as one means; None for a name."""
    try:
        found = socket.getaddrinfo(
            endpoint.host, endpoint.port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST
        )
    except (OSError, UnicodeError):
        return None
    return found[0][0], found[0][4]


def _wake(waiter: asyncio.Future[None]) -> None:
    # The loop may come by again before the one who waits has run.
    if not waiter.done():
        waiter.set_result(None)


def _check(number: int) -> None:
    if number:
        raise OSError(number, os.strerror(number))


def _why(error: Exception) -> str:
    number = getattr(error, "errno", None)
    if isinstance(number, int) and number > 0:
        return os.strerror(number)
    return str(getattr(error, "strerror", None) or error or type(error).__name__)
