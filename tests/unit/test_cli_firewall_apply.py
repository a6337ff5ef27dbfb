"""Rulesets of files: which host gets which, what stops all of it, how faults name their places."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from click.testing import CliRunner, Result
from client_doors import DOMAINS, Host, World, make_server, rich, world

from hostler.api.firewall.v1 import ruleset_pb2
from hostler.cli.main import cli
from hostler.firewall_files import load_rulesets

Run = Callable[..., Result]

BASE = 'name = "base"\ninput_policy = "drop"\n'
WEB = """\
# for the web
name = "web"
hosts = ["role=web",
  "h9*"]

[[rules]]
id = "http"
hook = "input"
action = "accept"
protocol = "tcp"
sources = [
  "192.0.2.0/24", # office
  "198.51.100.1",
]
[[rules]]
hook = "input"
action = "drop"
"""


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[World]:
    with world(tmp_path) as made:
        made.start("h1", 'role = "web"')
        made.start("h2", 'role = "db"')
        made.start("h9x")
        yield made


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    folder = tmp_path / "rules"
    folder.mkdir()
    (folder / "10-base.toml").write_text(BASE)
    (folder / "20-web.toml").write_text(WEB)
    (folder / "notes.txt").write_text("not read")
    return folder


@pytest.fixture
def run(fleet: World) -> Run:
    def invoke(*args: object) -> Result:
        words = [str(each) for each in args]
        env = {"HOSTLER_CONFIG": str(fleet.config)}
        return CliRunner().invoke(cli, words, env=env)

    return invoke


def applied(fleet: World) -> dict[str, list[str]]:
    return {name: list(host.rulesets) for name, host in fleet.hosts.items()}


def asked(fleet: World, *, validate_only: bool) -> dict[str, list[Any]]:
    return {
        name: [r for r in host.named("ApplyRulesets") if r.change.validate_only == validate_only]
        for name, host in fleet.hosts.items()
    }


def test_each_host_gets_its_files_in_one_call(fleet: World, run: Run, rules: Path) -> None:
    answer = run("-H", "all", "--yes", "firewall", "apply", "-f", rules)
    assert answer.exit_code == 0, answer.output
    assert applied(fleet) == {"h1": ["base", "web"], "h2": ["base"], "h9x": ["base", "web"]}
    for calls in asked(fleet, validate_only=False).values():
        assert len(calls) == 1
        assert not calls[0].change.HasField("confirm")
    (web,) = (r for r in fleet.hosts["h1"].rulesets.values() if r.name == "web")
    assert list(web.rules[0].sources) == ["192.0.2.0/24", "198.51.100.1"]
    assert "h1    changed  base, web" in answer.stdout
    again = run("-H", "all", "--yes", "firewall", "apply", "-f", rules)
    assert "h2    unchanged  base" in again.stdout


def test_hosts_without_a_file_are_named_and_left(fleet: World, run: Run, rules: Path) -> None:
    web = rules / "20-web.toml"
    answer = run("-H", "all", "--yes", "firewall", "apply", "--prune", "-f", web)
    assert answer.exit_code == 0, answer.output
    assert "No file is for them, they stay as they are: h2" in answer.stderr
    assert fleet.hosts["h2"].calls == []
    none = run("-H", "h2", "--yes", "firewall", "apply", "-f", web)
    assert none.exit_code == 2
    assert f"{web}: for none of the selected hosts" in none.stderr


def test_the_faults_of_all_files_are_told_at_once(fleet: World, run: Run, rules: Path) -> None:
    bad = WEB.replace('"198.51.100.1"', "7").replace('"drop"', '"dropp"')
    (rules / "20-web.toml").write_text(bad + 'id = "http"\n[[fragments]]\nplace = "here"\n')
    (rules / "30-more.toml").write_text('etag = "x"\nhosts = "h1"\n')
    (rules / "40-broken.toml").write_text("name = \n")
    (rules / "50-h.toml").write_text('name = "z"\n\nhosts = [1,\n\n""]\n')
    (rules / "60-h.toml").write_text('name = "y"\nhosts = []\n')
    answer = run("-H", "all", "--yes", "firewall", "apply", "-f", rules)
    assert answer.exit_code == 2
    told = [line.removeprefix("Error: ") for line in answer.stderr.splitlines()]
    expected = [
        "20-web.toml:13: rule http: rules[0].sources[1]: text is needed, not 7",
        "20-web.toml:17: rule http: rules[1].action: 'dropp' is not one of accept, drop",
        "20-web.toml:20: fragment fragment-1: fragments[0].place: 'here' is not one of",
        "20-web.toml:18: rule http: rules[1].id: 'http' is the id of rule 1",
        "30-more.toml:2: hosts: a list of selectors is needed",
        "30-more.toml:1: etag: the host says this",
        "30-more.toml:1: name: a name is needed",
        "40-broken.toml: not TOML: Invalid value (at line 1, column 8)",
        "50-h.toml:3: hosts[0]: a selector is needed",
        "50-h.toml:5: hosts[1]: a selector is needed",
        "60-h.toml:2: hosts: selects no host",
    ]
    assert len(told) == len(expected), told
    for line, begins in zip(told, expected, strict=True):
        assert line.startswith(f"{rules}/{begins}"), line
    assert all(host.calls == [] for host in fleet.hosts.values())


def test_selectors_and_names_are_held_against_the_fleet(
    fleet: World, run: Run, rules: Path
) -> None:
    (rules / "30.toml").write_text('name = "web"\n')
    (rules / "40.toml").write_text('name = "x"\nhosts = [\n"h1", "role=wbe"]\n')
    answer = run("-H", "all", "--yes", "firewall", "apply", "-f", rules)
    assert answer.exit_code == 2
    assert f"{rules}/40.toml:3: hosts[1]: no host matches 'role=wbe'" in answer.stderr
    assert (
        f"{rules}/30.toml:1: name: h1 has ruleset 'web' from {rules}/20-web.toml:2, too"
    ) in answer.stderr
    assert "h2 has ruleset" not in answer.stderr
    assert all(host.calls == [] for host in fleet.hosts.values())


def violation(field: str, what: str) -> Any:
    return rich(
        grpc.StatusCode.INVALID_ARGUMENT,
        "INVALID_REQUEST",
        f"{field}: {what}",
        fields={field: what, "change.request_id": "must be a UUID"},
    )


def test_a_refused_plan_changes_no_host(fleet: World, run: Run, rules: Path) -> None:
    fault = violation("rulesets[1].rules[0].sources[1]", "must be a network")
    for name in ("h1", "h9x"):
        fleet.hosts[name].refusals["ApplyRulesets"] = [fault, fault]
    plan = run("-H", "all", "--plan", "firewall", "apply", "-f", rules)
    assert plan.exit_code == 1
    assert "1 host: h2\n  replace table for base\n" in plan.stdout
    answer = run("-H", "all", "--yes", "--max-failures", "9", "firewall", "apply", "-f", rules)
    assert answer.exit_code == 1
    told = (
        "h1, h9x: INVALID_ARGUMENT INVALID_REQUEST\n"
        f"  {rules}/20-web.toml:13: rule http: rules[0].sources[1]: must be a network\n"
        "  change.request_id: must be a UUID\n"
    )
    assert told in plan.stderr
    assert told in answer.stderr
    assert "Nothing was changed: h1, h9x refused the plan." in answer.stderr
    assert not any(asked(fleet, validate_only=False).values())
    assert applied(fleet) == {"h1": [], "h2": [], "h9x": []}


def test_a_refused_plan_in_json(fleet: World, run: Run, rules: Path) -> None:
    fault = rich(
        grpc.StatusCode.FAILED_PRECONDITION,
        "NFT_REJECTED",
        "No such file or directory",
        metadata={"rule": "web/rule-2"},
    )
    fleet.hosts["h1"].refusals["ApplyRulesets"] = [fault]
    answer = run("-H", "all", "-o", "json", "--yes", "firewall", "apply", "-f", rules)
    first, second, third = json.loads(answer.stdout)
    place = f"{rules}/20-web.toml:15: rule rule-2"
    assert first["error"]["metadata"] == {"rule": "web/rule-2", "place": place}
    assert first["error"]["message"] == f"{place}: No such file or directory"
    assert second["error"]["reason"] == third["error"]["reason"] == "NOT_STARTED"
    assert answer.exit_code == 1
    assert applied(fleet) == {"h1": [], "h2": [], "h9x": []}


def test_a_fault_found_while_applying_names_its_place(fleet: World, run: Run, rules: Path) -> None:
    fault = rich(
        grpc.StatusCode.FAILED_PRECONDITION, "NFT_REJECTED", "no", metadata={"rule": "web/http"}
    )
    fleet.hosts["h1"].refusals["ApplyRulesets"] = [None, fault]
    answer = run("-H", "all", "--yes", "firewall", "apply", "-f", rules)
    assert answer.exit_code == 1
    assert f"h1: FAILED_PRECONDITION NFT_REJECTED: {rules}/20-web.toml:6: rule http: no" in (
        answer.stderr
    )
    assert applied(fleet) == {"h1": [], "h2": [], "h9x": []}


def test_a_dead_host_counts_as_a_failure(fleet: World, run: Run, rules: Path) -> None:
    fleet.dead("h0")
    args = ["-H", "all", "--yes", "firewall", "apply", "-f", rules]
    assert run(*args).exit_code == 1
    assert applied(fleet) == {"h1": [], "h2": [], "h9x": []}
    assert run("--max-failures", "1", *args).exit_code == 1
    assert applied(fleet) == {"h1": ["base", "web"], "h2": ["base"], "h9x": ["base", "web"]}


def test_what_touches_the_caller_goes_out_under_confirm(
    fleet: World, run: Run, rules: Path
) -> None:
    fleet.hosts["h2"].touches_caller = True
    args = ["-H", "all", "firewall", "apply", "-f", rules]
    plan = run("--plan", *args)
    assert "between here and h2: it would go out under confirm." in plan.stdout
    answer = run("--yes", *args)
    assert answer.exit_code == 0, answer.output
    assert (
        "It may touch the path between here and h2: hosts take the change back after 60s unless "
        "they can still be reached."
    ) in answer.stderr
    for calls in asked(fleet, validate_only=False).values():
        assert [c.change.confirm.within.seconds for c in calls] == [60]
    assert {domain for domain, _ in fleet.hosts["h2"].peers} == set(DOMAINS)
    again = run("--yes", *args)
    assert "path between" not in again.stderr


def test_a_resumed_run_keeps_its_confirm(fleet: World, run: Run, rules: Path) -> None:
    fleet.hosts["h1"].touches_caller = True
    busy = rich(grpc.StatusCode.FAILED_PRECONDITION, "BUSY", "not now")
    fleet.hosts["h1"].refusals["ApplyRulesets"] = [None, busy]
    assert run("-H", "h1", "--yes", "firewall", "apply", "-f", rules).exit_code == 1
    resumed = run("--yes", "runs", "resume", "last")
    assert resumed.exit_code == 0, resumed.output
    calls = asked(fleet, validate_only=False)["h1"]
    assert [call.change.confirm.within.seconds for call in calls] == [60, 60]
    assert applied(fleet)["h1"] == ["base", "web"]


def test_many_faults_of_one_host_are_cut(fleet: World, run: Run, rules: Path) -> None:
    fields = {f"rulesets[0].rules[{n}].id": "is bad" for n in range(60)}
    fault = rich(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST", "bad", fields=fields)
    fleet.hosts["h1"].refusals["ApplyRulesets"] = [fault]
    answer = run("-H", "h1", "--yes", "firewall", "apply", "-f", rules)
    assert answer.stderr.count("10-base.toml:1: rule rule-") == 50
    assert "  … and 10 more\n" in answer.stderr


@pytest.mark.parametrize(
    ("before", "after", "seconds"),
    [(["--confirm-within", "7s"], [], [7]), ([], ["--no-confirm"], [0])],
)
def test_what_is_said_about_confirm_counts(
    fleet: World, run: Run, rules: Path, before: list[str], after: list[str], seconds: list[int]
) -> None:
    fleet.hosts["h1"].touches_caller = True
    answer = run(*before, "-H", "h1", "--yes", "firewall", "apply", "-f", rules, *after)
    assert answer.exit_code == 0, answer.output
    calls = asked(fleet, validate_only=False)["h1"]
    assert [call.change.confirm.within.seconds for call in calls] == seconds
    assert "path between" not in answer.stderr


def test_background_has_nobody_to_confirm(fleet: World, run: Run, rules: Path) -> None:
    fleet.hosts["h1"].touches_caller = True
    args = ["-H", "h1", "--yes", "--background", "firewall", "apply", "-f", rules]
    answer = run(*args)
    assert answer.exit_code == 2
    assert "leaves nobody to confirm" in answer.stderr
    assert applied(fleet)["h1"] == []
    assert run(*args, "--no-confirm").exit_code == 0


def test_force_is_planned_and_done_under_confirm(fleet: World, run: Run, rules: Path) -> None:
    args = ["-H", "h1", "--yes", "firewall", "apply", "-f", rules, "--force"]
    answer = run(*args, "--cut-established")
    assert answer.exit_code == 0, answer.output
    for request in fleet.hosts["h1"].named("ApplyRulesets"):
        assert request.force
        assert request.cut_established
        assert request.change.confirm.within.seconds == 60
    assert run(*args, "--no-confirm").exit_code == 2


def test_findings_are_told_once_for_all_hosts(fleet: World, run: Run, rules: Path) -> None:
    shadowed = ruleset_pb2.Finding(
        code="RULE_SHADOWED", message="never asked", rule="web/rule-2", field="rulesets[1].rules[1]"
    )
    for name in ("h1", "h9x"):
        fleet.hosts[name].findings = [shadowed]
    fleet.hosts["h2"].findings = [
        ruleset_pb2.Finding(code="CLOSES", message="own ports", rule="base/x", refused=True)
    ]
    plan = run("-H", "all", "--plan", "firewall", "apply", "-f", rules)
    assert plan.exit_code == 0, plan.output
    at = plan.stdout.index("findings\n")
    assert plan.stdout[at:].splitlines() == [
        "findings",
        f"  {rules}/20-web.toml:15: rule rule-2: rules[1]: RULE_SHADOWED: never asked (h1, h9x)",
        f"  {rules}/10-base.toml:1: rule x: CLOSES: own ports (h2); refused without --force",
    ]
    result = json.loads(
        run("-H", "h1", "-o", "json", "--plan", "firewall", "apply", "-f", rules).stdout
    )
    assert result[0]["result"]["findings"][0]["rule"] == "web/rule-2"
    assert "RULE_SHADOWED" in run("-H", "h1", "--yes", "firewall", "apply", "-f", rules).stderr


def test_many_findings_are_cut(fleet: World, run: Run, rules: Path) -> None:
    fleet.hosts["h2"].findings = [
        ruleset_pb2.Finding(code="RULE_SHADOWED", message=f"by {n}") for n in range(60)
    ]
    plan = run("-H", "h2", "--plan", "firewall", "apply", "-f", rules)
    assert plan.stdout.count("RULE_SHADOWED") == 50
    assert "… and 10 more; -o json has all" in plan.stdout


def test_nobody_confirms_through_a_local_door(
    fleet: World, run: Run, rules: Path, tmp_path: Path
) -> None:
    sockets = tmp_path / "s"
    sockets.mkdir()
    here = fleet.hosts["here"] = Host("here")
    here.touches_caller = True
    server = make_server(here, "firewall")
    server.add_insecure_port(f"unix:{sockets}/firewall.sock")
    server.start()
    with fleet.fleet.open("a") as file:
        file.write(f'[hosts.here]\naddress = "unix:{sockets}"\n')
    try:
        answer = run("-H", "here", "--yes", "firewall", "apply", "-f", rules / "10-base.toml")
        assert answer.exit_code == 0, answer.output
        (call,) = asked(fleet, validate_only=False)["here"]
        assert not call.change.HasField("confirm")
        fleet.hosts["h1"].touches_caller = True
        args = ["-H", "here", "-H", "h1", "--yes", "firewall", "apply", "-f", rules]
        both = run(*args)
        assert both.exit_code == 2
        assert "nobody can confirm through local doors" in both.stderr
        assert applied(fleet)["h1"] == []
        assert run(*args, "--no-confirm").exit_code == 0
    finally:
        server.stop(None).wait(5)


def test_prune_deletes_what_no_file_names(fleet: World, run: Run, rules: Path) -> None:
    for name in ("old", "base"):
        fleet.hosts["h2"].rulesets[name] = ruleset_pb2.Ruleset(name=name)
    args = ["-H", "all", "firewall", "apply", "-f", rules, "--prune"]
    plan = run("--plan", *args)
    assert "delete ruleset old" in plan.stdout
    assert "old" in fleet.hosts["h2"].rulesets
    answer = run("--yes", *args)
    assert answer.exit_code == 0, answer.output
    assert applied(fleet) == {"h1": ["base", "web"], "h2": ["base"], "h9x": ["base", "web"]}
    assert [list(r.delete_names) for r in asked(fleet, validate_only=False)["h1"]] == [[]]


def test_a_pruning_run_is_resumed_with_what_it_was_to_delete(
    fleet: World, run: Run, rules: Path
) -> None:
    host = fleet.hosts["h2"]
    host.rulesets["old"] = ruleset_pb2.Ruleset(name="old")
    busy = rich(grpc.StatusCode.FAILED_PRECONDITION, "BUSY", "not now")
    host.refusals["ApplyRulesets"] = [None, busy]
    args = ["-H", "h2", "firewall", "apply", "-f", rules, "--prune"]
    assert run("--yes", *args).exit_code == 1
    resumed = run("--yes", "runs", "resume", "last")
    assert resumed.exit_code == 0, resumed.output
    assert list(host.rulesets) == ["base"]


def test_rules_that_end(fleet: World, run: Run, rules: Path) -> None:
    web = rules / "20-web.toml"
    web.write_text(WEB + "expire_time = 2040-01-02T03:04:05+01:00\n")
    before = datetime.now(UTC)
    answer = run("-H", "h1", "--yes", "firewall", "apply", "-f", web, "--for", "10m")
    assert answer.exit_code == 0, answer.output
    first, second = fleet.hosts["h1"].rulesets["web"].rules
    end = first.expire_time.ToDatetime(tzinfo=UTC)
    assert before + timedelta(minutes=10) <= end <= datetime.now(UTC) + timedelta(minutes=10)
    assert second.expire_time.ToJsonString() == "2040-01-02T02:04:05Z"
    web.write_text(WEB + "expire_time = 2040-01-02T03:04:05\n")
    local = run("-H", "h1", "--yes", "firewall", "apply", "-f", web)
    assert f"{web}:18: rule rule-2: rules[1].expire_time: a moment such as" in local.stderr


def test_a_folder_without_rulesets(run: Run, tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    answer = run("-H", "h1", "--yes", "firewall", "apply", "-f", tmp_path / "none")
    assert answer.exit_code == 2
    assert "there is no *.toml in it" in answer.stderr


ENTRIES = """\
name = "all"
bridge_policy = "drop"
input_policy = "drop"
[[forwards]]
protocol = "tcp"
port = 80
target_address = "10.0.0.2"
[[forwards]]
protocol = "udp"
port = 80
target_address = "10.0.0.2"
[[redirects]]
protocol = "tcp"
port = 81
to_port = 82
[[source_nats]]
source = "10.0.0.0/8"
[[masquerades]]
source = "10.0.0.0/8"
[[masquerades]]
source = "10.1.0.0/16"
[[fragments]]
id = "f"
"""


@pytest.mark.parametrize(
    ("rule", "line"),
    [
        ("forward-udp-80", 8),
        ("redirect-tcp-81", 12),
        ("source-nat-1", 16),
        ("masquerade-2", 20),
        ("fragment-f", 22),
        ("policy-input", 3),
        ("policy-bridge_forward", 2),
        ("forward-tcp-99", 1),
        ("gone", 1),
    ],
)
def test_every_entry_is_found_by_the_id_that_hosts_give_it(
    tmp_path: Path, rule: str, line: int
) -> None:
    path = tmp_path / "all.toml"
    path.write_text(ENTRIES)
    (file,) = load_rulesets([path])
    assert file.where_rule(rule) == f"{path}:{line}: rule {rule}"
