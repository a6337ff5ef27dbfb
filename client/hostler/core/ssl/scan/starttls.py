"""Going over to TLS inside another protocol.

Sources: RFC 3207 (SMTP), RFC 2595 (IMAP, POP3), RFC 4511 4.14 (LDAP), RFC 4217 (FTP), PostgreSQL's
SSLRequest, MySQL's SSLRequest packet, RFC 6120 5 (XMPP).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from hostler.core.ssl.scan.connect import Channel, Endpoint
from hostler.core.ssl.scan.errors import StartTlsRefused

_MOST_LINES = 100
_MOST_XML = 16 * 1024
# ExtendedRequest with the OID 1.3.6.1.4.1.1466.20037, message id 1.
_LDAP = bytes.fromhex("301d02010177188016") + b"1.3.6.1.4.1.1466.20037"
_MYSQL_SSL = 0x0800
_XMPP = "http://etherx.jabber.org/streams"


async def go_over(channel: Channel, endpoint: Endpoint) -> None:
    """Have the peer begin TLS. Raises StartTlsRefused and other ScanErrors."""
    await PROTOCOLS[endpoint.starttls](channel, endpoint)


async def _reply(channel: Channel, wanted: str) -> list[str]:
    """Lines of an answer such as SMTP's, the last of which has a blank after its number."""
    lines: list[str] = []
    for _ in range(_MOST_LINES):
        line = (await channel.read_line()).decode("latin-1").rstrip("\r\n")
        lines.append(line)
        if len(line) < 4 or line[3] != "-":
            break
    if not lines[-1].startswith(wanted):
        raise StartTlsRefused(f"answered {_quoted(lines[-1])}")
    return lines


async def _smtp(channel: Channel, _endpoint: Endpoint) -> None:
    await _reply(channel, "220")
    await channel.write(b"EHLO hostler.invalid\r\n")
    offered = await _reply(channel, "250")
    if not any(line[4:].strip().upper() == "STARTTLS" for line in offered):
        raise StartTlsRefused("STARTTLS is not offered")
    await channel.write(b"STARTTLS\r\n")
    await _reply(channel, "220")


async def _ftp(channel: Channel, _endpoint: Endpoint) -> None:
    for _ in range(_MOST_LINES):
        line = (await channel.read_line()).decode("latin-1")
        if line.startswith("220 "):
            break
        if not line.startswith(("220", " ")):
            raise StartTlsRefused(f"answered {_quoted(line)}")
    await channel.write(b"AUTH TLS\r\n")
    await _reply(channel, "234")


async def _imap(channel: Channel, _endpoint: Endpoint) -> None:
    greeting = (await channel.read_line()).decode("latin-1")
    if not greeting.upper().startswith("* OK"):
        raise StartTlsRefused(f"answered {_quoted(greeting)}")
    await channel.write(b"a STARTTLS\r\n")
    for _ in range(_MOST_LINES):
        line = (await channel.read_line()).decode("latin-1")
        if line.upper().startswith("A OK"):
            return
        if not line.startswith("*"):
            raise StartTlsRefused(f"answered {_quoted(line)}")
    raise StartTlsRefused("no end of the answer")


async def _pop3(channel: Channel, _endpoint: Endpoint) -> None:
    for command in (b"", b"STLS\r\n"):
        if command:
            await channel.write(command)
        line = (await channel.read_line()).decode("latin-1")
        if not line.startswith("+OK"):
            raise StartTlsRefused(f"answered {_quoted(line)}")


async def _ldap(channel: Channel, _endpoint: Endpoint) -> None:
    await channel.write(_LDAP)
    head = await channel.read(2)
    length = head[1]
    if length & 0x80:
        length = int.from_bytes(await channel.read(min(length & 0x7F, 4)), "big")
    if head[0] != 0x30 or length > 4096:
        raise StartTlsRefused("the answer is no LDAP message")
    body = await channel.read(length)
    # messageID, then an ExtendedResponse that begins with its resultCode, an ENUMERATED.
    code = body.find(b"\x0a\x01", body.find(b"\x78"))
    if b"\x78" not in body or code < 0 or body[code + 2 : code + 3] != b"\0":
        raise StartTlsRefused("the LDAP server refuses StartTLS")


async def _postgres(channel: Channel, _endpoint: Endpoint) -> None:
    await channel.write((8).to_bytes(4, "big") + (80877103).to_bytes(4, "big"))
    if (await channel.read(1)) != b"S":
        raise StartTlsRefused("the PostgreSQL server does without TLS")


async def _mysql(channel: Channel, _endpoint: Endpoint) -> None:
    head = await channel.read(4)
    length = int.from_bytes(head[:3], "little")
    if not 0 < length <= 4096:
        raise StartTlsRefused("the greeting is none of MySQL")
    greeting = await channel.read(length)
    end = greeting.find(b"\0", 1)
    if greeting[0] != 10 or end < 0 or len(greeting) < end + 16:
        raise StartTlsRefused("the greeting is none of MySQL's protocol 10")
    # After the version: connection id (4), salt (8), a zero, the lower half of the capabilities.
    capabilities = int.from_bytes(greeting[end + 14 : end + 16], "little")
    if not capabilities & _MYSQL_SSL:
        raise StartTlsRefused("the MySQL server does without TLS")
    flags = 0x0200 | 0x8000 | 0x80000 | _MYSQL_SSL | 1
    body = flags.to_bytes(4, "little") + (1 << 24).to_bytes(4, "little") + b"\x21" + bytes(23)
    await channel.write(len(body).to_bytes(3, "little") + b"\1" + body)


async def _xmpp(channel: Channel, endpoint: Endpoint) -> None:
    to = (endpoint.name or endpoint.host).replace("'", "").replace("<", "").replace("&", "")
    await channel.write(
        f"<?xml version='1.0'?><stream:stream to='{to}' xmlns='jabber:client' "
        f"xmlns:stream='{_XMPP}' version='1.0'>".encode()
    )
    said = await _until(channel, (b"</stream:features>", b"<stream:error"))
    if b"urn:ietf:params:xml:ns:xmpp-tls" not in said:
        raise StartTlsRefused("starttls is not offered")
    await channel.write(b"<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>")
    said = await _until(channel, (b"<proceed", b"<failure", b"<stream:error"))
    if b"<proceed" not in said:
        raise StartTlsRefused("the XMPP server refuses starttls")
    while not said.rstrip().endswith(b">"):
        said += await channel.read(1)


async def _until(channel: Channel, wanted: tuple[bytes, ...]) -> bytes:
    said = b""
    while not any(word in said for word in wanted):
        more = await channel.read_some(4096)
        if not more or len(said) > _MOST_XML:
            raise StartTlsRefused("the answer is no XMPP stream")
        said += more
    return said


def _quoted(line: str) -> str:
    return repr(line.strip()[:80])


PROTOCOLS: Mapping[str, Callable[[Channel, Endpoint], Awaitable[None]]] = {
    "ftp": _ftp,
    "imap": _imap,
    "ldap": _ldap,
    "mysql": _mysql,
    "pop3": _pop3,
    "postgres": _postgres,
    "smtp": _smtp,
    "xmpp": _xmpp,
}
"""What can be gone over from, by name."""

PORTS: Mapping[str, int] = {
    "ftp": 21,
    "imap": 143,
    "ldap": 389,
    "mysql": 3306,
    "pop3": 110,
    "postgres": 5432,
    "smtp": 25,
    "xmpp": 5222,
}
"""The port of each protocol, if none is given."""
