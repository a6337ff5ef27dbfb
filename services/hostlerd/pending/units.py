"""The one thing the watcher has systemd do: start a domain's static revert unit."""

from __future__ import annotations

import subprocess
import sys

from .documents import DOMAINS

SYSTEMCTL = "/usr/bin/systemctl"
# No capability is left to look into PID 1's root, by which systemctl would know a chroot.
ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", "SYSTEMD_IGNORE_CHROOT": "1"}
# Taking back thousands of namespaces takes its time; what outlives this goes on by itself.
TIMEOUT_S = 300.0


def start(domain: str) -> None:
    """Run `hostler-revert@DOMAIN.service` to its end. What came of it is told by its files."""
    if domain not in DOMAINS:
        raise ValueError(f"{domain!r} is not a domain")
    unit = f"hostler-revert@{domain}.service"
    try:
        done = subprocess.run(
            [SYSTEMCTL, "--no-ask-password", "start", unit],
            env=ENVIRONMENT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            timeout=TIMEOUT_S,
        )
    except subprocess.TimeoutExpired:
        sys.stderr.write(f"{unit} takes longer than {TIMEOUT_S:.0f} s\n")
        return
    except OSError as e:
        sys.stderr.write(f"{SYSTEMCTL}: {e.strerror}\n")
        return
    if done.returncode:
        sys.stderr.write(f"{unit} has failed\n")
