"""The collection for Ansible: what its documentation says is what its modules take."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

CHECKOUT = Path(__file__).resolve().parents[2]
COLLECTION = CHECKOUT / "client" / "ansible_collections" / "hostler" / "hosts"
MODULES = sorted((COLLECTION / "plugins" / "modules").glob("*.py"))
COMMON = COLLECTION / "plugins" / "module_utils" / "fleet.py"
DOC = CHECKOUT / "build" / "peers" / "bin" / "ansible-doc"


def taken(path: Path) -> dict[str, dict[str, Any]]:
    """The parameters in a source: the one dictionary of dictionaries that have a `type`."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Dict) and node.values and isinstance(node.values[0], ast.Dict):
            value: dict[str, dict[str, Any]] = ast.literal_eval(node)
            if all("type" in each for each in value.values()):
                return value
    raise AssertionError(f"{path}: no parameters")


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_what_is_documented_is_what_is_taken(path: Path, tmp_path: Path) -> None:
    name = f"hostler.hosts.{path.stem}"
    environment = {
        **os.environ,
        "HOME": str(tmp_path),
        "ANSIBLE_COLLECTIONS_PATH": str(COLLECTION.parents[2]),
    }
    done = subprocess.run(
        [str(DOC), "-t", "module", "-j", name],
        env=environment, capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    told = json.loads(done.stdout)[name]
    options = {
        key: {k: each[k] for k in ("type", "elements", "default", "required") if k in each}
        for key, each in told["doc"]["options"].items()
    }
    without = {"required": False}
    expected = taken(path) | taken(COMMON)
    assert {k: without | v for k, v in options.items()} == {
        k: without | v for k, v in expected.items()
    }
    assert yaml.safe_load(told["examples"])
    assert set(told["return"]) == {"plan", "outcomes", "runs", "error"}


def test_its_version_is_that_of_hostler() -> None:
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
    assert yaml.safe_load((COLLECTION / "galaxy.yml").read_text())["version"] == project["version"]


def test_there_are_three() -> None:
    assert [path.stem for path in MODULES] == [
        "hostler_cert",
        "hostler_firewall",
        "hostler_netns",
    ]
