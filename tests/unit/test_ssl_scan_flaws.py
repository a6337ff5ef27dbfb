"""Flaws that no server to be had still has: found where they are made by hand, and only there."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from scan_responders import NONSENSE, SOUND_SUITES, Flawed, closes, listening
from ssl_pki import Pair, make, rsa_key

from hostler.core.ssl.scan import words
from hostler.core.ssl.scan.checks import suites
from hostler.core.ssl.scan.ciphers import pool
from hostler.core.ssl.scan.connect import Dialer, Endpoint, Limits
from hostler.core.ssl.scan.exchange import Together
from hostler.core.ssl.scan.report import Report
from hostler.core.ssl.scan.scan import Wanted, scan, scan_all

PATIENT = Limits(conversation_s=60.0, connect_s=60.0)


@pytest.fixture(scope="module")
def pair() -> Pair:
    return make("localhost", rsa_key(), names=("localhost",))


# What is said of a sound one of old versions, as the first test shows.
SOUND = {"TLS10", "TLS11", "NO_TLS13", "NO_FORWARD_SECRECY"}


async def look(pair: Pair, **flaws: Any) -> Report:
    checks = ("features", "fallback", "compression", "heartbleed", "ccs_injection", "robot")
    async with listening(Flawed(pair=pair, **flaws)) as port:
        endpoint = Endpoint("127.0.0.1", port, "localhost")
        return await scan(endpoint, Wanted(checks=checks, limits=PATIENT))


def codes(report: Report) -> set[str]:
    assert report.failure is None and report.problems == (), report
    assert report.grade is not None
    return {each.code for each in report.grade.reasons}


async def test_a_sound_one_has_none(pair: Pair) -> None:
    report = await look(pair, discards_heartbeats=True)
    assert report.heartbleed is False and report.ccs_injection is False
    assert report.robot is not None and report.robot.verdict == "sound"
    assert report.compression == "" and report.fallback is True
    assert report.features is not None
    assert report.features.heartbeat and report.features.secure_renegotiation
    # Internet Explorer 11 has no suite in common that is forward secret.
    assert codes(report) == SOUND
    assert report.supported()[words.TLS12].suites == SOUND_SUITES
    assert report.supported()[words.TLS12].order == "server"


@pytest.mark.parametrize(
    ("flaw", "code"),
    [
        ({"bleeds": True}, "HEARTBLEED"),
        ({"takes_early_ccs": True}, "CCS_INJECTION"),
        ({"oracle": "weak"}, "ROBOT"),
        ({"oracle": "strong"}, "ROBOT"),
        ({"compresses": True}, "COMPRESSION"),
        ({"secure_renegotiation": False}, "NO_SECURE_RENEGOTIATION"),
        ({"ssl2": True}, "SSLV2"),
        ({"suites": (0x0003, *SOUND_SUITES)}, "EXPORT"),
        ({"suites": (0x0009, *SOUND_SUITES)}, "WEAK_CIPHER"),
        ({"suites": (0x0018, *SOUND_SUITES)}, "ANONYMOUS"),
        ({"suites": (0x0002, *SOUND_SUITES)}, "NULL_CIPHER"),
        ({"suites": (*SOUND_SUITES, 0x0005)}, "RC4"),
        ({"suites": (0x000A, *SOUND_SUITES)}, "SMALL_BLOCKS"),
        ({"versions": (0x0300, 0x0303)}, "SSLV3"),
        ({"versions": (0x0301,), "suites": (0x002F,)}, "NO_TLS12"),
    ],
)
async def test_each_flaw_is_found_and_graded(pair: Pair, flaw: dict[str, Any], code: str) -> None:
    assert code not in SOUND
    report = await look(pair, **flaw)
    assert code in codes(report)
    # And nothing else that is a matter of life and death is said of it.
    fatal = {"HEARTBLEED", "CCS_INJECTION", "ROBOT", "COMPRESSION", "SSLV2"}
    assert codes(report) & fatal == {code} & fatal


async def test_how_strong_an_oracle_is(pair: Pair) -> None:
    for oracle in ("weak", "strong"):
        robot = (await look(pair, oracle=oracle)).robot
        assert robot is not None and robot.verdict == f"{oracle}_oracle", robot


async def test_3des_at_the_end_of_a_servers_list_is_let_pass(pair: Pair) -> None:
    assert "SMALL_BLOCKS" not in codes(await look(pair, suites=(*SOUND_SUITES, 0x000A)))


async def test_a_fallback_that_is_not_noticed(pair: Pair) -> None:
    assert (await look(pair, ignores_fallback=True)).fallback is False
    assert (await look(pair, versions=(0x0303,))).fallback is None


async def test_any_suite_of_the_registry_is_found_where_it_is(pair: Pair) -> None:
    """Each suite of a version alone and last: what is found is neither more nor less."""
    everything = [n for n in pool(words.TLS12) if n not in SOUND_SUITES]
    for strange in (everything[::3], everything[1::3], everything[2::3]):
        report = await look(pair, suites=(*strange, *SOUND_SUITES), versions=(0x0303,))
        found = report.supported()[words.TLS12]
        assert found.suites == (*strange, *SOUND_SUITES)
        assert found.order == "server"


async def scattered(pair: Pair, **flaws: Any) -> tuple[tuple[int, ...], Report]:
    """Some suites from all over the registry, and what is found at a server that has them."""
    strange = (*reversed(pool(words.TLS12)[::8]), *SOUND_SUITES)
    limits = Limits(conversation_s=2.0, connect_s=60.0)
    server = Flawed(pair=pair, versions=(0x0303,), suites=strange, **flaws)
    async with listening(server) as port:
        endpoint = Endpoint("127.0.0.1", port, "localhost")
        return strange, await scan(endpoint, Wanted(checks=(), limits=limits))


async def test_each_suite_takes_one_connection(pair: Pair) -> None:
    strange, report = await scattered(pair)
    assert report.supported()[words.TLS12].suites == strange
    # Beside them: other versions, the first and last question of each part, whose order decides.
    assert report.connections <= len(strange) + 5 + 2 * 3 + 2


@pytest.mark.parametrize("longer", ["refused", "unanswered", "cut"])
async def test_hellos_that_are_longer_than_a_server_can_take(pair: Pair, longer: str) -> None:
    strange, report = await scattered(pair, most_suites=120, longer=longer)
    found = report.supported()[words.TLS12]
    assert found.suites == strange and found.order == "server"


async def test_a_server_that_breaks_down_at_what_it_would_choose(pair: Pair) -> None:
    """As Dovecot does for want of a prime field: what stands behind it is found all the same."""
    broken = (0x009E, 0x0033)
    report = await look(
        pair,
        versions=(0x0303,),
        suites=(0xC030, *broken, 0xC02F, 0x009C, 0x002F),
        breaks_at=frozenset(broken),
    )
    assert report.supported()[words.TLS12].suites == (0xC030, 0xC02F, 0x009C, 0x002F)


@pytest.mark.parametrize("kind", NONSENSE)
async def test_what_is_no_tls_is_named_in_time(kind: str) -> None:
    handler, code = NONSENSE[kind]
    limits = Limits(conversation_s=1.0, connect_s=60.0)
    async with listening(handler) as port:
        report = await scan(Endpoint("127.0.0.1", port), Wanted(limits=limits))
    assert report.failure is not None and report.failure.code == code, report
    # Whatever it sends: no more than the limit is read, and nobody is asked again and again.
    assert report.connections <= 12
    assert report.bytes_read < 12 * limits.bytes_each


@pytest.mark.parametrize("at_a_time", [1, 3])
async def test_whether_many_are_served_at_a_time(pair: Pair, at_a_time: int) -> None:
    """One that serves a client at a time finishes with each, in the order they came."""
    sound, slots = (
        Flawed(pair=pair, versions=(0x0301, 0x0302, 0x0303)),
        asyncio.Semaphore(at_a_time),
    )

    async def serves(reader: Any, writer: Any) -> None:
        async with slots:
            await sound(reader, writer)

    async with listening(serves) as port:
        found: list[bool] = []
        for _ in range(5):
            together = Together(3)
            dialer = Dialer(Endpoint("127.0.0.1", port, "localhost"), PATIENT)
            asked = (suites.probe(dialer, each, None, together) for each in sound.versions)
            assert {each.suites for each in await asyncio.gather(*asked)} >= {SOUND_SUITES}
            found.append(together.serves_many)
        # On a machine that is busy a second answer may take longer than the first stays.
        assert any(found) == (at_a_time > 1)
        wanted = Wanted(checks=("robot",), limits=PATIENT)
        report = await scan(Endpoint("127.0.0.1", port, "localhost"), wanted)
        assert report.problems == () and report.robot is not None
        assert report.robot.verdict == "sound" and report.robot.without_finished


async def test_nobody_listens() -> None:
    async with listening(closes) as port:
        pass
    report = await scan(Endpoint("127.0.0.1", port), Wanted(limits=PATIENT))
    assert report.failure is not None and report.failure.code == "UNREACHABLE"


async def test_the_rest_goes_on(pair: Pair) -> None:
    """Sound servers among those that hang, in one run: each has its answer."""
    limits = Limits(conversation_s=2.0, connect_s=60.0)
    async with (
        listening(NONSENSE["hangs"][0]) as hanging,
        listening(NONSENSE["drips"][0]) as dripping,
        listening(Flawed(pair=pair)) as sound,
    ):
        ports = (hanging, sound, dripping)
        endpoints = [Endpoint("127.0.0.1", port, "localhost") for port in ports]
        order: list[int] = []
        async for report in scan_all(endpoints, Wanted(checks=("alpn",), limits=limits)):
            order.append(report.endpoint.port)
            assert (report.failure is None) == (report.endpoint.port == sound), report
    assert order[0] == sound and set(order) == set(ports)


async def test_a_server_that_falls_silent_ends_its_scan(pair: Pair) -> None:
    """Sound at first, then nothing: the scan gives up after some conversations, not after all."""
    sound = Flawed(pair=pair, versions=(0x0303,))
    asked = 0

    async def tires(reader: Any, writer: Any) -> None:
        nonlocal asked
        asked += 1
        if asked > 14:
            await reader.read()
        await sound(reader, writer)

    limits = Limits(conversation_s=0.5, connect_s=60.0, most_timeouts=4, at_once=2)
    async with listening(tires) as port:
        report = await scan(Endpoint("127.0.0.1", port, "localhost"), Wanted(limits=limits))
    assert report.failure is None
    assert {each.code for each in report.problems} == {"TIMED_OUT", "GIVEN_UP"}
    assert report.connections <= 14 + 4 + 2
