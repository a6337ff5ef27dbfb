"""The certificates that a TLS server sends, in its order, whatever they are worth.

The standard library's handshake, without any verification: these bytes are to be judged, and are
trusted with nothing. One deadline holds for all of it.
"""

from __future__ import annotations

import socket
import ssl
import time
from typing import Any

from hostler.core.ssl.lookup import HostNotFound, addresses, connected

_MAX_BYTES = 1 << 20
_MOST_ADDRESSES = 4


class HandshakeFailed(Exception):
    """A server that cannot be reached, speaks no TLS, or sends no certificate."""


def served_chain(host: str, port: int, server_name: str, within_s: float) -> list[bytes]:
    """Answer what a server sends for a name, in DER. Raises HandshakeFailed, at the latest then.

    An address as `server_name` is not sent, as RFC 6066, 3 has it.
    """
    ends_at = time.monotonic() + within_s
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    try:
        tls = _context().wrap_bio(incoming, outgoing, server_hostname=server_name)
        with _connected(host, port, ends_at) as sock:
            _shake(tls, sock, incoming, outgoing, ends_at)
    except TimeoutError:
        raise HandshakeFailed(f"{host}:{port} did not answer in {within_s:g} s") from None
    except ssl.SSLError as error:
        raise HandshakeFailed(f"{host}:{port}: {error.reason or error}") from error
    except (HostNotFound, OSError, ValueError) as error:
        raise HandshakeFailed(f"{host}:{port}: {error}") from error
    found = _sent(tls)
    if not found:
        raise HandshakeFailed(f"{host}:{port} sends no certificate")
    return found


def _connected(host: str, port: int, ends_at: float) -> socket.socket:
    """Connect to the first address that answers. Raises HostNotFound, TimeoutError, OSError."""
    failure = OSError("no address")
    for address in addresses(host, port, ends_at)[:_MOST_ADDRESSES]:
        try:
            return connected(address, _left(ends_at))
        except TimeoutError:
            raise
        except OSError as error:
            failure = error
    raise failure


def _context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    # Old servers have certificates as well.
    context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    context.set_ciphers("ALL:@SECLEVEL=0")
    return context


def _shake(
    tls: ssl.SSLObject,
    sock: socket.socket,
    incoming: ssl.MemoryBIO,
    outgoing: ssl.MemoryBIO,
    ends_at: float,
) -> None:
    """Carry bytes to and fro until the handshake is done. Raises TimeoutError, OSError."""
    received = 0
    while True:
        done = False
        try:
            tls.do_handshake()
            done = True
        except ssl.SSLWantReadError:
            pass
        if pending := outgoing.read():
            sock.settimeout(_left(ends_at))
            sock.sendall(pending)
        if done:
            return
        sock.settimeout(_left(ends_at))
        data = sock.recv(64 << 10)
        received += len(data)
        if not data:
            raise ValueError("ends the connection in the handshake")
        if received > _MAX_BYTES:
            raise ValueError(f"sends more than {_MAX_BYTES} bytes in the handshake")
        incoming.write(data)


def _sent(tls: ssl.SSLObject) -> list[bytes]:
    # Public from Python 3.13 on, and in the C object before.
    inner: Any = tls
    if not hasattr(inner, "get_unverified_chain"):
        inner = inner._sslobj
    sent = inner.get_unverified_chain() or []
    return [one if isinstance(one, bytes) else ssl.PEM_cert_to_DER_cert(_pem(one)) for one in sent]


def _pem(certificate: Any) -> str:
    return str(certificate.public_bytes())


def _left(ends_at: float) -> float:
    left_s = ends_at - time.monotonic()
    if left_s <= 0:
        raise TimeoutError
    return left_s
