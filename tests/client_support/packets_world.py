"""Collectors as processes of their own, and stores of both sorts for them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from client_doors import World, world
from client_packets import PacketLog, made_records
from runs_world import MAIN, environment
from sqlalchemy import text

from hostler.packet_store import open_packets

HOSTS = 3
COUNT = 6_000


def new_database(server: str) -> str:
    """A database of the test's own on a PostgreSQL server; answers its URL."""
    import psycopg

    name = f"test_{os.getpid()}_{time.monotonic_ns()}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
    return server.replace("/postgres?", f"/{name}?")


def a_store(request: pytest.FixtureRequest, folder: Path) -> str:
    """The URL of a store of the test's own, of the sort that the fixture's parameter says."""
    if request.param == "sqlite":
        return f"sqlite:///{folder}/state/packets.sqlite"
    return new_database(request.getfixturevalue("postgresql"))


@contextmanager
def logging_fleet(folder: Path) -> Iterator[World]:
    """Three hosts that have logged as much each."""
    with world(folder) as made:
        for number in range(1, HOSTS + 1):
            host = made.start(f"h{number}")
            host.packets = PacketLog(f"r{number}", made_records(COUNT, number))
        yield made


def sent(fleet: World) -> set[tuple[str, str, int, int]]:
    return {
        (name, host.packets.reader, record.seq, record.time_unix_ns)
        for name, host in fleet.hosts.items()
        for record in host.packets.records
    }


def whole(url: str) -> list[tuple[str, str, int, int]]:
    return asked(  # type: ignore[return-value]
        url,
        "SELECT host, reader, seq, time FROM packets "
        "JOIN packet_readers ON packet_readers.id = packets.reader_id",
    )


def collector(fleet: World, url: str, *options: str) -> subprocess.Popen[str]:
    argv = ["-H", "all", "firewall", "collect", "--store", url, *options]
    return subprocess.Popen(
        [sys.executable, "-c", MAIN, *argv],
        env={**os.environ, **environment(fleet)},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True,
    )  # fmt: skip


def ended(process: subprocess.Popen[str], number: int = signal.SIGTERM) -> str:
    """End a collector and answer what it wrote to standard error."""
    process.send_signal(number)
    return process.communicate(timeout=60)[1]


def asked(url: str, query: str) -> list[tuple[Any, ...]]:
    """What a store answers to SQL."""
    with open_packets(url) as store, store.begin(reading=True) as connection:
        return [tuple(row) for row in connection.execute(text(query))]


def stored(url: str) -> int:
    return int(asked(url, "SELECT count(*) FROM packets")[0][0])


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    """Wait until something holds, while the process goes on."""
    end = time.monotonic() + 90
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end, "not within 90 s"
        time.sleep(0.1)
