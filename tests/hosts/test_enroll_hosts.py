"""Hosts with Debian and sshd become a fleet by `init` and `enroll`; `retire` is the end of one."""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from enroll_lab import DOMAINS, Operator, ask_as, changed

from hostler.fleet import load_fleet
from hostler.lab.host import Host
from hostler.lab.lab import Lab

pytestmark = [pytest.mark.hosts, pytest.mark.timeout(900)]
STAGING = "/var/cache/hostler-enroll"
PKI = "/etc/hostler/pki"


@pytest.fixture(scope="module")
def operator(
    bare: Lab, packages: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Operator]:
    """Who has an ssh key that the hosts take, and nothing else."""
    made = Operator.made(tmp_path_factory.mktemp("people") / "operator", packages)
    for host in bare.hosts:
        assert installed(host) == ""
        assert ":744" not in host.run(["ss", "-Hltn"]).stdout
        made.meet(host)
    yield made


@pytest.fixture(scope="module")
def fleet(operator: Operator, bare: Lab) -> Operator:
    """The first two hosts, enrolled from nothing."""
    began = time.monotonic()
    operator.run("init", "--trust-domain", "lab", "--user", "alice")
    taken = [time.monotonic() - began]
    for host in bare.hosts[:2]:
        told = operator.enroll(host, "--label", "role=web").stdout
        assert f"{host.name} is enrolled: 5 doors answer as spiffe://lab/host/{host.name}" in told
        taken.append(time.monotonic() - began)
        print(told)
    print(f"init {taken[0]:.1f} s, h1 {taken[1]:.1f} s, h2 {taken[2]:.1f} s after the beginning")
    return operator


def installed(host: Host) -> str:
    argv = ["dpkg-query", "-W", "-f", "${Package} ${db:Status-Status}\n", "hostler-*"]
    return host.run(argv, check=False).stdout


def ports(host: Host) -> set[int]:
    """Those of Hostler's ports on which a host listens."""
    lines = host.run(["ss", "-Hltn"]).stdout.splitlines()
    found = {int(line.split()[3].rpartition(":")[2]) for line in lines}
    return found & set(range(7441, 7446))


def digests(host: Host) -> str:
    files = [f"{PKI}/host.pem", f"{PKI}/host.key", f"{PKI}/ca.pem", "/etc/hostler/bundle.json"]
    return host.run(["sha256sum", *files]).stdout


def test_two_bare_hosts_become_a_working_fleet(fleet: Operator, bare: Lab) -> None:
    answers = fleet.run("-H", "all", "-o", "json", "fleet", "check").stdout
    assert answers.count('"ok": true') == 2 * len(DOMAINS)
    # It does what a fleet is for, and the host's own tool says so.
    fleet.run("--yes", "-H", "role=web", "netns", "create", "first")
    for host in bare.hosts[:2]:
        assert "first" in host.run(["ip", "netns"]).stdout
        assert host.run(["test", "-e", STAGING], check=False).returncode == 1
    fleet.run("--yes", "-H", "all", "netns", "delete", "first")


def test_the_key_of_a_host_is_on_the_host_alone(fleet: Operator, bare: Lab) -> None:
    for host in bare.hosts[:2]:
        key = host.run(["cat", f"{PKI}/host.key"]).stdout
        middle = key.splitlines()[1].encode()
        assert len(middle) > 40
        mine = [p for p in fleet.folder.rglob("*") if p.is_file()]
        assert [p for p in mine if middle in p.read_bytes()] == []
        shown = host.run(["stat", "-c", "%a %U %G", f"{PKI}/host.key"]).stdout
        assert shown == "640 root hostler-tls\n"
        left = host.run(["find", PKI, "-name", "joining*"]).stdout
        assert left == ""


def test_a_second_time_changes_nothing(fleet: Operator, bare: Lab) -> None:
    host = bare.host("h1")
    before = digests(host), (fleet.pki / "issued.jsonl").read_bytes()
    assert "nothing is missing" in fleet.run("--plan", *fleet.words("h1", host.ipv4)).stdout
    assert "was enrolled already" in fleet.enroll(host).stdout
    assert (digests(host), (fleet.pki / "issued.jsonl").read_bytes()) == before


def test_a_door_that_was_shut_is_opened_again(fleet: Operator, bare: Lab) -> None:
    host = bare.host("h1")
    host.run(["systemctl", "disable", "--quiet", "--now", "hostler-tracing.socket"])
    before = digests(host)
    assert "open the doors of tracing\n" in fleet.enroll(host).stderr
    assert ":7444" in host.run(["ss", "-Hltn"]).stdout
    assert digests(host) == before


def test_a_host_that_ssh_does_not_prove_is_never_taken(
    operator: Operator, bare: Lab, fleet: Operator
) -> None:
    host, known = bare.host("h3"), operator.known.read_text()
    other = next(line for line in known.splitlines() if not line.startswith(f"{host.ipv4} "))
    try:
        operator.known.write_text("")
        assert operator.refused("h3", host.ipv4) == "HOST_KEY_UNKNOWN"
        assert operator.known.read_text() == ""
        operator.known.write_text(f"{host.ipv4} {other.partition(' ')[2]}\n")
        assert operator.refused("h3", host.ipv4) == "HOST_KEY_CHANGED"
    finally:
        operator.known.write_text(known)
    assert installed(host) == ""


def test_who_ssh_does_not_let_in_or_is_not_root(fleet: Operator, bare: Lab) -> None:
    host = bare.host("h3")
    assert fleet.refused("h3", host.ipv4, "--user", "nobody") == "SSH_REFUSED"
    host.run(["systemctl", "stop", "ssh"])
    try:
        assert fleet.refused("h3", host.ipv4) == "SSH_UNREACHABLE"
    finally:
        host.run(["systemctl", "start", "ssh"])
    host.run(["useradd", "--create-home", "--shell", "/bin/sh", "plain"])
    host.run(["cp", "-r", "/root/.ssh", "/home/plain/.ssh"])
    host.run(["chown", "-R", "plain:", "/home/plain/.ssh"])
    try:
        assert fleet.refused("h3", host.ipv4, "--user", "plain") == "NOT_ROOT"
        assert fleet.refused("h3", host.ipv4, "--user", "plain", "--sudo") == "NOT_ROOT"
        host.put("/etc/sudoers.d/plain", "plain ALL=(root) NOPASSWD: ALL\n", 0o440)
        words = fleet.words("h3", host.ipv4, "--user", "plain", "--sudo")
        assert "copy 6 packages" in fleet.run("--plan", *words).stdout
    finally:
        host.run(["rm", "-f", "/etc/sudoers.d/plain"])
        host.run(["userdel", "--remove", "plain"], check=False)
    assert installed(host) == ""


def test_a_host_that_is_not_fit_is_refused(fleet: Operator, bare: Lab) -> None:
    host = bare.host("h3")
    real = host.run(["cat", "/etc/os-release"]).stdout
    ubuntu = real.replace("ID=debian", "ID=ubuntu").replace("Debian", "Ubuntu")
    with changed(host, "/etc/os-release", ubuntu, 0o644):
        assert fleet.refused("h3", host.ipv4) == "NOT_DEBIAN_12"
    # A container has the clock of its machine: it is the host's answer that is hours behind.
    slow = '#!/bin/sh\necho $(($(/usr/bin/date.kept "$@") - 10800))\n'
    with changed(host, "/usr/bin/date", slow, 0o755):
        assert fleet.refused("h3", host.ipv4) == "CLOCK_OFF"
    host.run(["mount", "-t", "tmpfs", "-o", "size=64m", "none", "/opt"])
    try:
        assert fleet.refused("h3", host.ipv4) == "NO_ROOM"
    finally:
        host.run(["umount", "/opt"])
    assert installed(host) == ""


def test_names_and_hosts_that_are_somebody_elses(
    fleet: Operator, bare: Lab, packages: Path, tmp_path: Path
) -> None:
    h1, h3 = bare.host("h1"), bare.host("h3")
    assert fleet.refused("h1", h3.ipv4) == "NAME_TAKEN"
    assert fleet.refused("h9", h1.ipv4) == "ADDRESS_TAKEN"
    entries = (fleet.client / "fleet.toml").read_text()
    try:
        fleet.run("fleet", "remove", "h1")
        assert fleet.refused("h1", h3.ipv4) == "NAME_HAS_CERTIFICATE"
        assert fleet.refused("h9", h1.ipv4) == "OTHER_NAME"
    finally:
        (fleet.client / "fleet.toml").write_text(entries)
    other = Operator(tmp_path / "other", packages)
    shutil.copytree(fleet.folder, other.folder, ignore=shutil.ignore_patterns("client"))
    other.run("init", "--trust-domain", "elsewhere")
    before = digests(h1)
    assert other.refused("h1", h1.ipv4) == "OTHER_CA"
    assert digests(h1) == before


def test_a_disk_that_fills_up_in_the_middle(fleet: Operator, bare: Lab) -> None:
    host = bare.host("h3")
    host.run(["mkdir", STAGING])
    host.run(["mount", "-t", "tmpfs", "-o", "size=20m", "none", STAGING])
    try:
        assert "[NO_ROOM]" in fleet.enroll(host, status=1).stderr
    finally:
        host.run(["umount", STAGING])
    assert installed(host) == ""
    assert not (fleet.pki / "hosts" / "h3.pem").exists()


def test_cut_at_each_step_it_goes_on_where_it_stopped(fleet: Operator, bare: Lab) -> None:
    host = bare.host("h3")
    keys = set()
    signed = fleet.pki / "hosts" / "h3.pem"
    for step, then in (
        ("copy 6", None),
        ("install hostler", None),
        ("a key made", None),
        # Between the signing and the answer of the host that has it.
        ("a key made", signed.exists),
        ("open the doors", None),
        ("who it is", None),
    ):
        assert fleet.cut(host, step, then), step
        assert "h3" not in (fleet.client / "fleet.toml").read_text()
        shown = host.run(["sh", "-c", f"cat {PKI}/joining.key {PKI}/host.key"], check=False).stdout
        keys |= {shown} if shown else set()
    told = fleet.enroll(host)
    assert "h3 is enrolled: 5 doors answer" in told.stdout
    assert "copy" not in told.stderr
    assert host.run(["dpkg", "--audit"]).stdout == ""
    key = host.run(["cat", f"{PKI}/host.key"]).stdout
    # The key that the first request was made with is the one that it has, and signed once.
    assert keys == {key}
    assert (fleet.pki / "issued.jsonl").read_text().count("spiffe://lab/host/h3") == 1


def pair_of(host: Host, folder: Path) -> tuple[Path, Path]:
    """A host's certificate and key, as a thief takes them."""
    folder.mkdir(exist_ok=True)
    for name in ("host.pem", "host.key"):
        (folder / name).write_text(host.run(["cat", f"{PKI}/{name}"]).stdout)
    return folder / "host.pem", folder / "host.key"


def test_a_retired_host_is_refused_everywhere_and_may_come_again(
    fleet: Operator, bare: Lab, tmp_path: Path
) -> None:
    host, ssh = bare.host("h2"), ("-F", str(fleet.ssh_config))
    certificate, key = pair_of(host, tmp_path / "stolen")
    fleet.run("policy", "grant", "host/h2", "viewers")
    fleet.run("--yes", "-H", "all", "policy", "push")
    others = load_fleet(fleet.client / "fleet.toml").hosts
    others = tuple(one for one in others if one.name != "h2")
    places = [(one, domain) for one in others for domain in DOMAINS]
    before = {ask_as(certificate, key, fleet, *place) for place in places}
    assert before == {("OK", "")}
    planned = fleet.run("--plan", "retire", "h2", "--purge", *ssh).stdout
    assert "revoke certificate" in planned and "out of the fleet" in planned
    assert {ask_as(certificate, key, fleet, *place) for place in places} == before
    told = fleet.record("--yes", "retire", "h2", "--purge", *ssh)
    assert (told["told"], told["missed"]) == ([one.name for one in others], [])
    after = {ask_as(certificate, key, fleet, *place) for place in places}
    assert after == {("UNAUTHENTICATED", "CERTIFICATE_REVOKED")}
    assert fleet.run("-H", "h2", "host", "get", status=3).stderr
    assert ":744" not in host.run(["ss", "-Hltn"]).stdout
    for place in ("/etc/hostler", "/opt/hostler", "/var/lib/hostler", "/var/log/hostler"):
        assert host.run(["test", "-e", place], check=False).returncode == 1, place
    assert installed(host) == ""
    again = fleet.record("--yes", "retire", "h2")
    assert (again["revoked"], again["missed"]) == ([], [])
    fleet.enroll(host)
    assert pair_of(host, tmp_path / "new")[1].read_text() != key.read_text()
    assert {ask_as(certificate, key, fleet, *place) for place in places} == after


def test_a_host_that_cannot_be_told_is_named(fleet: Operator, bare: Lab) -> None:
    host = bare.host("h1")
    fleet.enroll(bare.host("h3"))
    host.run(["systemctl", "stop", "hostler-tracing.socket", "hostler-tracing.service"])
    try:
        told = fleet.run("-o", "json", "--yes", "retire", "h3", status=1)
        assert '"missed": [\n    "h1"\n  ]' in told.stdout
        assert "hostler -H h1 policy push" in told.stderr
    finally:
        host.run(["systemctl", "start", "hostler-tracing.socket"])
    fleet.run("--yes", "-H", "h1", "policy", "push")
    # Not purged, it stays enrolled by a certificate that counts no more: it gets another.
    assert "a key made on the host" in fleet.enroll(bare.host("h3")).stderr


def test_a_lost_ca_is_restored_and_goes_on_issuing(
    fleet: Operator, bare: Lab, tmp_path: Path
) -> None:
    fleet.enroll(bare.host("h3"))
    secret, file = tmp_path / "passphrase", tmp_path / "ca.backup"
    secret.write_text("not written on the lid\n")
    words = (str(file), "--passphrase-file", str(secret))
    fleet.run("ca", "backup", *words)
    # A version that hosts have and the backup does not.
    fleet.run("policy", "sign")
    fleet.run("--yes", "-H", "all", "policy", "push")
    entries = (fleet.client / "fleet.toml").read_text()
    before = {host.name: digests(host) for host in bare.hosts}
    shutil.rmtree(fleet.client)
    fleet.run("ca", "restore", *words)
    fleet.run("init", "--user", "alice")
    (fleet.client / "fleet.toml").write_text(entries)
    fleet.run("-H", "all", "fleet", "check")
    fleet.run("--yes", "-H", "all", "policy", "push")
    assert {host.name: digests(host) for host in bare.hosts} == before
    host = bare.host("h3")
    fleet.run("--yes", "retire", "h3", "--purge", "-F", str(fleet.ssh_config))
    # Two doors first, then the others: the certificate stays.
    few = fleet.record("--yes", *fleet.words("h3", host.ipv4, "--domains", "netns,firewall"))
    assert ports(host) == {7441, 7443}
    told = fleet.record("--yes", *fleet.words("h3", host.ipv4))
    assert ports(host) == {7441, 7442, 7443, 7444, 7445}
    assert told["serial"] == few["serial"]
    assert told["changed"] and told["identity"] == "spiffe://lab/host/h3"
    leaf = host.run(["cat", f"{PKI}/host.pem"]).stdout
    assert leaf == (fleet.pki / "hosts" / "h3.pem").read_text()
    assert hashlib.sha256(leaf.encode()).hexdigest() not in before["h3"]
    assert fleet.run("-H", "all", "-o", "json", "fleet", "check").stdout.count('"ok": true') == 15
