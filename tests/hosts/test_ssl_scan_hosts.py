"""Endpoints as a host sees them itself: its own doors, and what it may not look at."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import security_lab as support
from hosts_client import answers, cli, fields

from hostler import sync
from hostler.api.ssl.v1 import scan_pb2 as pb
from hostler.channel import rpc
from hostler.lab.host import Host
from hostler.lab.lab import Lab
from hostler.results import CallFailed, HostError

pytestmark = [pytest.mark.hosts, pytest.mark.timeout(300)]

SCAN = rpc(pb, "ScanService", "ScanEndpoints")
TOML = "/etc/hostler/hostler.toml"


def scanned(lab: Lab, request: Any) -> dict[str, Any]:
    client = sync.connect(config=lab.config, timeout_s=120)
    (chosen,) = client.select("h1")
    with client.session(chosen) as session:
        answers = list(session.stream(SCAN, request))
    assert [each.seq for each in answers] == list(range(1, len(answers) + 1))
    return {each.address: each.result for each in answers}


def refused(lab: Lab, request: Any) -> HostError:
    with pytest.raises(CallFailed) as failed:
        scanned(lab, request)
    return failed.value.error


def openssl(host: Host, port: int, version: str) -> bool:
    """Whether openssl(1) comes to an agreement in that version."""
    argv = ["/usr/bin/openssl", "s_client", "-connect", f"127.0.0.1:{port}", version]
    argv += ["-cipher", "ALL:@SECLEVEL=0"]
    done = host.run(argv, check=False, stdin="Q\n")
    return "Cipher is (NONE)" not in done.stdout and "Cipher is" in done.stdout


def test_a_host_scans_its_own_doors(lab: Lab, h1: Host) -> None:
    inside, outside = "127.0.0.1:7441", f"{h1.ipv4}:7443"
    nowhere, closed = "no-such-name.invalid:443", "127.0.0.1:9"
    found = scanned(lab, pb.ScanEndpointsRequest(addresses=[inside, outside, nowhere, closed]))
    assert set(found) == {inside, outside, nowhere, closed}
    for address in (inside, outside):
        accepted = {each.version for each in found[address].protocols if each.accepted}
        assert accepted == {"TLSv1.2", "TLSv1.3"}
        assert found[address].checks.heartbleed is False
        assert found[address].checks.secure_renegotiation
    for version, accepted_ in (("-tls1_1", False), ("-tls1_2", True), ("-tls1_3", True)):
        assert openssl(h1, 7441, version) is accepted_
    assert found[nowhere].failure.code == "UNREACHABLE"
    assert found[closed].failure.code == "UNREACHABLE"


@contextmanager
def scan_networks(host: Host, networks: str) -> Iterator[None]:
    """Let a host scan more than itself, for a while."""
    before = host.run(["cat", TOML]).stdout
    host.put(TOML, before.replace("# scan_networks = ", f"scan_networks = {networks} # "))
    host.run(["systemctl", "stop", "hostler-ssl.service"])
    try:
        yield
    finally:
        host.put(TOML, before)
        host.run(["systemctl", "stop", "hostler-ssl.service"])


def test_other_hosts_only_where_the_configuration_says_so(lab: Lab, h1: Host) -> None:
    there = f"{lab.hosts[1].ipv4}:7441"
    request = pb.ScanEndpointsRequest(addresses=["127.0.0.1:7441", there], checks=["groups"])
    error = refused(lab, request)
    assert (error.code, error.reason) == ("FAILED_PRECONDITION", "SCAN_NOT_PERMITTED")
    assert error.metadata["address"] == lab.hosts[1].ipv4
    with scan_networks(h1, f'["{lab.hosts[1].ipv4}/32"]'):
        found = scanned(lab, request)
    assert any(each.accepted for each in found[there].protocols)


def test_faults_of_a_request_are_named_together(lab: Lab, h1: Host) -> None:
    request = pb.ScanEndpointsRequest(
        addresses=["h1", "[::1]:443"], name="\u00e9", starttls="gopher", checks=["luck"]
    )
    error = refused(lab, request)
    assert error.code == "INVALID_ARGUMENT"
    assert fields(error) == {"addresses[0]", "name", "starttls", "checks[0]"}


def test_a_scan_is_in_the_audit_log_with_who_asked_for_it(lab: Lab, h1: Host) -> None:
    scanned(lab, pb.ScanEndpointsRequest(addresses=["127.0.0.1:7442"], checks=["groups"]))
    records = support.audit(lab, h1, "ssl")
    calls = [each for each in records if each["method"].endswith("/ScanEndpoints")]
    assert calls[-1]["identity"].endswith("user/admin")


def test_every_host_scans_for_the_command(lab: Lab, h1: Host) -> None:
    shown = cli(lab, "-H", "all", "ssl", "scan", "127.0.0.1:7441", "--checks", "groups").stdout
    lines = [line.split() for line in shown.splitlines()]
    assert lines[0][:4] == ["HOST", "ENDPOINT", "NAME", "GRADE"]
    assert [line[0] for line in lines[1:]] == [host.name for host in lab.hosts]
    assert all("TLSv1.3" in line for line in lines[1:])
    told = answers(lab, "-H", "h1", "ssl", "scan", "127.0.0.1:7441", "--checks", "groups")
    assert told["h1"]["result"][0]["address"] == "127.0.0.1:7441"
