"""Which cipher suites a version accepts, and whose order decides.

A suite is offered with all others until it is chosen, and left out from then on: what is accepted
takes one connection each, and what is refused takes one for each part of a hello's size.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from hostler.core.ssl.scan import words
from hostler.core.ssl.scan.answers import Answer
from hostler.core.ssl.scan.ciphers import pool, suite
from hostler.core.ssl.scan.connect import Dialer
from hostler.core.ssl.scan.errors import Malformed, ScanError
from hostler.core.ssl.scan.exchange import Together, ask
from hostler.core.ssl.scan.hello import GROUPS, Hello

# Old servers cannot take more in one hello.
_MOST_AT_ONCE = 120
_PROTOCOL_VERSION = 70
# handshake_failure, protocol_version, insufficient_security
_PLAIN_REFUSALS = (40, _PROTOCOL_VERSION, 71)
Noted = Callable[[int, Sequence[int]], None]
Order = Literal["server", "client", ""]


@dataclass(frozen=True, slots=True)
class Suites:
    """What a version accepts, in the order of the server's choice.

    `order` is empty where it cannot be told: with fewer than two suites. `refusal` says how a
    version that is not accepted was refused.
    """

    version: int
    suites: tuple[int, ...] = ()
    order: Order = ""
    refusal: str = ""

    @property
    def is_supported(self) -> bool:
        """Whether the version is accepted."""
        return bool(self.suites)


async def probe(
    dialer: Dialer,
    version: int,
    noted: Noted | None = None,
    together: Together | None = None,
) -> Suites:
    """Find out. Raises ScanError if the first question has no answer in TLS.

    What is accepted so far is `noted` with its version whenever there is one more.
    """
    asking = _Asking(dialer, version, noted)
    await asking.ask_for_all(pool(version), together)
    accepted = asking.accepted
    if not accepted:
        return Suites(version, refusal=asking.refusal)
    if asking.parts > 1:
        # What came from several questions has no common order yet.
        again = _Asking(dialer, version)
        await again.ask(accepted)
        accepted = again.accepted + [each for each in accepted if each not in again.accepted]
    return Suites(version, tuple(accepted), await _order(dialer, version, accepted))


class _Asking:
    """Questions about one version, and what they have brought so far."""

    def __init__(self, dialer: Dialer, version: int, noted: Noted | None = None) -> None:
        self.dialer = dialer
        self.version = version
        self.noted = noted
        self.accepted: list[int] = []
        self.parts = 0
        self.refusal = ""

    async def ask_for_all(
        self, everything: Sequence[int], together: Together | None = None
    ) -> None:
        """Ask for all suites, in parts that old servers can take."""
        part, *others = _parts(everything)
        hello = _hello(self.dialer, self.version, part)
        answer = await ask(self.dialer, hello, together=together)
        if self._is_refused_as_a_whole(answer):
            self.refusal = _refusal(answer)
            return
        heads = [(part, answer), *await self._offer_each(others)]
        if sum(self._accepts(answer) for _part, answer in heads) > 1:
            if await self._ask_for_more(everything):
                # What a server overlooks in so long a hello it may find in a shorter one.
                left = [number for number in everything if number not in self.accepted]
                heads = await self._offer_each(_parts(left))
        for part, answer in heads:
            await self.ask(part, answer)

    async def _ask_for_more(self, everything: Sequence[int]) -> bool:
        """Offer more than old servers can take, for a common order; answers whether this one can.

        It has accepted suites of several parts, so that a refusal is not for want of one.
        """
        try:
            answer = await self._offer(everything)
        except ScanError:
            return False
        if not self._accepts(answer):
            return False
        await self.ask(everything, answer)
        return True

    async def ask(self, offered: Sequence[int], answer: Answer | None = None) -> None:
        """Offer suites until none of them is chosen any more; the first answer may be there."""
        left = list(offered)
        before = len(self.accepted)
        while left:
            answer = answer or await self._offer(left)
            if answer.hello is None or not self._accepts(answer):
                self.refusal = self.refusal or _refusal(answer)
                break
            if answer.hello.suite not in left:
                name = suite(answer.hello.suite).name
                raise Malformed(f"the server has chosen {name}, which was not offered")
            self.accepted.append(answer.hello.suite)
            if self.noted is not None:
                self.noted(self.version, self.accepted)
            left.remove(answer.hello.suite)
            answer = None
        self.parts += len(self.accepted) > before
        if len(left) > 1 and self.accepted and answer is not None and _is_odd(answer):
            await self._ask_in_parts(left)

    async def _offer(self, offered: Sequence[int]) -> Answer:
        return await ask(self.dialer, _hello(self.dialer, self.version, offered))

    async def _offer_each(
        self, parts: Sequence[Sequence[int]]
    ) -> list[tuple[Sequence[int], Answer]]:
        answers = await asyncio.gather(*(self._offer(part) for part in parts))
        return list(zip(parts, answers, strict=True))

    def _accepts(self, answer: Answer) -> bool:
        return answer.accepts(self.version)

    def _is_refused_as_a_whole(self, answer: Answer) -> bool:
        if answer.hello is not None:
            return not self._accepts(answer)
        return answer.alert == _PROTOCOL_VERSION

    async def _ask_in_parts(self, left: Sequence[int]) -> None:
        """Ask again around what breaks the server down.

        A server may choose what it then cannot do, such as DHE without a prime field, and give up;
        all that stands behind it in its order would seem to be refused.
        """
        by_kx: dict[str, list[int]] = {}
        for number in left:
            by_kx.setdefault(suite(number).kx, []).append(number)
        if len(by_kx) > 1:
            for part in by_kx.values():
                await self.ask(part)
        elif any(suite(number).kx in by_kx for number in self.accepted):
            middle = len(left) // 2
            await self.ask(left[:middle])
            await self.ask(left[middle:])


def _parts(offered: Sequence[int]) -> list[Sequence[int]]:
    return [offered[at : at + _MOST_AT_ONCE] for at in range(0, len(offered), _MOST_AT_ONCE)]


def _is_odd(answer: Answer) -> bool:
    """Whether a server refuses in another way than for want of a common suite."""
    return answer.hello is None and answer.alert not in _PLAIN_REFUSALS


def _hello(dialer: Dialer, version: int, offered: Sequence[int]) -> Hello:
    return Hello(version, offered, name=dialer.endpoint.name, groups=GROUPS)


async def _order(dialer: Dialer, version: int, accepted: Sequence[int]) -> Order:
    if len(accepted) < 2:
        return ""
    turned = sorted(reversed(accepted), key=lambda each: "CHACHA20" in suite(each).enc)
    if turned[0] == accepted[0]:
        turned.append(turned.pop(0))
    answer = await ask(dialer, _hello(dialer, version, turned))
    if answer.hello is None:
        return ""
    return "server" if answer.hello.suite == accepted[0] else "client"


def _refusal(answer: Answer) -> str:
    if answer.hello is not None:
        return f"answered with {words.version_name(answer.hello.version)}"
    return "closed" if answer.alert is None else words.alert_name(answer.alert)
