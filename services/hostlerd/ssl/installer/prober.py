"""Looks at what listeners serve: `prober.py`, targets as JSON on standard input, answers out.

It talks to the network, so it is a process of its own, without root's uid, capabilities or a
descriptor of the installer's; it sees no key. Standard library only.
"""

from __future__ import annotations

import base64
import json
import socket
import ssl
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

from hostlerd.ssl.installer.starttls import DIALOGUES, NotAnswered

MAX_CHAIN = 16
AT_ONCE = 16


def look(target: dict[str, Any], timeout_s: float) -> dict[str, Any]:
    """Make one handshake; answer the certificates in DER, leaf first, or the problem."""
    # What is served is compared byte by byte with what was installed; nobody is trusted here.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_ciphers("ALL:@SECLEVEL=0")
    try:
        address = (target["address"], target["port"])
        with socket.create_connection(address, timeout_s) as connection:
            connection.settimeout(timeout_s)
            # A timeout of the socket begins anew with each byte; this one does not.
            over = threading.Timer(timeout_s, _end, (connection.dup(),))
            over.daemon = True
            over.start()
            try:
                return {"certificates": _served(connection, context, target)}
            finally:
                over.cancel()
    except (OSError, NotAnswered) as e:
        return {"problem": str(e)[:200] or type(e).__name__}


def _served(
    connection: socket.socket, context: ssl.SSLContext, target: dict[str, Any]
) -> list[str]:
    if target["starttls"]:
        DIALOGUES[target["starttls"]](connection, target["sni"])
    with context.wrap_socket(connection, server_hostname=target["sni"] or None) as tls:
        return [base64.b64encode(each).decode() for each in _chain(tls)]


def _end(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


def _chain(tls: ssl.SSLSocket) -> list[bytes]:
    """All that the server sent. The method is public from Python 3.13 on."""
    if hasattr(tls, "get_unverified_chain"):
        return list(tls.get_unverified_chain())[:MAX_CHAIN]
    inner: Any = tls._sslobj  # type: ignore[attr-defined]
    chain = inner.get_unverified_chain() or ()
    # _ssl.ENCODING_DER
    return [c.public_bytes(2) for c in chain][:MAX_CHAIN]


def main() -> None:
    """Answer one line of JSON for all targets."""
    asked = json.load(sys.stdin)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        found = pool.map(lambda target: look(target, asked["timeout_s"]), asked["targets"])
        json.dump(list(found), sys.stdout)


if __name__ == "__main__":
    main()
