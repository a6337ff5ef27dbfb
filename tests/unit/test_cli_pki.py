import json
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest
import yaml

from hostler.pki import Authority

HOSTLER = Path(sys.executable).with_name("hostler")


@pytest.fixture
def run(tmp_path):
    def run(*arguments, ok=True):
        answer = subprocess.run(
            [HOSTLER, *arguments],
            env={"HOSTLER_CONFIG": str(tmp_path / "client/config.toml"), "HOME": str(tmp_path)},
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=60,
            check=False,
        )
        if ok:
            assert answer.returncode == 0, answer.stderr
        return answer

    return run


@pytest.fixture
def ready(run):
    run("pki", "init", "--trust-domain", "lab")
    return run


def as_json(answer):
    return json.loads(answer.stdout)


def test_from_nothing_to_a_user_with_a_group(run, tmp_path):
    told = run("pki", "init", "--trust-domain", "lab").stdout
    config = tmp_path / "client/config.toml"
    context = tomllib.loads(config.read_text())["contexts"]["default"]
    assert context["pki"] == "pki" and context["trust_domain"] == "lab"
    assert (config.stat().st_mode & 0o7777, (tmp_path / "client/fleet.toml").exists()) == (
        0o600,
        True,
    )
    # What it says comes next works as it is said.
    steps = [line.split() for line in told.splitlines() if line.startswith("  hostler ")]
    assert len(steps) == 3
    for step in steps:
        run(*step[1:7] if "host" in step else step[1:])
    user = Path(context["certificate"]).stem
    bundle = as_json(run("-o", "json", "policy", "show"))
    assert bundle["members"] == {f"spiffe://lab/user/{user}": ["admins"]}
    assert bundle["as_source"] is True and "admins-root-equivalent" in bundle["policies"]
    for path in ("ca", "certificate", "key", "fleet"):
        assert (tmp_path / "client" / context[path]).exists()


def test_init_twice_changes_nothing(ready, tmp_path):
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    again = ready("pki", "init", ok=False)
    assert again.returncode == 1 and "holds a CA already" in again.stderr
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before


def test_init_leaves_a_configuration_that_is_there(run, tmp_path):
    config = tmp_path / "client/config.toml"
    config.parent.mkdir()
    config.write_text("# mine\n")
    told = run("pki", "init").stdout
    assert config.read_text() == "# mine\n" and "pki = " in told


def test_issue_list_and_show(ready):
    made = as_json(
        ready("-o", "json", "pki", "issue", "host", "h1", "--dns", "h1.example", "--ip", "::1")
    )
    assert made["dns_names"] == ["h1", "h1.example"] and made["ip_addresses"] == ["::1"]
    ready("pki", "issue", "user", "alice")
    listed = as_json(ready("-o", "json", "pki", "list"))
    assert [(c["kind"], c["name"], c["state"]) for c in listed] == [
        ("host", "h1", "current"),
        ("user", "alice", "current"),
    ]
    lines = ready("-o", "ndjson", "pki", "list").stdout.splitlines()
    assert [json.loads(line) for line in lines] == listed
    assert yaml.safe_load(ready("-o", "yaml", "pki", "list").stdout) == listed
    table = ready("pki", "list").stdout.splitlines()
    assert table[0].split()[:3] == ["KIND", "NAME", "STATE"] and len(table) == 3
    assert as_json(ready("-o", "json", "pki", "show", "h1")) == made == listed[0]
    assert as_json(ready("-o", "json", "pki", "show", made["serial"].upper())) == made
    assert as_json(ready("-o", "json", "pki", "show"))["identity"] == "spiffe://lab"


def test_renew_and_filter(ready):
    ready("pki", "issue", "user", "alice")
    refused = ready("pki", "issue", "user", "alice", ok=False)
    assert refused.returncode == 1 and "--renew" in refused.stderr
    ready("pki", "issue", "user", "alice", "--renew")
    current = as_json(ready("-o", "json", "pki", "list", "--state", "current"))
    assert len(current) == 1 and len(as_json(ready("-o", "json", "pki", "list"))) == 2


def test_revoke_grant_and_ungrant_sign_new_versions(ready):
    ready("pki", "issue", "user", "alice")
    assert as_json(ready("-o", "json", "policy", "grant", "alice", "admins"))["version"] == 2
    again = as_json(ready("-o", "json", "policy", "grant", "alice", "admins"))
    assert again["changed"] is False and again["version"] == 2
    assert "signed version 3" in ready("policy", "revoke", "alice").stdout
    assert "nothing to change" in ready("policy", "revoke", "alice").stdout
    assert as_json(ready("-o", "json", "pki", "show", "alice"))["state"] == "revoked"
    assert as_json(ready("-o", "json", "policy", "ungrant", "alice", "admins"))["version"] == 4
    shown = as_json(ready("-o", "json", "policy", "show"))
    assert shown["members"] == {} and shown["revoked"][0]["identity"] == "spiffe://lab/user/alice"


def test_a_group_that_no_policy_names_is_warned_of(ready):
    answer = ready("policy", "grant", "alice", "strangers")
    assert "no policy names group strangers" in answer.stderr
    assert ready("policy", "check", ok=False).returncode == 1


def test_editing_by_hand_needs_signing(ready, tmp_path):
    shut = as_json(ready("-o", "json", "policy", "check", ok=False))["problems"]
    assert "no user could push the next bundle to netns" in shut
    ready("policy", "grant", "alice", "admins")
    assert ready("policy", "check").returncode == 0
    own = tmp_path / "client/pki/policies/own.cedar"
    own.write_text('@id("own") forbid (principal, action in Action::"class/REED", resource);')
    told = as_json(ready("-o", "json", "policy", "check", ok=False))
    assert any("class/REED" in problem for problem in told["problems"])
    assert any("policy sign" in problem for problem in told["problems"])
    own.write_text('@id("own") forbid (principal, action in Action::"class/DESTROY", resource);')
    ready("policy", "sign")
    assert as_json(ready("-o", "json", "policy", "check"))["problems"] == []


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("pki", "issue", "user", "A B"), 2, "user name"),
        (("pki", "issue", "host", "h_1"), 2, "host name"),
        (("pki", "issue", "host", "h1", "--ip", "10.0.0"), 2, "IP address"),
        (("pki", "issue", "host", "h1", "--dns", "*.x"), 2, "DNS name"),
        (("pki", "issue", "user"), 2, "NAME"),
        (("pki", "show", "nobody"), 1, "nothing was issued"),
        (("policy", "grant", "spiffe://other/user/a", "admins"), 2, "trust domain lab"),
        (("policy", "grant", "alice", "Admins"), 2, "group"),
        (("policy", "revoke", "nobody"), 1, "nothing was issued"),
        (("pki", "list", "--dir", "/nonexistent"), 1, "holds no CA"),
        (("policy", "push"), 3, "no host is selected"),
    ],
)
def test_what_is_refused_and_how(ready, tmp_path, arguments, code, said):
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    answer = ready(*arguments, ok=False)
    assert (answer.returncode, said in answer.stderr) == (code, True), answer.stderr
    assert "Traceback" not in answer.stderr
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before


def test_a_bundle_that_locks_all_out_is_not_pushed(ready):
    ready("fleet", "add", "h1", "127.0.0.1:1")
    refused = ready("-H", "h1", "--yes", "policy", "push", ok=False)
    assert refused.returncode == 1 and "no user could push the next one" in refused.stderr
    forced = ready("-H", "h1", "--yes", "policy", "push", "--force", ok=False)
    assert "no user could push" not in forced.stderr
    ready("policy", "grant", "alice", "operators")
    pushed = ready("-H", "h1", "--yes", "policy", "push", ok=False)
    assert "no user could push" not in pushed.stderr


def test_a_starter_is_added_once_and_signed(ready, tmp_path):
    assert "two-persons" in ready("policy", "starters").stdout
    assert '@id("two-persons")' in ready("policy", "starters", "two-persons").stdout
    ready("policy", "starters", "two-persons", "--add")
    again = ready("policy", "starters", "two-persons", "--add", ok=False)
    assert again.returncode == 1 and "is there already" in again.stderr
    ready("policy", "grant", "alice", "admins")
    assert ready("policy", "check").returncode == 0
    table = tmp_path / "cases.toml"
    table.write_text('[[cases]]\nwho = "alice"\ncalls = ["DeleteRuleset"]\nexpect = "approval"\n')
    told = as_json(ready("-o", "json", "policy", "test", str(table), ok=False))
    assert [answer["answer"] for answer in told] == ["allow"]
    table.write_text(table.read_text().replace("DeleteRuleset", "MakeFilesystem"))
    assert ready("policy", "test", str(table)).returncode == 0


def test_without_configuration_it_says_what_to_do(run):
    answer = run("pki", "list", ok=False)
    assert answer.returncode == 2 and "hostler pki init" in answer.stderr


def test_a_folder_may_be_named(run, tmp_path):
    run("pki", "init", "--dir", str(tmp_path / "elsewhere/pki"))
    run("pki", "issue", "user", "alice")
    assert Authority.open(tmp_path / "elsewhere/pki").show("alice").state == "current"
    run("pki", "show", "alice", "--dir", str(tmp_path / "elsewhere/pki"))


@pytest.mark.parametrize("group", ["pki", "policy"])
def test_help_imports_nothing_heavy(group):
    code = (
        f"import sys, hostler.cli.{group}; "
        "bad = {'cryptography', 'rich', 'grpc', 'tomlkit', 'cedarpy'} & set(sys.modules); "
        "sys.exit(','.join(bad) or 0)"
    )
    begun = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    print(f"{group}: {1000 * (time.perf_counter() - begun):.0f} ms")


def test_explain_says_who_may_what_and_why(ready):
    for user, group in (("vera", "viewers"), ("otto", "operators"), ("anna", "admins")):
        ready("policy", "grant", user, group)
    expected = {
        ("vera", "ListNamespaces"): "a policy permits it, and none forbids it",
        ("vera", "CreateNamespace"): "no policy permits it",
        ("otto", "CreateNamespace"): "a policy permits it, and none forbids it",
        ("otto", "StartProcess"): "no policy permits it",
        ("anna", "StartProcess"): "a policy permits it, and none forbids it",
    }
    for (user, method), why in expected.items():
        told = ready("-o", "json", "policy", "explain", user, method, "web", ok=False)
        assert as_json(told)["why"] == why, (user, method, told.stderr)
        assert told.returncode == (0 if "permits it, and" in why else 1)
    assert ready("policy", "explain", "vera", "NoSuchMethod", ok=False).returncode == 2
