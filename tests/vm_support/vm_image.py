"""The disk that every guest starts from: Debian with its cloud kernel and Hostler's packages.

Two steps, as for the roots of the lab and in the same cache (/var/cache/hostler, outside of the
checkout): a tar of Debian from the machine's own apt sources, then a disk with the packages
installed, each kept by a key of what goes into it. Without the cache both are made in about two
minutes. Guests never write to the disk: each has an overlay of its own, which ends with it.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from hostler.lab import rootfs, tool
from hostler.lab.identity import RESTORES, SOCKETS
from hostler.lab.lab import default_packages

AGENT = Path(__file__).with_name("vm_agent.py")
PORT = "hostler.agent"
# On this machine: Debian packages by a program of each.
TOOLS = {
    "/usr/bin/qemu-system-x86_64": "qemu-system-x86",
    "/usr/bin/qemu-img": "qemu-utils",
    "/usr/bin/mmdebstrap": "mmdebstrap",
    "/usr/sbin/mke2fs": "e2fsprogs",
    "/usr/bin/setpriv": "util-linux",
}
# In the guests, beside what the lab's hosts have. Domains add what they need to be proven.
PACKAGES = (
    *rootfs.PACKAGES,
    *("udev", "e2fsprogs", "initramfs-tools", "zstd", "linux-image-cloud-amd64"),
    *("nbdkit", "nbd-client", "mdadm", "lvm2", "cryptsetup-bin", "open-iscsi", "btrfs-progs"),
    "smartmontools",
)
# What the kernel has as modules and needs to find its root; fewer load faster.
MODULES = ("virtio_pci", "virtio_blk")
SIZE = 2 << 30
# The form of the disk: raise it when `_configure` changes what it writes.
FORM = "2"
UNUSED_S = 3600
MASKED = ("serial-getty@ttyS0.service", "getty-static.service", "systemd-fsck-root.service")

# The near network, by which this machine reaches a guest's ports; QEMU keeps one per guest, so all
# have the same address on it. Source: qemu-system-x86_64(1), -netdev user.
NETWORK = """link set lo up
addr add 10.0.2.15/24 dev eth0
link set eth0 up
route add default via 10.0.2.2
"""
AGENT_UNIT = f"""[Unit]
Description=Agent of the tests
DefaultDependencies=no
Conflicts=shutdown.target
Before=shutdown.target
After=sysinit.target
StartLimitIntervalSec=0

[Service]
ExecStart=/usr/bin/python3 -I -S /usr/local/lib/vm_agent.py /dev/virtio-ports/{PORT}
# Its port is there once udev has come to it, which may be after the agent's first start.
Restart=always
RestartSec=300ms
# What a test starts is the host's own, and ends when the test says so.
KillMode=process
TasksMax=infinity

[Install]
WantedBy=multi-user.target
"""
# The emulated processor is 13 to 23 times slower than this machine.
SLOW = """[Manager]
DefaultTimeoutStartSec=300s
DefaultTimeoutStopSec=60s
DefaultDeviceTimeoutSec=300s
"""


@dataclass(frozen=True, slots=True)
class Image:
    """A disk to boot from, with the kernel and initrd that QEMU starts."""

    folder: Path

    @property
    def disk(self) -> Path:
        """The root file system, raw. Never written to."""
        return self.folder / "root.img"

    @property
    def kernel(self) -> Path:
        """The kernel."""
        return self.folder / "vmlinuz"

    @property
    def initrd(self) -> Path:
        """Its first root."""
        return self.folder / "initrd"


def install_tools(say: Callable[[str], None]) -> None:
    """Install the Debian packages of the programs that this machine lacks; needs root."""
    missing = sorted({package for program, package in TOOLS.items() if not Path(program).exists()})
    if not missing:
        return
    say(f"installing Debian packages: {' '.join(missing)}")
    apt = ["/usr/bin/apt-get", "-qq"]
    tool.run([*apt, "update"], timeout_s=300)
    tool.run([*apt, "-y", "install", "--no-install-recommends", *missing], timeout_s=900)


def image(say: Callable[[str], None]) -> Image:
    """The image with Hostler's packages as they are in this checkout, made unless it is cached."""
    folder = default_packages()
    packages = rootfs.packages_in(folder)
    packages += sorted(folder.glob("hostler-client_*_amd64.deb"))[-1:]
    cache = rootfs.cache_folder(Path(tempfile.gettempdir(), "hostler-vm-cache"))
    with rootfs.locked(cache):
        tar = rootfs.debian_tar(cache, say, PACKAGES)
        made = Image(cache / f"vm-{_key(tar, packages)}")
        if not made.folder.is_dir():
            say("making the guests' disk")
            with tempfile.TemporaryDirectory(dir=cache, prefix=".vm-") as scratch:
                _make(Path(scratch), tar, packages).rename(made.folder)
        os.utime(made.folder)
        _prune(cache, made.folder)
    return made


def _key(tar: Path, packages: list[Path]) -> str:
    """What decides the disk's content, as 16 hexadecimal digits."""
    texts = (
        FORM,
        NETWORK,
        AGENT_UNIT,
        SLOW,
        AGENT.read_text(),
        *MODULES,
        *MASKED,
        *SOCKETS,
        *RESTORES,
    )
    digest = hashlib.sha256("\0".join([tar.name, rootfs.FORM, *texts]).encode())
    for package in packages:
        digest.update(hashlib.sha256(package.read_bytes()).digest())
    return digest.hexdigest()[:16]


def _make(scratch: Path, tar: Path, packages: list[Path]) -> Path:
    root, folder = scratch / "root", scratch / "image"
    folder.mkdir(mode=0o755)
    rootfs.unpack(tar, root)
    rootfs.install(root, packages)
    rootfs.configure(root)
    _configure(root)
    made = Image(folder)
    (kernel,) = (root / "boot").glob("vmlinuz-*")
    version = kernel.name.removeprefix("vmlinuz-")
    chroot = ["/usr/sbin/chroot", str(root), "/usr/bin/env", "-i", "LC_ALL=C.UTF-8"]
    path = "PATH=/usr/sbin:/usr/bin:/sbin:/bin"
    tool.run([*chroot, path, "/usr/sbin/update-initramfs", "-u", "-k", version], timeout_s=300)
    shutil.move(kernel, made.kernel)
    shutil.move(root / "boot" / f"initrd.img-{version}", made.initrd)
    with made.disk.open("wb") as disk:
        disk.truncate(SIZE)
    tool.run(
        [
            *("/usr/sbin/mke2fs", "-q", "-t", "ext4", "-L", "guest", "-d", str(root)),
            *("-E", "lazy_itable_init=1,lazy_journal_init=1,nodiscard,root_owner=0:0"),
            str(made.disk),
        ],
        timeout_s=300,
    )
    return folder


def _configure(root: Path) -> None:
    """Make a machine of the root: its disk, its agent, its first steps, Hostler's units."""
    etc = root / "etc"
    (etc / "fstab").write_text("/dev/vda / ext4 rw,noatime 0 0\n")
    (etc / "hostname").write_text("golden\n")
    (etc / "lab.network").write_text(NETWORK)
    (etc / "hosts").write_text("127.0.0.1 localhost\n::1 localhost\n")
    initramfs = etc / "initramfs-tools"
    (initramfs / "conf.d" / "guest").write_text("MODULES=list\nCOMPRESS=zstd\n")
    (initramfs / "modules").write_text("\n".join(MODULES) + "\n")
    shutil.copyfile(AGENT, root / "usr/local/lib/vm_agent.py")
    units = etc / "systemd" / "system"
    (units / "vm-agent.service").write_text(AGENT_UNIT)
    for unit in MASKED:
        (units / unit).symlink_to("/dev/null")
    managers = etc / "systemd" / "system.conf.d"
    managers.mkdir()
    (managers / "slow.conf").write_text(SLOW)
    systemctl = ["/usr/bin/systemctl", "--quiet", f"--root={root}", "enable"]
    tool.run([*systemctl, "vm-agent.service", *SOCKETS, *RESTORES])


def _prune(cache: Path, keep: Path) -> None:
    """Remove images that nobody has taken for a while; guests that run hold theirs open."""
    for old in cache.glob("vm-*"):
        if old != keep and time.time() - old.stat().st_mtime > UNUSED_S:
            shutil.rmtree(old)


def main() -> None:
    """Install the tools and make the image, so that no test has to wait for it."""
    start = time.monotonic()
    install_tools(print)
    made = image(print)
    used = subprocess.run(
        ["/usr/bin/du", "-sm", str(made.folder)], capture_output=True, text=True, check=True
    )
    took = time.monotonic() - start
    print(f"{made.folder}: {used.stdout.split()[0]} MB, {took:.1f} s")


if __name__ == "__main__":
    main()
