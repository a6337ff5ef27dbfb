"""Debian's pebble, an ACME server for tests, which rejects every fifth nonce."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from ssl_authority import Authority, pem
from ssl_servers import free_port, wait_until

PEBBLE = os.environ.get("HOSTLER_PEBBLE", "/usr/bin/pebble")
CHALLTESTSRV = os.environ.get("HOSTLER_CHALLTESTSRV", "/usr/bin/pebble-challtestsrv")


@dataclass(frozen=True)
class Pebble:
    """Where it answers, and whom its certificate is verified with."""

    directory_url: str
    management_url: str
    dns_url: str
    roots: Path
    http_port: int

    def status(self, serial: int) -> str:
        """What it says of a certificate by its serial number: "Valid" or "Revoked"."""
        url = f"{self.management_url}/cert-status-by-serial/{serial:x}"
        answer: dict[str, Any] = requests.get(url, verify=str(self.roots), timeout=30).json()
        return str(answer["Status"])


@contextmanager
def pebble(place: Path) -> Iterator[Pebble]:
    """A pebble with a DNS server by which every name is at 127.0.0.1."""
    ports = [free_port() for _ in range(5)]
    acme, management, dns, http, dns_management = ports
    authority = Authority("pebble https")
    leaf, key = authority.issue_for("localhost")
    (place / "roots.pem").write_text(pem(authority.root))
    (place / "cert.pem").write_text(pem(leaf, authority.intermediate))
    (place / "key.pem").write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    )
    told = {
        "listenAddress": f"127.0.0.1:{acme}",
        "managementListenAddress": f"127.0.0.1:{management}",
        "certificate": str(place / "cert.pem"),
        "privateKey": str(place / "key.pem"),
        "httpPort": http,
        "tlsPort": http,
        "ocspResponderURL": "",
        "externalAccountBindingRequired": False,
    }
    (place / "pebble.json").write_text(json.dumps({"pebble": told}))
    environment = {**os.environ, "PEBBLE_VA_NOSLEEP": "1", "PEBBLE_WFE_NONCEREJECT": "20"}
    listen = ("-defaultIPv4", "127.0.0.1", "-defaultIPv6", "", "-http01", "", "-https01", "")
    with (place / "pebble.log").open("wb") as log:
        processes = [
            subprocess.Popen(
                [
                    *(CHALLTESTSRV, *listen, "-tlsalpn01", ""),
                    *("-dns01", f"127.0.0.1:{dns}"),
                    *("-management", f"127.0.0.1:{dns_management}"),
                ],
                stdout=log,
                stderr=log,
            ),
            subprocess.Popen(
                [PEBBLE, "-config", place / "pebble.json", "-dnsserver", f"127.0.0.1:{dns}"],
                stdout=log,
                stderr=log,
                env=environment,
            ),
        ]
    try:
        for port in (acme, dns_management):
            wait_until(
                lambda port=port: socket.create_connection(("127.0.0.1", port), 5).close() is None
            )
        yield Pebble(
            f"https://localhost:{acme}/dir",
            f"https://localhost:{management}",
            f"http://127.0.0.1:{dns_management}",
            place / "roots.pem",
            http,
        )
    finally:
        for process in processes:
            process.terminate()
            process.wait(20)
