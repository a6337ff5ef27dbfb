"""Malformed input at every door of a host: nobody else notices, and nothing of it stays.

Noise, wrong HTTP/2, broken protobuf, messages that Hypothesis makes for every method, headers and
messages without measure, connections that are slow or idle: meanwhile an honest caller is answered
at every door. Each once; with HOSTLER_SOAK=1 again and again for half an hour, with MALFORMED_S for
so many seconds.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterator

import malformed_attacks as attacks
import pytest
import security_lab as support
from hosts_witness import eventually
from malformed_flow import Half
from malformed_messages import BROKEN
from malformed_siege import ADDRESSES, Siege, heard

from hostler.lab.lab import Lab

pytestmark = [
    pytest.mark.hosts,
    pytest.mark.soak,
    pytest.mark.timeout(7200),
    pytest.mark.usefixtures("own_records"),
]

SOAK = os.environ.get("HOSTLER_SOAK") == "1"
SECONDS = float(os.environ.get("MALFORMED_S", "1800" if SOAK else "0"))
LONG = SECONDS > 0
ATTACKS = 6
# One connection without a call lives for 10 s; the rest is for two busy processors.
ENDED_S = 60.0
IDLE = 1000
# What a daemon may have grown by when all is over, and at its most: an eighth of a small host's
# 2 GiB. Seen: see the figures that are printed.
GROWN_KIB, MOST_KIB = 160 << 10, 384 << 10
# Eight messages of one identity come in at a time, of 8 MiB at most, and 256 KiB of each other.
FLOODED_KIB = 192 << 10


@pytest.fixture(scope="module")
def siege(lab: Lab) -> Iterator[Siege]:
    host = lab.hosts[0]
    if host.leader() is None:
        lab.boot(host.name)
    with Siege(lab, host).begun() as begun:
        yield begun


@pytest.fixture(autouse=True)
def unharmed(siege: Siege) -> Iterator[None]:
    """Whatever a test has thrown, the daemons are as they were."""
    yield
    siege.unharmed()


def again_and_again(once: Callable[[random.Random], None]) -> None:
    """Once, or for a share of the time of a long run, with other dice each time."""
    seed = random.SystemRandom().randrange(2**32) if LONG else 8
    print(f"\ndice: {seed}")
    dice, end = random.Random(seed), time.monotonic() + SECONDS / ATTACKS  # noqa: S311
    once(dice)
    while time.monotonic() < end:
        once(dice)


def test_noise_before_tls(siege: Siege) -> None:
    again_and_again(lambda dice: attacks.noise_before_tls(siege, dice))


def test_wrong_http2(siege: Siege) -> None:
    again_and_again(lambda dice: attacks.wrong_http2(siege, dice, 5 if LONG else 2))


def test_broken_protobuf_is_no_fault_of_ours(siege: Siege) -> None:
    """At every method, for one who may call it and for one who may not."""
    if LONG:
        attacks.broken_messages(siege)
    else:
        attacks.broken_messages(siege, ["length beyond the end", list(BROKEN)[1]])


@pytest.mark.parametrize("domain", support.DOMAINS)
def test_made_up_messages(siege: Siege, domain: str) -> None:
    examples = 2 if domain == "storage" else 3
    if not LONG:
        attacks.made_up_messages(siege, domain, examples, anew=False)
        return
    end = time.monotonic() + SECONDS / ATTACKS / len(support.DOMAINS)
    while time.monotonic() < end:
        attacks.made_up_messages(siege, domain, 25, anew=True)


def test_headers_and_messages_without_measure(siege: Siege) -> None:
    again_and_again(lambda dice: attacks.too_much(siege, dice, 5 if LONG else 2))


def test_messages_without_an_end_take_little_memory(siege: Siege) -> None:
    """A hundred calls of one who may only read, each with a message of 7 MiB but for its end."""
    again_and_again(lambda dice: flood(siege, dice.choice(support.DOMAINS)))


def flood(siege: Siege, domain: str) -> None:
    before, count = siege.figures()[domain], 200 if LONG else 100
    with siege.tls(domain) as sock:
        half = Half(sock, count, 7 << 20)
        half.send(quiet_s=1, most_s=20)
        siege.unharmed()
        most = siege.figures()[domain]
    siege.count("messages without an end", "calls", count)
    print(f"{domain} let {half.sent_bytes >> 20} MiB in; {before.rss_kib} -> {most.rss_kib} KiB")
    assert most.rss_kib - before.rss_kib < FLOODED_KIB


def test_slow_and_idle_connections_keep_nobody_out(siege: Siege) -> None:
    """A thousand idle ones at one door, slow ones and calls without a message at every door."""
    doors = list(support.DOMAINS)
    again_and_again(lambda dice: besiege(siege, dice.choice(doors) if LONG else "netns"))


def besiege(siege: Siege, flooded: str) -> None:
    before = siege.figures()
    held = attacks.Held(siege)
    calls = [attacks.calls_held(siege, domain, 300) for domain in support.DOMAINS]
    for domain in support.DOMAINS:
        attacks.slow_connections(siege, held, domain, 4)
    attacks.idle_connections(siege, held, flooded, IDLE)
    # The last connections are kept back for whom the daemon knows: others are cut off, he is not.
    with siege.tcp(flooded, ADDRESSES[17]) as stranger:
        assert heard(stranger, 5) == (b"", True)
    with attacks.channel_of(siege.lab, siege.host, flooded, "admin") as channel:
        method = next(iter(attacks.access.methods_of(flooded).values()))
        assert attacks.say(channel, method, b"")[0] == "OK"
    siege.unharmed()
    most = siege.figures()
    took_s = held.until_ended(ENDED_S)
    for call in calls:
        call.close()
    print(f"{held.count} connections were ended within {took_s:.1f} s; at {flooded}:")
    print(f"  before {before[flooded]}\n  then   {most[flooded]}")
    eventually(lambda: descriptors_are_back(siege), 60)


def descriptors_are_back(siege: Siege) -> bool:
    """Whether each daemon has as few open files as at the beginning, but for a handful."""
    return all(now.fds <= siege.before[d].fds + 12 for d, now in siege.figures().items())


def test_nothing_of_it_stays(siege: Siege) -> None:
    """Memory, open files, and the audit log of each daemon."""
    eventually(lambda: descriptors_are_back(siege), 60)
    for domain, now in siege.figures().items():
        was = siege.before[domain]
        print(
            f"\n{domain}: {was.rss_kib >> 10} MiB -> {now.rss_kib >> 10} MiB,"
            f" at most {now.most_kib >> 10} MiB; {was.fds} -> {now.fds} open files;"
            f" {siege.honest[domain].answers} honest answers,"
            f" the slowest after {siege.honest[domain].slowest_s:.2f} s",
            end="",
        )
        assert now.rss_kib - was.rss_kib < GROWN_KIB, (domain, was, now)
        assert now.most_kib < MOST_KIB, (domain, now)
    for kind, outcomes in siege.told.items():
        print(f"\n{kind}: {dict(outcomes)}", end="")
    support.hostler(siege.lab, "-H", siege.host.name, "audit", "verify")
