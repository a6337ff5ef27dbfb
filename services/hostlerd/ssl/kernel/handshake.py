"""Handshakes with what this host serves: the chain that is shown, and what is agreed on."""

from __future__ import annotations

import socket
import ssl
import time
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

from hostlerd.ssl.model.inventory import Served

EACH_S, ALL_S = 5.0, 45.0
_AT_ONCE, _LINE_BYTES, _MOST_LINES = 16, 4096, 64
_SSL_REQUEST = bytes.fromhex("0000000804d2162f")
# LDAP: an extended request of the name 1.3.6.1.4.1.1466.20037. Source: RFC 4511, 4.14.
_LDAP_REQUEST = bytes.fromhex("301d02010177188016") + b"1.3.6.1.4.1.1466.20037"


class HandshakeFailed(Exception):
    """There was no handshake; the message says why."""


class Wire:
    """A connection with one deadline for all that is said on it."""

    def __init__(self, address: tuple[str, int], deadline: float) -> None:
        self.deadline = deadline
        self.socket = socket.create_connection(address, timeout=self._left())

    def _left(self) -> float:
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("the time is over")
        return left

    def say(self, data: bytes) -> None:
        """Send."""
        self.socket.settimeout(self._left())
        self.socket.sendall(data)

    def hear(self, size: int) -> bytes:
        """Receive so many bytes, which may come one by one."""
        heard = b""
        while len(heard) < size:
            self.socket.settimeout(self._left())
            part = self.socket.recv(size - len(heard))
            if not part:
                raise HandshakeFailed("ends the connection before TLS")
            heard += part
        return heard

    def line(self) -> bytes:
        """Receive a line."""
        heard = b""
        while not heard.endswith(b"\n"):
            heard += self.hear(1)
            if len(heard) > _LINE_BYTES:
                raise HandshakeFailed("sends a line that does not end")
        return heard


def _smtp(wire: Wire) -> None:
    _reply(wire, b"220")
    wire.say(b"EHLO hostler.invalid\r\n")
    _reply(wire, b"250")
    wire.say(b"STARTTLS\r\n")
    _reply(wire, b"220")


def _ftp(wire: Wire) -> None:
    _reply(wire, b"220")
    wire.say(b"AUTH TLS\r\n")
    _reply(wire, b"234")


def _reply(wire: Wire, code: bytes) -> None:
    for _ in range(_MOST_LINES):
        line = wire.line()
        if not line.startswith(code):
            raise HandshakeFailed(f"answers {line[:60].decode('ascii', 'replace').strip()!r}")
        if line[3:4] != b"-":
            return
    raise HandshakeFailed("answers without end")


def _imap(wire: Wire) -> None:
    wire.line()
    wire.say(b"a STARTTLS\r\n")
    for _ in range(_MOST_LINES):
        line = wire.line()
        if line.startswith(b"a "):
            if not line.startswith(b"a OK"):
                raise HandshakeFailed("refuses STARTTLS")
            return
    raise HandshakeFailed("answers without end")


def _pop3(wire: Wire) -> None:
    wire.line()
    wire.say(b"STLS\r\n")
    if not wire.line().startswith(b"+OK"):
        raise HandshakeFailed("refuses STLS")


def _postgres(wire: Wire) -> None:
    wire.say(_SSL_REQUEST)
    if wire.hear(1) != b"S":
        raise HandshakeFailed("refuses TLS")


def _ldap(wire: Wire) -> None:
    wire.say(_LDAP_REQUEST)
    head = wire.hear(2)
    rest = wire.hear(head[1] & 0x7F)
    if b"\x0a\x01\x00" not in rest:
        raise HandshakeFailed("refuses StartTLS")


_BEGIN: dict[str, Callable[[Wire], None]] = {
    **{"smtp": _smtp, "ftp": _ftp, "imap": _imap, "pop3": _pop3},
    **{"postgres": _postgres, "ldap": _ldap},
}


def handshake(listener: str, name: str, starttls: str, each_s: float = EACH_S) -> Served:
    """Shake hands with a socket of this host. Never raises; nothing is verified, only shown."""
    if starttls and starttls not in _BEGIN:
        return Served(problem=f"handshakes in {starttls} are not made")
    wire: Wire | None = None
    try:
        wire = Wire(address_of(listener), time.monotonic() + each_s)
        if starttls:
            _BEGIN[starttls](wire)
        wire.socket.settimeout(max(0.1, wire.deadline - time.monotonic()))
        with _context().wrap_socket(wire.socket, server_hostname=name or None) as secure:
            cipher = secure.cipher() or ("", "", 0)
            return Served(_chain(secure), f"{secure.version()} {cipher[0]}")
    except HandshakeFailed as e:
        return Served(problem=str(e))
    except ssl.SSLError as e:
        return Served(problem=f"no handshake: {e.reason or e}")
    except (OSError, ValueError) as e:
        return Served(
            problem=f"no handshake: {e.strerror if isinstance(e, OSError) and e.strerror else e}"
        )
    finally:
        if wire is not None:
            with suppress(OSError):
                wire.socket.close()


def address_of(listener: str) -> tuple[str, int]:
    """Where to connect to. Raises ValueError."""
    host, _, port = listener.rpartition(":")
    bare = host.strip("[]")
    return {"*": "127.0.0.1", "::": "::1"}.get(bare, bare), int(port)


def _context() -> ssl.SSLContext:
    """A client that takes whatever there is: what it thinks of it is said elsewhere."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with warnings.catch_warnings(), suppress(ssl.SSLError, ValueError):
        warnings.simplefilter("ignore")
        context.set_ciphers("ALL:@SECLEVEL=0")
        context.minimum_version = ssl.TLSVersion.TLSv1
    return context


def _chain(secure: ssl.SSLSocket) -> tuple[bytes, ...]:
    """What was sent, the leaf first. Python has no public name for it before 3.13."""
    inner: Any = getattr(secure, "_sslobj", None)
    sent = inner.get_unverified_chain() if hasattr(inner, "get_unverified_chain") else None
    if sent:
        # 2 stands for DER. Source: CPython, Modules/_ssl.c, ENCODING_DER.
        return tuple(bytes(each.public_bytes(2)) for each in sent)
    leaf = secure.getpeercert(binary_form=True)
    return (leaf,) if leaf else ()


def handshakes(wanted: Sequence[tuple[str, str, str]]) -> list[Served]:
    """Shake hands with many, each (listener, name, starttls), some at once, in their order."""
    until = time.monotonic() + ALL_S

    def one(each: tuple[str, str, str]) -> Served:
        left = until - time.monotonic()
        if left <= 0:
            return Served(problem="not tried: the time is over")
        return handshake(*each, each_s=min(EACH_S, left))

    with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="handshake") as pool:
        return list(pool.map(one, wanted))
