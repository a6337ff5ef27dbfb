from __future__ import annotations

import stat
from pathlib import Path

import pytest

from hostler.config import ConfigError
from hostler.fleet import Fleet, Host, SelectionError, add_host, load_fleet, remove_host

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
