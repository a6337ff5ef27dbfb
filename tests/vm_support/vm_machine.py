"""One QEMU process: a machine with its disks, its networks, its monitor and its agent's port.

Emulated as a whole (TCG), whatever the processor could do: results do not depend on where the
suite runs. Source: qemu-system-x86_64(1).
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TypeVar

from vm_channel import Channel
from vm_errors import GuestError
from vm_image import PORT, Image
from vm_qmp import Monitor

T = TypeVar("T")
QEMU = "/usr/bin/qemu-system-x86_64"
QEMU_IMG = "/usr/bin/qemu-img"
MEMORY_MIB = 512
CPUS = 2
# Plain SSE4: what is newer costs more to emulate than it brings.
PROCESSOR = "Nehalem"
START_TIMEOUT_S = 60.0
# Where the disks sit on the bus; guests find each at the same place after every boot.
FIRST_DISK_SLOT = 0x10
ROOT = "/dev/vda"
KERNEL_WORDS = (
    "rw rootfstype=ext4 console=ttyS0 loglevel=5 systemd.show_status=1"
    " net.ifnames=0 mitigations=off nokaslr panic=-1"
)


def overlay(below: Path, path: Path, size_bytes: int) -> None:
    """Make a disk that begins as another of qcow2 does, which nobody may write to any more."""
    argv = ["create", "-q", "-f", "qcow2", "-b", str(below), "-F", "qcow2", str(path)]
    subprocess.run([QEMU_IMG, *argv, str(size_bytes)], check=True, timeout=60)


@dataclass(frozen=True, slots=True)
class Lan:
    """What joins the guests of one run: a multicast group on this machine's loopback."""

    group: str
    port: int

    @classmethod
    def of_run(cls) -> Lan:
        """One that no other run has at this time."""
        pid = os.getpid()
        return cls(f"239.{pid >> 16 & 255}.{pid >> 8 & 255}.{pid & 255}", 17441)

    @property
    def word(self) -> str:
        """As QEMU takes it."""
        return f"socket,id=lan,mcast={self.group}:{self.port},localaddr=127.0.0.1"


@dataclass(frozen=True, slots=True)
class Machine:
    """What a machine is made of; `folder` keeps its disks over power cuts."""

    name: str
    folder: Path
    image: Image
    lan: Lan
    mac: str
    ports: tuple[int, ...] = ()

    @property
    def root(self) -> Path:
        """Its root disk, an overlay."""
        return self.folder / "root.qcow2"

    @property
    def console(self) -> str:
        """The end of what it wrote to its serial console."""
        path = self.folder / "console.log"
        return path.read_text(errors="replace")[-20_000:] if path.exists() else ""

    def make(self, below: Path, kind: str) -> None:
        """Make the folder and the root disk over another (`kind`: raw or qcow2)."""
        self.folder.mkdir()
        argv = ["create", "-q", "-f", "qcow2", "-b", str(below), "-F", kind, str(self.root)]
        subprocess.run([QEMU_IMG, *argv], check=True, timeout=60)

    def argv(
        self, disks: Mapping[str, Path | None], rtc: datetime | None, root: str = ROOT
    ) -> list[str]:
        """The command that starts it; where a disk was pulled (None), its slot stays empty.

        With another `root` its own root disk is left out: it boots from those disks alone.
        """
        forwards = "".join(f",hostfwd=tcp:127.0.0.1:0-:{port}" for port in self.ports)
        clock = "utc" if rtc is None else rtc.strftime("%Y-%m-%dT%H:%M:%S")
        words = [
            *(QEMU, "-name", self.name, "-nodefaults", "-no-user-config", "-no-reboot"),
            *("-machine", "pc", "-accel", "tcg,thread=multi,tb-size=256", "-cpu", PROCESSOR),
            *("-smp", str(CPUS), "-m", str(MEMORY_MIB), "-rtc", f"base={clock}"),
            *("-display", "none", "-serial", f"file:{self.folder}/console.log"),
            *("-kernel", str(self.image.kernel), "-initrd", str(self.image.initrd)),
            *("-append", f"root={root} {KERNEL_WORDS}"),
            *("-qmp", f"unix:{self.folder}/monitor.sock,server=on,wait=off"),
            *("-device", "virtio-rng-pci,addr=3", "-device", "virtio-serial-pci,addr=4"),
            *("-chardev", f"socket,id=agent,path={self.folder}/agent.sock,server=on,wait=off"),
            *("-device", f"virtserialport,chardev=agent,name={PORT}"),
            *("-netdev", f"user,id=near,ipv6=off,restrict=on{forwards}"),
            *("-device", "virtio-net-pci,netdev=near,romfile=,addr=6"),
            *("-netdev", self.lan.word),
            *("-device", f"virtio-net-pci,netdev=lan,mac={self.mac},romfile=,addr=7"),
        ]
        if root == ROOT:
            # What the guest has flushed is in this machine's page cache, which outlives QEMU.
            words += ["-drive", f"if=none,id=root,file={self.root},format=qcow2,cache=unsafe"]
            words += ["-device", "virtio-blk-pci,drive=root,serial=root,addr=5"]
        for slot, (serial, path) in enumerate(disks.items(), FIRST_DISK_SLOT):
            if path is None:
                continue
            form = path.suffix.removeprefix(".")
            drive = f"if=none,id=drive-{serial},file={path},format={form},cache=unsafe"
            device = (
                f"virtio-blk-pci,drive=drive-{serial},serial={serial},id={serial},addr={slot:x}"
            )
            words += ["-drive", drive, "-device", device]
        return words


class Running:
    """A machine that runs. It ends with this process at the latest."""

    def __init__(self, machine: Machine, argv: Sequence[str], state: Path | None = None) -> None:
        self.machine = machine
        for stale in ("agent.sock", "monitor.sock"):
            (machine.folder / stale).unlink(missing_ok=True)
        words, handed = [*argv], None
        if state is not None:
            handed = state.open("rb")
            words += ["-incoming", f"fd:{handed.fileno()}"]
        with (machine.folder / "qemu.log").open("ab") as log:
            self.process = subprocess.Popen(
                ["/usr/bin/setpriv", "--pdeathsig", "KILL", *words],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                pass_fds=[handed.fileno()] if handed else [],
                start_new_session=True,
            )
        if handed is not None:
            handed.close()
        try:
            self.monitor = self._connected(Monitor, "monitor.sock")
            self.channel = self._connected(Channel, "agent.sock")
        except BaseException:
            self.kill()
            raise

    def _connected(self, connect: Callable[[Path], T], name: str) -> T:
        """Connect to a socket as soon as QEMU listens there."""
        end = time.monotonic() + START_TIMEOUT_S
        while True:
            try:
                return connect(self.machine.folder / name)
            except (FileNotFoundError, ConnectionRefusedError) as e:
                if self.process.poll() is not None or time.monotonic() > end:
                    said = (self.machine.folder / "qemu.log").read_text(errors="replace")
                    words = f"{self.machine.name}: QEMU does not run: {said[-1500:]}"
                    raise GuestError(words) from e
            time.sleep(0.02)

    def wait_resumed(self, timeout_s: float) -> None:
        """Wait until it goes on from its saved state."""
        end = time.monotonic() + timeout_s
        while (status := self.monitor.order("query-status")["status"]) != "running":
            if time.monotonic() > end:
                raise GuestError(f"{self.machine.name}: still {status} after {timeout_s} s")
            time.sleep(0.05)

    def kill(self) -> None:
        """Cut its power: QEMU is gone at once."""
        self.process.send_signal(signal.SIGKILL)
        self.ended(10)

    def ended(self, timeout_s: float) -> None:
        """Wait until QEMU has ended, and let go of it. Raises subprocess.TimeoutExpired."""
        self.process.wait(timeout_s)
        for end in ("channel", "monitor"):
            if hasattr(self, end):
                getattr(self, end).close()
