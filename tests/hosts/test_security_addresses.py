"""At which addresses of a real host the doors answer."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest
import security_lab as support

from hostler.lab.host import Host
from hostler.lab.lab import Lab

pytestmark = [pytest.mark.hosts, pytest.mark.timeout(120)]

ELSEWHERE = "198.51.100.7"


@pytest.fixture
def only_ipv4(h1: Host) -> Iterator[Host]:
    """A host that answers at its IPv4 address and at no other that it has."""
    before = h1.run(["cat", support.CONFIGURATION]).stdout
    try:
        h1.put(support.CONFIGURATION, f'management_addresses = ["{h1.ipv4}"]\n{before}')
        support.stop(h1)
        yield h1
    finally:
        h1.put(support.CONFIGURATION, before)
        support.stop(h1)


# Says whether a door answers a TLS handshake there; runs here and on the host.
KNOCK = """
import socket, ssl, sys
context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
try:
    with socket.create_connection((sys.argv[1], int(sys.argv[2])), 5) as plain:
        with context.wrap_socket(plain) as tls:
            print(tls.version())
except (ConnectionResetError, ssl.SSLError) as e:
    print("hung up")
"""


def knock(address: str, port: int) -> str:
    argv = [sys.executable, "-c", KNOCK, address, str(port)]
    return subprocess.run(argv, capture_output=True, text=True, timeout=20).stdout.strip()


@pytest.mark.parametrize("domain", support.DOMAINS)
def test_other_addresses_hang_up_before_a_byte_is_read(
    lab: Lab, only_ipv4: Host, domain: str
) -> None:
    host, port = only_ipv4, support.PORTS[domain]
    journal = support.Journal(host)
    assert knock(host.ipv4, port) == "TLSv1.3"
    assert knock(host.ipv6, port) == "hung up"
    support.hostler(lab, "-H", host.name, "host", "get", "--domain", domain)
    assert "no management address" in journal.text(domain)
    # The unix socket is not at any address.
    local = "import socket; s = socket.socket(socket.AF_UNIX); s.connect('/run/hostler/%s.sock')"
    host.run(["python3", "-c", local % domain])


def test_by_default_every_address_answers(h1: Host) -> None:
    """Shows that the test above can fail."""
    for address in (h1.ipv4, h1.ipv6):
        assert knock(address, support.PORTS["netns"]) == "TLSv1.3"


def test_an_address_that_comes_later_is_in_its_network(h1: Host) -> None:
    before = h1.run(["cat", support.CONFIGURATION]).stdout
    dial = ["python3", "-c", KNOCK]
    try:
        h1.put(support.CONFIGURATION, f'management_addresses = ["198.51.100.0/24"]\n{before}')
        support.stop(h1)
        h1.run(["ip", "address", "add", f"{ELSEWHERE}/32", "dev", "lo"])
        assert h1.run([*dial, ELSEWHERE, "7441"]).stdout.strip() == "TLSv1.3"
        assert h1.run([*dial, "127.0.0.1", "7441"]).stdout.strip() == "hung up"
    finally:
        h1.run(["ip", "address", "del", f"{ELSEWHERE}/32", "dev", "lo"], check=False)
        h1.put(support.CONFIGURATION, before)
        support.stop(h1)
