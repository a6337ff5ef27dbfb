"""One host: an overlay of the shared root, booted by systemd-nspawn in a cgroup of its own.

Source: systemd-nspawn(1); what it needs beside `--boot` was found by trying.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from hostler.lab import tool
from hostler.lab.bridge import Bridge
from hostler.lab.cgroup import Cgroup, unified_root
from hostler.lab.errors import LabError, ToolFailed

NSPAWN = "/usr/bin/systemd-nspawn"
ENTER = Path(__file__).with_name("enter.py")
BOOT_TIMEOUT_S = 60.0
# The first addresses belong to the machine.
FIRST_ADDRESS = 11


@dataclass(frozen=True, slots=True)
class Host:
    """Host number `index` (from 0) of the lab on `bridge`; its files are in `folder`."""

    index: int
    folder: Path
    bridge: Bridge

    @property
    def name(self) -> str:
        """Its name, in the fleet and as its hostname: h1, h2 and so on."""
        return f"h{self.index + 1}"

    @property
    def machine(self) -> str:
        """Its name among all containers of this machine."""
        return f"hl{self.bridge.number}-{self.name}"

    @property
    def ipv4(self) -> str:
        """Its IPv4 address on the bridge."""
        return self.bridge.ipv4(self.index + FIRST_ADDRESS)

    @property
    def ipv6(self) -> str:
        """Its IPv6 address on the bridge."""
        return self.bridge.ipv6(self.index + FIRST_ADDRESS)

    @property
    def cgroup(self) -> Cgroup:
        """The cgroup that holds all of its processes, systemd-nspawn included."""
        return Cgroup(unified_root() / f"{self.bridge.ifname}-{self.name}")

    @property
    def root(self) -> Path:
        """Where its root is mounted; write here only while it is off."""
        return self.folder / "root"

    @property
    def made(self) -> bool:
        """Whether the host has files, running or not."""
        return (self.folder / "upper").is_dir()

    def leader(self) -> int | None:
        """The PID on this machine of the host's PID 1, None while there is none."""
        for pid in self.cgroup.pids():
            try:
                status = Path(f"/proc/{pid}/status").read_text()
            except OSError:
                continue
            # PID 1 one namespace below ours; those deeper down are of the host's own containers.
            numbers = next((n for n in status.splitlines() if n.startswith("NSpid:")), "").split()
            if numbers[2:] == ["1"]:
                return pid
        return None

    def state(self) -> str:
        """`off`, or what its systemd says: `starting`, `running`, `degraded` and so on."""
        leader = self.leader()
        if leader is None:
            return "off"
        # The status is the state's; `is-system-running` exits 0 for `running` alone.
        argv = [*_enter(leader), "/usr/bin/systemctl", "is-system-running"]
        try:
            done = subprocess.run(argv, capture_output=True, text=True, timeout=10)
        except subprocess.TimeoutExpired:
            return "unknown"
        return done.stdout.strip() or "starting"

    def mount(self, base: Path) -> None:
        """Mount its root: `base` below, its own files above. Nothing if it is mounted."""
        if not base.is_dir():
            raise LabError(f"{self.name}: its root {base} is gone: run `hostler lab up`")
        # The lower root is in use: whoever tidies the cache goes by this time.
        os.utime(base)
        for part in ("upper", "work", "root"):
            (self.folder / part).mkdir(parents=True, exist_ok=True)
        if not self.root.is_mount():
            layers = f"lowerdir={base},upperdir={self.folder}/upper,workdir={self.folder}/work"
            tool.run(
                ["/usr/bin/mount", "-t", "overlay", self.machine, "-o", layers, str(self.root)]
            )

    def unmount(self) -> None:
        """Unmount its root if it is mounted."""
        if self.root.is_mount():
            tool.run(["/usr/bin/umount", str(self.root)])

    def start(self) -> None:
        """Boot it; `wait()` says when it is up. Its root must be mounted."""
        place = self.cgroup.create()
        environment = {
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "LC_ALL": "C.UTF-8",
            "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1",
        }
        with (self.folder / "console.log").open("ab") as console:
            subprocess.Popen(
                [
                    *(sys.executable, "-IS", str(ENTER), str(place)),
                    *(NSPAWN, "--quiet", "--boot", f"--directory={self.root}"),
                    *(f"--machine={self.machine}", f"--hostname={self.name}"),
                    *("--register=no", "--keep-unit", "--console=read-only"),
                    f"--network-bridge={self.bridge.ifname}",
                    *("--capability=all", "--system-call-filter=@known", "--link-journal=no"),
                    *("--resolv-conf=off", "--timezone=off", "--kill-signal=SIGRTMIN+3"),
                ],
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,
            )

    def wait(self, timeout_s: float = BOOT_TIMEOUT_S) -> str:
        """Wait until its systemd has finished booting; answers `running` or `degraded`.

        Raises LabError with the end of its console if it goes off or takes longer.
        """
        end = time.monotonic() + timeout_s
        while time.monotonic() < end:
            state = self.state()
            if state in {"running", "degraded"}:
                return state
            if state == "off" and not self.cgroup.populated() and self._ended():
                break
            time.sleep(0.05)
        console = (self.folder / "console.log").read_text(errors="replace")[-1500:]
        raise LabError(f"{self.name} did not boot within {timeout_s:.0f} s; console: {console}")

    def _ended(self) -> bool:
        """Whether it is off for good, not merely about to be started."""
        time.sleep(0.5)
        return not self.cgroup.populated()

    def kill(self) -> None:
        """Cut its power: every process is gone at once, what it wrote to its root stays.

        The leader is killed, not systemd-nspawn, which would leave the leader behind.
        """
        leader = self.leader()
        if leader is not None:
            os.kill(leader, signal.SIGKILL)
        group = self.cgroup
        if not group.wait_empty(5):
            group.kill()
            if not group.wait_empty(10):
                raise LabError(f"{self.name}: processes in {group.path} outlive SIGKILL")
        group.remove()
        self._wait_unlinked()
        self.unmount()

    def _wait_unlinked(self) -> None:
        """Wait until the kernel has taken its link down; a boot before that finds it in the way."""
        link = Path("/sys/class/net", f"vb-{self.machine}")
        end = time.monotonic() + 10
        while link.exists() and time.monotonic() < end:
            time.sleep(0.01)

    def remove(self) -> None:
        """Cut its power and remove its files."""
        self.kill()
        if self.folder.exists():
            shutil.rmtree(self.folder)

    def _argv(self, argv: Sequence[str]) -> list[str]:
        leader = self.leader()
        if leader is None:
            raise LabError(f"{self.name} is off")
        # Beside systemd's own groups, so that what runs here is counted to the host and no unit.
        place = self.cgroup.create("payload/lab.exec")
        return [sys.executable, "-IS", str(ENTER), str(place), *_enter(leader), *argv]

    def popen(self, argv: Sequence[str], **options: object) -> subprocess.Popen[str]:
        """Start a command in the host, as root; `options` are those of subprocess.Popen.

        Raises LabError if the host is off.
        """
        options = {"text": True, "env": _environment(), **options}
        return subprocess.Popen(self._argv(argv), **options)  # type: ignore[call-overload, no-any-return]

    def run(
        self,
        argv: Sequence[str],
        *,
        timeout_s: float = 60,
        stdin: str = "",
        check: bool = True,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in the host, as root, and answer its status and both outputs.

        Raises ToolFailed when it outlives `timeout_s`, or with `check` when it fails; LabError if
        the host is off.
        """
        with self.popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        ) as child:
            try:
                out, err = child.communicate(stdin, timeout_s)
            except subprocess.TimeoutExpired as e:
                # nsenter's child is in another PID namespace but in the same process group.
                os.killpg(child.pid, signal.SIGKILL)
                raise ToolFailed(list(argv), None, "") from e
        if check and child.returncode != 0:
            raise ToolFailed(list(argv), child.returncode, err or out)
        return subprocess.CompletedProcess(list(argv), child.returncode, out, err)

    def exec(self, argv: Sequence[str]) -> None:
        """Become a command in the host, with this process's terminal. Does not return."""
        command = self._argv(argv)
        os.execve(command[0], command, _environment())  # noqa: S606 - becoming it is the purpose

    def put(self, path: str, content: str | bytes, mode: int = 0o644) -> None:
        """Write a file of the running or the mounted host, as root; folders must be there."""
        leader = self.leader()
        root = Path(f"/proc/{leader}/root") if leader is not None else self.root
        target = root / path.lstrip("/")
        target.write_bytes(content.encode() if isinstance(content, str) else content)
        target.chmod(mode)

    def processes(self) -> Iterator[int]:
        """PIDs, as this machine numbers them, of all that runs in the host."""
        return self.cgroup.pids()


def _enter(leader: int) -> list[str]:
    return ["/usr/bin/nsenter", f"--target={leader}", "--all", "--"]


def _environment() -> dict[str, str]:
    """The environment of a command in a host: fixed, but for the terminal's kind."""
    fixed = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", "HOME": "/root"}
    return {**fixed, **({"TERM": os.environ["TERM"]} if "TERM" in os.environ else {})}
