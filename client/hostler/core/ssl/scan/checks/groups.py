"""Groups in which keys are agreed on: curves, hybrids, and the size of prime fields."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from hostler.core.ssl.scan import words
from hostler.core.ssl.scan.answers import KeyExchange, read_key_exchange
from hostler.core.ssl.scan.checks.suites import Suites
from hostler.core.ssl.scan.ciphers import suite
from hostler.core.ssl.scan.connect import Dialer
from hostler.core.ssl.scan.exchange import ask
from hostler.core.ssl.scan.hello import Hello
from hostler.core.ssl.scan.words import GROUPS

_OLD = tuple(number for number in GROUPS if number < 31)
_FIELDS = tuple(range(256, 261))
_CERTIFICATE_CURVES = (23, 24, 25)
_NEW = tuple(number for number in GROUPS if number in (23, 24, 25, 29, 30) or number > 30)


@dataclass(frozen=True, slots=True)
class Groups:
    """The groups of TLS 1.3 and of ECDHE before it, in the order of choice.

    `dh_bits` is the size of the prime of DHE, for a client that names no field if there is one for
    it, and None without DHE; `dh_prime` is that prime.
    """

    tls13: tuple[int, ...] = ()
    ecdhe: tuple[int, ...] = ()
    dh_bits: int | None = None
    dh_prime: int = 0


async def probe(dialer: Dialer, found: Sequence[Suites]) -> Groups:
    """Find out, knowing what versions accept. Raises ScanError."""
    old = [each for each in found if each.version < words.TLS13 and each.is_supported]
    new = [each for each in found if each.version == words.TLS13 and each.is_supported]
    tls13, ecdhe, field = await asyncio.gather(
        _of_tls13(dialer, new[0].suites if new else ()),
        _of_ecdhe(dialer, _newest(old, "ECDHE")),
        _of_dhe(dialer, _newest(old, "DHE")),
    )
    return Groups(tls13, ecdhe, field.bits if field else None, field.prime if field else 0)


def _newest(old: Sequence[Suites], kx: str) -> tuple[int, list[int]] | None:
    """The newest version that accepts a key exchange, and its suites of it."""
    for each in sorted(old, key=lambda one: one.version, reverse=True):
        chosen = [number for number in each.suites if suite(number).kx == kx]
        # Without a certificate nothing is signed, and an own list of groups may hold for it.
        signed = [number for number in chosen if suite(number).auth in ("RSA", "ECDSA", "DSS")]
        if signed:
            return each.version, signed
    return None


async def _of_tls13(dialer: Dialer, suites: Sequence[int]) -> tuple[int, ...]:
    if not suites:
        return ()

    async def chosen(left: Sequence[int]) -> int | None:
        hello = Hello(words.TLS13, suites, name=dialer.endpoint.name, groups=left)
        answer = (await ask(dialer, hello)).hello
        return answer.group if answer and answer.version == words.TLS13 else None

    return await _in_turn(_NEW, chosen)


async def _of_ecdhe(dialer: Dialer, newest: tuple[int, Sequence[int]] | None) -> tuple[int, ...]:
    if newest is None:
        return ()
    version, suites = newest

    async def chosen(left: Sequence[int]) -> int | None:
        found = await _exchange(dialer, version, suites, left)
        return found.group if found else None

    accepted = await _in_turn(_OLD, chosen)
    own = accepted[-1] if accepted else 0
    if own not in _CERTIFICATE_CURVES or any(suite(each).auth != "ECDSA" for each in suites):
        return accepted

    async def with_own(left: Sequence[int]) -> int | None:
        return await chosen([*left, own])

    # The curve of an ECDSA certificate has to be among the groups, here as the last of them.
    left = [each for each in _OLD if each not in accepted]
    return (*accepted, *await _in_turn(left, with_own))


async def _in_turn(
    groups: Sequence[int], chosen: Callable[[Sequence[int]], Awaitable[int | None]]
) -> tuple[int, ...]:
    left, accepted = list(groups), list[int]()
    while left:
        group = await chosen(left)
        if group not in left:
            break
        accepted.append(group)
        left.remove(group)
    return tuple(accepted)


async def _exchange(
    dialer: Dialer, version: int, suites: Sequence[int], groups: Sequence[int]
) -> KeyExchange | None:
    hello = Hello(version, suites, name=dialer.endpoint.name, groups=groups, status_request=False)
    answer = await ask(dialer, hello, whole=True)
    if answer.hello is None or not answer.key_exchange:
        return None
    return read_key_exchange(answer.key_exchange, suite(answer.hello.suite).kx)


async def _of_dhe(dialer: Dialer, newest: tuple[int, Sequence[int]] | None) -> KeyExchange | None:
    """The field for a client that names none; some servers have only those that a client names."""
    if newest is None:
        return None
    version, suites = newest
    found = await _exchange(dialer, version, suites, ())
    return found or await _exchange(dialer, version, suites, _FIELDS)
