"""Inventories of Ansible become hosts and groups of the fleet; Ansible itself reads them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostler.ansible_inventory import InventoryError, read
from hostler.fleet import Fleet, Host, load_fleet

PEERS = Path(__file__).resolve().parents[2] / "build" / "peers" / "bin"
INVENTORY = """
[web]
www[1:3].example.net
lb ansible_host=192.0.2.7 hostler_domains='["ssl", "firewall"]'

[db]
db1 ansible_host=192.0.2.9 hostler_labels='{"role": "db"}'

[site:children]
web
db

[empty]

[web:vars]
http_port=80
"""
CONFIG = """
current_context = "a"
[contexts.a]
trust_domain = "a"
ca = "x"
certificate = "x"
key = "x"
fleet = "fleet.toml"
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "config.toml").write_text(CONFIG)
    (tmp_path / "inventory.ini").write_text(INVENTORY)
    monkeypatch.setenv("HOSTLER_CONFIG", str(tmp_path / "config.toml"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PATH", f"{PEERS}:/usr/bin:/bin")
    return tmp_path


def hostler(*args: str) -> subprocess.CompletedProcess[str]:
    code = "import sys; from hostler.cli.main import main; sys.argv[0] = 'hostler'; main()"
    return subprocess.run(
        [sys.executable, "-c", code, *args],
        capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=60,
    )  # fmt: skip


def test_what_ansible_reads_is_taken_over(place: Path) -> None:
    words = ["fleet", "import", str(place / "inventory.ini")]
    planned = hostler("--plan", *words)
    assert "5 of 5 hosts would be added" in planned.stderr, planned.stderr
    assert not (place / "fleet.toml").exists()
    done = hostler(*words)
    assert done.returncode == 0, done.stderr
    fleet = load_fleet(place / "fleet.toml")
    assert {host.name: host.address for host in fleet.select(["@site"])} == {
        **{f"www{i}.example.net": f"www{i}.example.net" for i in (1, 2, 3)},
        "lb": "192.0.2.7",
        "db1": "192.0.2.9",
    }
    (lb,) = fleet.select(["lb"])
    assert (lb.domains, lb.groups) == (("firewall", "ssl"), {"web", "site"})
    assert [host.name for host in fleet.select(["role=db"])] == ["db1"]
    # Again, with one more: who is there stays, labels of the file too.
    (place / "inventory.ini").write_text(INVENTORY.replace("[db]\n", "[db]\ndb2\n"))
    again = hostler(*words)
    assert "1 of 6 hosts added; groups: @db, @site, @web" in again.stderr
    assert [host.name for host in load_fleet(place / "fleet.toml").select(["@db"])] == [
        *("db1", "db2")
    ]


def test_what_was_printed_elsewhere_is_read(place: Path) -> None:
    printed = {"all": {"children": ["ungrouped"]}, "ungrouped": {"hosts": ["h1"]}}
    assert read(json.dumps(printed)).hosts == (Host("h1", "h1"),)
    assert read(json.dumps(printed)).groups == {}
    there = Fleet((Host("h1", "192.0.2.1"),))
    with pytest.raises(InventoryError, match=r"h1 is at 192\.0\.2\.1 in the fleet and at h1 in"):
        read(json.dumps(printed)).missing_in(there)


def test_without_ansible_it_is_said(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    answer = hostler("fleet", "import", str(place / "inventory.ini"))
    assert answer.returncode != 0
    assert "there is no ansible-inventory here" in answer.stderr


def test_ansible_s_own_words_are_told(place: Path) -> None:
    (place / "inventory.ini").write_text("[web\nx: [")
    answer = hostler("fleet", "import", str(place / "inventory.ini"))
    assert answer.returncode == 2
    assert "ansible-inventory ended with" in answer.stderr
    (place / "bad.yml").write_text("web: {hosts: {'a b': }}")
    answer = hostler("fleet", "import", str(place / "bad.yml"))
    assert answer.returncode == 2
    assert "a name of letters" in answer.stderr
    assert not (place / "fleet.toml").exists()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "not what `ansible-inventory --list` prints"),
        ("[]", "not an object"),
        ('{"web": []}', "web: not an object"),
        ('{"web": {"hosts": "a"}}', "web.hosts: not a list of names"),
        ('{"web": {"hosts": [1]}}', "web.hosts: not a list of names"),
        ('{"web": {"children": [1]}}', "web.children: not a list of names"),
        ('{"_meta": 1}', "_meta: not an object"),
        ('{"_meta": {"hostvars": {"a": 1}}, "web": {"hosts": ["a"]}}', "a: not an object"),
    ],
)
def test_what_is_none_is_refused(text: str, words: str) -> None:
    with pytest.raises(InventoryError, match=words):
        read(text)


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"ansible_host": 1}, "a: ansible_host: not a string"),
        ({"hostler_labels": {"a": 1}}, "a: hostler_labels: a mapping of strings"),
        ({"hostler_domains": ["mail"]}, "a: hostler_domains: a list of netns"),
    ],
)
def test_variables_that_are_wrong_are_named(variables: dict[str, object], words: str) -> None:
    printed = {"_meta": {"hostvars": {"a": variables}}, "web": {"hosts": ["a"]}}
    with pytest.raises(InventoryError, match=words):
        read(json.dumps(printed))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.just("hosts"), inner),
    max_leaves=20,
)


@given(JSON)
def test_anything_is_read_or_refused(value: object) -> None:
    try:
        read(json.dumps(value))
    except InventoryError:
        pass
