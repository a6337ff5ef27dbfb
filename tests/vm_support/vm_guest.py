"""One guest: what a test does with it.

Commands run as root by the agent, several at a time if several threads ask; `run`, `put` and
`name` are like those of a lab's host, so that what asks one can ask the other. Times are long:
the processor is emulated, and a daemon takes seconds to start (`wake` it, and give the client
timeouts of a minute).
"""

from __future__ import annotations

import base64
import secrets
import subprocess
import time
from collections.abc import Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotInTime
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from vm_channel import Answer
from vm_errors import CommandFailed, GuestError
from vm_machine import FIRST_DISK_SLOT, ROOT, Machine, Running, overlay

BOOT_TIMEOUT_S = 420.0
RESUME_TIMEOUT_S = 60.0
PULL_TIMEOUT_S = 60.0
# How much longer than the command itself its answer may take.
MARGIN_S = 30.0
Done = subprocess.CompletedProcess[str]
# A disk is there when the kernel says so; udev's names come later.
FIND_DISK = """
import pathlib, sys, time
for _ in range(600):
    for serial in pathlib.Path("/sys/block").glob("vd*/serial"):
        if serial.read_text().strip() == sys.argv[1]:
            sys.exit(print("/dev/" + serial.parent.name))
    time.sleep(0.05)
sys.exit("no such disk")
"""


@dataclass(frozen=True, slots=True)
class Command:
    """A command that was started in a guest and may still run."""

    guest: str
    argv: list[str]
    timeout_s: float
    answer: Future[Answer]

    def wait(self, *, check: bool = True) -> Done:
        """Wait for its end. Raises CommandFailed, GuestError if the guest goes off meanwhile."""
        try:
            told = self.answer.result(self.timeout_s + MARGIN_S)
        except NotInTime as e:
            raise GuestError(f"{self.guest}: {self.argv}: the agent does not answer") from e
        if "error" in told:
            raise GuestError(f"{self.guest}: {told['error']}")
        out, err = (
            base64.b64decode(told[name]).decode(errors="replace") for name in ("stdout", "stderr")
        )
        status = told["status"]
        if status is None or (check and status != 0):
            raise CommandFailed(self.guest, self.argv, status, err or out)
        return subprocess.CompletedProcess(self.argv, status, out, err)


class Guest:
    """A guest with its disks, on or off.

    `ipv4` and `ipv6` are its addresses on the network of the guests, which only guests are on.
    """

    def __init__(self, machine: Machine, ipv4: str, ipv6: str) -> None:
        self.machine = machine
        self.ipv4 = ipv4
        self.ipv6 = ipv6
        self.disks: dict[str, Path | None] = {}
        """By serial number, in the order of their slots; None where one was pulled."""
        self.root = ROOT
        """What it boots from; if that is another, its own root disk is left out."""
        self._running: Running | None = None

    @property
    def name(self) -> str:
        """Its hostname, its name in the fleet and in its certificate."""
        return self.machine.name

    @property
    def running(self) -> Running:
        """The process that it is now. Raises GuestError if it is off."""
        if self._running is None:
            raise GuestError(f"{self.name} is off")
        return self._running

    @property
    def is_on(self) -> bool:
        """Whether its machine runs."""
        return self._running is not None

    def ports(self) -> dict[int, int]:
        """The ports of 127.0.0.1 on this machine that lead to the guest's, by the guest's."""
        return self.running.monitor.forwards()

    # -- power

    def resume(self, state: Path) -> None:
        """Go on from a saved state; the root disk must be the one that belongs to it."""
        self._running = Running(self.machine, self.machine.argv({}, None), state)
        self._running.wait_resumed(RESUME_TIMEOUT_S)

    def boot(self, rtc: datetime | None = None) -> None:
        """Boot from its disks, and wait until systemd has started everything.

        `rtc` sets the hardware clock (UTC), else it is right. Raises GuestError.
        """
        if self._running is not None:
            raise GuestError(f"{self.name} is on")
        self._running = Running(self.machine, self.machine.argv(self.disks, rtc, self.root))
        try:
            self._running.channel.greeted.result(BOOT_TIMEOUT_S)
        except (NotInTime, GuestError) as e:
            raise GuestError(f"{self.name} did not boot: {self.machine.console}") from e
        self.state()

    def state(self) -> str:
        """Wait until it is booted; systemd's word for it: `running` or `degraded`."""
        argv = ["systemctl", "is-system-running", "--wait"]
        return self.run(argv, timeout_s=BOOT_TIMEOUT_S, check=False).stdout.strip()

    def power_cut(self) -> None:
        """Be off at once (SIGKILL to QEMU): what was not flushed to a disk is lost."""
        running, self._running = self.running, None
        running.kill()

    def shutdown(self, timeout_s: float = 120.0) -> None:
        """Be off in good order. Raises GuestError if that takes longer."""
        self.start(["systemctl", "poweroff", "--no-block"])
        running = self.running
        try:
            running.ended(timeout_s)
        except subprocess.TimeoutExpired as e:
            raise GuestError(f"{self.name} does not go off: {self.machine.console}") from e
        self._running = None

    def off(self) -> None:
        """Be off, whatever it was."""
        if self._running is not None:
            self.power_cut()

    # -- commands and files

    def start(self, argv: Sequence[str], *, timeout_s: float = 60, stdin: str = "") -> Command:
        """Start a command; it is killed after `timeout_s`. Raises GuestError if off."""
        answer = self.running.channel.run(argv, stdin.encode(), timeout_s)
        return Command(self.name, [*argv], timeout_s, answer)

    def run(
        self, argv: Sequence[str], *, timeout_s: float = 60, stdin: str = "", check: bool = True
    ) -> Done:
        """Run a command to its end; answers its status and both outputs.

        Raises CommandFailed when it outlives `timeout_s`, or with `check` when it fails.
        """
        return self.start(argv, timeout_s=timeout_s, stdin=stdin).wait(check=check)

    def put(
        self, path: str, content: str | bytes, mode: int = 0o644, owner: str = "root:root"
    ) -> None:
        """Write a file and flush it; its folder must be there."""
        data = content.encode() if isinstance(content, str) else content
        user, _, group = owner.partition(":")
        argv = ["install", f"--mode={mode:o}", f"--owner={user}", f"--group={group}"]
        answer = self.running.channel.run([*argv, "/dev/stdin", path], data, 60)
        Command(self.name, [*argv, path], 60, answer).wait()
        self.run(["sync", path])

    def read(self, path: str) -> str:
        """A file's text. Raises CommandFailed."""
        return self.run(["cat", path]).stdout

    # -- clock

    def set_clock(self, when: datetime) -> None:
        """Set the clock (an aware time); the hardware clock stays.

        The kernel refuses times so early that the guest would have started before 1970: `boot`
        with such an `rtc` lets systemd decide, which starts at its own build time then.
        """
        self.run(["date", "--utc", "-s", f"@{when.timestamp():.3f}"])

    def clock(self) -> datetime:
        """What it takes the time to be."""
        return datetime.fromtimestamp(float(self.run(["date", "+%s.%N"]).stdout), UTC)

    # -- disks

    def add_disk(self, serial: str, size_bytes: int, like: Path | None = None) -> str:
        """Plug in a disk; answers its device, such as /dev/vdb. It stays over boots.

        It is empty, or begins as a disk of qcow2 does that nobody writes to any more.
        """
        drive: dict[str, object]
        path = self.machine.folder / f"{serial}.{'raw' if like is None else 'qcow2'}"
        file_of = {"driver": "file", "filename": str(path), "cache": {"no-flush": True}}
        if like is None:
            drive = file_of
            with path.open("xb") as file:
                file.truncate(size_bytes)
        else:
            drive = {"driver": "qcow2", "file": file_of, "cache": {"no-flush": True}}
            overlay(like, path, size_bytes)
        self.disks[serial] = path
        order = self.running.monitor.order
        order("blockdev-add", {"node-name": f"drive-{serial}", **drive})
        plug = {"driver": "virtio-blk-pci", "drive": f"drive-{serial}", "serial": serial}
        slot = FIRST_DISK_SLOT + len(self.disks) - 1
        order("device_add", {**plug, "id": serial, "addr": f"{slot:x}"})
        return self.disk(serial)

    def pull_disk(self, serial: str) -> None:
        """Pull a disk out, whatever is done with it; it is not there after a boot either."""
        self.disks[serial] = None
        self.running.monitor.order("device_del", {"id": serial})
        end = time.monotonic() + PULL_TIMEOUT_S
        while serial in self.run(["lsblk", "-dno", "SERIAL"]).stdout.split():
            if time.monotonic() > end:
                raise GuestError(f"{self.name} does not let go of {serial}")
            time.sleep(0.2)
        # udev has mdadm take out what is unplugged: until it is through, a plan is soon another.
        self.run(["udevadm", "settle", "--timeout=60"], timeout_s=90)

    def throttle_disk(self, serial: str, bytes_per_second: int) -> None:
        """Have a disk take no more than so much; 0: all that it can."""
        zeros = dict.fromkeys(("bps_rd", "bps_wr", "iops", "iops_rd", "iops_wr"), 0)
        # What QEMU calls a disk of virtio is its PCI device; what takes the data is below it.
        backend = f"/machine/peripheral/{serial}/virtio-backend"
        limits = {"id": backend, "bps": bytes_per_second, **zeros}
        self.running.monitor.order("block_set_io_throttle", limits)

    def disk(self, serial: str) -> str:
        """The device of a disk, once the guest has found it. Raises CommandFailed."""
        return self.run(["python3", "-IS", "-c", FIND_DISK, serial]).stdout.strip()

    def disk_traffic(self, serial: str) -> dict[str, int]:
        """Bytes that a disk has read and written since QEMU started, as QEMU counted them."""
        for entry in self.running.monitor.order("query-blockstats"):
            if f"/{serial}/" in entry.get("qdev", ""):
                stats = entry["stats"]
                return {"read": stats["rd_bytes"], "write": stats["wr_bytes"]}
        raise GuestError(f"{self.name} has no disk {serial}")

    # -- Hostler

    def wake(self, *domains: str) -> None:
        """Have the daemons of domains run, so that a client finds them at once."""
        self.run(["systemctl", "start", *(f"hostler-{d}.service" for d in domains)], timeout_s=180)

    def hostler(self, *args: str, check: bool = True, timeout_s: float = 180) -> Done:
        """The command as local root has it: `hostler -H local …` in the guest."""
        argv = ["hostler", "--timeout", "120", "-H", "local", *args]
        return self.run(argv, timeout_s=timeout_s, check=check)

    # -- what makes it itself

    def become(self, files: bytes, mac: str) -> None:
        """After a resume: take over identity files (a tar), clock, name, addresses, randomness."""
        self.running.channel.reseed(secrets.token_bytes(64)).result(RESUME_TIMEOUT_S)
        self.set_clock(datetime.now(UTC))
        argv = ["tar", "--extract", "--directory=/", "--no-same-owner", "--same-permissions"]
        answer = self.running.channel.run(argv, files, 60)
        Command(self.name, argv, 60, answer).wait()
        self.run(["chown", "root:hostler-tls", "/etc/hostler/pki", "/etc/hostler/pki/host.key"])
        self.run(["hostname", self.name])
        links = f"link set eth1 address {mac}\naddr add {self.ipv4}/24 dev eth1\n"
        links += f"addr add {self.ipv6}/64 dev eth1 nodad\nlink set eth1 up\n"
        self.run(["ip", "-batch", "-"], stdin=links)
        # It keeps the journal in a folder named by the machine id that it started with.
        self.run(["systemctl", "restart", "systemd-journald.service"])
        # A power cut right now must not take its identity.
        self.run(["sync"])
