"""A hello and what is answered to it: most checks are no more than that."""

from __future__ import annotations

from hostler.core.ssl.scan import words
from hostler.core.ssl.scan.answers import Answer
from hostler.core.ssl.scan.connect import Channel, Dialer
from hostler.core.ssl.scan.errors import ClosedEarly
from hostler.core.ssl.scan.hello import Hello
from hostler.core.ssl.scan.records import Messages, is_final, read_alert, read_record

_MOST_RECORDS = 200


async def ask(dialer: Dialer, hello: Hello, *, whole: bool = False) -> Answer:
    """Say a hello; answers with the server's, or with its refusal. Raises ScanError.

    With `whole` it listens until the server's first flight has ended, which has its certificates;
    of TLS 1.3 these are encrypted, and the flight ends with the ServerHello.
    """
    async with dialer.open() as channel:
        await channel.write(hello.record())
        return await listen(channel, whole=whole)


async def listen(channel: Channel, *, whole: bool = False) -> Answer:
    """Listen to a server's first flight. A connection that ends is an answer; raises ScanError."""
    answer, messages = Answer(), Messages()
    for _ in range(_MOST_RECORDS):
        try:
            record = await read_record(channel)
        except ClosedEarly:
            answer.is_closed = True
            return answer
        if record.kind == words.ALERT:
            if answer.hello is not None or is_final(record):
                answer.alert = read_alert(record)
                return answer
            continue
        if record.kind != words.HANDSHAKE:
            return answer
        for kind, body, raw in messages.feed(record.body):
            answer.take(kind, body)
            answer.messages.append(raw)
        if answer.hello and (not whole or answer.done or answer.hello.version == words.TLS13):
            return answer
    return answer
