"""Elements of address sets: how they may be written, and how they get to hosts."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from client_doors import World, world
from hypothesis import given
from hypothesis import strategies as st

from hostler.cli.main import cli
from hostler.config import ConfigError
from hostler.firewall_elements import MOST_ELEMENTS, read_blocklist, read_element

Run = Callable[..., Result]


@pytest.mark.parametrize(
    ("word", "written"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("192.0.2.1/32", "192.0.2.1"),
        ("192.0.2.0/24", "192.0.2.0/24"),
        ("2001:DB8:0::/32", "2001:db8::/32"),
        ("2001:db8::1", "2001:db8::1"),
        ("192.0.2.1-192.0.2.9", "192.0.2.1-192.0.2.9"),
        ("192.0.2.1 - 192.0.2.9", "192.0.2.1-192.0.2.9"),
        ("192.0.2.0-192.0.2.255", "192.0.2.0/24"),
        ("192.0.2.7-192.0.2.7", "192.0.2.7"),
        ("0.0.0.0-255.255.255.255", "0.0.0.0/0"),
        ("fd00::-fd00::ffff", "fd00::/112"),
        ("fd00::1-fd00::ffff", "fd00::1-fd00::ffff"),
    ],
)
def test_one_way_to_write_each(word: str, written: str) -> None:
    assert read_element(word) == written


@pytest.mark.parametrize(
    ("word", "why"),
    [
        ("192.0.2", "is not an address, a network or a range"),
        ("example.org", "is not a"),
        ("192.0.2.1/24", "has host bits set; the network is 192.0.2.0/24"),
        ("192.0.2.9-192.0.2.1", "is upside down"),
        ("192.0.2.9-fd00::1", "from one family to the other"),
        ("192.0.2.9-", "is not a range"),
        ("fe80::1%eth0", "is not an address"),
        ("fe80::1%a-fe80::2%b", "is not an address"),
        ("1" * 200, "is not an address"),
    ],
)
def test_what_is_none(word: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        read_element(word)


@given(st.integers(0, 2**32 - 1), st.integers(0, 70000))
def test_a_range_is_what_it_was(first: int, more: int) -> None:
    last = min(first + more, 2**32 - 1)
    written = read_element(f"{ip_address(first)}-{ip_address(last)}")
    assert read_element(written) == written
    if "/" in written:
        low, _, bits = written.partition("/")
        assert (int(ip_address(low)), 2 ** (32 - int(bits))) == (first, last - first + 1)
    elif "-" in written:
        assert [int(ip_address(each)) for each in written.split("-")] == [first, last]
    else:
        assert int(ip_address(written)) == first == last


def test_a_blocklist(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_text(
        "# drop\n192.0.2.0/24 ; SBL1\n\n  2001:db8::/32 # x\n192.0.2.0/24\r\n10.0.0.1-10.0.0.3\n"
    )
    assert read_blocklist(path) == ["192.0.2.0/24", "2001:db8::/32", "10.0.0.1-10.0.0.3"]


def test_every_fault_of_a_blocklist_is_named_by_line(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_text("192.0.2.1\nx\n; fine\n192.0.2.1/8\n")
    with pytest.raises(ConfigError) as caught:
        read_blocklist(path)
    assert str(caught.value).splitlines() == [
        f"{path}:2: 'x' is not an address, a network or a range",
        f"{path}:4: '192.0.2.1/8' has host bits set; the network is 192.0.0.0/8",
    ]
    path.write_text("y\n" * 60)
    with pytest.raises(ConfigError, match="and 10 more"):
        read_blocklist(path)


def test_a_blocklist_is_bounded(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_text("".join(f"{ip_address(n)}\n" for n in range(MOST_ELEMENTS + 1)))
    with pytest.raises(ConfigError, match="262145 elements; at most 262144 go at once"):
        read_blocklist(path)


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[World]:
    with world(tmp_path) as made:
        for name in ("h1", "h2"):
            made.start(name).sets["blocked"] = {}
        yield made


@pytest.fixture
def run(fleet: World) -> Run:
    def invoke(*args: object) -> Result:
        words = [str(each) for each in args]
        return CliRunner().invoke(cli, words, env={"HOSTLER_CONFIG": str(fleet.config)})

    return invoke


def held(fleet: World) -> list[list[str]]:
    return [list(host.sets["blocked"]) for host in fleet.hosts.values()]


def test_add_show_list_and_remove(fleet: World, run: Run) -> None:
    added = run(
        *("-H", "all", "--yes", "firewall", "sets", "add", "blocked"),
        *("192.0.2.7", "192.0.2.7/32", "2001:db8::/32", "10.0.0.1-10.0.0.3", "--timeout", "90m"),
    )
    assert added.exit_code == 0, added.output
    assert held(fleet) == [["192.0.2.7", "2001:db8::/32", "10.0.0.1-10.0.0.3"]] * 2
    assert fleet.hosts["h1"].sets["blocked"]["192.0.2.7"].timeout.seconds == 5400
    shown = run("-H", "h1", "firewall", "sets", "show", "blocked").stdout.splitlines()
    assert [line.split() for line in shown[1:]] == [
        ["h1", "192.0.2.7", "5400s", "-"],
        ["h1", "2001:db8::/32", "5400s", "-"],
        ["h1", "10.0.0.1-10.0.0.3", "5400s", "-"],
    ]
    listed = run("-H", "h1", "firewall", "sets", "list").stdout.splitlines()
    assert listed[1].split() == ["h1", "blocked", "base", "yes", "2", "1", "base/block"]
    gone = run(
        "-H", "h1", "--yes", "firewall", "sets", "remove", "blocked", "192.0.2.7", "10.9.9.9"
    )
    assert gone.exit_code == 0
    assert held(fleet)[0] == ["2001:db8::/32", "10.0.0.1-10.0.0.3"]


def test_replace_from_a_file_is_one_call(fleet: World, run: Run, tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    words = [str(ip_address(n)) for n in range(1 << 24, (1 << 24) + 20_000)]
    path.write_text("\n".join(words) + "\n")
    args = ["firewall", "sets", "replace", "blocked", "-f", path]
    answer = run("-H", "all", "--yes", *args)
    assert answer.exit_code == 0, answer.output
    assert held(fleet) == [words, words]
    calls = fleet.hosts["h1"].named("ReplaceElements")
    assert [c.change.validate_only for c in calls] == [True, False]
    assert "unchanged" in run("-H", "all", "--yes", *args).stdout
    emptied = run("-H", "all", "--yes", *args[:-1], "/dev/null")
    assert emptied.exit_code == 0
    assert held(fleet) == [[], []]


def test_a_list_goes_with_nothing_wrong_in_it_or_not_at_all(
    fleet: World, run: Run, tmp_path: Path
) -> None:
    path = tmp_path / "list.txt"
    path.write_text("192.0.2.1\nnonsense\n")
    answer = run("-H", "all", "--yes", "firewall", "sets", "add", "blocked", "-f", path)
    assert answer.exit_code == 2
    assert f"{path}:2: 'nonsense' is not an address" in answer.stderr
    wrong = run("-H", "all", "--yes", "firewall", "sets", "add", "blocked", "10.0.0.1/8")
    assert wrong.exit_code == 2
    assert "the network is 10.0.0.0/8" in wrong.stderr
    assert run("-H", "all", "--yes", "firewall", "sets", "replace", "blocked").exit_code == 2
    assert all(host.calls == [] for host in fleet.hosts.values())


def test_a_request_that_is_too_large_goes_nowhere(fleet: World, run: Run, tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    words = "2001:db8:1111:2222:3333:4444:{0:x}:1-2001:db8:1111:2222:3333:4444:{0:x}:ffff\n"
    path.write_text("".join(words.format(n + 0x1000) for n in range(60_000)))
    large = [path]
    for part in range(1, 4):
        large.append(tmp_path / f"{part}.txt")
        large[-1].write_text(path.read_text().replace("1111", f"111{part + 1}"))
    args = [word for each in large for word in ("-f", each)]
    answer = run("-H", "h1", "--yes", "firewall", "sets", "add", "blocked", *args)
    assert answer.exit_code == 2
    assert "this makes a request of" in answer.stderr
    assert fleet.hosts["h1"].calls == []


def test_a_set_that_is_not_there(fleet: World, run: Run) -> None:
    answer = run("-H", "h1", "-o", "json", "firewall", "sets", "show", "gone")
    assert json.loads(answer.stdout)[0]["error"]["reason"] == "ADDRESS_SET_NOT_FOUND"
