"""What a client says in the clear before TLS begins, by protocol.

`hostler.core.ssl.scan.starttls` says the same for scans, to many servers at once.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping

MAX_LINES = 64
MAX_LINE = 4096
MAX_XML = 16 * 1024
# ExtendedRequest with the OID 1.3.6.1.4.1.1466.20037, message id 1.
_LDAP = bytes.fromhex("301d02010177188016") + b"1.3.6.1.4.1.1466.20037"
_MYSQL_SSL = 0x0800
# CLIENT_LONG_PASSWORD, CLIENT_PROTOCOL_41, CLIENT_SECURE_CONNECTION, CLIENT_PLUGIN_AUTH.
_MYSQL_FLAGS = 0x1 | 0x200 | 0x8000 | 0x80000 | _MYSQL_SSL


class NotAnswered(Exception):
    """The server did not let TLS begin; the message has the server's words, cut short."""


def _read(connection: socket.socket, size_bytes: int) -> bytes:
    """Read so many bytes and not one more: what follows is TLS."""
    got = b""
    while len(got) < size_bytes:
        more = connection.recv(size_bytes - len(got))
        if not more:
            raise NotAnswered("the server closed the connection before TLS began")
        got += more
    return got


def _line(connection: socket.socket) -> bytes:
    got = b""
    while not got.endswith(b"\n"):
        if len(got) > MAX_LINE:
            raise NotAnswered("the server's reply does not end")
        got += _read(connection, 1)
    return got.strip()


def _code(connection: socket.socket, wanted: bytes) -> None:
    """Read a reply of SMTP or FTP, over as many lines as it has. RFC 5321, 4.2."""
    for _ in range(MAX_LINES):
        got = _line(connection)
        if got[3:4] != b"-":
            if not got.startswith(wanted):
                raise NotAnswered(got[:80].decode(errors="replace"))
            return
    raise NotAnswered("the server's reply does not end")


def _tagged(connection: socket.socket, tag: bytes, good: bytes) -> None:
    for _ in range(MAX_LINES):
        got = _line(connection)
        if got.startswith(tag):
            if not got.startswith(good):
                raise NotAnswered(got[:80].decode(errors="replace"))
            return
    raise NotAnswered("the server's reply does not end")


def _smtp(connection: socket.socket, _name: str) -> None:
    """RFC 3207."""
    _code(connection, b"220")
    connection.sendall(b"EHLO localhost\r\n")
    _code(connection, b"250")
    connection.sendall(b"STARTTLS\r\n")
    _code(connection, b"220")


def _imap(connection: socket.socket, _name: str) -> None:
    """RFC 2595, 3."""
    _tagged(connection, b"* ", b"* OK")
    connection.sendall(b"a STARTTLS\r\n")
    _tagged(connection, b"a ", b"a OK")


def _pop3(connection: socket.socket, _name: str) -> None:
    """RFC 2595, 4."""
    _tagged(connection, b"", b"+OK")
    connection.sendall(b"STLS\r\n")
    _tagged(connection, b"", b"+OK")


def _ftp(connection: socket.socket, _name: str) -> None:
    """RFC 4217."""
    _code(connection, b"220")
    connection.sendall(b"AUTH TLS\r\n")
    _code(connection, b"234")


def _postgres(connection: socket.socket, _name: str) -> None:
    """An SSLRequest. PostgreSQL, "Message Formats"."""
    connection.sendall(b"\x00\x00\x00\x08\x04\xd2\x16\x2f")
    if connection.recv(1) != b"S":
        raise NotAnswered("the server does not take TLS")


def _ldap(connection: socket.socket, _name: str) -> None:
    """StartTLS. RFC 4511, 4.14."""
    connection.sendall(_LDAP)
    kind, length = _read(connection, 2)
    if length & 0x80:
        length = int.from_bytes(_read(connection, min(length & 0x7F, 4)))
    if kind != 0x30 or length > MAX_LINE:
        raise NotAnswered("the answer is no LDAP message")
    body = _read(connection, length)
    # messageID, then an ExtendedResponse that begins with its resultCode, an ENUMERATED.
    response = body.find(b"\x78")
    code = body.find(b"\x0a\x01", response)
    if response < 0 or code < 0 or body[code + 2 : code + 3] != b"\0":
        raise NotAnswered("the LDAP server refuses StartTLS")


def _mysql(connection: socket.socket, _name: str) -> None:
    """MySQL, Protocol::HandshakeV10 and Protocol::SSLRequest; MariaDB's are the same."""
    length = int.from_bytes(_read(connection, 4)[:3], "little")
    if not 0 < length <= MAX_LINE:
        raise NotAnswered("the greeting is none of MySQL")
    greeting = _read(connection, length)
    end = greeting.find(b"\0", 1)
    if greeting[0] != 10 or end < 0 or len(greeting) < end + 16:
        raise NotAnswered("the greeting is none of MySQL's protocol 10")
    # After the version: connection id (4), salt (8), a zero, the lower half of the capabilities.
    if not int.from_bytes(greeting[end + 14 : end + 16], "little") & _MYSQL_SSL:
        raise NotAnswered("the MySQL server does without TLS")
    body = (
        _MYSQL_FLAGS.to_bytes(4, "little") + (1 << 24).to_bytes(4, "little") + b"\x21" + bytes(23)
    )
    connection.sendall(len(body).to_bytes(3, "little") + b"\1" + body)


def _xmpp(connection: socket.socket, name: str) -> None:
    """RFC 6120, 5. A server has hosts by name, as a web server has."""
    connection.sendall(
        f"<?xml version='1.0'?><stream:stream to='{name}' xmlns='jabber:client' "
        "xmlns:stream='http://etherx.jabber.org/streams' version='1.0'>".encode()
    )
    said = _until(connection, (b"</stream:features>", b"<stream:error"))
    if b"urn:ietf:params:xml:ns:xmpp-tls" not in said:
        raise NotAnswered("the XMPP server does not offer starttls")
    connection.sendall(b"<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>")
    if b"<proceed" not in _until(connection, (b"<proceed", b"<failure", b"<stream:error")):
        raise NotAnswered("the XMPP server refuses starttls")
    _until(connection, (b">",))


def _until(connection: socket.socket, wanted: tuple[bytes, ...]) -> bytes:
    said = b""
    while not said.endswith(wanted):
        if len(said) > MAX_XML:
            raise NotAnswered("the answer is no XMPP stream")
        said += _read(connection, 1)
    return said


DIALOGUES: Mapping[str, Callable[[socket.socket, str], None]] = {
    "smtp": _smtp,
    "imap": _imap,
    "pop3": _pop3,
    "ftp": _ftp,
    "postgres": _postgres,
    "ldap": _ldap,
    "mysql": _mysql,
    "xmpp": _xmpp,
}
