"""The Debian packages that hosts get: which there are, and where they lie."""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from hostler.config import HostlerError

COMMON = "hostler-common"
# In the order in which they are installed.
DOMAINS = ("netns", "firewall", "tracing", "ssl", "storage")
ARCHITECTURE = "amd64"
# Where this file lies in a checkout; installed, there is no such program above it.
CHECKOUT = Path(__file__).resolve().parents[2]
BUILD_PACKAGES = CHECKOUT / "packaging" / "debian" / "build.py"
_BUILD_TIMEOUT_S = 1800.0
_FILE = re.compile(r"(hostler-[a-z]+)_([0-9A-Za-z.+~-]+)_amd64\.deb", re.ASCII)


class PackagesMissing(HostlerError):
    """There are no packages to install. The message says what to do."""

    exit_code = 1


@dataclass(frozen=True, slots=True)
class Package:
    """One package's file, and what its name and content say."""

    name: str
    version: str
    path: Path
    size_bytes: int
    sha256: str

    @classmethod
    def read(cls, path: Path) -> Package:
        """Read a package's file. Raises PackagesMissing, OSError."""
        found = _FILE.fullmatch(path.name)
        if found is None:
            raise PackagesMissing(f"{path} is not named as a package of Hostler is")
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        return cls(found[1], found[2], path, path.stat().st_size, digest)


def built() -> Path | None:
    """`build/deb` of a checkout, None where there is none.

    The packages are built first, which does nothing while their inputs are the same. Raises
    PackagesMissing if that fails.
    """
    if not BUILD_PACKAGES.is_file():
        return None
    argv = [sys.executable, str(BUILD_PACKAGES)]
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=_BUILD_TIMEOUT_S)
    except subprocess.TimeoutExpired as e:
        raise PackagesMissing(f"building the packages took more than {e.timeout:g} s") from e
    if done.returncode != 0:
        raise PackagesMissing(f"building the packages failed: {done.stderr.strip()[-2000:]}")
    return CHECKOUT / "build" / "deb"


def files_of(folder: Path, domains: Iterable[str] = DOMAINS) -> list[Path]:
    """The newest file in `folder` of each package that these domains need, the common one first.

    Raises PackagesMissing if there is none of one.
    """
    wanted = set(domains)
    found = []
    for name in (COMMON, *(f"hostler-{domain}" for domain in DOMAINS if domain in wanted)):
        files = sorted(folder.glob(f"{name}_*_{ARCHITECTURE}.deb"), key=lambda p: p.stat().st_mtime)
        if not files:
            raise PackagesMissing(f"no package {name} in {folder}: build them with `make deb`")
        found.append(files[-1])
    return found
