"""Collecting packet logs from real servers into SQLite and PostgreSQL, by killed processes."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from client_doors import World, rich
from client_packets import PacketLog, made_records
from packets_world import (
    COUNT,
    HOSTS,
    a_store,
    asked,
    collector,
    ended,
    logging_fleet,
    new_database,
    sent,
    stored,
    wait_for,
    whole,
)
from postgresql import cluster, programs

# On a machine with other work to do.
pytestmark = pytest.mark.timeout(300)

MANY = 40_000


@pytest.fixture(scope="module")
def postgresql() -> Iterator[str]:
    if programs() is None:
        pytest.skip("no PostgreSQL server is installed")
    with cluster() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return a_store(request, tmp_path)


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[World]:
    with logging_fleet(tmp_path) as made:
        yield made


def test_a_collector_killed_at_any_time_leaves_no_gap_and_no_double(fleet: World, url: str) -> None:
    chance = random.Random(11)  # noqa: S311
    for number, host in enumerate(fleet.hosts.values()):
        # As fast as they come: the collector writes nearly all the time, and is killed doing so.
        log = PacketLog(f"r{number}", made_records(MANY, number), pause_s=0.01)
        log.losses = {1000: (7, 2), 3000: (5, 0), MANY: (1, 1)}
        host.packets = log
    kills, grown, last = 0, 0, 0
    while last < HOSTS * MANY * 0.8 and kills < 15:
        process = collector(fleet, url)
        wait_for(lambda at=last: stored(url) > at, process)  # type: ignore[misc]
        time.sleep(chance.uniform(0.0, 0.4))
        ended(process, signal.SIGKILL)
        assert process.returncode == -signal.SIGKILL
        kills, grown = kills + 1, grown + (stored(url) > last)
        last = stored(url)
    print(f"killed {kills} times, last with {last} of {HOSTS * MANY} stored")
    assert kills == grown >= 4
    process = collector(fleet, url)
    wait_for(lambda: stored(url) >= HOSTS * MANY, process)
    ended(process)
    found = whole(url)
    assert len(found) == len(set(found)) == HOSTS * MANY
    assert set(found) == sent(fleet)
    gaps = asked(url, "SELECT sum(lost), sum(lost_at_socket), count(*) FROM packet_gaps")
    assert gaps == [(13 * HOSTS, 3 * HOSTS, 3 * HOSTS)]
    assert asked(url, "SELECT DISTINCT last_seq, stored, lost FROM packet_readers") == [
        (MANY, MANY, 13)
    ]


def test_streams_that_are_cut_and_readers_that_begin_anew(fleet: World, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/packets.sqlite"
    for host in fleet.hosts.values():
        host.packets.cut_after = 1000
    process = collector(fleet, url)
    wait_for(lambda: stored(url) >= HOSTS * COUNT, process)
    requests = fleet.hosts["h1"].named("FollowPacketLog")
    assert [(r.reader, r.after_seq) for r in requests] == [("", 0), ("r1", 1024)]
    before = sent(fleet)
    fleet.hosts["h2"].packets = PacketLog("r2b", made_records(500, 9))
    wait_for(lambda: stored(url) >= HOSTS * COUNT + 500, process)
    assert f"{HOSTS * COUNT + 500} stored" in ended(process)
    assert process.returncode == 0
    found = whole(url)
    assert len(found) == HOSTS * COUNT + 500
    assert set(found) == before | sent(fleet)
    # Asked is for what comes after the new reader's records, not the old one's.
    fleet.hosts["h2"].packets.records += made_records(10, 10, first=501)
    process = collector(fleet, url)
    wait_for(lambda: stored(url) >= HOSTS * COUNT + 510, process)
    ended(process)
    last = fleet.hosts["h2"].named("FollowPacketLog")[-1]
    assert (last.reader, last.after_seq) == ("r2b", 500)


def test_two_collectors_of_one_host_into_one_store(fleet: World, url: str) -> None:
    logs = [host.packets for host in fleet.hosts.values()]
    for log in logs:
        log.pause_s, log.batch = 0.05, 64
    one = collector(fleet, url)
    wait_for(lambda: stored(url) > 0, one)
    two = collector(fleet, url)
    end = time.monotonic() + 60
    while one.poll() is None and two.poll() is None and time.monotonic() < end:
        time.sleep(0.1)
    told = [p.communicate()[1] for p in (one, two) if p.poll() is not None]
    assert len(told) == 1
    assert "another collector stores the packet log of h" in told[0]
    left = one if one.poll() is None else two
    wait_for(lambda: stored(url) >= HOSTS * COUNT, left)
    ended(left)
    found = whole(url)
    assert len(found) == HOSTS * COUNT
    assert set(found) == sent(fleet)


def test_a_database_that_goes_away_is_waited_for(fleet: World, postgresql: str) -> None:
    import psycopg

    url = new_database(postgresql)
    for host in fleet.hosts.values():
        host.packets.pause_s, host.packets.batch = 0.1, 64
    process = collector(fleet, url)
    wait_for(lambda: stored(url) > 0, process)
    name = url.partition("?")[0].rpartition("/")[2]
    end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s"
    with psycopg.connect(postgresql, autocommit=True) as connection:
        for _ in range(3):
            connection.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')
            connection.execute(end, (name,))
            time.sleep(1.0)
            connection.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true')
            time.sleep(1.0)
    for host in fleet.hosts.values():
        host.packets.pause_s = 0.0
    wait_for(lambda: stored(url) >= HOSTS * COUNT, process)
    words = ended(process)
    assert "trying again" in words
    found = whole(url)
    assert len(found) == HOSTS * COUNT
    assert set(found) == sent(fleet)
    assert f"{HOSTS * COUNT} stored" in words


def test_a_dead_host_keeps_nobody_waiting(fleet: World, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/packets.sqlite"
    fleet.dead("h9")
    process = collector(fleet, url, "--where", "dport == 443")
    wanted = [r for h in fleet.hosts.values() for r in h.packets.records]
    count = sum(record.destination_port == 443 for record in wanted)
    wait_for(lambda: stored(url) >= count, process)
    time.sleep(4.0)
    words = ended(process)
    assert stored(url) == count
    assert "h9: UNAVAILABLE" in words
    assert "asking again" in words


def test_hosts_that_would_answer_the_same_again_end_it(fleet: World, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/packets.sqlite"
    for host in fleet.hosts.values():
        refusal = rich(grpc.StatusCode.UNIMPLEMENTED, "NOT_THERE", "an old daemon")
        host.refusals["FollowPacketLog"] = [refusal]
    process = collector(fleet, url)
    _, words = process.communicate(timeout=60)
    assert process.returncode == 1
    assert words.count("an old daemon") == HOSTS
