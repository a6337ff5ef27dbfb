"""The frame of the command line: options, help, configuration errors, start-up time."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from hostler.cli.kinds import Bytes, Cpus, Pair, Seconds
from hostler.cli.main import cli

HEAVY = ("grpc", "google.protobuf", "rich", "cryptography", "tomlkit", "yaml", "asyncio")


def hostler(*args: str, config: Path | None = None) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "HOSTLER_CONFIG": str(config or "/nonexistent/config.toml")}
    code = "import sys; from hostler.cli.main import main; sys.argv[0] = 'hostler'; main()"
    return subprocess.run(
        [sys.executable, "-c", code, *args],
        capture_output=True, text=True, env=env, stdin=subprocess.DEVNULL, timeout=60,
    )  # fmt: skip


def test_help_and_version_need_no_configuration() -> None:
    answer = hostler("--help")
    assert answer.returncode == 0
    for word in ("audit", "firewall", "fleet", "isolate", "lab", "netns", "pki", "policy"):
        assert re.search(rf"^  {word} ", answer.stdout, re.MULTILINE)
    assert "Exit status: 0 every host did it" in answer.stdout
    version = hostler("--version")
    assert version.returncode == 0
    assert version.stdout.startswith("hostler 0.")


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\nfrom click.testing import CliRunner\nfrom hostler.cli.main import cli\n"
        "before = set(sys.modules)\n"
        "assert CliRunner().invoke(cli, ['--help']).exit_code == 0\n"
        "print([m for m in sys.argv[1:] if m in set(sys.modules)])"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code, *HEAVY], capture_output=True, text=True, timeout=60
    )
    # click's own test runner imports none of them.
    assert answer.stdout.strip() == "[]", answer.stderr


def test_no_configuration_is_exit_2_with_a_clear_sentence() -> None:
    answer = hostler("-H", "all", "netns", "list")
    assert answer.returncode == 2
    assert answer.stdout == ""
    assert answer.stderr == (
        "Error: no configuration at /nonexistent/config.toml: set HOSTLER_CONFIG, or make one "
        "with 'hostler lab up' or 'hostler pki init'\n"
    )


def test_bad_configuration_is_exit_2(tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text("[contexts\n")
    answer = hostler("-H", "all", "netns", "list", config=config)
    assert answer.returncode == 2
    assert f"{config}: not TOML" in answer.stderr


def test_an_unknown_context_is_exit_2(tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text("[contexts.a]\n")
    answer = hostler("--context", "b", "-H", "all", "netns", "list", config=config)
    assert answer.returncode == 2
    assert "there is no context 'b'; there are: a" in answer.stderr


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["mail"], "No such command 'mail'"),
        (["--max-failures", "many", "netns", "list"], "neither a number nor a percentage"),
        (["--timeout", "0", "netns", "list"], "is not a time"),
        (["--parallel", "501", "netns", "list"], "501 is not in the range"),
        (["-o", "xml", "netns", "list"], "'xml' is not one of"),
        (["--plan", "--yes", "netns", "list"], "give one of them"),
        (["netns", "list", "-o", "json"], "-o is global: give it right after 'hostler'"),
        (["netns", "list", "--yes"], "--yes is global"),
        (["netns", "create"], "Missing argument 'NAME'"),
        (["netns", "create", "a", "--bridge", "b", "--macvlan", "c"], "two kinds of link"),
        (["isolate", "web"], "say what to run"),
        (["isolate", "web", "--remove", "--user", "x"], "--remove takes nothing but the name"),
        (["isolate", "web", "--publish", "x", "--", "y"], "is not [ADDRESS:]PORT"),
    ],
)
def test_wrong_usage_is_exit_2(args: list[str], words: str) -> None:
    answer = CliRunner().invoke(cli, args)
    assert answer.exit_code == 2
    assert words in answer.output


def commands(command: click.Command, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    found = [path] if not isinstance(command, click.Group) else []
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            sub = command.get_command(context, name)
            assert sub is not None
            found += commands(sub, (*path, name))
    return found


@pytest.mark.parametrize("domain", ["audit", "completion", "firewall", "fleet", "host", "isolate",
                                    "netns", "ssl"])  # fmt: skip
def test_every_command_has_help_with_examples(domain: str) -> None:
    found = cli.get_command(click.Context(cli), domain)
    assert found is not None
    for path in commands(found, (domain,)):
        answer = CliRunner().invoke(cli, [*path, "--help"])
        assert answer.exit_code == 0
        assert "Examples:" in answer.output, path
        assert (
            f"hostler {path[0]}" in answer.output.replace("-H", "") or "hostler -" in answer.output
        )


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(shell: str) -> None:
    answer = CliRunner().invoke(cli, ["completion", shell])
    assert answer.exit_code == 0
    assert "_HOSTLER_COMPLETE" in answer.output


def test_completion_of_commands() -> None:
    env = {**os.environ, "_HOSTLER_COMPLETE": "bash_complete", "COMP_WORDS": "hostler netns st",
           "COMP_CWORD": "2"}  # fmt: skip
    code = "import sys; from hostler.cli.main import main; sys.argv = ['hostler']; main()"
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=env, timeout=60
    )
    assert answer.stdout.split() == ["plain,start", "plain,stop"]


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (Seconds(), "30", 30.0),
        (Seconds(), "500ms", 0.5),
        (Seconds(), "2m", 120.0),
        (Bytes(), "1048576", 1048576),
        (Bytes(), "64M", 64 << 20),
        (Bytes(), "1.5GiB", 3 << 29),
        (Cpus(), "0.5", 500),
        (Cpus(), "2", 2000),
        (Pair(), "A=b=c", ("A", "b=c")),
    ],
)
def test_kinds(kind: click.ParamType[object], text: str, value: object) -> None:
    assert kind.convert(text, None, None) == value


@pytest.mark.parametrize(
    ("kind", "text"),
    [(Seconds(), "x"), (Seconds(), "-1"), (Seconds(), "nan"), (Seconds(), "2d"), (Bytes(), "x"),
     (Bytes(), "-1"), (Cpus(), "half"), (Cpus(), "1.0001"), (Pair(), "=x"), (Pair(), "x")],
)  # fmt: skip
def test_kinds_refuse(kind: click.ParamType[object], text: str) -> None:
    with pytest.raises(click.BadParameter):
        kind.convert(text, None, None)


def test_json_of_nothing_selected(tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text(
        '[contexts.a]\ntrust_domain = "a"\nca = "x"\ncertificate = "x"\nkey = "x"\n'
        'fleet = "fleet.toml"\n'
    )
    (tmp_path / "fleet.toml").write_text('[hosts.h1]\naddress = "127.0.0.1"\n')
    assert json.loads(hostler("-o", "json", "fleet", "list", config=config).stdout) == [
        {
            "host": "h1",
            "ok": True,
            "result": {
                "address": "127.0.0.1",
                "labels": {},
                "ports": {},
                "domains": [],
                "groups": [],
            },
        }
    ]
    for args in ([], ["-H", "h2"]):
        answer = hostler(*args, "netns", "list", config=config)
        assert answer.returncode == 3
        assert "no host" in answer.stderr
    answer = hostler("-H", "h1", "netns", "list", config=config)
    assert answer.returncode == 2
    assert "cannot read the context's" in answer.stderr
