"""A whole handshake of TLS 1.3, as a client that believes anything. Source: RFC 8446, section 2."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

from hostler.core.ssl.scan import words
from hostler.core.ssl.scan.answers import (
    ServerHello,
    read_alpn,
    read_certificates13,
    read_extensions,
    read_server_hello,
)
from hostler.core.ssl.scan.connect import Channel, Dialer
from hostler.core.ssl.scan.errors import Malformed, Refused, TooMuch
from hostler.core.ssl.scan.exchange_keys import CURVES, X25519, OwnKey, make_key
from hostler.core.ssl.scan.hello import SIGNATURES, Hello
from hostler.core.ssl.scan.records import Messages, Record, read_alert, read_record, write_record
from hostler.core.ssl.scan.secrets13 import SUITES, Protection, Schedule, hash_of
from hostler.core.ssl.scan.session import Agreed, Session, Ticket
from hostler.core.ssl.scan.wire import Reader, vector
from hostler.core.ssl.scan.words import alert_name

_MOST_RECORDS = 300
_CCS = write_record(words.CHANGE_CIPHER_SPEC, words.TLS12, b"\1")


class Session13(Session):
    """A session of TLS 1.3."""

    def __init__(
        self,
        channel: Channel,
        agreed: Agreed,
        ours: Protection,
        theirs: Protection,
        schedule: Schedule,
        transcript: bytes,
    ) -> None:
        super().__init__(channel, agreed)
        self._ours = ours
        self._theirs = theirs
        self._schedule = schedule
        self._transcript = transcript
        self._messages = Messages()

    async def send(self, kind: int, body: bytes) -> None:
        """Send a protected record."""
        await self.channel.write(self._ours.encrypt(kind, body))

    async def receive(self) -> Record:
        """Receive a record; tickets are put with what was agreed on."""
        record = await _protected(self.channel, self._theirs)
        if record.kind == words.HANDSHAKE:
            for kind, body, _raw in self._messages.feed(record.body):
                if kind == words.NEW_SESSION_TICKET:
                    self.agreed.tickets.append(self._ticket(body))
        return record

    def _ticket(self, body: bytes) -> Ticket:
        reader = Reader(body)
        lifetime_s, age_add = reader.number(4), reader.number(4)
        nonce, identity = reader.vector(1), reader.vector(2)
        early = read_extensions(reader).get(words.EARLY_DATA, b"")
        secret = self._schedule.resumption_psk(self._transcript, nonce)
        return Ticket(
            self.agreed.suite,
            identity,
            secret,
            lifetime_s,
            age_add,
            int.from_bytes(early, "big"),
        )


@asynccontextmanager
async def handshake13(
    dialer: Dialer,
    *,
    name: str | None = None,
    alpn: Sequence[str] = (),
    groups: Sequence[int] = CURVES,
    signatures: Sequence[int] = SIGNATURES,
    suites: Sequence[int] = SUITES,
    ticket: Ticket | None = None,
    extra_s: float = 0.0,
) -> AsyncIterator[Session13]:
    """Shake hands. Raises Refused when the server does not, and other ScanErrors."""
    share = make_key(X25519 if X25519 in groups else groups[0])
    hello = Hello(
        words.TLS13,
        suites,
        name=dialer.endpoint.name if name is None else name,
        groups=groups,
        signatures=signatures,
        alpn=alpn,
        key_shares=((share.group, share.public),),
    )
    async with dialer.open(extra_s) as channel:
        session = await _Client(channel, hello, share, ticket).run()
        yield session
        await session.end()


class _Client:
    """One handshake, step by step."""

    def __init__(self, channel: Channel, hello: Hello, key: OwnKey, ticket: Ticket | None) -> None:
        self.channel = channel
        self.hello = hello
        self.key = key
        self.ticket = ticket
        self.transcript = b""
        self.messages = Messages()

    async def run(self) -> Session13:
        answer = await self._greet()
        if answer.is_retry:
            answer = await self._greet_again(answer)
        resumed = self.ticket is not None and words.PRE_SHARED_KEY in answer.extensions
        psk = self.ticket.secret if self.ticket is not None and resumed else b""
        schedule = Schedule(answer.suite, psk)
        schedule.agree(self.key.agree(answer.share))
        theirs = schedule.handshake_secret("s", self.transcript)
        ours = schedule.handshake_secret("c", self.transcript)
        agreed = Agreed(words.TLS13, answer.suite, answer.group, is_resumed=resumed)
        await self._server_flight(schedule.protection(theirs), agreed)
        # What is sent from here on has keys of the transcript up to the server's Finished.
        application = [schedule.traffic_secret(who, self.transcript) for who in ("c", "s")]
        protection = schedule.protection(ours)
        flight = _CCS
        if agreed.wants_certificate:
            flight += protection.encrypt(words.HANDSHAKE, self._say(words.CERTIFICATE, bytes(4)))
        proof = schedule.finished(ours, self.transcript)
        flight += protection.encrypt(words.HANDSHAKE, self._say(words.FINISHED, proof))
        await self.channel.write(flight)
        client, server = (schedule.protection(secret) for secret in application)
        return Session13(self.channel, agreed, client, server, schedule, self.transcript)

    def _say(self, kind: int, body: bytes) -> bytes:
        message = bytes((kind,)) + vector(body, 3)
        self.transcript += message
        return message

    async def _greet(self) -> ServerHello:
        message = self.hello.message()
        if self.ticket is not None:
            message = with_ticket(self.hello, self.ticket, self.transcript)
        self.transcript += message
        version = words.TLS10 if len(self.transcript) == len(message) else words.TLS12
        await self.channel.write(write_record(words.HANDSHAKE, version, message))
        for _ in range(_MOST_RECORDS):
            record = await read_record(self.channel)
            if record.kind == words.ALERT:
                raise Refused(f"refused by {alert_name(read_alert(record))}")
            if record.kind != words.HANDSHAKE:
                continue
            for kind, body, raw in self.messages.feed(record.body):
                if kind != words.SERVER_HELLO:
                    raise Malformed(f"message {kind} in place of a ServerHello")
                self.transcript += raw
                return self._checked(read_server_hello(body))
        raise TooMuch("records without a ServerHello")

    def _checked(self, answer: ServerHello) -> ServerHello:
        if answer.version != words.TLS13:
            raise Refused("it does not speak TLSv1.3")
        if answer.suite not in self.hello.suites:
            raise Malformed("the server has chosen a suite that was not offered")
        return answer

    async def _greet_again(self, retry: ServerHello) -> ServerHello:
        # The first hello counts as a message that holds its hash. Source: RFC 8446 4.4.1.
        first = 4 + int.from_bytes(self.transcript[1:4], "big")
        digest = hashlib.new(hash_of(retry.suite), self.transcript[:first]).digest()
        self.transcript = b"\xfe" + vector(digest, 3) + self.transcript[first:]
        if retry.group is not None:
            self.key = make_key(retry.group)
        self.hello = replace(
            self.hello,
            key_shares=((self.key.group, self.key.public),),
            cookie=retry.cookie,
        )
        answer = await self._greet()
        if answer.is_retry:
            raise Malformed("a second HelloRetryRequest")
        return answer

    async def _server_flight(self, theirs: Protection, agreed: Agreed) -> None:
        messages = Messages()
        for _ in range(_MOST_RECORDS):
            record = await _protected(self.channel, theirs)
            if record.kind == words.ALERT:
                raise Refused(f"refused by {alert_name(read_alert(record))}")
            for kind, body, raw in messages.feed(record.body):
                self.transcript += raw
                if kind == words.FINISHED:
                    return
                _take(kind, body, agreed)
        raise TooMuch("records without an end of the server's flight")


def _take(kind: int, body: bytes, agreed: Agreed) -> None:
    if kind == words.ENCRYPTED_EXTENSIONS:
        agreed.alpn = read_alpn(read_extensions(Reader(body)))
    elif kind == words.CERTIFICATE_REQUEST:
        agreed.wants_certificate = True
    elif kind == words.CERTIFICATE:
        agreed.certificates, agreed.stapled = read_certificates13(body)


async def _protected(channel: Channel, theirs: Protection) -> Record:
    """The next record, opened; what is there for middleboxes alone is passed over."""
    for _ in range(_MOST_RECORDS):
        record = await read_record(channel)
        if record.kind == words.ALERT:
            return record
        if record.kind != words.CHANGE_CIPHER_SPEC:
            return theirs.decrypt(record)
    raise TooMuch("records without anything in them")


def with_ticket(hello: Hello, ticket: Ticket, before: bytes) -> bytes:
    """A hello that offers a session, with the proof that we know its key."""
    size = hashlib.new(hash_of(ticket.suite)).digest_size
    identity = vector(ticket.identity, 2) + ticket.age_add.to_bytes(4, "big")
    binders = vector(vector(bytes(size), 1), 2)
    offer = (words.PRE_SHARED_KEY, vector(identity, 2) + binders)
    message = replace(hello, extra=(*hello.extra, offer)).message()
    truncated = message[: -len(binders)]
    binder = Schedule(ticket.suite, ticket.secret).binder(before + truncated)
    return truncated + vector(vector(binder, 1), 2)
