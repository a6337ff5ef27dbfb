"""A lab: its hosts from nothing to running, and back to nothing."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from hostler.core import files
from hostler.lab import identity, rootfs, state
from hostler.lab.bridge import Bridge, first_free
from hostler.lab.errors import LabError
from hostler.lab.host import Host
from hostler.lab.room import make_room
from hostler.lab.seed import enable, make_host_keys, names, seed
from hostler.packages import BUILD_PACKAGES, CHECKOUT, PackagesMissing, built

MAX_HOSTS = 64
INSTALLED_FOLDER = Path("/var/lib/hostler-lab")


def default_folder() -> Path:
    """`build/lab` of a checkout, else /var/lib/hostler-lab."""
    return CHECKOUT / "build" / "lab" if BUILD_PACKAGES.is_file() else INSTALLED_FOLDER


def default_packages() -> Path:
    """Where the Debian packages to install are: `build/deb` of a checkout, else the lab's folder.

    In a checkout they are built first, which does nothing while their inputs are the same. Raises
    LabError.
    """
    try:
        return built() or INSTALLED_FOLDER / "packages"
    except PackagesMissing as e:
        raise LabError(str(e)) from e


@dataclass(frozen=True, slots=True)
class HostStatus:
    """One host as `status` shows it: systemd's state, or `off`; `leader` is its PID 1 here."""

    name: str
    ipv4: str
    ipv6: str
    state: str
    leader: int | None


def _quiet(_: str) -> None:
    """Say nothing."""


class Lab:
    """The lab in a folder, which need not be there yet."""

    def __init__(self, folder: Path, say: Callable[[str], None] = _quiet) -> None:
        """`say` gets a line for each step that takes a while."""
        self.folder = folder.resolve()
        self.say = say

    @property
    def config(self) -> Path:
        """The client's configuration: what HOSTLER_CONFIG should name."""
        return self.folder / "config.toml"

    @property
    def pki(self) -> Path:
        """The folder of the lab's CA, its users' and hosts' certificates and keys."""
        return self.folder / "pki"

    @property
    def env_file(self) -> Path:
        """The shell fragment that sets PATH and HOSTLER_CONFIG: `build/lab.env` for `build/lab`."""
        return self.folder.with_name(self.folder.name + ".env")

    def _host(self, index: int, number: int) -> Host:
        return Host(index, self.folder / "hosts" / f"h{index + 1}", Bridge(number))

    def _state(self) -> state.State:
        found = state.load(self.folder)
        if found is None:
            raise LabError(f"there is no lab in {self.folder}: run `hostler lab up`")
        return found

    @property
    def hosts(self) -> tuple[Host, ...]:
        """All hosts, running or not. Raises LabError if the lab is down."""
        found = self._state()
        return tuple(self._host(i, found.number) for i in range(found.hosts))

    @property
    def bridge(self) -> Bridge:
        """The bridge that joins them. Raises LabError if the lab is down."""
        return Bridge(self._state().number)

    def host(self, name: str) -> Host:
        """The host of that name. Raises LabError."""
        for host in self.hosts:
            if host.name == name:
                return host
        raise LabError(f"the lab has no host {name!r}; it has {', '.join(self.names())}")

    def names(self) -> list[str]:
        """The hosts' names, in order."""
        return [host.name for host in self.hosts]

    def up(
        self, hosts: int = 3, packages: Path | None = None, *, bare: bool = False
    ) -> tuple[Host, ...]:
        """Bring up `hosts` hosts with the packages in `packages`; those that run stay running.

        When the packages differ from those that the hosts were made with, the hosts are made anew.
        `bare` hosts have Debian and sshd, and nothing of Hostler. Raises LabError; OSError when
        not root.
        """
        if not 1 <= hosts <= MAX_HOSTS:
            raise LabError(f"a lab has 1 to {MAX_HOSTS} hosts, not {hosts}")
        if os.geteuid() != 0:
            raise LabError("the lab needs root: it mounts, makes links and boots containers")
        make_room(self.say)
        with state.locked(self.folder):
            cache = rootfs.cache_folder(self.folder / "cache")
            if bare:
                base = rootfs.base(cache, [], self.say, rootfs.BARE)
                wanted = self._prepare(hosts, base)
            else:
                found = rootfs.packages_in(packages or default_packages())
                base = rootfs.base(cache, found, self.say)
                wanted = self._prepare(hosts, base)
                self._issue(wanted)
            self._boot(wanted, base, bare)
        return wanted

    def _issue(self, wanted: tuple[Host, ...]) -> None:
        """Make the lab's CA, its users and the hosts' certificates, and the client's files."""
        ca = identity.authority(self.pki)
        for user in identity.renew_users(ca, datetime.now(UTC)):
            self.say(f"renewed the certificate of {user}")
        for host in wanted:
            identity.issue(ca, host)
        identity.write_client_files(self.folder, wanted)
        self._write_env()

    def _prepare(self, hosts: int, base: Path) -> tuple[Host, ...]:
        """Remove what is not wanted any more, make the bridge, and remember what is to be."""
        old = state.load(self.folder)
        # Two labs that come up together must not take the same number.
        with state.locked(Path("/run/lock")):
            number = old.number if old else first_free()
            Bridge(number).create()
        if old:
            stale = old.base != base
            for i in range(0 if stale else hosts, old.hosts):
                self.say(f"removing h{i + 1}" + (", its packages are old" if stale else ""))
                self._host(i, number).remove()
        wanted = tuple(self._host(i, number) for i in range(hosts))
        # Before the first host, so that `down` finds what a failure leaves.
        state.save(self.folder, state.State(number, hosts, base))
        return wanted

    def _boot(self, wanted: tuple[Host, ...], base: Path, bare: bool) -> None:
        """Boot what is off, all at once, and wait for all."""
        off = [host for host in wanted if host.leader() is None]
        for host in off:
            # What a dead host left behind: its cgroup, a mounted root.
            host.kill()
            new = not host.made
            host.mount(base)
            if new:
                seed(host, wanted)
                if bare:
                    make_host_keys(host)
                else:
                    enable(host)
                    identity.enrol(identity.authority(self.pki), host)
            host.start()
        for host in off:
            self.say(f"{host.name} is up: {host.wait()}")
        for host in wanted:
            host.put("/etc/hosts", names(wanted))

    def boot(self, name: str) -> str:
        """Boot a host that is off, with the files it had; answers its state, booted."""
        with state.locked(self.folder):
            host = self.host(name)
            if host.leader() is None:
                host.kill()
                host.mount(self._state().base)
                host.start()
            return host.wait()

    def kill(self, name: str) -> None:
        """Cut a host's power. Its files stay; what was in memory and in /run is gone."""
        with state.locked(self.folder):
            self.host(name).kill()

    def status(self) -> list[HostStatus]:
        """Every host as it is now."""
        return [
            HostStatus(host.name, host.ipv4, host.ipv6, host.state(), host.leader())
            for host in self.hosts
        ]

    def down(self) -> None:
        """Remove hosts, bridge, certificates and configuration; nothing if there is no lab."""
        if not self.folder.exists():
            return
        with state.locked(self.folder):
            found = state.load(self.folder)
            if found is not None:
                # A host that an interrupted change forgot has a folder still.
                kept = [int(p.name[1:]) for p in (self.folder / "hosts").glob("h*")]
                for i in range(max([found.hosts, *kept])):
                    self._host(i, found.number).remove()
                Bridge(found.number).delete()
            for part in ("hosts", "pki", "cache"):
                shutil.rmtree(self.folder / part, ignore_errors=True)
            for name in ("config.toml", "fleet.toml", state.NAME, ".lab.lock"):
                (self.folder / name).unlink(missing_ok=True)
            self.env_file.unlink(missing_ok=True)
        if not any(self.folder.iterdir()):
            self.folder.rmdir()

    def _write_env(self) -> None:
        """Write the shell fragment to be sourced by those who work with the lab."""
        command = Path(sys.argv[0] if sys.argv[0].endswith("/hostler") else sys.executable)
        text = (
            f'export PATH={shlex.quote(str(command.absolute().parent))}:"$PATH"\n'
            f"export HOSTLER_CONFIG={shlex.quote(str(self.config))}\n"
        )
        files.replace(self.env_file, text.encode(), mode=0o644)
