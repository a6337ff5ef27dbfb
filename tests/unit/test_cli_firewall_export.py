"""Rulesets as TOML: what is written is read back as the same, whatever is in it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from client_doors import World, world
from hypothesis import given, settings
from hypothesis import strategies as st

from hostler.api.firewall.v1 import ruleset_pb2 as pb
from hostler.cli.main import cli
from hostler.desired import load_message
from hostler.desired_text import to_toml

TEXT = st.text(max_size=12) | st.sampled_from(["a\nb\n", "'''\n", "\x7f", '"""', "é\\", "\n'"])


@st.composite
def messages(draw: Any, kind: Any) -> Any:
    """Any message of a kind, to the last of its fields."""
    message = kind()
    for field in kind.DESCRIPTOR.fields:
        if field.name in ("etag", "update_time") or not draw(st.booleans()):
            continue
        count = draw(st.integers(1, 3)) if field.is_repeated else 1
        values = [draw(values_of(field)) for _ in range(count)]
        if field.is_repeated:
            getattr(message, field.name).extend(values)
        elif field.message_type is not None:
            getattr(message, field.name).CopyFrom(values[0])
            getattr(message, field.name).SetInParent()
        else:
            setattr(message, field.name, values[0])
    return message


def values_of(field: Any) -> Any:
    if field.message_type is not None:
        kind = field.message_type._concrete_class
        if field.message_type.name == "Timestamp":
            return st.builds(kind, seconds=st.integers(0, 4_000_000_000), nanos=st.just(5000))
        if field.message_type.name == "PortRange":
            return st.builds(kind, first=st.integers(0, 9), last=st.integers(10, 65535))
        return messages(kind)
    if field.enum_type is not None:
        return st.sampled_from([value.number for value in field.enum_type.values if value.number])
    if field.type == field.TYPE_BOOL:
        return st.just(True)
    if field.type == field.TYPE_STRING:
        return TEXT
    return st.integers(0, 2**32 - 1)


@settings(max_examples=150, deadline=None)
@given(messages(pb.Ruleset))
def test_what_is_written_is_read_as_the_same(tmp_path_factory: Any, ruleset: Any) -> None:
    path = tmp_path_factory.mktemp("written") / "it.toml"
    path.write_text(to_toml(ruleset, comments={"": ["a\nb"], "rules[0]": ["x"], "no": ["\x00"]}))
    assert load_message(path, pb.Ruleset()) == ruleset


def test_nothing_in_it_drives_a_terminal() -> None:
    words = "\x1b[2J\x9b\x7f\u202e\U000e0001\r"
    text = to_toml(pb.Ruleset(name=words), comments={"": [words]})
    assert all(c.isprintable() or c == "\n" for c in text)


def test_how_it_looks() -> None:
    ruleset = pb.Ruleset(
        name="web",
        input_policy=pb.ACTION_DROP,
        rules=[
            pb.Rule(
                id="http",
                hook=pb.HOOK_INPUT,
                destination_ports=[pb.PortRange(first=80), pb.PortRange(first=81, last=89)],
                log=pb.RuleLog(),
                limit=pb.Rate(packets=5),
            )
        ],
        services=[pb.NamedService(name="x", ports=[pb.ServicePort(ports=pb.PortRange(first=1))])],
        fragments=[pb.Fragment(id="f", nft_rules="tcp dport 1 accept\ncounter\n")],
        etag="gone",
    )
    text = to_toml(ruleset, without=("etag",), comments={"rules[0]": ["the web"]})
    assert text == (
        'name = "web"\ninput_policy = "drop"\n\n'
        '# the web\n[[rules]]\nid = "http"\nhook = "input"\n'
        'destination_ports = [80, "81-89"]\nlimit = { packets = 5 }\nlog = {}\n\n'
        '[[services]]\nname = "x"\nports = [{ ports = 1 }]\n\n'
        "[[fragments]]\nid = \"f\"\nnft_rules = '''\ntcp dport 1 accept\ncounter\n'''\n"
    )


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[World]:
    with world(tmp_path) as made:
        made.start("h1")
        made.start("h2")
        for name in ("base", "web"):
            ruleset = pb.Ruleset(name=name, etag="e", rules=[pb.Rule(id="x", hook=pb.HOOK_INPUT)])
            ruleset.update_time.GetCurrentTime()
            made.hosts["h1"].rulesets[name] = ruleset
        yield made


def run(fleet: World, *args: object) -> Result:
    words = [str(each) for each in args]
    return CliRunner().invoke(cli, words, env={"HOSTLER_CONFIG": str(fleet.config)})


def test_export_is_what_apply_takes(fleet: World, tmp_path: Path) -> None:
    saved = tmp_path / "saved"
    answer = run(fleet, "-H", "h1", "firewall", "export", "--into", saved)
    assert answer.exit_code == 0, answer.output
    assert answer.stdout.split() == [f"{saved}/h1/base.toml", f"{saved}/h1/web.toml"]
    host = fleet.hosts["h1"]
    for ruleset in host.rulesets.values():
        ruleset.ClearField("etag")
        ruleset.ClearField("update_time")
    same = run(fleet, "-H", "h1", "--plan", "firewall", "apply", "--prune", "-f", saved / "h1")
    assert same.exit_code == 0, same.output
    assert "nothing to do" in same.stdout


def test_export_of_one_to_standard_output(fleet: World) -> None:
    answer = run(fleet, "-H", "h1", "firewall", "export", "web")
    assert answer.stdout == '# h1 web\nname = "web"\n\n[[rules]]\nid = "x"\nhook = "input"\n'
    missing = run(fleet, "-H", "all", "firewall", "export", "web")
    assert missing.exit_code == 1
    assert "h2: there is no ruleset web" in missing.stderr


def test_export_of_nft(fleet: World, tmp_path: Path) -> None:
    answer = run(fleet, "-H", "h1", "firewall", "export", "--nft")
    assert answer.stdout == "# h1\ntable inet hostler {\n}\n"
    assert run(fleet, "-H", "all", "firewall", "export", "--nft", "--into", tmp_path).exit_code == 0
    assert (tmp_path / "h2.nft").read_text() == "table inet hostler {\n}\n"
    assert run(fleet, "-H", "h1", "firewall", "export", "--nft", "web").exit_code == 2


def test_a_host_cannot_name_files(fleet: World, tmp_path: Path) -> None:
    fleet.hosts["h1"].rulesets["../../evil"] = pb.Ruleset(name="../../evil")
    answer = run(fleet, "-H", "h1", "firewall", "export", "--into", tmp_path / "saved")
    assert answer.exit_code == 2
    assert "'../../evil' is no name of a ruleset" in answer.stderr
    assert not (tmp_path / "evil.toml").exists()
