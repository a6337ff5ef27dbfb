from __future__ import annotations

from pathlib import Path

import pytest

from hostler.config import ConfigError, load_context

GOOD = """
current = "lab"
[contexts.lab]
trust_domain = "lab.hostler"
ca = "pki/ca.pem"
certificate = "pki/users/admin.pem"
key = "/abs/admin.key"
fleet = "fleet.toml"
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "config.toml"
    path.write_text(text)
    return path


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    context = load_context(path=write(tmp_path, GOOD))
    assert context.ca == tmp_path / "pki/ca.pem"
    assert context.key == Path("/abs/admin.key")
    assert context.pki is None
    assert context.name == "lab"


def test_the_environment_names_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOSTLER_CONFIG", str(write(tmp_path, GOOD)))
    assert load_context().fleet == tmp_path / "fleet.toml"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x = [", "not TOML"),
        ("", "contexts: there is none"),
        (GOOD.replace('"lab"', '"other"', 1), "there is no context 'other'; there are: lab"),
        (GOOD + "speed = 1\n", "contexts.lab.speed: unknown key"),
        (GOOD.replace('ca = "pki/ca.pem"\n', ""), "contexts.lab.ca: a path is needed"),
        (GOOD.replace('"lab.hostler"', "7"), "contexts.lab.trust_domain: a name is needed"),
        (GOOD + 'dns = ["here"]\n', "contexts.lab.dns: 'here' is not an address"),
        ("[contexts]\nlab = 1\n", "contexts.lab: not a table"),
        ("[contexts.a]\n[contexts.b]\n", "current: not set; one of a, b"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=r"config\.toml") as caught:
        load_context(path=write(tmp_path, text))
    assert words in str(caught.value)


def test_a_missing_file_says_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="set HOSTLER_CONFIG, or make one with 'hostler lab up'"):
        load_context(path=tmp_path / "none.toml")


def test_a_file_that_is_not_text_or_a_folder(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="not UTF-8"):
        load_context(path=path)
    with pytest.raises(ConfigError, match="cannot read"):
        load_context(path=tmp_path)
