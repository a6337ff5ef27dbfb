"""Guests for tests: real machines with a kernel, disks and power of their own.

What the lab's containers cannot show is shown here: limits of control groups, power cuts, the
clock, disks and the kernel modules that a container has to share. A test asks the fixture `guests`
(tests/vm/conftest.py) for what it needs:

    def test_something(guests: Suite) -> None:
        vm1, vm2 = guests.take("vm1", "vm2")        # fresh clones, about 4 s both
        disk = vm1.add_disk("data", 64 << 20)       # "/dev/vdb", empty
        vm1.run(["mkfs.ext4", "-q", disk])          # argv, as root; .put and .read for files
        vm1.wake("netns")                           # daemons start slowly: before any client
        guests.cli("-H", "vm1", "--yes", "netns", "create", "web")   # mTLS, from this machine
        vm1.hostler("netns", "list")                # local root, in the guest
        vm1.power_cut(); vm1.boot()                 # SIGKILL to QEMU; a cold boot, 15 to 60 s
        vm1.set_clock(datetime(1970, 1, 2, tzinfo=UTC))

How: one image per content of the packages (vm_image), booted once per run; its memory is saved,
and every guest of a test is a clone that goes on from there with an overlay of its own. A clone
gets a name, addresses, machine id, certificates, the right time and fresh randomness; its
boot_id is the same in all clones until it boots by itself. Guests join on a network of their own
(`ipv4`, `ipv6`, on the guest's eth1); this machine reaches their daemons by forwarded ports of
127.0.0.1, which `guests.config` (HOSTLER_CONFIG) knows. All guests are gone when the test ends,
and every QEMU with the process that started it, whatever happened.
"""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import uuid
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from vm_errors import GuestError
from vm_guest import Done, Guest
from vm_image import NETWORK, Image
from vm_machine import Lan, Machine

from hostler import sync
from hostler.fleet import PORTS, Host
from hostler.fleet_file import add_host
from hostler.lab import identity
from hostler.session import Retry

HOSTLER = str(Path(sys.executable).parent / "hostler")
MOST = 3
PREFIX = "hostler-vm-"
# A daemon that idles out between two steps of a test costs seconds to start again.
CONFIGURATION = "idle_s = 600\n"
PATIENCE = Retry(attempts=40, connect_s=120.0)


class Suite:
    """The guests of one run, in a folder that goes with it."""

    def __init__(self, image: Image, say: Callable[[str], None]) -> None:
        _sweep()
        self.folder = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-"))
        self.say = say
        self._image = image
        self._lan = Lan.of_run()
        self._guests: dict[str, Guest] = {}
        self._ca = identity.authority(self.folder / "pki")
        self.config = identity.write_client_files(self.folder, ())
        self._state = self.folder / "state"
        self._golden = self._machine("golden", 0)

    # -- the run

    def prepare(self) -> None:
        """Boot the guest that all others are clones of, and save it."""
        start = time.monotonic()
        machine = self._golden
        machine.make(self._image.disk, "raw")
        golden = Guest(machine, "", "")
        try:
            golden.boot()
            if (state := golden.state()) != "running":
                failed = golden.run(["systemctl", "--failed", "--no-legend"]).stdout
                raise GuestError(f"the guest's system is {state}: {failed}")
            booted = time.monotonic()
            golden.run(["sync"])
            golden.running.monitor.save(self._state)
        finally:
            golden.off()
        now, size = time.monotonic(), self._state.stat().st_size
        self.say(
            f"booted in {booted - start:.1f} s, saved in {now - booted:.1f} s ({size >> 20} MiB)"
        )

    def close(self) -> None:
        """End every guest and remove their files."""
        self.release()
        shutil.rmtree(self.folder)

    @property
    def golden_root(self) -> Path:
        """The root disk that all guests begin with; nobody writes to it any more."""
        return self._golden.root

    # -- guests

    def take(self, *names: str) -> tuple[Guest, ...]:
        """Fresh clones, on: vm1, vm2, vm3 or some of them. Raises GuestError."""
        known = [f"vm{i + 1}" for i in range(MOST)]
        if not set(names) <= set(known) or set(names) & set(self._guests):
            raise GuestError(f"guests are {known}, each taken once: {names}")
        start = time.monotonic()
        fresh = []
        for name in names:
            guest = self._clone(name, known.index(name) + 1)
            fresh.append(guest)
            guest.resume(self._state)
        for guest in fresh:
            guest.become(self._files(guest), guest.machine.mac)
        self._write_fleet()
        self.say(f"{' '.join(names)} after {time.monotonic() - start:.1f} s")
        return tuple(fresh)

    def release(self) -> None:
        """End every guest and remove its disks."""
        guests, self._guests = self._guests, {}
        for guest in guests.values():
            guest.off()
            shutil.rmtree(guest.machine.folder, ignore_errors=True)

    def boot(self, guest: Guest, rtc: datetime | None = None) -> None:
        """Boot a guest that is off, as `Guest.boot`, and tell the client where it is now."""
        start = time.monotonic()
        guest.boot(rtc)
        self._write_fleet()
        self.say(f"{guest.name} booted in {time.monotonic() - start:.1f} s")

    def show_journals(self) -> None:
        """Print the end of what the guests that are on have to say, for a test that failed."""
        for guest in self._guests.values():
            if guest.is_on:
                try:
                    text = guest.run(["journalctl", "--no-pager", "-n", "60"], check=False).stdout
                except GuestError as e:
                    text = f"{e}\n{guest.machine.console}"
                print(f"--- {guest.name}\n{text}")

    def locked_up(self) -> list[str]:
        """Name the guests whose kernel says of itself that a processor has stopped."""
        return [g.name for g in self._guests.values() if "soft lockup" in g.machine.console]

    def _machine(self, name: str, index: int) -> Machine:
        ports = tuple(PORTS.values())
        mac = f"52:54:00:4c:00:{index:02x}"
        return Machine(name, self.folder / name, self._image, self._lan, mac, ports)

    def _clone(self, name: str, index: int) -> Guest:
        machine = self._machine(name, index)
        machine.make(self._golden.root, "qcow2")
        guest = Guest(machine, f"10.78.0.{10 + index}", f"fd78::{10 + index}")
        self._guests[name] = guest
        if not self._ca.certificate_path("host", name).exists():
            addresses = ["127.0.0.1", guest.ipv4, guest.ipv6]
            self._ca.issue_host(name, dns_names=[name], ip_addresses=addresses)
        return guest

    # -- Hostler

    def cli(self, *args: str, check: bool = True, timeout_s: float = 240, stdin: str = "") -> Done:
        """The command as the lab's admin has it on this machine, over mTLS."""
        argv = [HOSTLER, "--timeout", "120", *args]
        env = {**os.environ, "HOSTLER_CONFIG": str(self.config)}
        done = subprocess.run(
            argv, env=env, capture_output=True, text=True, timeout=timeout_s, input=stdin
        )
        said = f"{argv}: {done.returncode}: {done.stdout}{done.stderr}"
        assert not check or done.returncode == 0, said
        return done

    def client(self, timeout_s: float = 120) -> sync.Client:
        """The SDK, patient with daemons that take seconds to start."""
        return sync.connect(config=self.config, timeout_s=timeout_s, retry=PATIENCE)

    def _write_fleet(self) -> None:
        fleet = self.folder / "fleet.toml"
        fleet.unlink(missing_ok=True)
        for guest in self._guests.values():
            if guest.is_on:
                near = guest.ports()
                ports = {domain: near[port] for domain, port in PORTS.items()}
                add_host(fleet, Host(guest.name, "127.0.0.1", {}, ports))

    def _files(self, guest: Guest) -> bytes:
        """What makes a guest itself, as a tar: names, addresses, machine id, certificates."""
        certificate = self._ca.certificate_path("host", guest.name)
        far = f"addr add {guest.ipv4}/24 dev eth1\naddr add {guest.ipv6}/64 dev eth1 nodad\n"
        known = "".join(
            f"10.78.0.{10 + i} vm{i}\nfd78::{10 + i} vm{i}\n" for i in range(1, MOST + 1)
        )
        pki = "etc/hostler/pki"
        files = {
            "etc/hostname": (f"{guest.name}\n", 0o644),
            "etc/hosts": (f"127.0.0.1 localhost\n::1 localhost\n{known}", 0o644),
            "etc/machine-id": (f"{uuid.uuid4().hex}\n", 0o444),
            "etc/lab.network": (f"{NETWORK}{far}link set eth1 up\n", 0o644),
            "etc/hostler/hostler.toml": (CONFIGURATION, 0o644),
            "etc/hostler/bundle.json": (self._ca.bundle_path.read_text(), 0o644),
            f"{pki}/ca.pem": (self._ca.ca_path.read_text(), 0o644),
            f"{pki}/host.pem": (certificate.read_text(), 0o644),
            f"{pki}/host.key": (certificate.with_suffix(".key").read_text(), 0o640),
        }
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as tar:
            for name, (text, mode) in files.items():
                data = text.encode()
                entry = tarfile.TarInfo(name)
                entry.size, entry.mode, entry.mtime = len(data), mode, int(time.time())
                tar.addfile(entry, io.BytesIO(data))
        return packed.getvalue()


def _sweep() -> None:
    """Remove the folders of runs that were killed; their guests ended with them."""
    for old in Path(tempfile.gettempdir()).glob(f"{PREFIX}*-*"):
        pid = old.name.removeprefix(PREFIX).partition("-")[0]
        if pid.isdigit() and not Path("/proc", pid).exists():
            shutil.rmtree(old, ignore_errors=True)
