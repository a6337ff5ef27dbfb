"""What a lab is made from, as far as it can be told without making one."""

from __future__ import annotations

from pathlib import Path

import pytest

from hostler.lab.bridge import Bridge
from hostler.lab.errors import LabError
from hostler.lab.host import Host
from hostler.lab.rootfs import codename, debian_sources, tar_key

DEB822 = """Types: deb
# a remark
URIs: http://mirror.example/debian
Suites: bookworm bookworm-updates
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: https://vendor.example/apt
Suites: stable
Components: main
"""


def apt(folder: Path, **files: str) -> Path:
    (folder / "sources.list.d").mkdir()
    for name, text in files.items():
        stem, kind = name.rsplit("_", 1)
        place = folder if stem == "sources" else folder / "sources.list.d"
        (place / f"{stem}.{kind}").write_text(text)
    return folder


def test_only_debians_own_sources_are_taken(tmp_path: Path) -> None:
    vendor = "deb https://packages.example/apt stable main\n"
    lines = "# deb http://old.example/debian bookworm main\n" + vendor
    mirror = "deb [arch=amd64] http://mirror.example/debian/ bookworm main\n"
    security = "deb http://mirror.example/debian-security bookworm-security main\n"
    found = debian_sources(apt(tmp_path, sources_list=lines + mirror + security, a_sources=DEB822))
    assert found["list"] == mirror + security
    assert found["sources"].count("Types:") == 1
    assert "vendor" not in found["sources"]
    assert "remark" not in found["sources"]


def test_no_debian_source_is_said(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="no apt source of Debian"):
        debian_sources(apt(tmp_path, v_list="deb https://packages.example/apt stable main\n"))


def test_another_system_is_refused(tmp_path: Path) -> None:
    place = tmp_path / "os-release"
    place.write_text('ID=debian\nVERSION_CODENAME="bookworm"\n')
    assert codename(place) == "bookworm"
    place.write_text("ID=fedora\n")
    with pytest.raises(LabError, match="not a Debian"):
        codename(place)


def test_the_tar_is_another_when_suite_or_sources_are() -> None:
    one = tar_key("bookworm", {"list": "a"})
    assert one == tar_key("bookworm", {"list": "a"})
    assert len({one, tar_key("trixie", {"list": "a"}), tar_key("bookworm", {"list": "b"})}) == 3


def test_labs_on_one_machine_have_networks_of_their_own(tmp_path: Path) -> None:
    first, second = (Host(0, tmp_path, Bridge(n)) for n in (0, 1))
    assert (first.ipv4, first.ipv6) == ("10.77.0.11", "fd77:1ab::11")
    assert (second.ipv4, second.ipv6) == ("10.77.1.11", "fd77:1ab:0:1::11")
    assert first.name == second.name == "h1"
    assert first.machine != second.machine
    # Linux allows 15 bytes in an interface's name; systemd-nspawn prepends `vb-`.
    assert len(f"vb-{Host(63, tmp_path, Bridge(199)).machine}") <= 15
