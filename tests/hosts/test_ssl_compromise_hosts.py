"""A key that two hosts share and others may know: the plan names both, and who did not answer."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import security_lab as support
from authority_place import openssl

from hostler.lab.host import Host
from hostler.lab.lab import Lab

pytestmark = [pytest.mark.hosts, pytest.mark.timeout(300)]

PLACE = "/etc/ssl/compromise-test"


@pytest.fixture
def shared(hosts: tuple[Host, ...], tmp_path: Path) -> Iterator[str]:
    """A key with its certificate on two hosts, the certificate alone on a third; the key's hash."""
    key, certificate = tmp_path / "key.pem", tmp_path / "web.pem"
    openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", key)
    subject = ("-subj", "/CN=www.example.net", "-addext", "subjectAltName=DNS:www.example.net")
    openssl("req", "-x509", "-key", key, *subject, "-days", "30", "-out", certificate)
    openssl("pkey", "-in", key, "-pubout", "-outform", "DER", "-out", tmp_path / "spki")
    for host in hosts:
        host.run(["mkdir", "-p", PLACE])
        host.put(f"{PLACE}/web.pem", certificate.read_bytes())
    for host in hosts[:2]:
        host.put(f"{PLACE}/web.key", key.read_bytes())
        host.run(["chmod", "600", f"{PLACE}/web.key"])
    try:
        yield openssl("dgst", "-sha256", "-r", tmp_path / "spki").split()[0]
    finally:
        for host in hosts:
            host.run(["rm", "-rf", PLACE])


def plan(lab: Lab, *words: str, selector: str = "all") -> tuple[int, dict[str, Any]]:
    argv = [support.HOSTLER, "-H", selector, "-o", "json", "ssl", "compromise", "plan", *words]
    env = {**os.environ, "HOSTLER_CONFIG": str(lab.config)}
    done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=120)
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def test_all_hosts_of_a_shared_key_are_named_and_the_silent_one_too(
    lab: Lab, hosts: tuple[Host, ...], shared: str
) -> None:
    status, made = plan(lab, "--key", shared.upper())
    assert (status, made["complete"], made["silent"], made["unread"]) == (0, True, {}, [])
    assert made["keys"] == {shared: [hosts[0].name, hosts[1].name]}
    (one,) = made["certificates"]
    assert one["names"] == ["www.example.net"]
    assert one["hosts"] == [host.name for host in hosts]
    assert [way["way"] for way in one["ways"]] == ["revoke and reissue", "reissue only", "keep"]
    # All that lies on a host, its own identity's key among them.
    _, of_host = plan(lab, "--of-host", hosts[1].name)
    assert shared in of_host["keys"]
    assert shared not in plan(lab, "--of-host", hosts[2].name)[1]["keys"]
    hosts[2].run(["systemctl", "stop", "hostler-ssl.socket", "hostler-ssl.service"])
    try:
        status, made = plan(lab, "--key", shared)
    finally:
        hosts[2].run(["systemctl", "start", "hostler-ssl.socket"])
    assert (status, made["complete"], list(made["silent"])) == (1, False, [hosts[2].name])
