"""The packages as files: built twice they are the same bytes, and they say what is in them."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hostler.lab.lab import default_packages

pytestmark = [pytest.mark.hosts, pytest.mark.timeout(900)]

CHECKOUT = Path(__file__).resolve().parents[2]
BUILT_FROM = ("pyproject.toml", "README.md", "protos", "services", "client", "packaging")
NOT_COPIED = ("--exclude=__pycache__", "--exclude=client/hostler/api", "--exclude=*.bpf.o")


@pytest.fixture(scope="module")
def first() -> Path:
    """Where the packages of this checkout are, that of the client included."""
    return default_packages()


def digests(folder: Path) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.glob("*.deb")}


def test_a_second_build_elsewhere_gives_the_same_bytes(first: Path, tmp_path: Path) -> None:
    """Another folder, another scratch place, umask, time zone and hash seed, at another time."""
    tree, scratch, out = (tmp_path / name for name in ("elsewhere/tree", "scratch", "out"))
    for folder in (tree, scratch, out):
        folder.mkdir(parents=True)
    packed = ["tar", "-c", *NOT_COPIED, "-C", str(CHECKOUT), *BUILT_FROM]
    with subprocess.Popen(packed, stdout=subprocess.PIPE) as tar:
        subprocess.run(["tar", "-x", "-C", tree], stdin=tar.stdout, check=True)
    # Pinned by hash and kept from the first build: to fetch them again would prove nothing more.
    (out / ".dependencies").symlink_to(first / ".dependencies")
    build = [sys.executable, str(tree / "packaging/debian/build.py"), "--out", str(out)]
    settings = {"TMPDIR": str(scratch), "TZ": "Asia/Tokyo", "PYTHONHASHSEED": "7"}
    subprocess.run(build, env={**os.environ, **settings}, umask=0o027, check=True, cwd=scratch)
    again, before = digests(out), digests(first)
    assert len(before) == 7
    assert again == before


def member(package: Path, name: str) -> bytes:
    """A file of a package."""
    packed = ["dpkg-deb", "--fsys-tarfile", str(package)]
    with subprocess.Popen(packed, stdout=subprocess.PIPE) as tar:
        unpack = ["tar", "-xO", "--wildcards", name]
        return subprocess.run(unpack, stdin=tar.stdout, check=True, stdout=subprocess.PIPE).stdout


def pinned(lock: str) -> dict[str, str]:
    """The versions in a lock, by name."""
    text = (CHECKOUT / f"packaging/requirements/{lock}.txt").read_text()
    return dict(re.findall(r"(?m)^([a-z0-9][\w.-]*)==(\S+)", text))


@pytest.mark.parametrize(
    ("package", "tree"), [("hostler-common", "daemon"), ("hostler-client", "client")]
)
def test_the_bill_of_materials_names_all_that_is_locked(
    first: Path, package: str, tree: str
) -> None:
    (path,) = first.glob(f"{package}_*.deb")
    bill: dict[str, Any] = json.loads(member(path, f"./opt/hostler/*/{tree}.cdx.json"))
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.5")
    told = {each["purl"].partition("@")[0].rpartition("/")[2]: each for each in bill["components"]}
    ours = told.pop("hostler")
    assert ours["version"] == path.name.split("_")[1]
    locked = {re.sub(r"[-_.]+", "-", name): v for name, v in pinned(tree).items()}
    assert {name: each["version"] for name, each in told.items()} == locked
