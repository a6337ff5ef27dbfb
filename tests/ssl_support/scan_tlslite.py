"""A server of tlslite-ng, a library of its own that still has SSL 3, RC4 and 3DES.

scan_tlslite.py PORT CERTIFICATE KEY LEAST-VERSION NEWEST-VERSION
"""

from __future__ import annotations

import contextlib
import socket
import sys
import threading
from pathlib import Path

from tlslite.api import HandshakeSettings, TLSConnection, X509CertChain, parsePEMKey

_VERSIONS = {"ssl3": (3, 0), "tls1": (3, 1), "tls1_1": (3, 2), "tls1_2": (3, 3), "tls1_3": (3, 4)}


def main() -> None:
    port, certificate, key, least, newest = sys.argv[1:]
    chain = X509CertChain()
    chain.parsePemList(Path(certificate).read_text())
    private = parsePEMKey(Path(key).read_text(), private=True)
    settings = HandshakeSettings()
    settings.minVersion, settings.maxVersion = _VERSIONS[least], _VERSIONS[newest]
    settings.cipherNames = ["aes256", "aes128", "3des", "rc4", "aes128gcm"]
    settings.macNames = ["sha", "sha256", "md5", "aead"]
    if settings.maxVersion < (3, 3):
        settings.macNames = ["sha", "md5"]
        settings.cipherNames = ["aes128", "3des", "rc4"]
    settings.versions = [
        v for v in _VERSIONS.values() if _VERSIONS[least] <= v <= _VERSIONS[newest]
    ]

    def serve(connection: socket.socket) -> None:
        with connection, contextlib.suppress(Exception):
            tls = TLSConnection(connection)
            tls.handshakeServer(certChain=chain, privateKey=private, settings=settings)
            tls.recv(4096)
            tls.send(b"HTTP/1.0 200 OK\r\nServer: tlslite\r\n\r\n")
            tls.close()

    with socket.create_server(("127.0.0.1", int(port)), backlog=100) as listener:
        while True:
            connection, _address = listener.accept()
            threading.Thread(target=serve, args=(connection,), daemon=True).start()


if __name__ == "__main__":
    main()
