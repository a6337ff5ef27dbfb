"""Which records a collector stores and how long: filters that come and go, and retention."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from client_doors import World
from client_packets import HOUR_NS, made_records
from packets_world import (
    COUNT,
    HOSTS,
    a_store,
    asked,
    collector,
    ended,
    logging_fleet,
    stored,
    wait_for,
    whole,
)
from postgresql import cluster, programs
from runs_world import hostler

# On a machine with other work to do.
pytestmark = pytest.mark.timeout(300)


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


def test_filters_come_and_go_while_it_runs(fleet: World, url: str) -> None:
    logs = [host.packets for host in fleet.hosts.values()]
    assert hostler(fleet, "firewall", "filters", "add", "ssh", "dport == 22", "--store", url)
    process = collector(fleet, url)
    every = [r for log in logs for r in log.records]
    wanted = sum(r.destination_port == 22 for r in every)
    wait_for(lambda: stored(url) >= wanted, process)
    wait_for(lambda: _looked_at(url) == HOSTS * COUNT, process)
    assert stored(url) == wanted
    added = hostler(
        fleet, "firewall", "filters", "add", "drops", 'action == "drop"', "--store", url
    )
    assert added.exit_code == 0, added.output
    wait_for(lambda: _in_force(url, "drops"), process)
    more = made_records(2000, 77, first=COUNT + 1)
    logs[0].records += more
    wanted += sum(r.destination_port == 22 or r.action == "drop" for r in more)
    wait_for(lambda: _looked_at(url) == HOSTS * COUNT + 2000, process)
    assert stored(url) == wanted
    for name in ("ssh", "drops"):
        gone = hostler(fleet, "firewall", "filters", "remove", name, "--store", url)
        assert gone.exit_code == 0, gone.output
    wait_for(lambda: not _in_force(url, "ssh") and not _in_force(url, "drops"), process)
    logs[1].records += made_records(300, 78, first=COUNT + 1)
    wait_for(lambda: _looked_at(url) == HOSTS * COUNT + 2300, process)
    words = ended(process)
    assert stored(url) == wanted + 300
    assert "filter drops is in force" in words
    assert f"{wanted + 300} stored" in words
    history = asked(
        url,
        "SELECT name, added <= in_force, in_force < removed, removed <= out_of_force "
        "FROM packet_filters ORDER BY id",
    )
    assert [(row[0], *map(bool, row[1:])) for row in history] == [
        ("ssh", True, True, True), ("drops", True, True, True),
    ]  # fmt: skip
    shown = hostler(fleet, "firewall", "filters", "list", "--history", "--store", url)
    assert "dport == 22" in shown.stdout
    assert "dport" not in hostler(fleet, "firewall", "filters", "list", "--store", url).stdout


def _looked_at(url: str) -> int:
    return int(asked(url, "SELECT coalesce(sum(last_seq), 0) FROM packet_readers")[0][0])


def _in_force(url: str, name: str) -> bool:
    rows = asked(
        url,
        "SELECT name FROM packet_filters WHERE in_force IS NOT NULL AND out_of_force IS NULL",
    )
    return (name,) in rows


def test_retention_takes_the_oldest(fleet: World, url: str) -> None:
    now = time.time_ns()
    for host in fleet.hosts.values():
        # From six hours ago on; the oldest third is older than four hours.
        host.packets.records = made_records(COUNT, 5, start_ns=now - 6 * HOUR_NS)
    process = collector(fleet, url, "--keep", "4h")
    wait_for(lambda: _looked_at(url) == HOSTS * COUNT, process)
    wait_for(lambda: stored(url) < HOSTS * COUNT * 0.7, process)
    words = ended(process)
    (oldest, count), *_ = asked(url, "SELECT min(time), count(*) FROM packets")
    assert oldest >= now - 4 * HOUR_NS
    assert abs(count - HOSTS * COUNT * 2 // 3) < 60
    assert f"{HOSTS * COUNT - count} removed" in words
    assert asked(url, "SELECT sum(stored - expired) FROM packet_readers") == [(count,)]
    left = sorted((row[3] for row in whole(url)), reverse=True)[:5000]
    process = collector(fleet, url, "--keep-records", "5000")
    wait_for(lambda: stored(url) <= 5000, process)
    ended(process)
    assert sorted((row[3] for row in whole(url)), reverse=True) == left
    # What has gone is not fetched again.
    assert asked(url, "SELECT sum(last_seq) FROM packet_readers") == [(HOSTS * COUNT,)]
