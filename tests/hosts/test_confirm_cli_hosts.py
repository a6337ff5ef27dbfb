"""What people type about pending changes and jobs, on real hosts: what stays, what comes back."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tomlkit
from hosts_client import APPLY_RULESET, answers, ask, cli
from hosts_witness import differences, network

from hostler.api.firewall.v1 import ruleset_pb2
from hostler.lab.host import Host
from hostler.lab.lab import Lab

pytestmark = [pytest.mark.hosts, pytest.mark.timeout(300)]

CONFIGURATION = "/etc/hostler/hostler.toml"
# Where none of the lab's hosts is: its rules leave no door open to the caller.
ELSEWHERE = '\n[firewall]\nmanagement_networks = ["192.0.2.0/24"]\n'


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """A ruleset that drops whatever is not let in."""
    path = tmp_path / "base.toml"
    path.write_text('name = "k-base"\ninput_policy = "drop"\n')
    return path


@pytest.fixture
def tidy(lab: Lab, hosts: tuple[Host, ...]) -> Iterator[None]:
    """Nothing pending before, and hosts as they were after."""
    before = [network(host) for host in hosts]
    yield
    cli(lab, "-H", "all", "--yes", "pending", "revert", status=None)
    cli(lab, "-H", "all", "--yes", "firewall", "delete", "k-base")
    cli(lab, "-H", "all", "--yes", "isolate", "k-web", "--remove")
    for host, old in zip(hosts, before, strict=True):
        left = differences(old, network(host))
        # The first namespace of a boot makes the folder, which stays.
        assert left in ({}, {"/run/netns": {"gone": [], "new": ["/run/netns"]}})


@pytest.fixture
def shut(hosts: tuple[Host, ...]) -> Iterator[Host]:
    """A host whose configuration has the caller outside of the management networks."""
    host = hosts[1]
    kept = host.run(["cat", CONFIGURATION]).stdout
    stop = ["systemctl", "stop", "hostler-firewall.service"]
    host.run(["tee", CONFIGURATION], stdin=kept.partition("\n[firewall]\n")[0] + ELSEWHERE)
    host.run(stop)
    yield host
    host.run(["tee", CONFIGURATION], stdin=kept)
    host.run(stop)


def drops(host: Host) -> bool:
    """Whether the host drops what comes in, as nft tells it."""
    told = json.loads(host.run(["nft", "-j", "list", "ruleset"]).stdout)["nftables"]
    chains = [entry["chain"] for entry in told if "chain" in entry]
    return any(c.get("hook") == "input" and c.get("policy") == "drop" for c in chains)


def leave_pending(lab: Lab, within_s: int) -> str:
    """Have a host wait for a confirmation that nobody gives; answers the group."""
    group = str(uuid.uuid4())
    request = ruleset_pb2.ApplyRulesetRequest(
        ruleset=ruleset_pb2.Ruleset(name="k-base", input_policy="ACTION_DROP")
    )
    request.change.confirm.group = group
    request.change.confirm.within.FromSeconds(within_s)
    ask(lab, APPLY_RULESET, request)
    return group


def pending(lab: Lab, host: str = "h1") -> dict[str, Any]:
    """What a host tells of its pending groups."""
    told: dict[str, Any] = answers(lab, "-H", host, "pending")[host]["result"]
    return told


@pytest.mark.usefixtures("tidy")
def test_what_is_confirmed_stays_beyond_the_deadline(
    lab: Lab, hosts: tuple[Host, ...], base: Path
) -> None:
    start = time.monotonic()
    done = answers(
        lab, "-H", "all", "--yes", "--confirm-within", "8s", "firewall", "apply", "-f", str(base)
    )
    assert {(a["ok"], a["outcome"]) for a in done.values()} == {(True, "applied")}
    time.sleep(max(0, 11 - (time.monotonic() - start)))
    assert [drops(host) for host in hosts] == [True] * len(hosts)
    told = pending(lab)
    assert "pending" not in told
    assert told["ended"][0]["outcome"] == "OUTCOME_APPLIED"


@pytest.mark.usefixtures("tidy")
def test_the_host_that_shut_its_doors_comes_back_and_is_told_apart(
    lab: Lab, hosts: tuple[Host, ...], shut: Host, base: Path
) -> None:
    before = network(shut)
    start = time.monotonic()
    done = answers(
        lab,
        *("-H", "all", "--yes", "--max-failures", "100%", "--confirm-within", "10s"),
        *("firewall", "apply", "--force", "-f", str(base)),
        status=1,
    )
    took_s = time.monotonic() - start
    outcomes = {name: answer["outcome"] for name, answer in done.items()}
    assert outcomes == {"h1": "applied", "h2": "rolled_back", "h3": "applied"}
    error = done["h2"]["error"]
    assert (error["code"], error["reason"]) == ("ABORTED", "ROLLED_BACK")
    assert "netns: " in error["message"] and "firewall: " in error["message"]
    assert took_s < 40
    assert differences(before, network(shut)) == {}
    assert [drops(host) for host in hosts] == [True, False, True]
    assert pending(lab, "h2")["ended"][0]["outcome"] == "OUTCOME_ROLLED_BACK"


@pytest.mark.usefixtures("tidy")
def test_an_isolation_is_one_group(lab: Lab, h1: Host) -> None:
    words = ("-H", "h1", "--yes", "--confirm-within", "20s", "isolate", "k-web")
    done = answers(lab, *words, "--", "sleep", "infinity")
    assert done["h1"]["outcome"] == "applied"
    groups = {
        part["change"]["pending"]["group"]
        for name, part in done["h1"]["result"].items()
        if name in ("namespace", "ruleset", "process")
    }
    assert len(groups) == 1
    assert pending(lab)["ended"][0]["group"] in groups
    assert "k-web" in h1.run(["ip", "netns"]).stdout
    assert answers(lab, *words, "--remove")["h1"]["outcome"] == "applied"
    assert "k-web" not in h1.run(["ip", "netns"]).stdout


@pytest.mark.usefixtures("tidy")
def test_pending_is_shown_and_taken_back_at_once(lab: Lab, h1: Host) -> None:
    group = leave_pending(lab, 120)
    assert drops(h1)
    line = cli(lab, "-H", "h1", "pending").stdout.splitlines()[1]
    assert group in line
    assert "firewall ApplyRuleset" in line
    refused = cli(lab, "-H", "h1", "--yes", "firewall", "delete", "k-base", status=1)
    assert "CONFIRM_PENDING" in refused.stderr
    start = time.monotonic()
    cli(lab, "-H", "h1", "--yes", "pending", "revert")
    assert time.monotonic() - start < 20
    assert not drops(h1)
    assert cli(lab, "-H", "h1", "pending").stdout.count("nothing pending") == 1


@pytest.mark.usefixtures("tidy")
def test_pending_is_confirmed_by_hand(lab: Lab, h1: Host) -> None:
    group = leave_pending(lab, 10)
    cli(lab, "-H", "h1", "--yes", "pending", "confirm", group)
    time.sleep(11)
    assert drops(h1)


@pytest.mark.usefixtures("hosts")
def test_a_bundle_is_pushed_under_one_group(lab: Lab) -> None:
    somebody = f"k-{uuid.uuid4().hex[:8]}"
    cli(lab, "policy", "grant", somebody, "viewers")
    try:
        done = answers(lab, "-H", "all", "--yes", "--confirm-within", "20s", "policy", "push")
        assert {a["outcome"] for a in done.values()} == {"applied"}
        told = json.loads(cli(lab, "-o", "json", "-H", "all", "host", "get").stdout)
        versions = {a["result"]["host"]["bundle_version"] for a in told}
        assert versions == {a["result"]["version"] for a in done.values()}
        assert pending(lab)["ended"][0]["outcome"] == "OUTCOME_APPLIED"
    finally:
        cli(lab, "policy", "ungrant", somebody, "viewers")
        cli(lab, "-H", "all", "--yes", "policy", "push")


@pytest.mark.usefixtures("tidy", "hosts")
def test_a_job_is_started_watched_and_listed(lab: Lab, tmp_path: Path) -> None:
    wanted = tmp_path / "networks.toml"
    names = [f"k-job{number}" for number in range(4)]
    wanted.write_text("".join(f'[[namespaces]]\nname = "{name}"\n' for name in names))
    try:
        started = answers(
            lab, "-H", "all", "--yes", "--background", "netns", "apply", "-f", str(wanted)
        )
        assert {a["outcome"] for a in started.values()} == {"started"}
        job = started["h1"]["result"]["change"]["job"]
        watched = cli(lab, "-H", "h1", "jobs", "watch", job)
        assert watched.stdout.splitlines()[-1] == f"h1 netns {job}: succeeded"
        shown = cli(lab, "-H", "all", "jobs", "show", job).stdout
        assert "netns ApplyNamespaces" in shown
        assert job.removeprefix("jobs/") in cli(lab, "-H", "h1", "jobs", "list").stdout
        assert set(names) <= set(lab.host("h1").run(["ip", "netns"]).stdout.split())
    finally:
        for name in names:
            cli(lab, "-H", "all", "--yes", "netns", "delete", name)


TWO_PERSONS = """
@id("k-two-persons")
forbid (
  principal,
  action == Action::"/hostler.api.firewall.v1.RulesetService/DeleteRuleset",
  resource == Resource::"firewall/k-two"
)
unless { context.approvals >= 1 || context.validate_only };
"""


@pytest.fixture
def two_persons(lab: Lab, hosts: tuple[Host, ...]) -> Iterator[None]:
    """A ruleset that nobody may delete alone, on every host."""
    policy = lab.pki / "policies" / "k-two.cedar"
    request = ruleset_pb2.ApplyRulesetRequest(ruleset=ruleset_pb2.Ruleset(name="k-two"))
    for host in hosts:
        ask(lab, APPLY_RULESET, request, host=host.name)
    policy.write_text(TWO_PERSONS)
    try:
        cli(lab, "policy", "sign")
        cli(lab, "-H", "all", "--yes", "policy", "push")
        yield
    finally:
        policy.unlink()
        cli(lab, "policy", "sign")
        cli(lab, "-H", "all", "--yes", "policy", "push")
        cli(lab, "-H", "all", "--yes", "firewall", "delete", "k-two")


@pytest.fixture
def operator(lab: Lab) -> Iterator[str]:
    """The context of somebody else: may change hosts, and is not the lab's admin."""
    kept = lab.config.read_text()
    document = tomlkit.parse(kept)
    context = dict(document["contexts"]["lab"].unwrap())
    context |= {"certificate": "pki/users/operator.pem", "key": "pki/users/operator.key"}
    document["contexts"]["operator"] = context
    lab.config.write_text(tomlkit.dumps(document))
    yield "operator"
    lab.config.write_text(kept)


@pytest.mark.usefixtures("two_persons")
def test_a_change_goes_through_once_another_person_has_approved_it(lab: Lab, operator: str) -> None:
    delete = ("--context", operator, "-H", "all", "--yes", "firewall", "delete", "k-two")
    refused = cli(lab, "--max-failures", "100%", *delete, status=1)
    line = next(x for x in refused.stderr.splitlines() if x.startswith("Somebody else"))
    words = line.partition(": hostler ")[2].split()
    # Equal plans of three hosts are one request.
    assert words[:-1] == ["-H", "h1", "-H", "h2", "-H", "h3", "approve"]
    own = cli(lab, "--context", operator, "--yes", *words, status=1)
    assert "APPROVAL_NOT_COUNTED" in own.stderr
    shown = cli(lab, "--plan", *words).stdout
    assert "user/operator: firewall DeleteRuleset" in shown
    cli(lab, "--yes", *words)
    assert "approved" in cli(lab, "-H", "h1", "approvals", "list", "--open").stdout
    done = answers(lab, *delete)
    assert {a["outcome"] for a in done.values()} == {"applied"}
    assert "used" in cli(lab, "-H", "h1", "approvals", "list").stdout
