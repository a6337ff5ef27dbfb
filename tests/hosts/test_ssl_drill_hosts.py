"""A compromise drill: keys got out, all is replaced in waves, a host loses power in the middle.

9 certificates by 3 keys; HOSTLER_SOAK=1 makes it 50 by 5. What is served, what lies in files and
what is refused, openssl says.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from drill_lab import Drill, drill
from foremost import foremost
from hosts_client import HOSTLER, cli, environment
from hosts_witness import eventually

from hostler.lab.lab import Lab

SOAK = os.environ.get("HOSTLER_SOAK") == "1"
COUNT, KEYS = (50, 5) if SOAK else (9, 3)
SLOW = "/etc/systemd/system/nginx.service.d/slow.conf"
RELOADS_SLOWLY = """
[Service]
ExecReload=
ExecReload=/usr/bin/sleep 3
ExecReload=/usr/sbin/nginx -s reload
"""
_JOURNAL = "var/lib/hostler-ssl-installer/journal"
PATIENCE_S = 300.0 if SOAK else 120.0

pytestmark = [pytest.mark.hosts, pytest.mark.soak, pytest.mark.timeout(1200 if SOAK else 300)]


@pytest.fixture(scope="module")
def fleet(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Drill]:
    folder = tmp_path_factory.mktemp("drill")
    for host in lab.hosts:
        if host.leader() is None:
            lab.boot(host.name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(folder / "state"))
        with drill(lab, lab.hosts, folder, COUNT, KEYS) as made:
            yield made


def plan(fleet: Drill, *words: str) -> dict[str, Any]:
    words = words or tuple(word for key in fleet.keys for word in ("--key", key))
    done = cli(fleet.lab, "-H", "all", "-o", "json", "ssl", "compromise", "plan", *words)
    made: dict[str, Any] = json.loads(done.stdout)
    return made


def execute(fleet: Drill, *words: str, status: int) -> str:
    done = cli(
        fleet.lab, "-H", "all", "--yes", "ssl", "compromise", "execute", *words, status=status
    )
    return done.stdout + done.stderr


def test_a_flaw_of_a_library_leads_to_the_keys_of_those_who_run_it(fleet: Drill) -> None:
    flaw = ("--cve", "CVE-2030-1", "--library", "libssl", "--fixed-in")
    made = plan(fleet, *flaw, "99")
    own = fleet.key_of(fleet.own[0])
    assert {*fleet.keys, own} <= set(made["keys"])
    users = {(user["host"], user["comm"]) for user in made["flaw"]["users"]}
    assert {(host.name, "nginx") for host in fleet.hosts} <= users
    # Of a version that nobody is before, only those whose version is not known are told.
    made = plan(fleet, *flaw, "0.1")
    assert not {*fleet.keys, own} & set(made["keys"])
    assert {tuple(user["versions"]) for user in made["flaw"]["users"]} <= {("",)}


def test_what_is_used_by_no_deployment_is_by_hand_and_never_revoked_under_it(fleet: Drill) -> None:
    (one,), (_, h2, _) = fleet.own, fleet.hosts
    key = ("--key", fleet.key_of(one))
    told = execute(fleet, *key, "--way", "reissue", status=1)
    assert f"by hand: {h2.name}: {one.name}: deployment own has no ACME server" in told
    cli(fleet.lab, "-H", h2.name, "--yes", "ssl", "deployment", "delete", one.short)
    way = ("--way", "revoke-and-reissue", "--authority", fleet.hosts[0].name)
    told = execute(fleet, *key, *way, status=1)
    assert f"by hand: {h2.name}: {one.name}: used by nginx at *:443, and in no deployment" in told
    assert "STILL_IN_USE" in told and f"nginx on {h2.name} at *:443 uses it" in told
    assert not fleet.refused(fleet.revocations(), one.pem)
    assert "Nothing is missing" not in cli(fleet.lab, "--plan", "runs", "resume", "last").stderr


def test_what_is_kept_has_a_reason_an_owner_and_a_review(fleet: Drill) -> None:
    key = ("--key", fleet.key_of(fleet.own[0]))
    review = (datetime.now(UTC) + timedelta(days=30)).strftime("%Y-%m-%d")
    words = ("--reason", "lab only", "--owner", "ann", "--review", review)
    assert "1 certificate kept by ann" in execute(fleet, *key, "--way", "keep", *words, status=0)
    (told,) = plan(fleet, *key)["certificates"]
    decision = told["decision"]
    assert (decision["way"], decision["reason"], decision["owner"]) == ("keep", "lab only", "ann")
    assert decision["review"].startswith(review) and not decision["overdue"]
    assert "user/admin" in decision["who"]
    shown = cli(fleet.lab, "-H", "all", "ssl", "compromise", "plan", *key).stdout
    assert f"lab only; owner ann, review {review}" in shown
    assert [each["decision"] for each in plan(fleet)["certificates"]] == [None] * COUNT


def test_all_keys_are_replaced_and_revoked_although_a_host_went_down(fleet: Drill) -> None:
    h1, h2, h3 = fleet.hosts
    old = {host.name: fleet.served(host) for host in fleet.hosts}
    made = plan(fleet)
    the_plan_is_what_openssl_finds_in_all_files(fleet, made)
    written = fleet.folder / "plan.json"
    written.write_text(json.dumps(made))
    started = time.monotonic()
    killed_after = executed_with_a_kill(fleet, written)
    first = outcomes(fleet)
    assert first[h2.name] == "applied" and first[h3.name] in ("failed", "unknown")
    assert first[h1.name] == "failed"
    crl = fleet.revocations()
    # Only what lay on no other host than those that serve the new ones is revoked by now.
    for one in fleet.lost:
        assert fleet.refused(crl, one.pem) == (h3.name not in one.hosts), one
    before = {host.name: fleet.served(host) for host in (h1, h2)}
    fleet.lab.boot(h3.name)
    # What was in place already, and not seen served yet, is taken back by the boot.
    eventually(lambda: not list((h3.root / _JOURNAL).glob("*.json")), PATIENCE_S)
    before[h3.name] = fleet.served(h3)
    left = [name for name, (_, key) in before[h3.name].items() if key in fleet.keys]
    assert sorted(left) == sorted(fleet.names(h3)), "it was not killed in the middle"
    h3.run(["rm", SLOW])
    h3.run(["systemctl", "daemon-reload"])
    cli(fleet.lab, "--yes", "runs", "resume", "last")
    assert "Nothing is missing" in cli(fleet.lab, "runs", "resume", "last").stderr
    took_s = time.monotonic() - started
    assert outcomes(fleet) == {h1.name: "applied", h2.name: "applied", h3.name: "applied"}
    all_is_new_and_what_was_done_was_left_alone(fleet, old, before, left)
    crl = fleet.revocations()
    for one in fleet.lost:
        assert fleet.refused(crl, one.pem), one
    for host in fleet.hosts:
        assert not fleet.sweep(host)
        for short in {name.partition(".")[0] for name in fleet.names(host)}:
            assert not fleet.refused(crl, fleet.file(host, short).decode())
    again = plan(fleet)
    assert (again["certificates"], again["complete"]) == ([], True)
    nothing_is_left_to_do(fleet)
    places = sum(len(one.hosts) for one in fleet.lost)
    print(
        f"\n{COUNT} certificates by {KEYS} keys at {places} places: killed after {killed_after} of "
        f"{len(fleet.names(h3))} on {h3.name}, all taken back; all done after {took_s:.0f} s"
    )


def the_plan_is_what_openssl_finds_in_all_files(fleet: Drill, made: dict[str, Any]) -> None:
    told = {
        (each["fingerprint_sha256"], host)
        for each in made["certificates"]
        for host in each["hosts"]
    }
    files = {host.name: fleet.sweep(host) for host in fleet.hosts}
    found = {(kind, host) for host, rows in files.items() for kind, _, _ in rows if kind != "key"}
    assert told == found
    assert len({fingerprint for fingerprint, _ in found}) == COUNT
    keys = [(key, host) for host, rows in files.items() for kind, _, key in rows if kind == "key"]
    lies = {key: {host for each, host in keys if each == key} for key in fleet.keys}
    assert {key: set(hosts) for key, hosts in made["keys"].items()} == lies
    assert made["complete"] and all(each["uses"] for each in made["certificates"])


def executed_with_a_kill(fleet: Drill, written: Path) -> int:
    """Execute a plan; cut the last host's power when its files change, before that is proven."""
    victim = fleet.hosts[2]
    # Its nginx is slow to reload: from the first file on there is so much time at least.
    victim.run(["mkdir", "-p", str(Path(SLOW).parent)])
    victim.put(SLOW, RELOADS_SLOWLY)
    victim.run(["systemctl", "daemon-reload"])
    places = [fleet.place(victim, one.short) for one in fleet.lost if victim.name in one.hosts]
    old = [place.stat().st_ino for place in places]
    argv = [
        *(HOSTLER, "-H", "all", "--yes", "--batch", "1,100%", "--max-failures", "1"),
        *("--timeout", "12", "ssl", "compromise", "execute", str(written)),
        *("--way", "revoke-and-reissue", "--authority", fleet.hosts[0].name),
    ]
    with subprocess.Popen(
        argv,
        env=environment(fleet.lab),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as client:
        deadline = time.monotonic() + PATIENCE_S
        # Before all that others do on this machine, or the kill comes when all is over.
        with foremost():
            while not (new := sum(p.stat().st_ino != i for p, i in zip(places, old, strict=True))):
                assert client.poll() is None, client.communicate()
                assert time.monotonic() < deadline, "nothing was replaced there"
                time.sleep(0.002)
            victim.kill()
        said, _ = client.communicate(timeout=PATIENCE_S)
    assert client.returncode == 1, said
    assert "wave 1 of 3, 1 host: h2" in said, said
    assert "hostler runs resume" in said
    return new


def outcomes(fleet: Drill) -> dict[str, str]:
    shown = json.loads(cli(fleet.lab, "-o", "json", "runs", "show", "last").stdout)
    return {host["host"]: host["outcome"] for host in shown["hosts"]}


def all_is_new_and_what_was_done_was_left_alone(
    fleet: Drill, old: dict[str, Any], before: dict[str, Any], left: list[str]
) -> None:
    own = {one.name for one in fleet.own}
    seen: set[str] = set()
    for host in fleet.hosts:
        now = fleet.served(host)
        assert set(now) == set(old[host.name])
        for name, (fingerprint, key) in now.items():
            if name in own:
                # Nobody else had its key.
                assert (fingerprint, key) == old[host.name][name]
                continue
            assert key not in fleet.keys and fingerprint != old[host.name][name][0]
            # Each was made for one place.
            assert key not in seen
            seen.add(key)
            again = host == fleet.hosts[2] and name in left
            assert ((fingerprint, key) == before[host.name][name]) != again, (host.name, name)


def nothing_is_left_to_do(fleet: Drill) -> None:
    keys = [word for key in fleet.keys for word in ("--key", key)]
    way = ("--way", "revoke-and-reissue", "--authority", fleet.hosts[0].name)
    execute(fleet, *keys, *way, status=0)
    assert outcomes(fleet) == {fleet.hosts[0].name: "unchanged"}
