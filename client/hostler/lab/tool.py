"""Runs the programs that the lab is made with."""

from __future__ import annotations

import os
import subprocess

from hostler.lab.errors import LabError, ToolFailed

# Debian packages that bring the programs, for the message when one is missing.
PACKAGES = {
    "/usr/bin/systemd-nspawn": "systemd-container",
    "/usr/bin/mmdebstrap": "mmdebstrap",
    "/usr/sbin/ip": "iproute2",
}


def run(argv: list[str], *, timeout_s: float = 60, stdin: str = "") -> str:
    """Run `argv` with a fixed locale and answer its standard output.

    Raises ToolFailed when it fails or outlives `timeout_s`, LabError when the program is not
    installed.
    """
    environment = {**os.environ, "LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"}
    try:
        done = subprocess.run(
            argv, input=stdin, capture_output=True, text=True, env=environment, timeout=timeout_s
        )
    except subprocess.TimeoutExpired as e:
        raise ToolFailed(argv, None, str(e.stderr or "")) from e
    except FileNotFoundError as e:
        package = PACKAGES.get(argv[0])
        hint = f": apt-get install {package}" if package else ""
        raise LabError(f"{argv[0]} is not installed{hint}") from e
    if done.returncode != 0:
        raise ToolFailed(argv, done.returncode, done.stderr or done.stdout)
    return done.stdout
