"""Builds the Debian packages: `python packaging/debian/build.py [--out build/deb]`.

Needs an interpreter that has the locked tools of `packaging/requirements/dev.txt`, and `dpkg-deb`.
Nothing is built when the inputs are those of the last build.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import PathDistribution
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
HERE = ROOT / "packaging" / "debian"
UNITS = ROOT / "packaging" / "systemd"
LOCKS = ROOT / "packaging" / "requirements"
# The interpreter that will run the code, so that the compiled files are its own.
PYTHON = "/usr/bin/python3"
TIMEOUT_S = 900
# Packages of equal input are equal: one fixed time for every file.
EPOCH = "1767225600"
INPUTS = (
    *("pyproject.toml", "README.md", "protos", "services", "client", "packaging/debian"),
    *("packaging/systemd", "packaging/build_protos.py", "packaging/build_bpf.py"),
    *("packaging/requirements/client.txt", "packaging/requirements/daemon.txt"),
)
NEVER = {"__pycache__", ".mypy_cache", ".ruff_cache"}
COLLECTIONS = ROOT / "client" / "ansible_collections"
GENERATED = ROOT / "client" / "hostler" / "api"
# A process of root gets the stubs and the pure code that both sides run, nothing else of ours.
DAEMON_PARTS = {"__init__.py", "py.typed", "api", "core"}

START_DAEMON = """#!/usr/bin/python3 -IS
import runpy
import sys

sys.path.insert(0, "/opt/hostler/{version}/daemon")
sys.argv[0] = "hostlerd-{domain}"
runpy.run_module("hostlerd.{domain}", run_name="__main__", alter_sys=True)
"""
# What works for each domain, its own package installed or not.
START_ANY = """#!/usr/bin/python3 -IS
import runpy
import sys

sys.path.insert(0, "/opt/hostler/{version}/daemon")
domain = sys.argv.pop(1) if len(sys.argv) > 1 else ""
if domain not in {domains!r}:
    sys.exit("hostlerd: expects the name of a domain")
sys.argv[0] = "hostlerd-" + domain
runpy.run_module("hostlerd." + domain, run_name="__main__", alter_sys=True)
"""
START_CLIENT = """#!/usr/bin/python3 -IS
import sys

sys.path.insert(0, "/opt/hostler/{version}/client")
from hostler.cli.main import main

sys.argv[0] = "hostler"
sys.exit(main())
"""


@dataclass(frozen=True, slots=True)
class Domain:
    """What one domain's package ships beside its start script: unit files by name.

    `parts` are packages below the domain's that are processes of their own.
    """

    name: str
    units: tuple[str, ...]
    parts: tuple[str, ...] = ()


DOMAINS = (
    Domain(
        "netns",
        (
            *("hostler-netns.socket", "hostler-netns.service"),
            "hostler-restore@netns.service.d/domain.conf",
            "hostler-job@netns.service.d/domain.conf",
        ),
    ),
    Domain(
        "firewall",
        (
            *("hostler-firewall.socket", "hostler-firewall.service"),
            "hostler-restore@firewall.service.d/domain.conf",
            "hostler-job@firewall.service.d/domain.conf",
        ),
    ),
    # It has nothing to put back at boot, and no work that goes on without its daemon.
    Domain("tracing", ("hostler-tracing.socket", "hostler-tracing.service")),
    Domain(
        "storage",
        (
            *("hostler-storage.socket", "hostler-storage.service"),
            *("hostler-storage-worker.socket", "hostler-storage-worker.service"),
            *("hostler-storage-backup.socket", "hostler-storage-backup.service"),
            *("hostler-storage-restore.socket", "hostler-storage-restore.service"),
            *("hostler-storage-copier.socket", "hostler-storage-copier.service"),
            *("hostler-storage-backup@.service", "hostler-storage-exports@.service"),
            "hostler-job@storage.service.d/domain.conf",
        ),
        parts=("worker", "backup", "copier", "exports"),
    ),
    Domain(
        "ssl",
        (
            *("hostler-ssl.socket", "hostler-ssl.service"),
            *("hostler-ssl-reader.socket", "hostler-ssl-reader.service"),
            *("hostler-ssl-installer.socket", "hostler-ssl-installer.service"),
            *("hostler-ssl-installer.path", "hostler-ssl-renew.timer"),
            *("hostler-ssl-challenge.socket", "hostler-ssl-challenge.service"),
            *("hostler-ssl-signer.socket", "hostler-ssl-signer.service"),
            *("hostler-ssl-publish.timer", "hostler-ssl-publish.service"),
            *("hostler-ssl-responder.socket", "hostler-ssl-responder.service"),
        ),
        parts=("reader", "installer"),
    ),
)

# Taking back what is pending needs these, whichever domain's package is gone by then.
COMMON_UNITS = (
    *("hostler-restore@.service", "hostler-pending.path", "hostler-pending.service"),
    *("hostler-revert@.service", "hostler-launcher.socket", "hostler-launcher.service"),
    *("hostler-ship@.service", "hostler-job@.path", "hostler-job@.service"),
    *(f"hostler-revert@{domain.name}.service.d/domain.conf" for domain in DOMAINS),
)


def project_version() -> str:
    """The version in pyproject.toml; it names the packages and the code trees."""
    version: str = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    return version


def input_files() -> Iterator[Path]:
    """Every file that decides what the packages hold, in a fixed order."""
    for name in INPUTS:
        top = ROOT / name
        for path in [top] if top.is_file() else sorted(top.rglob("*")):
            parts = set(path.relative_to(ROOT).parts)
            is_built = path.is_relative_to(GENERATED) or path.name.endswith(".bpf.o")
            if path.is_file() and not parts & NEVER and not is_built:
                yield path


def fingerprint() -> str:
    """SHA-256 over the inputs and the interpreter's ABI, in hexadecimal."""
    digest = hashlib.sha256(sysconfig.get_config_var("SOABI").encode())
    for path in input_files():
        digest.update(f"\0{path.relative_to(ROOT)}\0{path.stat().st_mode:o}\0".encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def run(argv: Iterable[str | Path], cwd: Path | None = None) -> None:
    """Run one tool quietly; its output is shown only when it fails (CalledProcessError)."""
    environment = {**os.environ, "SOURCE_DATE_EPOCH": EPOCH, "LC_ALL": "C.UTF-8"}
    command = [str(word) for word in argv]
    done = subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=TIMEOUT_S
    )
    if done.returncode != 0:
        sys.stderr.write(done.stdout + done.stderr)
        done.check_returncode()


def pip(*words: str | Path) -> None:
    """Run pip of this interpreter; builds use its own locked tools, never fetched ones."""
    run([sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *words])


def build_wheel(scratch: Path) -> Path:
    """Build the wheel of the project from a copy of its sources, so that the tree stays as it is.

    The build hook swaps the generated stubs; in the tree itself that would pull them away from
    under a process that is importing them.
    """
    copy = scratch / "source"
    for path in input_files():
        target = copy / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, target)
    pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", scratch / "wheel", copy)
    (wheel,) = (scratch / "wheel").glob("*.whl")
    return wheel


def dependencies(lock: str, cache: Path) -> Path:
    """A folder with the locked dependencies, kept by the hash of the lock.

    systemd-python comes as source and is built here (needs libsystemd-dev and pkg-config).
    """
    content = (LOCKS / f"{lock}.txt").read_bytes() + sysconfig.get_config_var("SOABI").encode()
    kept = cache / f"{lock}-{hashlib.sha256(content).hexdigest()[:16]}"
    if not kept.is_dir():
        cache.mkdir(parents=True, exist_ok=True)
        for old in cache.glob(f"{lock}-*"):
            shutil.rmtree(old)
        fresh = cache / f".{lock}"
        shutil.rmtree(fresh, ignore_errors=True)
        pip(
            *("install", "--no-deps", "--no-build-isolation", "--no-compile", "--require-hashes"),
            *("--target", fresh, "-r", LOCKS / f"{lock}.txt"),
        )
        shutil.rmtree(fresh / "bin", ignore_errors=True)
        fresh.rename(kept)
    return kept


def code_tree(stage: Path, place: str, lock: str, cache: Path, wheel: Path) -> Path:
    """Fill `stage``place` with the locked dependencies and the wheel; answers that folder."""
    tree = stage / place.lstrip("/")
    shutil.copytree(dependencies(lock, cache), tree, symlinks=True)
    pip("install", "--no-deps", "--no-compile", "--upgrade", "--target", tree, wheel)
    shutil.rmtree(tree / "bin", ignore_errors=True)
    for record in tree.glob("*.dist-info/RECORD"):
        # Commands name the interpreter of the build; they are not shipped.
        lines = record.read_text().splitlines(keepends=True)
        record.write_text("".join(line for line in lines if not line.startswith("../../bin/")))
    # Where the wheel lay while it was built is nobody's business, and differs at every build.
    for note in ("direct_url.json", "RECORD"):
        (tree / f"hostler-{project_version()}.dist-info" / note).unlink()
    return tree


def bill_of_materials(tree: Path) -> str:
    """What lies in `tree`, from its metadata, as CycloneDX 1.5 JSON; equal trees, equal text."""
    components = []
    for place in sorted(tree.glob("*.dist-info")):
        found = PathDistribution(place).metadata
        name, version = found["Name"], found["Version"]
        components.append(
            {
                "type": "library",
                "name": name,
                "version": version,
                "purl": f"pkg:pypi/{re.sub(r'[-_.]+', '-', name).lower()}@{version}",
            }
        )
    document = {"bomFormat": "CycloneDX", "specVersion": "1.5", "version": 1}
    return json.dumps({**document, "components": components}, indent=1) + "\n"


def precompile(stage: Path, tree: Path) -> None:
    """Compile every module of `tree`; unchecked, since nobody edits what a package installed.

    Without it a cold start takes about three times as long.
    """
    run(
        [
            *(PYTHON, "-m", "compileall", "-q", "-j", "0", "--invalidation-mode"),
            *("unchecked-hash", "-s", stage, "-p", "/", tree),
        ]
    )


def put(stage: Path, place: str, content: str, mode: int = 0o644) -> None:
    """Write one file below `stage`, given by the path it will have on the host."""
    target = stage / place.lstrip("/")
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(content)
    target.chmod(mode)


def put_unit(stage: Path, name: str, version: str) -> None:
    """Install one unit file or drop-in with the version's paths filled in."""
    text = (UNITS / name).read_text().replace("@VERSION@", version)
    put(stage, f"/lib/systemd/system/{name}", text)


def stage_client(stage: Path, version: str, cache: Path, wheel: Path) -> None:
    """Stage hostler-client: its code tree, the command, and the modules for Ansible."""
    tree = code_tree(stage, f"/opt/hostler/{version}/client", "client", cache, wheel)
    shutil.rmtree(tree / "hostlerd")
    precompile(stage, tree)
    put(stage, f"/opt/hostler/{version}/client.cdx.json", bill_of_materials(tree))
    put(stage, "/usr/bin/hostler", START_CLIENT.format(version=version), 0o755)
    for unit in sorted((UNITS / "user").iterdir()):
        put(stage, f"/usr/lib/systemd/user/{unit.name}", unit.read_text())
    ignored = shutil.ignore_patterns(*NEVER)
    shutil.copytree(
        COLLECTIONS, stage / "usr/share/ansible/collections" / COLLECTIONS.name, ignore=ignored
    )


def stage_common(stage: Path, version: str, cache: Path, wheel: Path) -> None:
    """Stage hostler-common: code tree, users, layout, configuration, units of all domains."""
    tree = code_tree(stage, f"/opt/hostler/{version}/daemon", "daemon", cache, wheel)
    for part in (tree / "hostler").iterdir():
        if part.name not in DAEMON_PARTS:
            shutil.rmtree(part) if part.is_dir() else part.unlink()
    precompile(stage, tree)
    put(stage, f"/opt/hostler/{version}/daemon.cdx.json", bill_of_materials(tree))
    files = HERE / "files"
    put(stage, "/usr/lib/sysusers.d/hostler.conf", (files / "hostler.sysusers").read_text())
    put(stage, "/usr/lib/tmpfiles.d/hostler.conf", (files / "hostler.tmpfiles").read_text())
    put(stage, "/etc/hostler/hostler.toml", (files / "hostler.toml").read_text())
    domains = tuple(domain.name for domain in DOMAINS)
    start = START_ANY.format(version=version, domains=domains)
    put(stage, f"/opt/hostler/{version}/bin/hostlerd", start, 0o755)
    authority = START_DAEMON.format(version=version, domain="authority")
    put(stage, f"/opt/hostler/{version}/bin/hostlerd-authority", authority, 0o755)
    # Where enrolment finds it, whichever version is installed.
    joining = START_DAEMON.format(version=version, domain="joining")
    put(stage, "/usr/lib/hostler/join", joining, 0o755)
    ship = START_DAEMON.format(version=version, domain="runtime.audit_ship")
    put(stage, f"/opt/hostler/{version}/bin/hostlerd-ship", ship, 0o755)
    for name in COMMON_UNITS:
        put_unit(stage, name, version)
    # Armed by being installed: there is nothing to enable, and nothing that forgets to.
    wants = stage / "lib/systemd/system/paths.target.wants"
    wants.mkdir()
    (wants / "hostler-pending.path").symlink_to("../hostler-pending.path")


def stage_domain(stage: Path, domain: Domain, version: str) -> None:
    """Stage hostler-<domain>: its start script and units."""
    start = START_DAEMON.format(version=version, domain=domain.name)
    put(stage, f"/opt/hostler/{version}/bin/hostlerd-{domain.name}", start, 0o755)
    for part in domain.parts:
        start = START_DAEMON.format(version=version, domain=f"{domain.name}.{part}")
        put(stage, f"/opt/hostler/{version}/bin/hostlerd-{domain.name}-{part}", start, 0o755)
    for name in domain.units:
        put_unit(stage, name, version)
    # Looked after from the first boot on, as what is pending is.
    armed = {name: name for name in domain.units if name.endswith((".path", ".timer"))}
    if any(name.startswith("hostler-job@") for name in domain.units):
        armed[f"hostler-job@{domain.name}.path"] = "hostler-job@.path"
    for name, unit in armed.items():
        kind = name.rpartition(".")[2]
        wants = stage / f"lib/systemd/system/{kind}s.target.wants"
        wants.mkdir(exist_ok=True)
        (wants / name).symlink_to(f"../{unit}")


def pack(stage: Path, package: str, version: str, out: Path) -> Path:
    """Turn a staged tree into `out`/PACKAGE_VERSION_amd64.deb; answers its path.

    Every folder and file gets plain modes, whatever the umask of the build was.
    """
    for path in (stage, *stage.rglob("*")):
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
    size_kib = sum(p.lstat().st_size for p in stage.rglob("*") if p.is_file()) // 1024
    control = stage / "DEBIAN"
    control.mkdir()
    control.chmod(0o755)
    for source in sorted((HERE / package).iterdir()):
        text = source.read_text().replace("@VERSION@", version).replace("@SIZE@", str(size_kib))
        mode = 0o644 if source.name in {"control", "conffiles"} else 0o755
        put(control, source.name, text, mode)
    target = out / f"{package}_{version}_amd64.deb"
    # Fast compression: the packages are installed where they were built far more often than sent.
    run(["dpkg-deb", "--root-owner-group", "-Zgzip", "-z3", "--build", stage, target])
    return target


def build(out: Path) -> list[Path]:
    """Build all packages into `out`; answers their paths."""
    version = project_version()
    cache = out / ".dependencies"
    with tempfile.TemporaryDirectory(prefix="hostler-deb-") as place:
        scratch = Path(place)
        wheel = build_wheel(scratch)
        stages = {f"hostler-{d.name}": scratch / f"hostler-{d.name}" for d in DOMAINS}
        for domain in DOMAINS:
            stage_domain(stages[f"hostler-{domain.name}"], domain, version)
        for package, stage in (("hostler-client", stage_client), ("hostler-common", stage_common)):
            stages[package] = scratch / package
            stage(stages[package], version, cache, wheel)
        return [pack(stage, package, version, out) for package, stage in stages.items()]


def ensure(out: Path) -> bool:
    """Build unless the packages of these very inputs lie in `out`; answers whether it built.

    One build at a time: a second one waits, and then finds the work done.
    """
    out.mkdir(parents=True, exist_ok=True)
    stamp = out / "inputs.sha256"
    with (out / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        want = fingerprint()
        if stamp.is_file() and stamp.read_text().strip() == want:
            return False
        stamp.unlink(missing_ok=True)
        for old in out.glob("*.deb"):
            old.unlink()
        build(out)
        stamp.write_text(want + "\n")
    return True


def main() -> None:
    """Build, and print the packages."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "deb")
    out = parser.parse_args().out.resolve()
    state = "built" if ensure(out) else "unchanged"
    for package in sorted(out.glob("*.deb")):
        print(f"{state}: {package} ({package.stat().st_size / 1e6:.1f} MB)")


if __name__ == "__main__":
    main()
