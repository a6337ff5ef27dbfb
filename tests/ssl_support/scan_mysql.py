"""A server that speaks MySQL by hand as far as TLS, and then TLS by the standard library."""

from __future__ import annotations

import socket
import socketserver
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from ssl_pki import Pki

# Protocol 10, version, connection id, salt, a zero, capabilities with SSL, and the rest.
_BEGIN = b"\x0a8.0.36\0" + bytes(4) + b"saltsalt\0" + b"\xff\xff" + b"\x21\2\0\xff\xdf\x15"
GREETING = _BEGIN + bytes(10) + b"moresaltmore\0mysql_native_password\0"


def packet(number: int, body: bytes) -> bytes:
    return len(body).to_bytes(3, "little") + bytes((number,)) + body


@contextmanager
def mysql(pki: Pki) -> Iterator[int]:
    """A server that greets as MySQL does, and goes over to TLS when it is asked to."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pki["rsa.pem"], pki["rsa.key"])

    class Talk(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.settimeout(60)
            self.request.sendall(packet(0, GREETING))
            with suppress(OSError):
                asked = self.request.recv(36, socket.MSG_WAITALL)
                # Source: MySQL's Protocol::SSLRequest, 32 bytes with CLIENT_SSL set.
                if asked[:4] == b"\x20\0\0\1" and asked[5] & 0x08:
                    with context.wrap_socket(self.request, server_side=True) as tls:
                        tls.recv(1)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Talk) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server.server_address[1]
        server.shutdown()
