"""Files of lxc-nat as forwards."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from client_doors import World, world

from hostler.api.firewall.v1 import ruleset_pb2 as pb
from hostler.api.netns.v1 import namespace_pb2
from hostler.cli.main import cli
from hostler.config import ConfigError
from hostler.desired import load_message
from hostler.firewall_import import ImportFailed
from hostler.firewall_lxc_nat import import_lxc_nat, read_hosts

NAMES = {"www": ["10.0.3.5", "fd00::5"], "six": ["fd00::6"]}


def said(text: str) -> list[tuple[Any, ...]]:
    done = import_lxc_nat(text, "nat", NAMES)
    assert done.unsaid == []
    return [
        (f.protocol, list(f.addresses), f.port, f.target_address, f.target_port)
        for f in done.ruleset.forwards
    ]


def test_forwards() -> None:
    text = """
    # src_ip:port -> lxc_container:port
    1.2.3.4:8080 -> www:80   # the site
    1.2.3.4:53/UDP->10.0.3.9:53
    [2001:db8::1]:8080 -> www:80
    [2001:db8::1]:81 -> [fd00::9]:82
    *:2222 -> www:22
    0.0.0.0:2223 -> six:22
    :2224 -> www:2224
    """
    assert said(text) == [
        (pb.PROTOCOL_TCP, ["1.2.3.4"], 8080, "10.0.3.5", 80),
        (pb.PROTOCOL_UDP, ["1.2.3.4"], 53, "10.0.3.9", 0),
        (pb.PROTOCOL_TCP, ["2001:db8::1"], 8080, "fd00::5", 80),
        (pb.PROTOCOL_TCP, ["2001:db8::1"], 81, "fd00::9", 82),
        (pb.PROTOCOL_TCP, [], 2222, "10.0.3.5", 22),
        (pb.PROTOCOL_TCP, [], 2223, "fd00::6", 22),
        (pb.PROTOCOL_TCP, [], 2224, "10.0.3.5", 0),
    ]


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("1.2.3.4:8080 www:80", "it does not read ADDRESS:PORT -> NAME:PORT"),
        ("1.2.3.4 -> www:80", "it does not read"),
        ("1.2.3.4:1 -> www", "it does not read"),
        ("1.2.3.4:0 -> www:80", "a port is from 1 to 65535"),
        ("1.2.3.4:1 -> www:65536", "a port is from 1 to 65535"),
        ("1.2.3.4:1/icmp -> www:1", "there is no forward of icmp"),
        ("host:1 -> www:1", "host is not an address of the host"),
        ("1.2.3.4:1 -> db:1", "db has no address: give one by --map db=ADDRESS"),
        ("1.2.3.4:1 -> six:1", "six has no address of IPv4"),
        ("1.2.3.4:9999 -> www:1", "line 1 forwards the same port"),
    ],
)
def test_what_cannot_be_said_is_told_by_line(line: str, why: str) -> None:
    done = import_lxc_nat(f"1.2.3.4:9999 -> www:80\n{line}\n1.2.3.4:9998 -> www:80\n", "nat", NAMES)
    (told,) = done.unsaid
    assert (told.number, told.line) == (2, line)
    assert why in told.why
    assert f"# line 2 is not said: {line}: " in done.to_toml()
    assert [each.port for each in done.ruleset.forwards] == [9999, 9998]


def test_a_file_is_bounded() -> None:
    with pytest.raises(ImportFailed, match="at most 100000"):
        import_lxc_nat("#\n" * 100_001, "nat", {})
    lines = "".join(f"10.0.{n // 60000}.1:{n % 60000 + 1} -> 10.9.9.9:1\n" for n in range(10_001))
    with pytest.raises(ImportFailed, match="more than 10000 entries"):
        import_lxc_nat(lines, "nat", {})


def test_hosts_files() -> None:
    text = "10.0.3.5 www web # x\n\n# y\nfe80::1%eth0 link\nfd00::5 www\n"
    assert read_hosts(text, "hosts") == {"www": ["10.0.3.5", "fd00::5"], "web": ["10.0.3.5"]}
    with pytest.raises(ConfigError, match="hosts:2: 'x' is not an address"):
        read_hosts("10.0.3.5 www\nx y\n", "hosts")


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[World]:
    with world(tmp_path) as made:
        made.start("h1")
        yield made


def run(fleet: World, *args: object) -> Result:
    words = ["-H", "h1", *map(str, args)]
    return CliRunner().invoke(cli, words, env={"HOSTLER_CONFIG": str(fleet.config)})


def test_the_command_knows_names_from_everywhere(fleet: World, tmp_path: Path) -> None:
    space = namespace_pb2.Namespace(name="ns")
    space.interfaces.add(addresses=["10.200.0.2/30", "fd00:200::2/64"])
    fleet.hosts["h1"].namespaces = {"ns": space, "empty": namespace_pb2.Namespace(name="empty")}
    hosts = tmp_path / "hosts"
    hosts.write_text("10.0.3.5 www db\n")
    path = tmp_path / "nat.conf"
    path.write_text("1.1.1.1:1 -> www:1\n1.1.1.1:2 -> db:2\n1.1.1.1:3 -> ns:3\n")
    args = ["firewall", "import", "lxc-nat", "--hosts-file", hosts, "--map", "db=10.0.3.6"]
    answer = run(fleet, *args, "--netns", "--name", "nat", path)
    assert answer.exit_code == 0, answer.output
    made = tmp_path / "made.toml"
    made.write_text(answer.stdout)
    targets = [each.target_address for each in load_message(made, pb.Ruleset()).forwards]
    assert targets == ["10.0.3.5", "10.0.3.6", "10.200.0.2"]
    without = run(fleet, *args, path)
    assert without.exit_code == 1
    assert f"{path}:3: not said: 1.1.1.1:3 -> ns:3: ns has no address" in without.stderr
    assert run(fleet, *args, "--map", "x=y", path).exit_code == 2
    space.interfaces.add(addresses=["nonsense"])
    strange = run(fleet, *args, "--netns", path)
    assert strange.exit_code == 2
    assert "h1: 'nonsense' is not an address" in strange.stderr
