"""Shadows of rulesets of files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from click.testing import CliRunner, Result
from client_doors import World, rich, world

from hostler.cli.main import cli

RULES = 'name = "web"\nhosts = ["h1"]\n[[rules]]\nid = "x"\nhook = "input"\naction = "drop"\n'


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[World]:
    with world(tmp_path) as made:
        made.start("h1")
        made.start("h2")
        (tmp_path / "web.toml").write_text(RULES)
        yield made


def run(fleet: World, *args: object) -> Result:
    words = [str(each) for each in args]
    return CliRunner().invoke(cli, words, env={"HOSTLER_CONFIG": str(fleet.config)})


def test_a_shadow_from_beginning_to_end(fleet: World, tmp_path: Path) -> None:
    path = tmp_path / "web.toml"
    args = ["firewall", "shadow", "start", "-f", path]
    started = run(fleet, "-H", "all", "--yes", *args, "--for", "1h", "--without", "old")
    assert started.exit_code == 0, started.output
    assert "ends 20" in started.stdout
    assert "No file is for them, they stay as they are: h2" in started.stderr
    (done,) = (r for r in fleet.hosts["h1"].named("StartShadow") if not r.change.validate_only)
    assert (done.duration.seconds, list(done.delete_names)) == (3600, ["old"])
    assert [each.name for each in done.rulesets] == ["web"]
    assert fleet.hosts["h2"].named("StartShadow") == []
    shown = run(fleet, "-H", "all", "firewall", "shadow", "show").stdout.splitlines()
    assert [line.split() for line in shown[1:]] == [
        ["h1", "web/x", "1", "60", "2030-01-02", "03:04:05"],
        ["h2", "no", "shadow", "-", "-", "-"],
    ]
    assert run(fleet, "-H", "all", "--yes", "firewall", "shadow", "stop").exit_code == 0
    assert fleet.hosts["h1"].shadow is None
    default = run(fleet, "-H", "h1", "--yes", *args)
    assert default.exit_code == 0
    assert not fleet.hosts["h1"].named("StartShadow")[-1].HasField("duration")


def test_what_a_host_refuses_names_its_place(fleet: World, tmp_path: Path) -> None:
    path = tmp_path / "web.toml"
    fault = rich(
        grpc.StatusCode.INVALID_ARGUMENT,
        "INVALID_REQUEST",
        "rulesets[0].rules[0].id: is bad",
        fields={"rulesets[0].rules[0].id": "is bad"},
    )
    fleet.hosts["h1"].refusals["StartShadow"] = [fault]
    answer = run(fleet, "-H", "h1", "--yes", "firewall", "shadow", "start", "-f", path)
    assert answer.exit_code == 1
    assert (
        f"h1: INVALID_ARGUMENT INVALID_REQUEST\n  {path}:4: rule x: rules[0].id: is bad\n"
    ) in answer.stderr


def test_it_needs_no_confirmation(fleet: World, tmp_path: Path) -> None:
    args = ["firewall", "shadow", "start", "-f", tmp_path / "web.toml"]
    assert run(fleet, "-H", "h1", "--yes", "--confirm-within", "9s", *args).exit_code == 2
    assert fleet.hosts["h1"].calls == []
