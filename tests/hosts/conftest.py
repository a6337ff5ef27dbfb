"""The lab: one for all host tests of a run, gone afterwards whatever happened.

HOSTLER_TEST_LAB=DIR keeps the lab in that folder for the next run, which then starts at once.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from hostler.lab.host import Host
from hostler.lab.lab import Lab, default_packages
from hostler.lab.rootfs import packages_in

CHECKOUT = Path(__file__).resolve().parents[2]
HOSTS = 3


@pytest.fixture(scope="session")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Debian packages of this checkout as they are now; a later build does not change them."""
    folder = tmp_path_factory.mktemp("packages")
    for package in packages_in(default_packages()):
        shutil.copy(package, folder)
    return folder


@pytest.fixture(scope="session")
def lab(packages: Path) -> Iterator[Lab]:
    """Three running hosts with the packages of this checkout."""
    if os.geteuid() != 0:
        pytest.skip("the lab needs root")
    kept = os.environ.get("HOSTLER_TEST_LAB")
    one = Lab(Path(kept) if kept else CHECKOUT / "build" / "lab-test", say=print)
    try:
        one.up(HOSTS, packages)
        yield one
    finally:
        if not kept:
            one.down()


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """Three running hosts with Debian and sshd alone, of the module's own."""
    if os.geteuid() != 0:
        pytest.skip("the lab needs root")
    one = Lab(tmp_path_factory.mktemp("bare") / "lab", say=print)
    try:
        one.up(HOSTS, bare=True)
        yield one
    finally:
        one.down()


@pytest.fixture
def hosts(lab: Lab) -> tuple[Host, ...]:
    """The hosts of the lab, all running: what an earlier test killed is booted again."""
    for host in lab.hosts:
        if host.leader() is None:
            lab.boot(host.name)
    return lab.hosts


@pytest.fixture
def h1(hosts: tuple[Host, ...]) -> Host:
    """The first host."""
    return hosts[0]


@pytest.fixture
def own_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the client keeps of runs and logs begins anew: another lab's hosts have these names."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "client"))
