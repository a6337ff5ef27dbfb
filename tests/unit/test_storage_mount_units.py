"""Names, words and texts of units: what systemd makes of them, and what is refused."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hostlerd.storage.model.mount import (
    TYPES,
    Unit,
    escaped,
    option_faults,
    parse,
    render,
    swap_fits,
    unit_faults,
    where_fault,
)

UUID = "0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0"
WHAT = f"/dev/disk/by-uuid/{UUID}"
UNIT = Unit(WHAT, "/srv/data", "ext4", ("noatime", "nosuid", "nodev", "nofail"))

part = st.text(
    st.characters(min_codepoint=1, max_codepoint=0x2FFF, blacklist_characters="/"),
    min_size=1,
    max_size=12,
).filter(lambda one: one != "..")


@settings(max_examples=30, deadline=None)
@given(st.lists(st.lists(part, max_size=4).map(lambda p: "/" + "/".join(p)), max_size=20))
def test_names_are_those_of_systemd_escape(paths: list[str]) -> None:
    """Many paths at once: each start of the tool takes longer than all the rest."""
    paths = [one for one in paths if "\n" not in one] + ["/", "/.a/-b", "//x/./y//", "/ü b"]
    said = subprocess.run(
        ["/usr/bin/systemd-escape", "--path", "--", *paths],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    # It separates its answers by blanks, which no escaped name has.
    assert said.split() == [escaped(one) for one in paths]


@pytest.mark.parametrize(
    "where",
    [
        *(
            "",
            "srv",
            "/",
            "/srv/",
            "//srv",
            "/srv/../etc",
            "/srv/.",
            "/a b",
            "/a\nb",
            '/"a"',
            "/a%i",
        ),
        *("/a\\x2d", "/a$b", "/etc", "/etc/x", "/usr", "/usr/bin/x", "/var", "/var/lib", "/proc/1"),
        *("/dev/shm", "/run/x", "/opt", "/var/lib/hostler/pending", "/" + "a" * 255),
    ],
)
def test_nothing_is_mounted_there(where: str) -> None:
    assert where_fault(where)


@pytest.mark.parametrize("where", ["/srv", "/home", "/srv/a-b.c", "/mnt/ü", "/boot/efi", "/opt/x"])
def test_anything_may_be_mounted_there(where: str) -> None:
    assert where_fault(where) == ""


def test_options_are_those_of_the_type_and_do_not_contradict() -> None:
    good = {
        "ext4": ["noatime", "errors=remount-ro", "commit=30"],
        "btrfs": ["compress=zstd:3", "subvol=@home/x"],
        "xfs": ["inode64", "logbsize=256k"],
        "vfat": ["uid=1000", "umask=0077"],
    }
    for kind, options in good.items():
        assert option_faults(kind, options) == []
        assert option_faults("", options) == []
    assert [at for at, _ in option_faults("ext4", ["ro", "rw", "ro", "subvol=x"])] == [1, 2, 3]
    for bad in (
        "bind",
        "loop",
        "nofail",
        "_netdev",
        "x-systemd.automount",
        "ro,suid",
        "subvol=../x",
    ):
        assert option_faults("", [bad]), bad
    assert option_faults("btrfs", ["subvol=../x"]) and option_faults("ext4", ["commit=1 2"])


paths = st.from_regex(r"/[a-z]{1,8}(/[A-Za-z0-9._-]{0,7}[a-z]){0,3}", fullmatch=True)
options = st.lists(st.sampled_from(["ro", "noatime", "nosuid", "nodev", "nofail", "_netdev"]))
units = st.builds(
    Unit,
    what=st.just(WHAT),
    where=paths,
    type=st.sampled_from(sorted(TYPES)),
    options=options.map(lambda many: tuple(dict.fromkeys(many))),
    lasting=st.booleans(),
    timeout_s=st.integers(0, 600),
)
swap_units = st.builds(
    Unit,
    what=st.just(WHAT),
    where=st.just(""),
    type=st.just("swap"),
    options=st.sampled_from([(), ("nofail",), ("pri=7", "discard", "nofail")]),
    lasting=st.booleans(),
    timeout_s=st.integers(0, 600),
)


@given(st.one_of(units, swap_units), st.sampled_from(["", "/srv/made"]))
def test_what_is_written_is_read_again_and_what_was_changed_is_not_ours(
    unit: Unit, made: str
) -> None:
    text = render(unit, made)
    assert parse(text, lasting=unit.lasting) == (unit, made)
    assert parse(text.split("\n", 1)[1], lasting=unit.lasting) is None
    assert parse(text + "\n[Unit]\nBefore=x.service\n", lasting=unit.lasting) is None


def test_systemd_finds_no_fault_with_a_unit(tmp_path: Path) -> None:
    """systemd-analyze verify reads it as PID 1 would."""
    for unit in (UNIT, Unit(WHAT, "", "swap", ("pri=7", "nofail"), timeout_s=30)):
        file = tmp_path / unit.name
        file.write_text(render(unit, "/srv/data"))
        done = subprocess.run(
            ["/usr/bin/systemd-analyze", "verify", "--man=no", "--recursive-errors=no", str(file)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert not [line for line in done.stderr.splitlines() if unit.name in line], done.stderr


def test_the_worker_takes_no_unit_that_is_not_in_the_grammar() -> None:
    assert unit_faults(UNIT) == []
    swap = Unit(WHAT, "", "swap", ("pri=32767", "nofail"))
    assert unit_faults(swap) == []
    bad = [
        Unit("/dev/sda1", "/srv", "ext4"),
        Unit("/dev/disk/by-path/x", "/srv", "ext4"),
        Unit(WHAT + "/../../sda", "/srv", "ext4"),
        Unit(WHAT, "/etc", "ext4"),
        Unit(WHAT, "/srv", "overlay"),
        Unit(WHAT, "/srv", "ext4", ("bind",)),
        Unit(WHAT, "/srv", "ext4", timeout_s=601),
        Unit(WHAT, "/srv", "swap"),
        Unit(WHAT, "", "swap", ("pri=32999",)),
        Unit(WHAT, "", "ext4"),
    ]
    assert [one for one in bad if not unit_faults(one)] == []


def test_what_is_swapped_out_needs_room_with_a_tenth_to_spare() -> None:
    assert swap_fits(90, 100, 0) and not swap_fits(91, 100, 0)
    assert swap_fits(91, 100, 1)
