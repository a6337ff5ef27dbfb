"""The ssl domain on real hosts, through its packages, units and capabilities."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import security_lab as support

from hostler.lab.host import Host
from hostler.lab.lab import Lab

pytestmark = [pytest.mark.hosts, pytest.mark.timeout(300)]

PLACE = "/etc/ssl/hostler-test"
UNITS = tuple(f"library-of-the-test-{number}.service" for number in range(3))
LIBRARY = "/usr/lib/x86_64-linux-gnu/libssl.so.3"


def asked(lab: Lab, *words: str) -> list[dict[str, Any]]:
    answers = json.loads(support.hostler(lab, "-o", "json", *words))
    assert [a["ok"] for a in answers] == [True] * len(answers), answers
    return [answer["result"] for answer in answers]


def stale(lab: Lab, host: Host) -> dict[int, str]:
    """The processes whose libssl has been replaced, and their units, by the daemon."""
    (answer,) = asked(lab, "-H", host.name, "ssl", "stale")
    assert answer.get("warnings", []) == []
    return {
        user["pid"]: user.get("unit", "")
        for user in answer.get("users", [])
        if any(each["library"] == "libssl" for each in user["libraries"])
    }


def mapped_and_gone(host: Host) -> set[int]:
    """The same by grep: what the kernel says of maps."""
    words = "grep -l 'libssl.*(deleted)' /proc/[0-9]*/maps 2>/dev/null || true"
    shown = host.run(["sh", "-c", words]).stdout
    return {int(line.split("/")[2]) for line in shown.splitlines()}


def main_pid(host: Host, unit: str) -> int:
    shown = host.run(["systemctl", "show", "--property=MainPID", "--value", unit]).stdout
    return int(shown)


def key_pair(host: Host, name: str) -> str:
    """Make a key and a certificate; answers the key's text."""
    key, certificate = f"{PLACE}/{name}.key", f"{PLACE}/{name}.pem"
    host.run(["mkdir", "-p", PLACE])
    host.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-noenc", "-keyout", key),
            *("-out", certificate, "-subj", f"/CN={name}", "-days", "20"),
            *("-addext", f"subjectAltName=DNS:{name}.test"),
        ]
    )
    host.run(["chmod", "600", key])
    return host.run(["cat", key]).stdout


@contextmanager
def served(host: Host) -> Iterator[None]:
    """Servers in units of their own, each at a port of its own."""
    try:
        for number, unit in enumerate(UNITS):
            server = ["openssl", "s_server", "-accept", str(17000 + number), "-quiet"]
            files = ["-cert", f"{PLACE}/one.pem", "-key", f"{PLACE}/one.key"]
            host.run(["systemd-run", "--quiet", f"--unit={unit}", *server, *files])
        for number in range(len(UNITS)):
            host.run(
                ["sh", "-c", f"until ss -Hltn | grep -q :{17000 + number}; do sleep 0.1; done"]
            )
        yield
    finally:
        host.run(["systemctl", "stop", *UNITS], check=False)
        host.run(["systemctl", "reset-failed", *UNITS], check=False)


@pytest.fixture
def made(h1: Host) -> Iterator[str]:
    """A key on the host, as text; it goes with the test."""
    try:
        yield key_pair(h1, "one")
    finally:
        h1.run(["rm", "-rf", PLACE])


def test_processes_with_a_replaced_library_are_found_until_they_are_restarted(
    lab: Lab, h1: Host, made: str
) -> None:
    with served(h1):
        assert stale(lab, h1).keys() == mapped_and_gone(h1)
        before = {main_pid(h1, unit): unit for unit in UNITS}
        # As a package does: a new file takes the name, the old one lives on where it is mapped.
        h1.run(["sh", "-c", f"cp {LIBRARY} {LIBRARY}.new && mv {LIBRARY}.new {LIBRARY}"])
        found = stale(lab, h1)
        assert found.keys() == mapped_and_gone(h1)
        assert {pid: found.get(pid) for pid in before} == before
        h1.run(["systemctl", "restart", UNITS[0]])
        after = stale(lab, h1)
        assert UNITS[0] not in after.values()
        assert set(after.values()) >= set(UNITS[1:])
        h1.run(["systemctl", "restart", *UNITS])
        assert not set(stale(lab, h1).values()) & set(UNITS)


def test_who_runs_an_old_version_is_told_with_the_unit_to_restart(
    lab: Lab, h1: Host, made: str
) -> None:
    version = h1.run(["dpkg-query", "-W", "-f=${Version}", "libssl3"]).stdout
    affected = ("-H", h1.name, "ssl", "affected", "--library", "libssl", "--fixed-in")
    with served(h1):
        pids = {main_pid(h1, unit) for unit in UNITS}
        # One more than what is installed: all are affected. What is installed: none is.
        (answer,) = asked(lab, *affected, f"{version}+1")
        users = {user["pid"]: user for user in answer["users"]}
        assert pids <= users.keys()
        for pid in pids:
            (library,) = users[pid]["libraries"]
            assert library["package_version"] == version
            assert users[pid]["use"] == "LIBRARY_USE_TLS"
            assert users[pid]["network"] is True
        (answer,) = asked(lab, *affected, version)
        assert not pids & {user["pid"] for user in answer.get("users", [])}


def test_a_key_is_nowhere_but_in_its_file(lab: Lab, h1: Host, made: str) -> None:
    body = "".join(made.split("-----")[2].split())
    with served(h1):
        answers = [
            support.hostler(lab, "-H", h1.name, "-o", "json", "ssl", *words)
            for words in (["inventory"], ["keys"], ["endpoints", "--handshake"], ["stale"])
        ]
        assert f"{PLACE}/one.key" in answers[1]
        reader = main_pid(h1, "hostler-ssl-reader.service")
        assert reader
        limits = h1.run(["cat", f"/proc/{reader}/limits"]).stdout
        assert "Max core file size        0                    0 " in limits
        # Nobody without privileges may look into it, its own user included.
        peek = ["setpriv", "--reuid=hostler-ssl-reader", "--clear-groups", "cat"]
        assert h1.run([*peek, f"/proc/{reader}/maps"], check=False).returncode != 0
        h1.run(["kill", "-SEGV", str(reader)])
        answers.append(support.hostler(lab, "-H", h1.name, "-o", "json", "ssl", "keys"))
    cores = h1.run(["sh", "-c", "find / -xdev -name 'core*' -type f -size +64k -newermt '-10 min'"])
    assert [
        line for line in cores.stdout.splitlines() if "/hostler" in line or line.count("/") == 1
    ] == []
    whole = "\n".join(answers)
    der = base64.b64decode(body)
    lines = [line for line in made.splitlines() if not line.startswith("-")]
    # Lines of the file, and pieces of what is in it in other clothes. The first 60 bytes of a key
    # are the same in all of them.
    pieces = [*lines[2:-1], der[200:230].hex(), der[700:730].hex()]
    pieces += [base64.b64encode(der[at : at + 60]).decode() for at in (400, 401, 402)]
    assert [piece for piece in pieces if piece in whole] == []
    h1.put("/run/pieces-of-the-test", "\n".join(pieces))
    try:
        for where in (
            "grep -rlFf /run/pieces-of-the-test /var/log/hostler /var/lib/hostler /run/hostler-ssl",
            "journalctl --no-pager -o export | grep -aFf /run/pieces-of-the-test",
            "grep -alFf /run/pieces-of-the-test /var/lib/systemd/coredump/* 2>/dev/null",
        ):
            done = h1.run(["sh", "-c", where], check=False)
            assert done.stdout == "", where
        # Shows that the greps can find: the file itself has them.
        assert h1.run(["grep", "-lFf", "/run/pieces-of-the-test", f"{PLACE}/one.key"]).stdout
    finally:
        h1.run(["rm", "/run/pieces-of-the-test"])


def test_nobody_but_the_daemon_reaches_the_reader(h1: Host) -> None:
    ask = "import socket as s; s.socket(s.AF_UNIX).connect('/run/hostler/ssl-reader.sock')"
    for user, status in (("hostler-ssl", 0), ("hostler-tracing", 1), ("www-data", 1)):
        argv = ["setpriv", f"--reuid={user}", "--clear-groups", "/usr/bin/python3", "-c", ask]
        assert h1.run(argv, check=False).returncode == status, user


def test_keys_that_hosts_share_are_known_by_their_hash(lab: Lab, hosts: tuple[Host, ...]) -> None:
    first, second = hosts[0], hosts[1]
    try:
        text = key_pair(first, "one")
        second.run(["mkdir", "-p", PLACE])
        second.put(f"{PLACE}/copy.key", text, 0o600)
        told = support.hostler(lab, "-H", first.name, "-H", second.name, "ssl", "keys")
        rows = [line for line in told.splitlines() if PLACE in line]
        assert len(rows) == 2
        assert first.name in rows[1].split(None, 1)[1]
        assert second.name in rows[0].split(None, 1)[1]
        assert len({row.split()[1] for row in rows}) == 1
    finally:
        for host in (first, second):
            host.run(["rm", "-rf", PLACE])


def test_what_ends_soon_is_in_the_inventory_of_the_fleet(lab: Lab, h1: Host, made: str) -> None:
    (soon,) = asked(lab, "-H", h1.name, "ssl", "inventory", "--expires-within", "30d")
    mine = [each for each in soon["certificates"] if each["subject"] == "CN=one"]
    assert [place["path"] for place in mine[0]["places"]] == [f"{PLACE}/one.pem"]
    assert [place["path"] for place in mine[0]["key_places"]] == [f"{PLACE}/one.key"]
    (sooner,) = asked(lab, "-H", h1.name, "ssl", "inventory", "--expires-within", "10d")
    assert not [c for c in sooner.get("certificates", []) if c["subject"] == "CN=one"]
    (named,) = asked(lab, "-H", h1.name, "ssl", "inventory", "--names", "one.test")
    assert [each["subject"] for each in named["certificates"]] == ["CN=one"]
