"""ROBOT: a server that tells whether what was encrypted for it is well-formed.

Source: RFC 5246 7.4.7.1; Böck, Somorovsky, Young: Return Of Bleichenbacher's Oracle Threat.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from hostler.core.ssl.scan import words
from hostler.core.ssl.scan.checks.suites import Suites
from hostler.core.ssl.scan.ciphers import suite
from hostler.core.ssl.scan.connect import Channel, Dialer
from hostler.core.ssl.scan.errors import ClosedEarly, NotTls, TimedOut, Unsupported
from hostler.core.ssl.scan.exchange import listen
from hostler.core.ssl.scan.handshake12 import rsa_key
from hostler.core.ssl.scan.hello import Hello
from hostler.core.ssl.scan.records import read_alert, read_record, write_record
from hostler.core.ssl.scan.wire import vector
from hostler.core.ssl.scan.words import alert_name

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

Verdict = Literal["sound", "weak_oracle", "strong_oracle", "unsteady"]
_WELL_FORMED, _KINDS = 0, 5


@dataclass(frozen=True, slots=True)
class Robot:
    """The verdict, and what each of the five messages was answered with."""

    verdict: Verdict
    answers: tuple[str, ...] = ()
    without_finished: bool = False


async def probe(dialer: Dialer, found: Sequence[Suites]) -> Robot | None:
    """Find out with whole flights; None if keys are never exchanged by RSA encryption.

    Raises ScanError.
    """
    return await _probe(dialer, found, True, dialer.limits.conversation_s)


async def probe_unfinished(dialer: Dialer, found: Sequence[Suites]) -> Robot | None:
    """Find out with flights that stop before their end, as some servers tell only then.

    A sound one waits for the rest in silence. Raises ScanError.
    """
    return await _probe(dialer, found, False, None)


async def _probe(
    dialer: Dialer, found: Sequence[Suites], is_whole: bool, wait_s: float | None
) -> Robot | None:
    old = [each for each in found if words.SSL3 < each.version < words.TLS13]
    for each in sorted(old, key=lambda one: one.version, reverse=True):
        suites = [number for number in each.suites if suite(number).kx == "RSA"]
        if suites:
            break
    else:
        return None
    answers = await _all(dialer, each.version, suites, is_whole, wait_s)
    if len(set(answers)) == 1:
        return Robot("sound", answers, not is_whole)
    patient_s = wait_s or dialer.limits.quiet_s
    again = await _all(dialer, each.version, suites, is_whole, patient_s)
    if len(set(again)) == 1:
        return Robot("sound", again, not is_whole)
    return Robot(_judge(again) if again == answers else "unsteady", again, not is_whole)


def _judge(answers: Sequence[str]) -> Verdict:
    # An oracle is strong if it lets what is wrong in one way through like what is right.
    wrong = answers[_WELL_FORMED + 1 :]
    return "weak_oracle" if len(set(wrong)) == 1 and len(set(answers)) == 2 else "strong_oracle"


async def _all(
    dialer: Dialer, version: int, suites: Sequence[int], is_whole: bool, wait_s: float | None
) -> tuple[str, ...]:
    """Say all five messages; without `wait_s` the wait goes by how quick the server is."""
    kinds = range(_KINDS)
    asking = (_one(dialer, version, suites, kind, is_whole, wait_s) for kind in kinds)
    return tuple(await asyncio.gather(*asking))


async def _one(
    dialer: Dialer,
    version: int,
    suites: Sequence[int],
    kind: int,
    is_whole: bool,
    wait_s: float | None,
) -> str:
    hello = Hello(version, suites, name=dialer.endpoint.name)
    async with dialer.open(_KINDS * (wait_s or dialer.limits.quiet_s)) as channel:
        await channel.write(hello.record())
        answer = await listen(channel, whole=True)
        if not answer.done:
            raise Unsupported("a handshake by RSA encryption that does not begin")
        key = rsa_key(answer.certificates)
        exchanged = vector(_encrypted(key, _padded(kind, version, key.key_size // 8)), 2)
        message = bytes((words.CLIENT_KEY_EXCHANGE,)) + vector(exchanged, 3)
        flight = write_record(words.HANDSHAKE, version, message)
        if is_whole:
            flight += write_record(words.CHANGE_CIPHER_SPEC, version, b"\1")
            flight += write_record(words.HANDSHAKE, version, b"\x14" * 64)
        await channel.write(flight)
        return await _answer(channel, channel.quiet_s if wait_s is None else wait_s)


async def _answer(channel: Channel, wait_s: float) -> str:
    try:
        async with asyncio.timeout(wait_s):
            record = await read_record(channel)
    except TimeoutError:
        return "silence"
    except ClosedEarly:
        return "closed"
    except (NotTls, TimedOut):
        return "garbage"
    if record.kind == words.ALERT:
        return alert_name(read_alert(record))
    return f"record {record.kind}"


def _padded(kind: int, version: int, size: int) -> bytes:
    """A premaster secret as PKCS #1 wants it, or with one thing wrong. Source: RFC 8017 7.2.1."""
    secret = version.to_bytes(2, "big") + os.urandom(46)
    padding = bytes(each % 255 + 1 for each in os.urandom(size - 3 - len(secret)))
    if kind == 1:
        return b"\x41\x17" + padding + b"\0" + secret
    if kind == 2:
        return b"\0\2" + padding + b"\x11" + bytes(each % 255 + 1 for each in secret)
    if kind == 3:
        return b"\0\2" + padding[:-1] + b"\0\0" + secret
    if kind == 4:
        return b"\0\2" + padding + b"\0\2\2" + secret[2:]
    return b"\0\2" + padding + b"\0" + secret


def _encrypted(key: RSAPublicKey, padded: bytes) -> bytes:
    numbers = key.public_numbers()
    found = pow(int.from_bytes(padded, "big"), numbers.e, numbers.n)
    return found.to_bytes(key.key_size // 8, "big")
