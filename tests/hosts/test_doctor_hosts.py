"""The doctor on real hosts: each thing is broken by itself, is named, and is well afterwards."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import security_lab as support
from hosts_witness import eventually
from log_disk import log_on_a_disk

from hostler.lab.host import Host
from hostler.lab.lab import Lab

pytestmark = [pytest.mark.hosts, pytest.mark.timeout(300)]
NFTABLES, NETWORKD = "nftables.service", "systemd-networkd.service"


def doctor(lab: Lab, host: Host, *words: str) -> set[tuple[str, str, str, str]]:
    """What is not well, as domain, check, level and code; each with what to do."""
    env = {**os.environ, "HOSTLER_CONFIG": str(lab.config)}
    argv = [support.HOSTLER, "-o", "json", "-H", host.name, "doctor", *words]
    done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=120, check=False)
    found = [one for one in json.loads(done.stdout) if one["level"] in ("failed", "warning")]
    assert done.returncode == any(one["level"] == "failed" for one in found), done.stderr
    assert all(one["advice"] for one in found)
    return {(one["domain"], one["check"], one["level"], one["code"]) for one in found}


@contextmanager
def changed(host: Host, path: str, content: str, mode: int) -> Iterator[None]:
    """Another content of a file for a while, and daemons that have read it."""
    before = host.run(["cat", path]).stdout
    try:
        host.put(path, content, mode)
        support.stop(host)
        yield
    finally:
        host.put(path, before, mode)
        support.stop(host)


def unwell(lab: Lab, host: Host, *words: str) -> set[tuple[str, str, str, str]]:
    """What is not well but for capabilities, which a container lacks some of."""
    return {one for one in doctor(lab, host, *words) if one[1] != "capabilities"}


def test_a_host_of_the_lab_is_well(lab: Lab, h1: Host) -> None:
    assert unwell(lab, h1) == set()


def test_a_door_that_is_shut(lab: Lab, h1: Host) -> None:
    h1.run(["systemctl", "stop", "hostler-tracing.socket", "hostler-tracing.service"])
    try:
        assert unwell(lab, h1) == {("tracing", "port", "failed", "PORT_CLOSED")}
    finally:
        h1.run(["systemctl", "start", "hostler-tracing.socket"])
    assert unwell(lab, h1) == set()


def test_a_certificate_of_another_host(lab: Lab, hosts: tuple[Host, ...]) -> None:
    one, other = hosts[0], hosts[1]
    folder = "/etc/hostler/pki"
    pair = {
        name: other.run(["cat", f"{folder}/{name}"]).stdout for name in ("host.pem", "host.key")
    }
    with changed(one, f"{folder}/host.pem", pair["host.pem"], 0o644):
        with changed(one, f"{folder}/host.key", pair["host.key"], 0o640):
            found = unwell(lab, one, "--domain", "netns")
            assert found == {("netns", "tls", "failed", "HOST_NAME_NOT_IN_CERTIFICATE")}
    assert unwell(lab, one, "--domain", "netns") == set()


def test_an_audit_log_that_cannot_be_written(lab: Lab, h1: Host) -> None:
    with log_on_a_disk(h1, "netns", "4k") as folder:
        h1.run(["dd", "if=/dev/zero", f"of={folder}/hog", "bs=4096", "count=1"], check=False)
        found = unwell(lab, h1, "--domain", "netns")
        assert ("netns", "audit", "failed", "AUDIT_DEGRADED") in found, found
    assert unwell(lab, h1, "--domain", "netns") == set()


def test_what_flushes_every_table_at_boot(lab: Lab, h1: Host) -> None:
    """Debian's own unit, enabled and not started: it would take Hostler's rules with it."""
    h1.run(["systemctl", "enable", NFTABLES])
    try:
        found = unwell(lab, h1, "--domain", "firewall", "--domain", "netns")
        assert found == {("firewall", "neighbours", "failed", "NFTABLES_FLUSHES")}
    finally:
        h1.run(["systemctl", "disable", NFTABLES])
    assert unwell(lab, h1, "--domain", "firewall") == set()


def test_networkd_with_a_file_that_takes_every_link(lab: Lab, h1: Host) -> None:
    file = "/etc/systemd/network/hostler-test.network"
    was = h1.run(["systemctl", "is-active", NETWORKD], check=False).returncode == 0
    h1.run(["mkdir", "-p", "/etc/systemd/network"])
    h1.put(file, "[Match]\nName=v-*\n[Link]\nUnmanaged=yes\n")
    try:
        h1.run(["systemctl", "start", NETWORKD])
        expected = {("netns", "neighbours", "failed", "NETWORKD_TAKES_LINKS")}
        assert eventually(lambda: unwell(lab, h1, "--domain", "netns") == expected, 20)
        h1.run(["rm", file])
        found = unwell(lab, h1, "--domain", "netns")
        assert found == {("netns", "neighbours", "warning", "NETWORKD_RUNS")}
    finally:
        h1.run(["rm", "-f", file])
        if not was:
            h1.run(["systemctl", "stop", NETWORKD, "systemd-networkd.socket"])
    assert unwell(lab, h1, "--domain", "netns") == set()


def test_a_bundle_that_was_signed_and_not_pushed(lab: Lab, h1: Host) -> None:
    support.hostler(lab, "policy", "grant", "nobody-of-the-doctor", "viewers")
    found = unwell(lab, h1, "--domain", "netns")
    assert found == {("netns", "bundle", "warning", "BUNDLE_OLD")}
    support.hostler(lab, "policy", "ungrant", "nobody-of-the-doctor", "viewers")
    support.push(lab)
    assert unwell(lab, h1, "--domain", "netns") == set()
