"""A hello and what is answered to it: most checks are no more than that."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from hostler.core.ssl.scan import words
from hostler.core.ssl.scan.answers import Answer
from hostler.core.ssl.scan.connect import Channel, Dialer
from hostler.core.ssl.scan.errors import ClosedEarly
from hostler.core.ssl.scan.hello import Hello
from hostler.core.ssl.scan.records import Messages, is_final, read_alert, read_record

_MOST_RECORDS = 200
_STAY_S = 0.05


class Together:
    """Whether a server serves many clients at a time, seen from so many first questions.

    The first that is answered by a hello stays until a second is, which a server that serves one
    client at a time would not come to: no longer than it takes any other.
    """

    def __init__(self, asked: int) -> None:
        self.serves_many = False
        self._left = asked
        self._staying = 0
        self._decided = asyncio.Event()

    async def stay(self, answer: Answer) -> None:
        """Stay connected with an answer as long as something is to be learned from it."""
        self._left -= 1
        if answer.hello is not None and not self._decided.is_set():
            self._staying += 1
            self.serves_many = self._staying > 1
        if self.serves_many or not self._left:
            self._decided.set()
        if self._staying and answer.hello is not None:
            with suppress(TimeoutError):
                async with asyncio.timeout(_STAY_S):
                    await self._decided.wait()
            self._decided.set()


async def ask(
    dialer: Dialer, hello: Hello, *, whole: bool = False, together: Together | None = None
) -> Answer:
    """Say a hello; answers with the server's, or with its refusal. Raises ScanError.

    With `whole` it listens until the server's first flight has ended, which has its certificates;
    of TLS 1.3 these are encrypted, and the flight ends with the ServerHello.
    """
    async with dialer.open() as channel:
        await channel.write(hello.record())
        answer = await listen(channel, whole=whole)
        if together is not None:
            await together.stay(answer)
        return answer


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
