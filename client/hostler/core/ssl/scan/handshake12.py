"""A whole handshake of TLS 1.0 to 1.2, as a client that believes anything. Source: RFC 5246 7.3."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hostler.core.ssl.scan import words
from hostler.core.ssl.scan.answers import Answer, read_key_exchange
from hostler.core.ssl.scan.ciphers import CipherSuite, suite
from hostler.core.ssl.scan.connect import Channel, Dialer
from hostler.core.ssl.scan.errors import Malformed, Refused, TooMuch, Unsupported
from hostler.core.ssl.scan.exchange_keys import CURVES, agree_in_field, make_key
from hostler.core.ssl.scan.hello import Hello
from hostler.core.ssl.scan.records import Messages, Record, read_alert, read_record, write_record
from hostler.core.ssl.scan.secrets12 import (
    Protection12,
    digest_of,
    prf,
    protections,
    speakable,
)
from hostler.core.ssl.scan.session import Agreed, Session, Ticket
from hostler.core.ssl.scan.wire import Reader, vector
from hostler.core.ssl.scan.words import alert_name

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

_MOST_RECORDS = 300


class Session12(Session):
    """A session of TLS 1.0 to 1.2. `verify_data` is what our Finished said."""

    def __init__(
        self, channel: Channel, agreed: Agreed, ours: Protection12, theirs: Protection12
    ) -> None:
        super().__init__(channel, agreed)
        self._ours = ours
        self._theirs = theirs
        self.verify_data = b""
        self.master = b""

    async def send(self, kind: int, body: bytes) -> None:
        """Send a protected record."""
        await self.channel.write(self._ours.encrypt(kind, body))

    async def receive(self) -> Record:
        """Receive a record and open it."""
        return self._theirs.decrypt(await read_record(self.channel))


@dataclass(frozen=True, slots=True)
class Known:
    """A session of before: by its id, by its ticket, or by both."""

    suite: int
    master: bytes = field(repr=False)
    session_id: bytes = b""
    ticket: bytes = b""


@asynccontextmanager
async def handshake12(
    dialer: Dialer,
    version: int,
    *,
    only: Sequence[int] = (),
    alpn: Sequence[str] = (),
    known: Known | None = None,
    with_ticket: bool = True,
    extra_s: float = 0.0,
) -> AsyncIterator[Session12]:
    """Shake hands. Raises Refused when the server does not, Unsupported, and other ScanErrors.

    `only` are the suites that the server is known to accept; those we cannot speak are left out.
    """
    offered = [number for number in speakable(version) if not only or number in only]
    if not offered:
        raise Unsupported("none of the server's cipher suites can be spoken here")
    session_id = known.session_id if known else b""
    if known is not None and known.ticket:
        session_id = os.urandom(32)  # It comes back if the ticket is taken. Source: RFC 5077 3.4.
    hello = Hello(
        version,
        offered,
        name=dialer.endpoint.name,
        groups=CURVES,
        alpn=alpn,
        session_id=session_id,
        ticket=(known.ticket if known else b"") if with_ticket else None,
    )
    async with dialer.open(extra_s) as channel:
        session = await _Client(channel, hello, known).run()
        yield session
        await session.end()


class _Client:
    """One handshake, step by step."""

    def __init__(self, channel: Channel, hello: Hello, known: Known | None) -> None:
        self.channel = channel
        self.hello = hello
        self.known = known
        self.transcript = b""
        self.messages = Messages()
        self.answer = Answer()
        self.ticket = b""
        self.lifetime_s = 0

    async def run(self) -> Session12:
        message = self.hello.message()
        self.transcript += message
        await self.channel.write(self.hello.record())
        resumed = await self._server_flight()
        answer = self.answer.hello
        if answer is None:
            raise Malformed("a flight without a ServerHello")
        chosen = suite(answer.suite)
        master = self.known.master if resumed and self.known else b""
        session = None if resumed else await self._exchange_keys(chosen, answer.random)
        if session is None:
            session = self._session(chosen, master, answer.random)
            await self._expect_finished(session)
            await self._finish(session, chosen)
        else:
            await self._finish(session, chosen)
            await self._expect_finished(session)
        agreed = session.agreed
        agreed.is_resumed = resumed
        if self.ticket:
            agreed.tickets.append(
                Ticket(
                    chosen.number,
                    self.ticket,
                    session.master,
                    self.lifetime_s,
                    version=self.hello.version,
                )
            )
        return session

    async def _server_flight(self) -> bool:
        """Take the flight in; answers whether the server resumes the session."""
        for _ in range(_MOST_RECORDS):
            record = await read_record(self.channel)
            if record.kind == words.ALERT:
                if record.body[:1] == b"\1":
                    continue
                raise Refused(f"refused by {alert_name(read_alert(record))}")
            if record.kind == words.CHANGE_CIPHER_SPEC and self.known is not None:
                return True
            if record.kind != words.HANDSHAKE:
                raise Malformed(f"a record of type {record.kind} in the server's flight")
            for kind, body, raw in self.messages.feed(record.body):
                self._take(kind, body, raw)
            if self.answer.done:
                return False
        raise TooMuch("records without an end of the server's flight")

    def _take(self, kind: int, body: bytes, raw: bytes) -> None:
        self.transcript += raw
        if kind == words.NEW_SESSION_TICKET:
            reader = Reader(body)
            self.lifetime_s, self.ticket = reader.number(4), reader.vector(2)
            return
        self.answer.take(kind, body)
        hello = self.answer.hello
        if kind == words.SERVER_HELLO and hello is not None:
            if hello.version != self.hello.version:
                raise Refused(f"it does not speak {words.version_name(self.hello.version)}")
            if hello.suite not in self.hello.suites:
                raise Malformed("the server has chosen a suite that was not offered")

    async def _exchange_keys(self, chosen: CipherSuite, server_random: bytes) -> Session12:
        if self.answer.wants_certificate:
            await self._say(words.CERTIFICATE, bytes(3))
        body, premaster = self._premaster(chosen)
        await self._say(words.CLIENT_KEY_EXCHANGE, body)
        seed = self.hello.random + server_random
        master = prf(self.hello.version, chosen, premaster, b"master secret", seed, 48)
        return self._session(chosen, master, server_random)

    def _premaster(self, chosen: CipherSuite) -> tuple[bytes, bytes]:
        """The ClientKeyExchange, and the secret that comes of it."""
        if chosen.kx == "RSA":
            secret = self.hello.version.to_bytes(2, "big") + os.urandom(46)
            return vector(encrypt_to(self.answer.certificates, secret), 2), secret
        theirs = read_key_exchange(self.answer.key_exchange, chosen.kx)
        if theirs.group is None:
            public, secret = agree_in_field(theirs)
            return vector(public, 2), secret
        key = make_key(theirs.group)
        return vector(key.public, 1), key.agree(theirs.public)

    def _session(self, chosen: CipherSuite, master: bytes, server_random: bytes) -> Session12:
        version, hello = self.hello.version, self.answer.hello
        ours, theirs = protections(version, chosen, master, self.hello.random, server_random)
        agreed = Agreed(
            version,
            chosen.number,
            certificates=self.answer.certificates,
            stapled=self.answer.stapled,
            alpn=hello.alpn if hello else "",
            wants_certificate=self.answer.wants_certificate,
            session_id=hello.session_id if hello else b"",
        )
        session = Session12(self.channel, agreed, ours, theirs)
        session.master = master
        return session

    async def _say(self, kind: int, body: bytes) -> None:
        message = bytes((kind,)) + vector(body, 3)
        self.transcript += message
        await self.channel.write(write_record(words.HANDSHAKE, self.hello.version, message))

    async def _finish(self, session: Session12, chosen: CipherSuite) -> None:
        digest = digest_of(self.hello.version, chosen, self.transcript)
        proof = prf(self.hello.version, chosen, session.master, b"client finished", digest, 12)
        session.verify_data = proof
        message = bytes((words.FINISHED,)) + vector(proof, 3)
        self.transcript += message
        await self.channel.write(write_record(words.CHANGE_CIPHER_SPEC, self.hello.version, b"\1"))
        await session.send(words.HANDSHAKE, message)

    async def _expect_finished(self, session: Session12) -> None:
        is_changed = session.master == (self.known.master if self.known else None)
        for _ in range(_MOST_RECORDS):
            record = await (session.receive() if is_changed else read_record(self.channel))
            if record.kind == words.ALERT:
                raise Refused(f"refused by {alert_name(read_alert(record))}")
            if record.kind == words.CHANGE_CIPHER_SPEC:
                is_changed = True
                continue
            for kind, body, raw in self.messages.feed(record.body):
                self._take(kind, body, raw)
                if kind == words.FINISHED:
                    return
        raise TooMuch("records without the server's Finished")


def encrypt_to(certificates: Sequence[bytes], secret: bytes) -> bytes:
    """Encrypt a secret for the key of the first certificate. Raises Malformed, Unsupported."""
    from cryptography.hazmat.primitives.asymmetric import padding

    return rsa_key(certificates).encrypt(secret, padding.PKCS1v15())


def rsa_key(certificates: Sequence[bytes]) -> RSAPublicKey:
    """The RSA key of the first certificate. Raises Malformed, Unsupported."""
    from cryptography import x509
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric import rsa

    if not certificates:
        raise Malformed("a server without a certificate")
    try:
        key = x509.load_der_x509_certificate(certificates[0]).public_key()
    except (ValueError, UnsupportedAlgorithm) as error:
        raise Malformed("a certificate that cannot be read") from error
    if not isinstance(key, rsa.RSAPublicKey):
        raise Unsupported("the key of the certificate is none of RSA")
    return key
