"""`-c CHISEL` on a stored trace: lines, tables, pictures and events are all shown."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from scap_world import World, write_scap

from hostler.cli.main import cli
from hostler.core.trace.events import Events


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Events]:
    events = World(1).events(200)
    return write_scap(tmp_path_factory.mktemp("trace") / "a.scap", events), events


def run(*args: str) -> Result:
    answer = CliRunner().invoke(cli, args)
    assert answer.exit_code == 0, answer.output
    return answer


def test_lines_are_shown_each(stored: tuple[Path, Events]) -> None:
    path, events = stored
    slow = int((events["latency_ns"] > 1_000_000).sum())
    shown = run("trace", "read", str(path), "-c", "scallslower", "-a", "min_ms=1").stdout
    assert len(shown.splitlines()) == slow > 50
    told = run("-o", "ndjson", "trace", "read", str(path), "-c", "scallslower", "-a", "1").stdout
    rows = [json.loads(line) for line in told.splitlines()]
    assert len(rows) == slow and set(rows[0]) == {"time", "process", "tid", "latency", "call"}


def test_events_around_a_match_are_shown(stored: tuple[Path, Events]) -> None:
    path, _ = stored
    match = "match=evt.type=openat and evt.failed=true"
    shown = run("trace", "read", str(path), "-c", "around", "-a", match, "-a", "range_ms=0").stdout
    assert shown and all("openat" in line for line in shown.splitlines())


def test_a_table_and_its_notes_are_shown(stored: tuple[Path, Events]) -> None:
    path, _ = stored
    answer = run("trace", "read", str(path), "-c", "topprocs_cpu")
    assert answer.stdout.splitlines()[0].split() == ["PROCESS", "PID", "OUTSIDE_CALLS"]
    assert "calls do not tell CPU time" in answer.stderr


def test_a_picture_is_shown_or_written(stored: tuple[Path, Events], tmp_path: Path) -> None:
    path, _ = stored
    assert "█" in run("trace", "read", str(path), "-c", "spectrogram").stdout
    svg = tmp_path / "picture.svg"
    run("trace", "read", str(path), "-c", "latency_histogram", "--svg", str(svg))
    assert svg.read_text().startswith("<svg ")


def test_a_bad_argument_is_told(stored: tuple[Path, Events]) -> None:
    path, _ = stored
    answer = CliRunner().invoke(cli, ["trace", "read", str(path), "-c", "scallslower"])
    assert answer.exit_code == 2 and "scallslower needs min_ms" in answer.stderr
