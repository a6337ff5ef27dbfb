"""Clients and daemons of this release and of a next one, in all four pairs: real firewall daemons,
each in a network namespace of its own, the command line and the SDK, and nft as the witness.

The next release is this tree with additions to its API; see `next_release`.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import next_release
import pytest

from hostler.pki import Authority

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(300)]

TODAY, NEXT = "today", "next"
RELEASES = pytest.mark.parametrize("client", [TODAY, NEXT])
MAIN = "import sys; from hostler.cli.main import main; sys.argv[0] = 'hostler'; main()"
PLAIN = """\
name = "{name}"
[[rules]]
hook = "input"
action = "accept"
protocol = "tcp"
destination_ports = [8080]
"""
#: Calls that no command makes, by a client that has stubs for them.
FREEZE = """
import asyncio, json, sys
import hostler.aio
from hostler.api.firewall.v1 import ruleset_pb2 as pb
FREEZE = hostler.aio.rpc(pb, "RulesetService", "FreezeRuleset")
LIST = hostler.aio.rpc(pb, "RulesetService", "ListRulesets")
async def main():
    client = hostler.aio.connect(record=False)
    asked = {
        "freeze": (FREEZE, pb.FreezeRulesetRequest(name="web", change={"request_id": "f"})),
        "night": (FREEZE, pb.FreezeRulesetRequest(name="web", change={"only_at_night": True})),
        "list": (LIST, pb.ListRulesetsRequest(with_age=True)),
    }
    told = {}
    for name, (rpc, request) in asked.items():
        told[name] = [r.as_dict() for r in await client.call(rpc, request, "all")]
    print(json.dumps(told))
asyncio.run(main())
"""


@dataclass
class Ended:
    code: int
    stdout: str
    stderr: str

    @property
    def results(self) -> dict[str, Any]:
        """What the hosts answered, by host."""
        return {result["host"]: result for result in json.loads(self.stdout)}


class Releases:
    """A daemon of each release, which is a host of that name, and a client of each."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.tree = next_release.make(folder / "next-release")
        authority = Authority.create(folder / "pki", "test.hostler")
        authority.issue_user("admin")
        authority.grant("admin", "admins")
        self.daemons = {name: self._start(name) for name in (TODAY, NEXT)}
        (folder / "config.toml").write_text(
            'current = "test"\n[contexts.test]\ntrust_domain = "test.hostler"\n'
            'ca = "pki/ca.pem"\ncertificate = "pki/users/admin.pem"\nkey = "pki/users/admin.key"\n'
            'fleet = "fleet.toml"\n'
        )
        (folder / "fleet.toml").write_text(
            "".join(f'[hosts.{n}]\naddress = "unix:{folder}/{n}"\n' for n in self.daemons)
        )

    def _env(self, release: str) -> dict[str, str]:
        return {"PYTHONPATH": str(self.tree) if release == NEXT else ""}

    def _start(self, name: str) -> subprocess.Popen[bytes]:
        root = self.folder / name
        env = {"PATH": os.environ["PATH"], **self._env(name)}
        for folder, mode in (("etc", 0o755), ("state", 0o755), ("log", 0o755), ("run", 0o700)):
            (root / folder).mkdir(parents=True, mode=mode)
            named = {"etc": "CONFIGURATION", "run": "RUNTIME", "log": "LOGS"}.get(folder, "STATE")
            env[f"{named}_DIRECTORY"] = str(root / folder)
        (root / "etc/hostler.toml").write_text("idle_s = 300\n")
        (root / "etc/pki").mkdir()
        shutil.copy(self.folder / "pki/ca.pem", root / "etc/pki")
        shutil.copy(self.folder / "pki/bundle.json", root / "etc")
        argv = ["/usr/bin/unshare", "--net", "/usr/bin/systemd-socket-activate"]
        argv += [f"--setenv={key}={value}" for key, value in env.items()]
        argv += ["-l", f"{root}/firewall.sock", sys.executable, "-c", next_release.DAEMON]
        with (root / "stderr").open("wb") as stderr:
            process = subprocess.Popen(argv, stderr=stderr)
        while not (root / "firewall.sock").exists():
            assert process.poll() is None, (root / "stderr").read_text()
            time.sleep(0.02)
        return process

    def python(self, release: str, *words: str) -> Ended:
        """Run Python with the code of a release."""
        env = {
            **os.environ,
            **self._env(release),
            "HOSTLER_CONFIG": str(self.folder / "config.toml"),
            "HOSTLER_RUNS_URL": f"sqlite:///{self.folder}/runs.sqlite",
        }
        argv = [sys.executable, "-c", *words]
        done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=120)
        assert "Traceback" not in done.stderr, done.stderr
        return Ended(done.returncode, done.stdout, done.stderr)

    def cli(self, release: str, *words: str, host: str = "all") -> Ended:
        """Run the command line of a release."""
        return self.python(release, MAIN, "-H", host, "--timeout", "60s", *words)

    def file(self, text: str) -> str:
        path = self.folder / "wanted.toml"
        path.write_text(text)
        return str(path)

    def nft(self, host: str) -> str:
        """What the kernel has in a host's namespace."""
        pid = str(self.daemons[host].pid)
        argv = ["/usr/bin/nsenter", "-t", pid, "-n", "/usr/sbin/nft", "list", "ruleset"]
        return subprocess.run(argv, check=True, capture_output=True, text=True).stdout

    def end(self) -> None:
        for process in self.daemons.values():
            process.terminate()
        for process in self.daemons.values():
            process.wait(30)


@pytest.fixture(scope="module")
def releases(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Releases]:
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root")
    made = Releases(tmp_path_factory.mktemp("skew"))
    try:
        yield made
    finally:
        made.end()


def test_the_releases_differ(releases: Releases) -> None:
    got = releases.cli(TODAY, "-o", "json", "host", "get", "--domain", "firewall").results
    assert got[TODAY]["result"]["host"]["version"] == version("hostler")
    assert got[NEXT]["result"]["host"]["version"] == next_release.VERSION


@RELEASES
def test_what_both_know_is_done_by_every_pair(releases: Releases, client: str) -> None:
    name = f"by-{client}"
    done = releases.cli(
        *(client, "--yes", "firewall", "apply", "-f", releases.file(PLAIN.format(name=name)))
    )
    assert done.code == 0, done.stderr
    for host in (TODAY, NEXT):
        assert "dport 8080" in releases.nft(host)
        got = releases.cli(client, "-o", "json", "firewall", "get", name, host=host)
        assert got.results[host]["result"]["ruleset"]["rules"][0]["protocol"] == "PROTOCOL_TCP"
    # A word that came later is shown as such.
    shown = "quic" if client == NEXT else f"unknown ({next_release.QUIC})"
    table = releases.cli(client, "firewall", "list")
    assert table.code == 0
    lines = [line for line in table.stdout.splitlines() if name in line]
    assert [f"443/{shown} to 10.0.0.9:443" in line for line in lines] == [False, True]
    listed = releases.cli(client, "-o", "json", "firewall", "list").results[NEXT]["result"]
    number = "PROTOCOL_QUIC" if client == NEXT else next_release.QUIC
    assert {each["forwards"][0]["protocol"] for each in listed["rulesets"]} == {number}


@pytest.mark.parametrize(
    ("line", "of", "told"),
    [
        ('tarpit = "on"', "rules[0].tarpit", "there is no field 900 in"),
        ('protocol = "quic"', "rules[0].protocol", "there is no value 900 of"),
    ],
)
def test_what_a_daemon_does_not_know_is_not_dropped(
    releases: Releases, line: str, of: str, told: str
) -> None:
    text = PLAIN.format(name="newer").replace('protocol = "tcp"', line)
    if "quic" in line:
        text = text.replace("destination_ports = [8080]\n", "")
    before = releases.nft(TODAY)
    for mode in ("--plan", "--yes"):
        done = releases.cli(
            *(NEXT, mode, "firewall", "apply", "-f", releases.file(text)), host=TODAY
        )
        assert done.code == 1
        assert "NOT_KNOWN_HERE" in done.stderr
        assert told in done.stderr and of.rpartition(".")[2] in done.stderr
        assert "wanted.toml:" in done.stderr, "the line of the file is told"
        assert version("hostler") in done.stderr and "upgrade" in done.stderr
    assert releases.nft(TODAY) == before
    log = (releases.folder / TODAY / "log/audit.jsonl").read_text().splitlines()
    refused = [r for r in map(json.loads, log) if r.get("reason") == "NOT_KNOWN_HERE"]
    assert refused and all(r["method"].endswith("/ApplyRulesets") for r in refused)
    # The one that knows it answers for itself: it took the request in.
    done = releases.cli(NEXT, "--plan", "firewall", "apply", "-f", releases.file(text), host=NEXT)
    assert "NOT_KNOWN_HERE" not in done.stderr


def test_a_method_that_a_daemon_lacks_is_its_answer_and_no_others(releases: Releases) -> None:
    done = releases.python(NEXT, FREEZE)
    assert done.code == 0, done.stderr
    told = {
        name: {result["host"]: result for result in results}
        for name, results in json.loads(done.stdout).items()
    }
    error = told["freeze"][TODAY]["error"]
    assert (error["code"], error["reason"]) == ("UNIMPLEMENTED", "METHOD_MISSING")
    assert error["metadata"] == {
        "method": "/hostler.api.firewall.v1.RulesetService/FreezeRuleset",
        "client_version": next_release.VERSION,
        "daemon_version": version("hostler"),
    }
    for words in ("RulesetService.FreezeRuleset", "upgrade hostler-firewall", version("hostler")):
        assert words in error["message"]
    assert told["freeze"][NEXT]["ok"] and told["night"][NEXT]["ok"]
    assert told["night"][TODAY]["error"]["reason"] == "METHOD_MISSING"
    # What only reads is answered as without it.
    assert told["list"][NEXT]["result"]["age"] == "old"
    assert told["list"][TODAY]["ok"] and told["list"][TODAY]["result"]["age"] == ""
