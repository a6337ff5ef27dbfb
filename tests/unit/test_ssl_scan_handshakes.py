"""Whole handshakes with OpenSSL's server, which would not go on if anything were wrong."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from ssl_pki import Pki
from ssl_process import free_port, running

from hostler.core.ssl.scan import words
from hostler.core.ssl.scan.ciphers import suite
from hostler.core.ssl.scan.connect import Dialer, Endpoint, Limits
from hostler.core.ssl.scan.errors import Refused
from hostler.core.ssl.scan.handshake12 import Known, handshake12
from hostler.core.ssl.scan.handshake13 import handshake13
from hostler.core.ssl.scan.secrets12 import speakable

ASKED = b"GET / HTTP/1.0\r\n\r\n"
PATIENT = Limits(conversation_s=60.0, connect_s=60.0)


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """`openssl s_server` with an RSA and an EC certificate, and every suite that it has."""
    folder = tmp_path_factory.mktemp("s_server")
    pki, port = Pki(folder), free_port()
    argv = [
        *("/usr/bin/openssl", "s_server", "-accept", f"127.0.0.1:{port}", "-www"),
        *("-cert", pki["rsa.pem"], "-key", pki["rsa.key"]),
        *("-dcert", pki["ec.pem"], "-dkey", pki["ec.key"]),
        *("-cert_chain", pki["ca.pem"], "-dcert_chain", pki["ca.pem"]),
        *("-cipher", "ALL:@SECLEVEL=0", "-min_protocol", "TLSv1"),
        *("-ciphersuites", ":".join(_SUITES13)),
    ]
    with running(argv, [port], folder / "log"):
        yield port


_SUITES13 = (
    *("TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"),
    *("TLS_AES_128_CCM_SHA256", "TLS_AES_128_CCM_8_SHA256"),
)


@pytest.fixture
def dialer(port: int) -> Dialer:
    return Dialer(Endpoint("127.0.0.1", port, "localhost"), PATIENT)


def _told(answer: bytes, word: str) -> str:
    """What the server says of the connection."""
    line = next(each for each in answer.decode().splitlines() if each.strip().startswith(word))
    return line.split(":", 1)[1].strip()


@pytest.mark.parametrize("group", ["x25519", "secp256r1", "secp384r1", "secp521r1", "x448"])
async def test_tls13_in_each_group(dialer: Dialer, group: str) -> None:
    number = next(number for number, name in words.GROUPS.items() if name == group)
    async with handshake13(dialer, groups=(number,)) as session:
        answer = await session.talk(ASKED, 65536, b"HTTP/", b"</HTML>")
        assert session.agreed.group == number
    assert _told(answer, "Shared groups") == group


async def test_a_server_that_asks_for_another_key(tmp_path: Path) -> None:
    """It knows one group, and our first hello has a key of another: HelloRetryRequest."""
    pki, port = Pki(tmp_path), free_port()
    argv = [
        *("/usr/bin/openssl", "s_server", "-accept", f"127.0.0.1:{port}", "-www"),
        *("-cert", pki["rsa.pem"], "-key", pki["rsa.key"], "-groups", "secp384r1"),
    ]
    with running(argv, [port], tmp_path / "log"):
        dialer = Dialer(Endpoint("127.0.0.1", port, "localhost"), PATIENT)
        async with handshake13(dialer) as session:
            answer = await session.talk(ASKED, 65536, b"HTTP/", b"</HTML>")
            ticket = session.agreed.tickets[0]
        assert session.agreed.group == 24
        assert _told(answer, "Shared groups") == "secp384r1"
        async with handshake13(dialer, ticket=ticket) as session:
            assert session.agreed.is_resumed and session.agreed.group == 24


@pytest.mark.parametrize("number", [0x1301, 0x1302, 0x1303, 0x1304, 0x1305])
async def test_tls13_with_each_suite(dialer: Dialer, number: int) -> None:
    async with handshake13(dialer, suites=(number,)) as session:
        answer = await session.talk(ASKED, 65536, b"HTTP/", b"</HTML>")
    assert _told(answer, "Cipher    ") == suite(number).name
    assert len(session.agreed.certificates) == 2
    assert len(session.agreed.tickets) == 2


async def test_a_session_of_tls13_is_taken_up_again(dialer: Dialer) -> None:
    async with handshake13(dialer) as session:
        await session.talk(ASKED, 65536, b"HTTP/", b"</HTML>")
        ticket = session.agreed.tickets[0]
    for groups in ((29,), (24,)):
        async with handshake13(dialer, ticket=ticket, groups=groups) as session:
            answer = await session.talk(ASKED, 65536, b"HTTP/", b"</HTML>")
        assert session.agreed.is_resumed
        assert b"\nReused, TLSv1.3" in answer


@pytest.mark.parametrize("version", [words.TLS10, words.TLS11, words.TLS12])
async def test_every_suite_that_openssl_has_too(dialer: Dialer, version: int) -> None:
    done: set[str] = set()
    for number in speakable(version):
        try:
            async with handshake12(dialer, version, only=(number,)) as session:
                answer = await session.talk(ASKED, 65536, b"HTTP/", b"</HTML>")
        except Refused:
            # It has neither 3DES nor a DSA certificate.
            assert suite(number).is_3des or suite(number).auth == "DSS", suite(number)
            continue
        wanted = words.version_name(version).removesuffix(".0")
        assert _told(answer, "Protocol  ") == wanted
        done.add(suite(number).kx + suite(number).enc)
    assert len(done) == (6 if version < words.TLS12 else 14), done


@pytest.mark.parametrize("with_ticket", [True, False])
async def test_a_session_of_tls12_is_taken_up_again(dialer: Dialer, with_ticket: bool) -> None:
    async with handshake12(dialer, words.TLS12, with_ticket=with_ticket) as session:
        agreed, master = session.agreed, session.master
    known = Known(
        agreed.suite,
        master,
        b"" if with_ticket else agreed.session_id,
        agreed.tickets[0].identity if with_ticket else b"",
    )
    async with handshake12(dialer, words.TLS12, known=known, with_ticket=with_ticket) as session:
        answer = await session.talk(ASKED, 65536, b"HTTP/", b"</HTML>")
    assert session.agreed.is_resumed
    assert b"\nReused, " in answer
