"""Servers that do not let TLS begin, as the installer hears them: named, and never waited for."""

from __future__ import annotations

import socket

import pytest
from scan_mysql import GREETING, packet

from hostlerd.ssl.installer.starttls import DIALOGUES, NotAnswered

REFUSED = bytes.fromhex("300c02010178070a010204000400")
XMPP = b"<stream:stream><stream:features><starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>"
OFFERED = XMPP + b"</stream:features>"


@pytest.mark.parametrize(
    ("protocol", "said", "why"),
    [
        ("smtp", b"220 mx\r\n250-mx\r\n250 SIZE\r\n502 what\r\n", "502 what"),
        ("smtp", b"220-mx\r\n" * 100, "does not end"),
        ("smtp", b"220 " + b"x" * 5000, "does not end"),
        ("imap", b"* OK here\r\na NO not here\r\n", "a NO not here"),
        ("pop3", b"+OK here\r\n-ERR what\r\n", "-ERR what"),
        ("ftp", b"220 here\r\n502 what\r\n", "502 what"),
        ("postgres", b"N", "does not take TLS"),
        ("ldap", REFUSED, "refuses StartTLS"),
        ("ldap", b"HTTP/1.1 400 Bad Request\r\n", "no LDAP message"),
        ("ldap", b"\x30\x84\x7f\xff\xff\xff", "no LDAP message"),
        ("ldap", b"\x30\x80" + b"\0\0", "refuses StartTLS"),
        ("ldap", REFUSED[:6], "closed the connection"),
        ("mysql", packet(0, GREETING.replace(b"\xff\xff\x21", b"\xff\xf7\x21")), "without TLS"),
        ("mysql", packet(0, b"\xff\x10\x04Too many connections"), "none of MySQL"),
        ("mysql", packet(0, b""), "none of MySQL"),
        ("xmpp", b"<stream:stream><stream:features></stream:features>", "not offer starttls"),
        ("xmpp", b"<stream:error><host-unknown/></stream:error>", "not offer starttls"),
        ("xmpp", OFFERED + b"<failure xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>", "refuses"),
        ("xmpp", b"<" * 20000, "no XMPP stream"),
        ("xmpp", b"HTTP/1.1 400 Bad Request\r\n\r\n", "closed the connection"),
    ],
)
def test_who_does_not_let_tls_begin_says_so(protocol: str, said: bytes, why: str) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.settimeout(30)
        theirs.sendall(said)
        theirs.shutdown(socket.SHUT_WR)
        with pytest.raises(NotAnswered, match=why):
            DIALOGUES[protocol](ours, "a.test")


@pytest.mark.parametrize(
    ("protocol", "said", "asked"),
    [
        ("ldap", bytes.fromhex("300c02010178070a010004000400"), b"1.3.6.1.4.1.1466.20037"),
        ("mysql", packet(0, GREETING), b"\x20\0\0\1\x01\x8a\x08\0"),
        ("xmpp", OFFERED + b"<proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>", b"to='a.test'"),
    ],
)
def test_nothing_is_read_of_what_comes_after(protocol: str, said: bytes, asked: bytes) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.settimeout(30)
        theirs.sendall(said + b"TLS")
        DIALOGUES[protocol](ours, "a.test")
        assert ours.recv(100) == b"TLS"
        assert asked in theirs.recv(4096)
