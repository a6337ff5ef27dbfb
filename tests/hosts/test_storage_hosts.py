"""What hosts store things on, with the capability of the unit and no other."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import tomlkit
from hosts_client import answers, cli

from hostler.lab.host import Host
from hostler.lab.lab import Lab

pytestmark = [pytest.mark.hosts, pytest.mark.timeout(180)]


def nodes(lab: Lab) -> dict[str, Any]:
    result = answers(lab, "-H", "h1", "storage", "show")["h1"]["result"]
    return {node["name"]: node for node in result["nodes"]}


def test_disks_are_seen_as_lsblk_sees_them(lab: Lab, h1: Host) -> None:
    """A container sees the machine's disks, and has no nodes for them: it says so."""
    told = json.loads(h1.run(["lsblk", "--json", "--bytes", "--list"]).stdout)["blockdevices"]
    disks = {each["name"]: each for each in told if each["type"] == "disk" and each["size"]}
    found = nodes(lab)
    for name, row in disks.items():
        if name.startswith("loop"):
            continue
        assert int(found[name]["size_bytes"]) == row["size"]
        assert found[name]["device_number"] == row["maj:min"]
    answer = answers(lab, "-H", "h1", "storage", "show")["h1"]["result"]
    codes = {each["code"] for each in answer.get("warnings", [])}
    assert codes <= {"NO_DEVICE_NODE", "DEVICE_UNREADABLE"}


def test_tables_pictures_and_health(lab: Lab, h1: Host, tmp_path: Path) -> None:
    picture = tmp_path / "disks.svg"
    shown = cli(lab, "-H", "all", "storage", "show", "--svg", str(picture)).stdout
    assert shown.splitlines()[0].split()[:4] == ["HOST", "DEVICE", "KIND", "SIZE"]
    drawn = ElementTree.fromstring(picture.read_text())  # noqa: S314 # our own
    texts = {each.text for each in drawn.iter("{http://www.w3.org/2000/svg}text")}
    assert {"h1", "h2", "h3"} <= texts
    assert set(nodes(lab)) <= texts | {"/"}
    told = cli(lab, "-H", "all", "storage", "health", status=None)
    assert told.stdout.splitlines()[0].split() == ["HOST", "HEALTH", "CODE", "WHY"]
    assert cli(lab, "-H", "h1", "storage", "space").stdout.startswith("HOST")


def test_what_is_declared_is_compared_on_each_host(lab: Lab, tmp_path: Path) -> None:
    file = tmp_path / "storage.toml"
    file.write_text(cli(lab, "-H", "all", "storage", "declare").stdout)
    assert set(tomllib.loads(file.read_text())["hosts"]) == {"h1", "h2", "h3"}
    same = answers(lab, "-H", "all", "storage", "drift", str(file))
    assert set(same) == {"h1", "h2", "h3"}
    assert not any(each["result"]["drifts"] for each in same.values())
    document = tomlkit.parse(file.read_text())
    document["hosts"]["h2"]["kernel"] = "0.1"  # type: ignore[index] # a table
    file.write_text(tomlkit.dumps(document))
    told = cli(lab, "-H", "all", "storage", "drift", str(file), status=1).stdout
    rows = [row.split()[:3] for row in told.splitlines()]
    assert ["h2", "KERNEL_OTHER", "kernel"] in rows
    assert [row[:2] for row in rows if row[0] in ("h1", "h3") and row[1] != "not"] == [
        ["h1", "none"],
        ["h3", "none"],
    ]
    assert cli(lab, "-H", "all", "storage", "survival").stdout.startswith("HOST")


def test_get_host_says_what_is_missing_here(lab: Lab) -> None:
    told = answers(lab, "-H", "h1", "host", "get", "--domain", "storage")["h1"]["result"]["host"]
    missing = {each["name"]: each["reason"] for each in told["capabilities"]}
    assert "no md" in missing["md"]
    assert "no device mapper" in missing["device_mapper"]
    assert "CAP_SYS_RAWIO" in missing["smart"]
