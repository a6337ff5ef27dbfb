"""Locks the dependencies of pyproject.toml, with hashes: `python packaging/requirements/lock.py`.

Three locks, all of one set of versions: `dev.txt` for a checkout, `client.txt` and `daemon.txt`
for the two code trees of the Debian packages. `peers.txt` is apart from them: programs that tests
run beside ours, in an environment of their own. A process of root gets nothing that only the client
needs, so the daemons' lock takes from the project's dependencies just the names in `SHARED`.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

HERE = Path(__file__).resolve().parent
PYPROJECT = HERE.parent.parent / "pyproject.toml"
SHARED = {
    *("cedarpy", "cryptography", "grpcio", "grpcio-status", "numpy", "protobuf", "zstandard"),
}
# sslyze comes as source. Ansible plays the modules of client/ansible_collections; Prometheus' own
# client and OpenTelemetry's own messages read what `hostler metrics` tells.
PEERS = [
    *("ansible-core>=2.19,<2.21", "opentelemetry-proto>=1.45", "prometheus-client>=0.21"),
    *("pyinfra>=3.2", "setuptools", "sslyze>=6.3", "wheel"),
]
TIMEOUT_S = 600
_ALL = ("daemon", "dev", "postgresql", "parquet")


def name_of(requirement: str) -> str:
    """The normalised project name that a requirement line starts with (PEP 503)."""
    found = re.match(r"[A-Za-z0-9._-]+", requirement)
    if found is None:
        raise ValueError(f"no name in requirement {requirement!r}")
    return re.sub(r"[-_.]+", "-", found[0]).lower()


def wanted(pyproject: Path = PYPROJECT) -> dict[str, list[str]]:
    """The requirement lines of each lock, by its name, before resolution."""
    project = tomllib.loads(pyproject.read_text())["project"]
    client: list[str] = project["dependencies"]
    extras: dict[str, list[str]] = project["optional-dependencies"]
    shared = [line for line in client if name_of(line) in SHARED]
    return {
        "dev": [*client, *(line for name in _ALL for line in extras[name])],
        "client": [*client, *extras["postgresql"]],
        "daemon": [*shared, *extras["daemon"]],
    }


def lock(name: str, lines: list[str], constraints: Path | None) -> Path:
    """Write `name`.txt; raises CalledProcessError if the lines cannot be resolved together.

    Index addresses stay out of the file: where packages come from is the machine's affair.
    """
    target = HERE / f"{name}.txt"
    with tempfile.TemporaryDirectory() as scratch:
        source = Path(scratch) / f"{name}.in"
        limits = [f"-c {constraints}"] if constraints else []
        source.write_text("\n".join([*lines, *limits]) + "\n")
        subprocess.run(
            [
                *(sys.executable, "-m", "piptools", "compile", "--quiet"),
                *("--generate-hashes", "--allow-unsafe", "--strip-extras", "--no-annotate"),
                *("--no-header", "--no-emit-index-url", "--no-emit-trusted-host"),
                *("--no-emit-find-links", "--no-emit-options"),
                *("--output-file", str(target), str(source)),
            ],
            check=True,
            timeout=TIMEOUT_S,
        )
    return target


def main() -> None:
    """Lock all; the two smaller ones of the three are held to the versions of the first."""
    sets = wanted()
    dev = lock("dev", sets.pop("dev"), None)
    for name, lines in sets.items():
        lock(name, lines, dev)
    lock("peers", PEERS, None)


if __name__ == "__main__":
    main()
