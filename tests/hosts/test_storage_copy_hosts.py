"""Copies on real hosts: within the sandbox of the program, and through a client that is killed."""

from __future__ import annotations

import json
import os
import subprocess
from typing import Any

import pytest
import security_lab as support
from hosts_witness import eventually

from hostler.lab.host import Host
from hostler.lab.lab import Lab

pytestmark = [pytest.mark.hosts, pytest.mark.timeout(300)]
TREE, ROOTS = "/srv/copies/tree", "/etc/hostler/storage.d/copies.toml"
DECLARE = f"""
mkdir -p /srv/copies && printf '[copies]\\nroots = ["/srv/copies"]\\n' > {ROOTS}
"""
MAKE = f"""
mkdir -p {TREE}/private && head -c 300000000 /dev/urandom > {TREE}/large
truncate -s 1G {TREE}/hole && echo a >> {TREE}/hole
ln {TREE}/large {TREE}/twin && ln -s /etc/passwd {TREE}/link && mkfifo {TREE}/fifo
mknod {TREE}/null c 1 3 && touch {TREE}/program && chown nobody {TREE}/program
chmod 4755 {TREE}/program && chmod 0700 {TREE}/private && touch {TREE}/private/x
chown -R nobody {TREE}/private && touch -d '2001-02-03 04:05:06.789' {TREE}/private
"""
CLEAN = f"rm -rf /srv/copies {ROOTS}"
DESCRIBE = (
    f"cd {TREE} && find . -printf '%P %y %m %U %G %s %T@ %l %n\\n' | sort && "
    "sha256sum large hole private/x && stat -c '%t %T' null"
)
STAGED = "stat -c %b /srv/copies/.hostler-copy-*/copy/large"


def described(host: Host) -> str:
    return str(host.run(["sh", "-ec", DESCRIBE]).stdout)


def written_mib(host: Host) -> float:
    said = host.run(["sh", "-c", STAGED], check=False).stdout.strip()
    return int(said) / 2048 if said else 0.0


def test_the_client_killed_in_the_middle_leaves_no_target_and_the_next_one_goes_on(
    lab: Lab, hosts: tuple[Host, ...]
) -> None:
    h1, h2, *_ = hosts
    words = ("--yes", "-o", "json", "storage", "copy", "--manifest")
    command = (*words, f"{h1.name}:{TREE}", f"{h2.name}:{TREE}")
    try:
        for host in (h1, h2):
            host.run(["sh", "-ec", DECLARE])
        h1.run(["sh", "-ec", MAKE])
        before = described(h1)
        env = {**os.environ, "HOSTLER_CONFIG": str(lab.config)}
        client = subprocess.Popen([support.HOSTLER, *command], env=env, stdout=subprocess.DEVNULL)
        eventually(lambda: written_mib(h2) > 130, 60)
        client.kill()
        client.wait()
        assert h2.run(["test", "-e", TREE], check=False).returncode != 0
        told: dict[str, Any] = json.loads(support.hostler(lab, *command))
        assert int(told["resumed_bytes"]) >= 64 << 20, told
        assert described(h2) == before == described(h1)
        assert h2.run(["sh", "-ec", f"du -sk {TREE}/hole | cut -f1"]).stdout.strip() <= "64"
        assert h2.run(["sh", "-c", "ls -A /srv/copies"]).stdout.split() == ["tree", "tree.manifest"]
        print(f"\nresumed {told['resumed_bytes']} bytes")
        copied_within(lab, h2)
    finally:
        for host in (h1, h2):
            host.run(["sh", "-ec", CLEAN])


def copied_within(lab: Lab, host: Host) -> None:
    """The same tree is copied within the host, and found as its manifest says."""
    here = f"{host.name}:/srv/copies"
    jobs = ("-H", host.name, "jobs", "watch")
    for words in (
        ("copy", "--manifest", f"{here}/tree", f"{here}/again"),
        ("verify", f"{here}/again.manifest"),
    ):
        said = support.hostler(lab, "--yes", "storage", *words)
        name = said.split("jobs watch ")[1].split()[0]
        support.hostler(lab, *jobs, name)
    assert host.run(["cmp", f"{TREE}/large", "/srv/copies/again/large"]).returncode == 0
    # Nothing else is read, and nothing else written.
    for source, target in (("/etc/hostname", f"{here}/x"), (f"{here}/tree/large", "/etc/x")):
        pair = (source if ":" in source else f"{host.name}:{source}", target)
        pair = (pair[0], target if ":" in target else f"{host.name}:{target}")
        env = {**os.environ, "HOSTLER_CONFIG": str(lab.config)}
        argv = [support.HOSTLER, "--yes", "storage", "copy", *pair]
        done = subprocess.run(
            argv, env=env, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 1 and "COPY_OUTSIDE" in done.stdout + done.stderr, done
    assert host.run(["test", "-e", "/etc/x"], check=False).returncode != 0
