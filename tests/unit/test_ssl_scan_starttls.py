"""Going over to TLS in protocols whose servers are not among the real ones, and refusals to.

The peers speak the protocol by hand and then TLS by the standard library; `openssl s_client` goes
over with them just as well.
"""

from __future__ import annotations

import asyncio
import re
import subprocess
from pathlib import Path

import pytest
from scan_mysql import GREETING, mysql, packet
from scan_responders import listening
from ssl_pki import Pki

from hostler.core.ssl.scan.connect import Endpoint, Limits
from hostler.core.ssl.scan.scan import Wanted, scan

PATIENT = Limits(conversation_s=60.0, connect_s=60.0)


async def test_mysql(tmp_path: Path) -> None:
    with mysql(Pki(tmp_path)) as port:
        argv = ["/usr/bin/openssl", "s_client", "-connect", f"127.0.0.1:{port}", "-starttls"]
        said = await asyncio.to_thread(
            lambda: subprocess.run(
                [*argv, "mysql"], input="", capture_output=True, text=True, timeout=60, check=False
            )
        )
        assert re.search("Cipher is TLS_AES", said.stdout), said
        wanted = Wanted(checks=("certificates",), limits=PATIENT)
        report = await scan(Endpoint("127.0.0.1", port, "localhost", "mysql"), wanted)
    assert report.failure is None and report.problems == ()
    assert [hex(version) for version in report.supported()] == ["0x304", "0x303"]
    assert report.certificates is not None and len(report.certificates[0].chain) == 2


@pytest.mark.parametrize(
    ("protocol", "said", "why"),
    [
        ("smtp", b"220 mx ESMTP\r\n250-mx\r\n250 SIZE 1000\r\n", "STARTTLS is not offered"),
        ("smtp", b"554 no\r\n", "answered '554 no'"),
        ("smtp", b"220 mx\r\n250 STARTTLS\r\n454 not now\r\n", "answered '454 not now'"),
        ("imap", b"* OK here\r\na NO not here\r\n", "answered 'a NO not here'"),
        ("pop3", b"+OK here\r\n-ERR what\r\n", "answered '-ERR what'"),
        ("ftp", b"220 here\r\n502 what\r\n", "answered '502 what'"),
        ("postgres", b"N", "does without TLS"),
        ("ldap", bytes.fromhex("300c02010178070a010204000400"), "refuses StartTLS"),
        ("ldap", b"HTTP/1.1 400 Bad Request\r\n", "no LDAP message"),
        ("mysql", packet(0, GREETING.replace(b"\xff\xff\x21", b"\xff\xf7\x21")), "without TLS"),
        ("mysql", packet(0, b"\xff\x10\x04Too many connections"), "none of MySQL"),
        ("xmpp", b"<stream:stream><stream:features></stream:features>", "not offered"),
        ("xmpp", b"HTTP/1.1 400 Bad Request\r\n\r\n", ""),
        ("smtp", b"220 " + b"x" * 5000, ""),
    ],
)
async def test_who_does_not_go_over_says_so(protocol: str, said: bytes, why: str) -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(said)
        await reader.read()

    limits = Limits(conversation_s=60.0 if why else 1.0, connect_s=60.0)
    async with listening(refuse) as port:
        endpoint = Endpoint("127.0.0.1", port, "localhost", protocol)
        report = await scan(endpoint, Wanted(limits=limits))
    assert report.failure is not None
    if why:
        assert report.failure.code == "STARTTLS_REFUSED" and why in report.failure.message, report
    else:
        assert report.failure.code in ("NOT_TLS", "TIMED_OUT")
