from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from hostler.config import ConfigError
from hostler.doors import doors_of
from hostler.fleet import PORTS, Fleet, Host, SelectionError, load_fleet
from hostler.fleet_file import add_host, remove_group, remove_host, set_domains, set_group

FLEET = Fleet(
    (
        Host("web1", "10.0.0.1", {"role": "web", "site": "a"}),
        Host("web2", "10.0.0.2", {"role": "web", "site": "b"}),
        Host("db1", "fd00::3", {"role": "db"}),
    )
)


def names(*selectors: str) -> list[str]:
    return [host.name for host in FLEET.select(selectors)]


@pytest.mark.parametrize(
    ("selectors", "expected"),
    [
        (("all",), ["web1", "web2", "db1"]),
        (("web*",), ["web1", "web2"]),
        (("role=web",), ["web1", "web2"]),
        (("site=*",), ["web1", "web2"]),
        (("db1", "web1", "db1"), ["web1", "db1"]),
        (("local",), ["local"]),
    ],
)
def test_selectors(selectors: tuple[str, ...], expected: list[str]) -> None:
    assert names(*selectors) == expected


@pytest.mark.parametrize("selector", ["web9", "x*", "role=mail", "colour=red"])
def test_a_selector_that_matches_nothing_is_an_error_beside_others(selector: str) -> None:
    with pytest.raises(SelectionError, match="no host matches"):
        names("web1", selector)


def test_nothing_selected() -> None:
    with pytest.raises(SelectionError, match="give -H"):
        names()


def test_a_host_called_local_wins() -> None:
    fleet = Fleet((Host("local", "10.0.0.9"),))
    assert fleet.select(["local"])[0].address == "10.0.0.9"


@pytest.mark.parametrize(
    ("address", "ports", "target"),
    [
        ("10.0.0.1", {}, "ipv4:10.0.0.1:7441"),
        ("fd00::1", {}, "ipv6:[fd00::1]:7441"),
        ("fe80::1%eth0", {}, "ipv6:[fe80::1%eth0]:7441"),
        ("h.example.net", {"netns": 17441}, "dns:///h.example.net:17441"),
        ("unix:", {}, "unix:/run/hostler/netns.sock"),
        ("unix:/tmp/x", {}, "unix:/tmp/x/netns.sock"),
    ],
)
def test_targets(address: str, ports: dict[str, int], target: str) -> None:
    assert Host("h", address, {}, ports).target("netns") == target


def test_there_is_no_door_of_an_unknown_domain() -> None:
    with pytest.raises(ConfigError, match="no domain 'mail'"):
        Host("h", "10.0.0.1").target("mail")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[host.a]\n", "host: unknown key"),
        ("[hosts]\na = 1\n", "hosts.a: not a table"),
        ("[hosts.a]\n", "hosts.a.address: an address is needed"),
        ('[hosts.a]\naddress = "x"\nlabel = {}\n', "hosts.a.label: unknown key"),
        ('[hosts.a]\naddress = "x"\nlabels = { n = 1 }\n', "hosts.a.labels: a table of strings"),
        ('[hosts.a]\naddress = "x"\nports = { mail = 1 }\n', "hosts.a.ports.mail: there is no"),
        ('[hosts.a]\naddress = "x"\nports = { netns = 0 }\n', "hosts.a.ports.netns: a number"),
        ('[hosts.a]\naddress = "x"\nports = { netns = true }\n', "hosts.a.ports.netns: a number"),
        ('[hosts.a]\naddress = "x"\ndomains = []\n', "hosts.a.domains: a list of domains"),
        ('[hosts.a]\naddress = "x"\ndomains = "ssl"\n', "hosts.a.domains: a list of domains"),
        ('[hosts.a]\naddress = "x"\ndomains = ["mail"]\n', "there is no domain 'mail'"),
        ('[hosts.a]\naddress = "x"\ndomains = [{}]\n', "hosts.a.domains: there is no domain {}"),
        ("groups = 1\n", "groups: not a table"),
        ('[groups]\nweb = "w*"\n', "groups.web: a list of selectors"),
        ('[groups]\nweb = [""]\n', "groups.web: a list of selectors"),
        ('[groups]\n"a b" = ["w*"]\n', "groups.a b: a name of"),
        ('[groups]\nweb = ["web1"]\n', "groups.web: there is no host 'web1'"),
        ('[groups]\nweb = ["@db"]\n', "groups.web: there is no group '@db'"),
        ('[groups]\na = ["@b"]\nb = ["@a"]\n', "is in itself: a > b > a"),
        ('[hosts."a b"]\naddress = "x"\n', "hosts.a b: a name of"),
        ('[hosts.all]\naddress = "x"\n', "'all' means every host"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "fleet.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_fleet(path)
    assert words in str(caught.value)
    assert str(path) in str(caught.value)


def test_add_and_remove_keep_comments_order_and_mode(tmp_path: Path) -> None:
    path = tmp_path / "fleet.toml"
    path.write_text('# ours\n[hosts.b]\naddress = "10.0.0.2" # second\n')
    path.chmod(0o640)
    add_host(path, Host("a", "10.0.0.1", {"role": "web"}, {"netns": 17441}))
    assert [host.name for host in load_fleet(path).hosts] == ["b", "a"]
    added = load_fleet(path).hosts[1]
    assert (added.address, added.labels, added.ports) == (
        "10.0.0.1",
        {"role": "web"},
        {"netns": 17441},
    )
    remove_host(path, "a")
    assert path.read_text().startswith("# ours\n")
    assert "# second" in path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert [entry.name for entry in tmp_path.iterdir()] == ["fleet.toml"]


def test_add_makes_the_file(tmp_path: Path) -> None:
    path = tmp_path / "new" / "fleet.toml"
    add_host(path, Host("a", "10.0.0.1"))
    add_host(path, Host("b", "10.0.0.2"))
    assert [host.name for host in load_fleet(path).hosts] == ["a", "b"]


def test_add_refuses_what_would_not_load(tmp_path: Path) -> None:
    path = tmp_path / "fleet.toml"
    add_host(path, Host("a", "10.0.0.1"))
    before = path.read_text()
    for host in (Host("a", "10.0.0.2"), Host("b", ""), Host("c d", "x"), Host("all", "x")):
        with pytest.raises(ConfigError):
            add_host(path, host)
    with pytest.raises(ConfigError, match="there is no host 'z'"):
        remove_host(path, "z")
    assert path.read_text() == before


GROUPED = """
[hosts.web1]
address = "10.0.0.1"
labels = { role = "web" }
[hosts.db1]
address = "10.0.0.2"
domains = ["ssl", "netns"]
[hosts.db2]
address = "10.0.0.3"
domains = ["ssl", "tracing", "firewall", "storage", "netns"]
[groups]
web = ["role=web"]
db = ["db*"]
both = ["@web", "db1"]
none = ["role=mail"]
"""


@pytest.mark.parametrize(
    ("selectors", "expected"),
    [
        (("@web",), ["web1"]),
        (("@db",), ["db1", "db2"]),
        (("@both",), ["web1", "db1"]),
        (("@both", "db2"), ["web1", "db1", "db2"]),
    ],
)
def test_groups_are_selected(
    tmp_path: Path, selectors: tuple[str, ...], expected: list[str]
) -> None:
    path = tmp_path / "fleet.toml"
    path.write_text(GROUPED)
    assert [host.name for host in load_fleet(path).select(selectors)] == expected
    for wrong in ("@none", "@mail", "@"):
        with pytest.raises(SelectionError, match="no host matches"):
            load_fleet(path).select([*selectors, wrong])


def test_a_host_is_asked_at_the_doors_that_it_has(tmp_path: Path) -> None:
    path = tmp_path / "fleet.toml"
    path.write_text(GROUPED)
    web1, db1, db2 = load_fleet(path).hosts
    assert doors_of(web1) == doors_of(db2) == tuple(PORTS)
    assert doors_of(db1) == ("netns", "ssl")
    assert doors_of(db1, ("firewall",)) == ("firewall",)
    assert Host.from_record(json.loads(json.dumps(db1.to_record()))) == db1
    set_domains(path, "db1", ("tracing",))
    set_domains(path, "db2", ("tracing",))
    set_domains(path, "db2", ())
    assert [host.domains for host in load_fleet(path).hosts] == [(), ("tracing",), ()]
    with pytest.raises(ConfigError, match="no host 'db9'"):
        set_domains(path, "db9", ())


def test_groups_are_changed_and_lose_a_host_that_goes(tmp_path: Path) -> None:
    path = tmp_path / "fleet.toml"
    path.write_text(GROUPED)
    set_group(path, "all-db", ["@db", "web1"])
    set_group(path, "web", ["web1", "db1"])
    before = path.read_text()
    for name, members, words in (
        ("x", ["web9"], "no host 'web9'"),
        ("a b", ["web1"], "a name of"),
        ("db", ["@all-db"], "is in itself"),
    ):
        with pytest.raises(ConfigError, match=words) as caught:
            set_group(path, name, members)
        assert str(path) in str(caught.value)
    with pytest.raises(ConfigError, match="no group '@db'"):
        remove_group(path, "db")
    with pytest.raises(ConfigError, match="no group 'x'"):
        remove_group(path, "x")
    assert path.read_text() == before
    remove_host(path, "db1")
    remove_group(path, "both")
    fleet = load_fleet(path)
    assert [host.name for host in fleet.select(["@all-db"])] == ["web1", "db2"]
    assert [host.name for host in fleet.select(["@web"])] == ["web1"]
    assert [entry.name for entry in tmp_path.iterdir()] == ["fleet.toml"]
