"""The root file system that all hosts of a lab share as the lower layer of their overlays.

Two steps, each kept by a key of what goes into it: a tar of Debian made by mmdebstrap from the
machine's own apt sources, and that tar unpacked with the packages of Hostler installed.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from hostler.lab import tool
from hostler.lab.errors import LabError
from hostler.packages import PackagesMissing, files_of

CACHE = Path("/var/cache/hostler")
# What the daemons and the people who test them need in a host; no recommended packages.
PACKAGES = (
    *("systemd", "systemd-sysv", "systemd-resolved", "libnss-resolve", "dbus", "kmod"),
    *("iproute2", "iputils-ping", "nftables", "conntrack", "tcpdump", "strace", "procps"),
    *("python3", "curl", "openssl", "ca-certificates", "fdisk", "util-linux"),
    *("restic",),
)
# A host as Debian's installer leaves one that is reached by ssh: nothing of this is Hostler's. The
# packages of Hostler need no other, so that installing them needs no network.
BARE = (
    *("systemd", "systemd-sysv", "dbus", "kmod", "iproute2", "procps", "openssh-server", "sudo"),
    *("python3", "nftables", "fdisk", "util-linux", "libbpf1"),
)
# The form of the unpacked root: raise it when `configure` changes what it writes.
FORM = "2"
# No answer to give in a container, or a timer that would wake during a test.
MASKED = (
    *("apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "fstrim.timer"),
    *("e2scrub_all.timer", "e2scrub_reap.service", "getty@tty1.service", "console-getty.service"),
    *("systemd-timesyncd.service", "systemd-random-seed.service", "systemd-binfmt.service"),
    *("systemd-update-utmp.service", "systemd-update-utmp-runlevel.service"),
)
# How long an unpacked root of other packages is kept after it was last mounted.
UNUSED_S = 3600
DEBIAN_SOURCE = re.compile(r"/debian(-security)?/?(\s|$)|debian-archive-keyring")

NETWORK_UNIT = """[Unit]
Description=Static network of the lab
DefaultDependencies=no
Wants=network-pre.target network.target
After=network-pre.target
Before=network.target

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/sbin/ip -batch /etc/lab.network

[Install]
WantedBy=multi-user.target
"""


def codename(os_release: Path = Path("/etc/os-release")) -> str:
    """The suite of this machine's Debian, for example `bookworm`. Raises LabError elsewhere."""
    fields = dict(line.split("=", 1) for line in os_release.read_text().splitlines() if "=" in line)
    if fields.get("ID") != "debian" or "VERSION_CODENAME" not in fields:
        raise LabError("the lab takes Debian from the machine's own apt sources: not a Debian")
    return fields["VERSION_CODENAME"].strip('"')


def debian_sources(etc_apt: Path = Path("/etc/apt")) -> dict[str, str]:
    """The machine's apt sources of Debian itself, by kind: `list` lines and `sources` stanzas.

    Others stay out: a vendor's packages are no part of a host under test.
    """
    lines, stanzas = [], []
    for path in [etc_apt / "sources.list", *sorted(etc_apt.glob("sources.list.d/*"))]:
        if path.suffix == ".list" and path.is_file():
            lines += [
                line
                for line in path.read_text().splitlines()
                if line.startswith("deb ") and DEBIAN_SOURCE.search(line)
            ]
        elif path.suffix == ".sources":
            text = re.sub(r"(?m)^#.*\n", "", path.read_text())
            stanzas += [part for part in re.split(r"\n\s*\n", text) if DEBIAN_SOURCE.search(part)]
    found = {"list": "\n".join(lines), "sources": "\n\n".join(s.strip() for s in stanzas)}
    found = {kind: text + "\n" for kind, text in found.items() if text}
    if not found:
        raise LabError(f"no apt source of Debian in {etc_apt}")
    return found


def cache_folder(fallback: Path) -> Path:
    """The machine's cache, or `fallback` where that cannot be written."""
    for place in (CACHE, fallback):
        try:
            place.mkdir(parents=True, exist_ok=True)
        except OSError:
            continue
        if os.access(place, os.W_OK):
            return place
    raise LabError(f"neither {CACHE} nor {fallback} can be written: root is needed")


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the cache: two labs that come up together build each thing once."""
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def tar_key(suite: str, sources: dict[str, str], packages: Sequence[str] = PACKAGES) -> str:
    """What decides the tar's content: packages, suite and sources, as 16 hexadecimal digits."""
    text = "\0".join([suite, *packages, *(f"{k}\0{v}" for k, v in sorted(sources.items()))])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def debian_tar(cache: Path, say: Callable[[str], None], packages: Sequence[str] = PACKAGES) -> Path:
    """The tar of a Debian root of `packages`, made with mmdebstrap unless the cache has it.

    Takes half a minute to two minutes the first time.
    """
    suite, sources = codename(), debian_sources()
    target = cache / f"rootfs-{tar_key(suite, sources, packages)}.tar"
    if target.is_file():
        return target
    say(f"building a Debian root ({suite}) from the machine's apt sources")
    with tempfile.TemporaryDirectory(dir=cache, prefix=".rootfs-") as scratch:
        files = []
        for kind, text in sources.items():
            files.append(str(Path(scratch, f"debian.{kind}")))
            Path(files[-1]).write_text(text)
        fresh = Path(scratch, "root.tar")
        tool.run(
            [
                *("/usr/bin/mmdebstrap", "--variant=minbase", "--mode=root"),
                f"--include={','.join(packages)}",
                *('--aptopt=Acquire::Languages "none"', '--aptopt=Acquire::Retries "3"'),
                *('--aptopt=APT::Install-Recommends "false"', "--dpkgopt=force-unsafe-io"),
                *(f"--dpkgopt=path-exclude=/usr/share/{d}/*" for d in ("man", "doc", "locale")),
                *(suite, str(fresh), *files),
            ],
            timeout_s=1800,
        )
        fresh.rename(target)
    return target


def packages_in(folder: Path) -> list[Path]:
    """The Debian packages that a host gets, from `folder`. Raises LabError if one is missing."""
    try:
        return files_of(folder)
    except PackagesMissing as e:
        raise LabError(str(e)) from e


def base_key(tar: Path, packages: list[Path]) -> str:
    """What decides the unpacked root: the tar's key and the packages' content."""
    digest = hashlib.sha256(f"{FORM}\0{tar.name}".encode())
    for package in packages:
        digest.update(hashlib.sha256(package.read_bytes()).digest())
    return digest.hexdigest()[:16]


def unpack(tar: Path, root: Path) -> None:
    """Unpack a Debian root into the folder `root`, which is made."""
    root.mkdir(mode=0o755)
    tool.run(
        [
            *("/usr/bin/tar", "--directory", str(root), "--numeric-owner", "--xattrs"),
            *("--xattrs-include=*", "--extract", "--file", str(tar)),
        ],
        timeout_s=300,
    )


def install(root: Path, packages: list[Path]) -> None:
    """Install `packages` in `root` with its own dpkg, in a mount and PID namespace of its own."""
    place = root / "var" / "tmp" / "hostler"
    place.mkdir()
    for package in packages:
        shutil.copy(package, place)
    tool.run(
        [
            *("/usr/bin/unshare", "--mount", "--pid", "--fork", f"--mount-proc={root / 'proc'}"),
            *("/usr/sbin/chroot", str(root), "/usr/bin/env", "-i", "LC_ALL=C.UTF-8"),
            *("PATH=/usr/sbin:/usr/bin:/sbin:/bin", "/usr/bin/dpkg", "--force-unsafe-io", "-i"),
            *(f"/var/tmp/hostler/{p.name}" for p in packages),  # noqa: S108 - a path in the new root
        ],
        timeout_s=300,
    )
    shutil.rmtree(place)


def configure(root: Path) -> None:
    """Write what all hosts of all labs have in common."""
    units = root / "etc" / "systemd" / "system"
    for unit in MASKED:
        link = units / unit
        link.unlink(missing_ok=True)
        link.symlink_to("/dev/null")
    (units / "lab-network.service").write_text(NETWORK_UNIT)
    wants = units / "multi-user.target.wants"
    wants.mkdir(exist_ok=True)
    (wants / "lab-network.service").symlink_to("../lab-network.service")
    default = units / "default.target"
    default.unlink(missing_ok=True)
    default.symlink_to("/lib/systemd/system/multi-user.target")
    journald = root / "etc" / "systemd" / "journald.conf.d"
    journald.mkdir()
    # Kept over a power cut: what happened before it is what a test wants to read.
    (journald / "lab.conf").write_text("[Journal]\nStorage=persistent\nSystemMaxUse=64M\n")
    (root / "etc" / "machine-id").write_text("")


def base(
    cache: Path,
    packages: list[Path],
    say: Callable[[str], None],
    debian: Sequence[str] = PACKAGES,
) -> Path:
    """The unpacked root with `packages` installed, made unless the cache has it.

    Roots of older packages that no overlay is mounted on are removed.
    """
    with locked(cache):
        tar = debian_tar(cache, say, debian)
        target = cache / f"base-{base_key(tar, packages)}"
        if target.is_dir():
            return target
        say("unpacking the root" + (" and installing the packages" if packages else ""))
        fresh = cache / ".base"
        shutil.rmtree(fresh, ignore_errors=True)
        unpack(tar, fresh)
        if packages:
            install(fresh, packages)
        configure(fresh)
        fresh.rename(target)
        os.utime(target)
        prune(cache, target)
        return target


def prune(cache: Path, keep: Path) -> None:
    """Remove unpacked roots but `keep`, those in use and those used within `UNUSED_S`.

    A host that is off has no mount that would tell, hence the time; mounting renews it.
    """
    mounts = Path("/proc/self/mounts").read_text()
    for old in cache.glob("base-*"):
        unused = time.time() - old.stat().st_mtime > UNUSED_S
        if old != keep and unused and str(old) not in mounts:
            shutil.rmtree(old)
