"""Real ansible-playbook with the modules of client/ansible_collections, on hosts of the lab."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hosts_client import answers, cli
from nginx_lab import SERVES, nginx_on, served_serial
from ssl_authority import Authority, pem

from hostler.lab.host import Host
from hostler.lab.lab import Lab
from hostler.rollout import Rollout

pytestmark = [pytest.mark.hosts, pytest.mark.timeout(300)]

CHECKOUT = Path(__file__).resolve().parents[2]
PLAYBOOK = CHECKOUT / "build" / "peers" / "bin" / "ansible-playbook"
CALLBACKS = CHECKOUT / "tests" / "hosts_support" / "ansible_callbacks"
Task = dict[str, Any]


class Played:
    """What became of a playbook of one task: Ansible's own counts, and what the module told."""

    def __init__(self, done: subprocess.CompletedProcess[str]) -> None:
        self.text = done.stdout + done.stderr
        self.status = done.returncode
        told = json.loads(done.stdout)
        self.stats: dict[str, dict[str, int]] = told["stats"]
        self.hosts: dict[str, dict[str, Any]] = told["hosts"]

    def changed(self) -> dict[str, int]:
        return {host: counts["changed"] for host, counts in self.stats.items()}

    def failed(self) -> dict[str, int]:
        return {host: counts["failures"] for host, counts in self.stats.items()}


class Ansible:
    """Plays a task on hosts as an operator would: the inventory has names alone."""

    def __init__(self, lab: Lab, folder: Path) -> None:
        self._folder = folder
        self._environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "LC_ALL": "C.UTF-8",
            "HOSTLER_CONFIG": str(lab.config),
            "XDG_STATE_HOME": str(folder / "state"),
            "ANSIBLE_COLLECTIONS_PATH": str(CHECKOUT / "client"),
            "ANSIBLE_STDOUT_CALLBACK": "told",
            "ANSIBLE_CALLBACK_PLUGINS": str(CALLBACKS),
        }

    def play(self, module: str, task: Task, *hosts: str, check: bool = False) -> Played:
        inventory = ",".join(hosts) + ","
        book = self._folder / "book.json"
        arguments = {"host": "{{ inventory_hostname }}", **task}
        play = {
            "hosts": "all",
            "gather_facts": False,
            "connection": "local",
            "vars": {"ansible_python_interpreter": sys.executable},
            "tasks": [{f"hostler.hosts.{module}": arguments}],
        }
        # JSON is YAML, too.
        book.write_text(json.dumps([play]))
        argv = [
            str(PLAYBOOK),
            "-i",
            inventory,
            str(book),
            *(["--check", "--diff"] if check else []),
        ]
        done = subprocess.run(
            argv, env=self._environment, capture_output=True, text=True, timeout=200
        )
        assert done.stdout.startswith("{"), done.stdout + done.stderr
        return Played(done)


@pytest.fixture
def ansible(lab: Lab, tmp_path: Path) -> Ansible:
    return Ansible(lab, tmp_path)


@pytest.fixture
def name(lab: Lab, hosts: tuple[Host, ...]) -> Iterator[str]:
    """Of something that is on no host, before and after."""
    name, both = f"a{secrets.token_hex(3)}", ("-H", "h1", "-H", "h2")
    try:
        yield name
    finally:
        cli(lab, *both, "--yes", "firewall", "delete", name)
        cli(lab, *both, "--yes", "netns", "delete", name)


def rules_of(host: Host) -> str:
    return host.run(["nft", "list", "ruleset"]).stdout


def test_rulesets(ansible: Ansible, hosts: tuple[Host, ...], name: str) -> None:
    rule = {
        **{"id": "web", "hook": "input", "action": "accept"},
        **{"protocol": "tcp", "destination_ports": [80, "8000-8010"], "comment": name},
    }
    task = {"rulesets": [{"name": name, "rules": [rule]}]}
    before = [rules_of(host) for host in hosts[:2]]
    checked = ansible.play("hostler_firewall", task, "h1", "h2", check=True)
    assert checked.changed() == {"h1": 1, "h2": 1}
    for told in checked.hosts.values():
        assert name in told["diff"]["prepared"], told
    assert [rules_of(host) for host in hosts[:2]] == before
    done = ansible.play("hostler_firewall", task, "h1", "h2")
    assert done.changed() == {"h1": 1, "h2": 1}
    assert {told["outcomes"][0] for told in done.hosts.values()} == {"applied"}
    assert all("8000-8010" in rules_of(host) for host in hosts[:2])
    for check in (True, False):
        again = ansible.play("hostler_firewall", task, "h1", "h2", check=check)
        assert again.changed() == {"h1": 0, "h2": 0}
    gone = ansible.play("hostler_firewall", {"absent": [name]}, "h1", "h2")
    assert gone.changed() == {"h1": 1, "h2": 1}
    assert "8000-8010" not in rules_of(hosts[0])


def test_what_a_host_refuses_is_told_by_the_words_of_the_playbook(
    ansible: Ansible, hosts: tuple[Host, ...], name: str
) -> None:
    rule = {"id": "web", "hook": "input", "action": "accept", "destination_ports": [80]}
    wrong = {"rulesets": [{"name": name, "rules": [{**rule, "action": "acept"}]}]}
    played = ansible.play("hostler_firewall", wrong, "h1", "nowhere")
    assert played.failed() == {"h1": 1, "nowhere": 1}
    assert (
        "rulesets[0]: rule web: rules[0].action: 'acept' is not one of" in played.hosts["h1"]["msg"]
    )
    assert "no host matches 'nowhere'" in played.hosts["nowhere"]["msg"]
    # Ports without a protocol: the host alone can tell.
    refused = ansible.play(
        "hostler_firewall", {"rulesets": [{"name": name, "rules": [rule]}]}, "h1"
    )
    assert refused.failed() == {"h1": 1}
    assert refused.hosts["h1"]["error"]["code"] == "INVALID_ARGUMENT"
    assert "rulesets[0]: rule web" in refused.hosts["h1"]["msg"]
    assert name not in rules_of(hosts[0])


def test_what_closes_hostlers_own_doors_is_refused_and_what_was_confirmed_stays(
    ansible: Ansible, lab: Lab, h1: Host, name: str
) -> None:
    cut = {"id": "cut", "hook": "input", "action": "drop", "protocol": "tcp"}
    cut["destination_ports"] = ["7441-7445"]
    ruleset = {"name": name, "rules": [cut]}
    refused = ansible.play("hostler_firewall", {"rulesets": [ruleset]}, "h1")
    assert refused.failed() == {"h1": 1}
    assert name not in rules_of(h1)
    harmless = {**ruleset, "rules": [{**cut, "destination_ports": [9]}]}
    kept = ansible.play("hostler_firewall", {"rulesets": [harmless], "confirm_within": 20}, "h1")
    assert kept.hosts["h1"]["outcomes"] == ["applied"], kept.text
    (run,) = kept.hosts["h1"]["runs"]
    ended = answers(lab, "-H", "h1", "pending")["h1"]["result"]["ended"][0]
    assert ended["group"] == Rollout(confirm_within_s=20).terms(run, "h1").group
    assert ended["reason"] == "confirmed"
    # Hostler's own ports let in: nobody asked for confirmation, but it may touch the way here.
    touching = {**ruleset, "rules": [{**cut, "action": "accept"}]}
    (run,) = ansible.play("hostler_firewall", {"rulesets": [touching]}, "h1").hosts["h1"]["runs"]
    ended = answers(lab, "-H", "h1", "pending")["h1"]["result"]["ended"][0]
    assert ended["group"] == Rollout(confirm_within_s=60).terms(run, "h1").group


def test_namespaces(ansible: Ansible, h1: Host, name: str) -> None:
    link = {"veth": {}, "ipv4_pool": "default", "default_route": True}
    task = {"namespaces": [{"name": name, "interfaces": [link]}]}

    def there() -> bool:
        return name in h1.run(["ip", "netns", "list"]).stdout.split()

    checked = ansible.play("hostler_netns", task, "h1", check=True)
    assert (checked.changed(), there()) == ({"h1": 1}, False)
    done = ansible.play("hostler_netns", task, "h1")
    assert (done.changed(), there()) == ({"h1": 1}, True)
    again = ansible.play("hostler_netns", task, "h1")
    assert again.changed() == {"h1": 0}
    gone = ansible.play("hostler_netns", {"absent": [name]}, "h1")
    assert (gone.changed(), there()) == ({"h1": 1}, False)


def test_certificates(ansible: Ansible, lab: Lab, h1: Host, tmp_path: Path) -> None:
    """The key is made on the host; the playbook brings the certificate, and nginx serves it."""
    authority = Authority("corporate")
    files = {
        "subject_names": ["a.test"],
        "key": {"path": "/etc/ssl/hostler/key.pem"},
        "full_chain": {"path": "/etc/ssl/hostler/full.pem"},
    }
    server = {"kind": "nginx", "listeners": ["127.0.0.1:443"]}
    chain = tmp_path / "chain.pem"

    def issued() -> int:
        csr = answers(lab, "-H", "h1", "--yes", "ssl", "csr", "web")["h1"]["result"]["csr_pem"]
        leaf = authority.issue(csr)
        chain.write_text(pem(leaf, authority.intermediate))
        return leaf.serial_number

    def play(task: Task, *, check: bool = False) -> Played:
        return ansible.play("hostler_cert", {"name": "web", **task}, "h1", check=check)

    with nginx_on(h1, SERVES):
        first = {"deployment": files}
        assert play(first, check=True).changed() == {"h1": 1}
        assert answers(lab, "-H", "h1", "ssl", "deployment", "list")["h1"]["result"] == {
            "deployments": []
        }
        assert play(first).changed() == {"h1": 1}
        assert play(first).changed() == {"h1": 0}
        issued()
        assert play({"src": str(chain)}).changed() == {"h1": 1}
        h1.run(["systemctl", "start", "nginx.service"])
        assert play({"deployment": {**files, "servers": [server]}}).changed() == {"h1": 1}
        old, new = served_serial(h1), issued()
        install = {"src": str(chain)}
        assert play(install, check=True).changed() == {"h1": 1}
        assert served_serial(h1) == old
        assert play(install).changed() == {"h1": 1}
        assert served_serial(h1) == new
        assert play(install).changed() == {"h1": 0}
        chain.write_text("-----BEGIN PRIVATE KEY-----\n")
        with_key = play(install)
        assert with_key.failed() == {"h1": 1}
        assert "private key in it, which is not sent anywhere" in with_key.hosts["h1"]["msg"]
        assert play({"absent": True}).changed() == {"h1": 1}
        assert served_serial(h1) == new
