"""The CA of a fleet of three is replaced in three steps while calls go on at all doors."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
from enroll_lab import DOMAINS, GET_HOST, HOSTLER, Operator, ask_as
from rotation_load import Load, calling, is_of, served

from hostler import sync
from hostler.api.common.v1 import host_pb2
from hostler.config import Context
from hostler.core.certificates import load_certificates
from hostler.core.trust import fingerprints
from hostler.fleet import Fleet, load_fleet
from hostler.lab.lab import Lab
from hostler.results import CallFailed

pytestmark = [pytest.mark.hosts, pytest.mark.timeout(1500)]
CA = "/etc/hostler/pki/ca.pem"


@pytest.fixture(scope="module")
def fleet(bare: Lab, packages: Path, tmp_path_factory: pytest.TempPathFactory) -> Operator:
    """Three hosts, enrolled; the lab is this module's own."""
    made = Operator.made(tmp_path_factory.mktemp("people") / "operator", packages)
    made.run("init", "--trust-domain", "lab", "--user", "alice")
    for host in bare.hosts:
        made.meet(host)
        made.enroll(host)
    return made


def rotate(fleet: Operator, *words: str, status: int = 0) -> dict[str, object]:
    return fleet.record("--yes", "ca", "rotate", *words, "-F", str(fleet.ssh_config), status=status)


def refused(fleet: Operator, *words: str) -> str:
    argv = ("--yes", "ca", "rotate", *words, "-F", str(fleet.ssh_config))
    return fleet.run(*argv, status=1).stderr.partition("[")[2].partition("]")[0]


def cut(fleet: Operator, step: str, words: str) -> None:
    """Carry out a step, and be killed as soon as it says these words."""
    argv = [HOSTLER, "--yes", "ca", "rotate", step, "-F", str(fleet.ssh_config)]
    with subprocess.Popen(
        argv,
        env=fleet.environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stderr is not None
        told = []
        for line in process.stderr:
            told.append(line)
            if words in line:
                os.killpg(process.pid, signal.SIGKILL)
                return
        raise AssertionError(told)


def everywhere(bare: Lab, folder: Path) -> list[Path]:
    folder.mkdir(exist_ok=True)
    return [served(host, domain, folder) for host in bare.hosts for domain in DOMAINS]


def steps(fleet: Operator, bare: Lab, old: Path, folder: Path) -> None:
    """All three, with a host that cannot be reached and a client that is killed in between."""
    h3 = bare.host("h3")
    assert rotate(fleet)["next"] == "trust"
    assert not (fleet.pki / "ca.next.key").exists()
    assert refused(fleet, "drop") == refused(fleet, "reissue") == "NOT_BEGUN"
    h3.run(["systemctl", "stop", "ssh"])
    try:
        missed = rotate(fleet, "trust", status=1)
    finally:
        h3.run(["systemctl", "start", "ssh"])
    assert (missed["done"], list(dict(missed["missed"]))) == (["h1", "h2"], ["h3"])
    assert refused(fleet, "reissue") == "HOSTS_MISSING"
    made = (fleet.pki / "ca.next.pem").read_text()
    assert rotate(fleet, "trust")["done"] == ["h1", "h2", "h3"]
    # Begun twice, it is the same one.
    assert (fleet.pki / "ca.next.pem").read_text() == made
    assert [is_of(one, old) for one in everywhere(bare, folder)] == [True] * 15
    fleet.run("policy", "sign")
    fleet.run("--yes", "-H", "all", "policy", "push")
    assert refused(fleet, "drop") == "NOT_NEXT"
    cut(fleet, "reissue", "h2: reissue")
    assert refused(fleet, "drop") == "OLD_CERTIFICATE_SERVED"
    assert refused(fleet, "trust") == "NOT_NEXT"
    assert rotate(fleet, "reissue")["complete"]
    fleet.run("policy", "sign")
    fleet.run("--yes", "-H", "all", "policy", "push")


def held(fleet: Operator, folder: Path) -> sync.Client:
    """A client with the certificates in a folder, whatever becomes of the fleet's own."""
    hosts = load_fleet(fleet.client / "fleet.toml").hosts
    context = Context(
        "held",
        trust_domain="lab",
        ca=folder / "ca.pem",
        certificate=folder / "alice.pem",
        key=folder / "alice.key",
        fleet=fleet.client / "fleet.toml",
    )
    return sync.Client(sync.aio.Client(context, Fleet(hosts), timeout_s=30, record=False))


def test_rotated_under_load_without_a_failed_call(
    fleet: Operator, bare: Lab, tmp_path: Path
) -> None:
    old = tmp_path / "old-ca.pem"
    shutil.copy(fleet.pki / "ca.pem", old)
    (tmp_path / "before").mkdir()
    for path in (fleet.pki / "users").glob("alice.*"):
        shutil.copy(path, tmp_path / "before")
    before = everywhere(bare, tmp_path)
    assert [is_of(one, old) for one in before] == [True] * 15
    serials = {load_certificates(one.read_bytes())[0].serial_number for one in before}
    load: Load
    with calling(fleet.client / "config.toml") as load:
        steps(fleet, bare, old, tmp_path)
        new = tmp_path / "new-ca.pem"
        new.write_text(_first(fleet.pki / "ca.pem"))
        after = everywhere(bare, tmp_path)
        assert [is_of(one, new) for one in after] == [True] * 15
        assert [is_of(one, old) for one in after] == [False] * 15
        assert serials.isdisjoint(
            load_certificates(one.read_bytes())[0].serial_number for one in after
        )
        _drop(fleet, tmp_path)
        seen = load.answered.copy()
        fleet.run("policy", "sign")
        fleet.run("--yes", "-H", "all", "policy", "push")
    print(f"{load.answered.total()} calls answered, {len(load.failures)} failed")
    assert load.failures == []
    assert len(load.answered) == 15 and min(load.answered.values()) > 20
    assert all(load.answered[place] > seen[place] for place in seen)
    _only_new_is_left(fleet, bare, tmp_path, new)


def _drop(fleet: Operator, folder: Path) -> None:
    """Drop the old CA while a channel of a certificate of it is open."""
    shutil.copy(fleet.pki / "ca.pem", folder / "before")
    client = held(fleet, folder / "before")
    (host,) = client.select("h1")
    with client.session(host) as session:
        session.call(GET_HOST.at("netns"), host_pb2.GetHostRequest())
        assert rotate(fleet, "drop")["complete"]
        with pytest.raises(CallFailed) as failed:
            session.call(GET_HOST.at("netns"), host_pb2.GetHostRequest())
    print(f"a channel that was open: {failed.value.error}")
    # The daemon that let it in is the one that refuses it, or it has ended meanwhile.
    assert failed.value.error.reason in ("CERTIFICATE_UNTRUSTED", "UNREACHABLE")


def _only_new_is_left(fleet: Operator, bare: Lab, folder: Path, new: Path) -> None:
    pair = folder / "before" / "alice.pem", folder / "before" / "alice.key"
    for host in load_fleet(fleet.client / "fleet.toml").hosts:
        for domain in DOMAINS:
            code, _ = ask_as(*pair, fleet, host, domain)
            assert code == "UNAVAILABLE", (host.name, domain)
    for host in bare.hosts:
        assert host.run(["cat", CA]).stdout == new.read_text()
        left = host.run(["ls", "/etc/hostler/pki"]).stdout.split()
        assert left == ["ca.pem", "host.key", "host.pem"]
    assert fingerprints((fleet.pki / "ca.pem").read_bytes()) == fingerprints(new.read_bytes())
    assert refused(fleet, "drop") == "NOT_BEGUN"
    # Nothing is changed for a host that is enrolled, and the fleet is well.
    assert "was enrolled already" in fleet.enroll(bare.host("h1")).stdout
    shown = fleet.run("-H", "all", "-o", "json", "fleet", "check").stdout
    assert shown.count('"ok": true') == 15


def _first(ca: Path) -> str:
    begin, end = ca.read_text().partition("-----END CERTIFICATE-----\n")[:2]
    return begin + end


def test_a_host_that_was_left_behind_comes_back(fleet: Operator, bare: Lab, tmp_path: Path) -> None:
    """Another rotation, without one that is down; it is refused, and enrolled again."""
    h3, old = bare.host("h3"), tmp_path / "old-ca.pem"
    old.write_text(_first(fleet.pki / "ca.pem"))
    h3.run(["systemctl", "stop", "ssh"])
    try:
        for step in ("trust", "reissue", "drop"):
            told = rotate(fleet, step, "--without", "h3")
            assert (told["complete"], told["done"]) == (True, ["h1", "h2"])
            if step != "drop":
                assert refused(fleet, {"trust": "reissue", "reissue": "drop"}[step])
    finally:
        h3.run(["systemctl", "start", "ssh"])
    assert is_of(served(h3, "netns", tmp_path), old)
    fleet.run("-H", "h1", "-H", "h2", "fleet", "check")
    left = fleet.run("-H", "h3", "host", "get", status=1)
    assert "TLS_HANDSHAKE_FAILED" in left.stdout + left.stderr
    assert fleet.refused("h3", h3.ipv4) == "OTHER_CA"
    told = fleet.enroll(h3, "--replace").stdout
    assert "h3 is enrolled: 5 doors answer" in told
    assert not is_of(served(h3, "netns", tmp_path), old)
    fleet.run("-H", "all", "fleet", "check")


def renew(fleet: Operator, *words: str, status: int = 0) -> dict[str, dict[str, str]]:
    argv = ("-o", "json", "--yes", *words, "ca", "renew", "--force", "-F", str(fleet.ssh_config))
    done = fleet.run(*argv, status=status)
    return {each["name"]: each for each in json.loads(done.stdout)}


def test_certificates_are_renewed_and_a_door_that_does_not_follow_has_all_go_back(
    fleet: Operator, bare: Lab, tmp_path: Path
) -> None:
    before = everywhere(bare, tmp_path)
    quiet = fleet.run("--yes", "ca", "renew", "-F", str(fleet.ssh_config))
    assert quiet.stdout.count("good") == 4 and "renewed" not in quiet.stdout
    told = renew(fleet)
    assert {name: each["fate"] for name, each in told.items()} == dict.fromkeys(
        ("h1", "h2", "h3", "user/alice"), "renewed"
    )
    after = everywhere(bare, tmp_path / "after")
    assert len({one.read_bytes() for one in after}) == 3
    assert not {one.read_bytes() for one in before} & {one.read_bytes() for one in after}
    fleet.run("-H", "all", "fleet", "check")
    # One door goes on with the pair that is in place now, whatever comes.
    h2, pki = bare.host("h2"), "/etc/hostler/pki"
    drop_in = "/etc/systemd/system/hostler-tracing.service.d/pki.conf"
    h2.run(["cp", "-a", pki, "/root/pki"])
    h2.run(["mkdir", "-p", str(Path(drop_in).parent)])
    h2.put(drop_in, f"[Service]\nBindReadOnlyPaths=/root/pki:{pki}\n")
    h2.run(["systemctl", "daemon-reload"])
    h2.run(["systemctl", "stop", "hostler-tracing.service"])
    try:
        told = renew(fleet, "-H", "h2", status=1)
        assert told["h2"]["fate"] == "failed"
        assert "tracing door shows another certificate" in told["h2"]["problem"]
        assert "it has the one before again" in told["h2"]["problem"]
        assert h2.run(["ls", pki]).stdout.split() == ["ca.pem", "host.key", "host.pem"]
        assert everywhere(bare, tmp_path / "again")[5].read_bytes() == after[5].read_bytes()
    finally:
        h2.run(["rm", "-r", drop_in, "/root/pki"])
        h2.run(["systemctl", "daemon-reload"])
        h2.run(["systemctl", "stop", "hostler-tracing.service"])
    assert renew(fleet, "-H", "h2")["h2"]["fate"] == "renewed"
    fleet.run("-H", "all", "fleet", "check")
