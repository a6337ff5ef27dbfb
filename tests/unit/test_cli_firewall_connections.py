"""`hostler firewall connections` and `counters` against real servers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from client_doors import World, world

from hostler.api.firewall.v1 import connection_pb2, ruleset_pb2
from hostler.cli.main import cli

Run = Callable[..., Result]


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[World]:
    with world(tmp_path) as made:
        made.start("h1")
        made.start("h2")
        yield made


@pytest.fixture
def run(fleet: World) -> Run:
    def invoke(*args: str) -> Result:
        return CliRunner().invoke(cli, args, env={"HOSTLER_CONFIG": str(fleet.config)})

    return invoke


def test_list_says_what_it_leaves_out(fleet: World, run: Run) -> None:
    answer = run("-H", "all", "firewall", "connections", "list", "--limit", "1")
    assert answer.exit_code == 0, answer.output
    row = answer.stdout.splitlines()[1].split()
    assert row[:6] == ["h1", "tcp", "[fd00::1]:4000", "fd00::2", "10.0.0.2:22", "10.0.0.1"]
    assert "ESTABLISHED" in row
    assert "h2: 1 of 7 connections are shown" in answer.stderr
    assert fleet.hosts["h1"].named("ListConnections")[0].page_size == 1


def test_every_option_has_its_field(fleet: World, run: Run) -> None:
    words = (
        *("--proto", "udp", "--from", "10.0.0.0/8", "--from", "10.9.9.9", "--to", "fd00::/8"),
        *("--dport", "53", "--dport", "8000-8010", "--sport", "9", "--ipv", "6"),
        *("--dnat", "--snat"),
    )
    answer = run("-H", "h1", "firewall", "connections", "count", *words)
    assert answer.exit_code == 0, answer.output
    (request,) = fleet.hosts["h1"].named("CountConnections")
    assert request.filter == connection_pb2.ConnectionFilter(
        protocol=ruleset_pb2.PROTOCOL_UDP,
        sources=["10.0.0.0/8", "10.9.9.9"],
        destinations=["fd00::/8"],
        destination_ports=[{"first": 53, "last": 53}, {"first": 8000, "last": 8010}],
        source_ports=[{"first": 9, "last": 9}],
        ip_version=6,
        destination_nat=True,
        source_nat=True,
    )
    assert [line.split()[1:] for line in answer.stdout.splitlines()[1:]] == [
        ["tcp", "SYN_SENT", "3"],
        ["all", "that", "match", "3"],
        ["the", "whole", "table", "12", "of", "4096"],
    ]


@pytest.mark.parametrize("words", [(), ("--all", "--ipv", "4")])
def test_flush_is_of_some_or_of_all(fleet: World, run: Run, words: tuple[str, ...]) -> None:
    assert run("-H", "h1", "--yes", "firewall", "connections", "flush", *words).exit_code == 2
    assert not fleet.hosts["h1"].calls


def test_flush(fleet: World, run: Run) -> None:
    flush = ("firewall", "connections", "flush")
    planned = run("-H", "h1", "--plan", *flush, "--all")
    assert planned.exit_code == 0, planned.output
    assert "cut connections" in planned.stdout
    done = run("-H", "h1", "--yes", *flush, "--from", "192.0.2.7")
    assert done.exit_code == 0, done.output
    assert "3 connections" in done.stdout
    requests = fleet.hosts["h1"].named("FlushConnections")
    assert [(r.all, list(r.filter.sources), r.change.validate_only) for r in requests] == [
        (True, [], True),
        (False, ["192.0.2.7"], True),
        (False, ["192.0.2.7"], False),
    ]


@pytest.mark.parametrize("ports", ["0", "65536", "9-x", "-", "", "1-2-3", "٣"])
def test_ports_that_are_none(run: Run, ports: str) -> None:
    answer = run("-H", "h1", "firewall", "connections", "list", f"--dport={ports}")
    assert answer.exit_code == 2
    assert "is not a port" in answer.stderr


def test_counters_of_all_pages(fleet: World, run: Run) -> None:
    answer = run("-H", "h2", "firewall", "counters")
    assert [line.split() for line in answer.stdout.splitlines()[1:]] == [
        ["h2", "web/0", "5", "420"],
        ["h2", "web/1", "5", "420"],
    ]
