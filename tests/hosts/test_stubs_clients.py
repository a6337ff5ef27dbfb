"""Stubs made of protos/ alone, without any code of Hostler's, drive a real host.

The host's own tools are the witnesses that what a client was told has happened.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import google.rpc
import pytest
import security_lab as support
from grpc_tools import protoc

from hostler.lab.host import Host
from hostler.lab.lab import Lab

pytestmark = [pytest.mark.hosts, pytest.mark.timeout(400)]

CHECKOUT = Path(__file__).resolve().parents[2]
PROTOS = CHECKOUT / "protos"
CLIENTS = Path(__file__).parent / "stubs"
WELL_KNOWN = Path(protoc.__file__).parent / "_proto"
# Public packages of Python; google/rpc/*.proto, for the details of errors, lie there too.
PACKAGES = Path(google.rpc.__path__[0]).parents[1]
TYPESCRIPT = CHECKOUT / "build" / "stubs-typescript"
GO = CHECKOUT / "build" / "stubs-go"
ERRORS = ("google/rpc/status.proto", "google/rpc/error_details.proto")
ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LC_ALL": "C.UTF-8"}


def generate(*outputs: str, more: tuple[str, ...] = ()) -> None:
    """Run protoc over protos/, and over `more` of the public ones."""
    sources = sorted(str(path.relative_to(PROTOS)) for path in PROTOS.rglob("*.proto"))
    folders = [f"-I{folder}" for folder in (PROTOS, WELL_KNOWN, PACKAGES)]
    argv = [sys.executable, "-m", "grpc_tools.protoc", *folders, *outputs, *sources, *more]
    done = subprocess.run(
        argv, env=ENVIRONMENT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture
def pki(lab: Lab, tmp_path: Path) -> Path:
    """What a client is given: the CA, a certificate, its key."""
    shutil.copy(lab.pki / "ca.pem", tmp_path)
    for kind in ("pem", "key"):
        shutil.copy(lab.pki / "users" / f"operator.{kind}", tmp_path / f"user.{kind}")
    return tmp_path


def python_client(folder: Path) -> list[str]:
    generate(f"--python_out={folder}", f"--grpc_python_out={folder}")
    # -I and -S: neither the environment nor .pth files can bring Hostler in.
    client = str(CLIENTS / "python" / "client.py")
    return [sys.executable, "-I", "-S", client, str(folder), str(PACKAGES)]


def install_typescript() -> None:
    """Install the locked public packages, once for each lock."""
    source = CLIENTS / "typescript"
    with alone(TYPESCRIPT):
        stamp, wanted = TYPESCRIPT / "installed", (source / "package-lock.json").read_bytes()
        if stamp.exists() and stamp.read_bytes() == wanted:
            return
        for name in ("package.json", "package-lock.json"):
            shutil.copy(source / name, TYPESCRIPT)
        argv = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
        # Its registry may be configured in the environment or in a file of the user's.
        ran(argv, TYPESCRIPT, os.environ)
        stamp.write_bytes(wanted)


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """A folder that other processes of the run keep away from meanwhile."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def ran(argv: list[str], folder: Path, environment: Mapping[str, str]) -> None:
    done = subprocess.run(
        argv, cwd=folder, env=environment, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stdout + done.stderr


def typescript_client(folder: Path) -> list[str]:
    """Strict types: what the stubs do not say, the compiler refuses."""
    install_typescript()
    (folder / "gen").mkdir()
    commands = TYPESCRIPT / "node_modules" / ".bin"
    generate(
        f"--plugin=protoc-gen-es={commands / 'protoc-gen-es'}",
        f"--es_out={folder / 'gen'}",
        "--es_opt=target=ts,import_extension=js",
        more=ERRORS,
    )
    for name in ("client.ts", "tsconfig.json", "package.json"):
        shutil.copy(CLIENTS / "typescript" / name, folder)
    ran([str(commands / "tsc"), "-p", "."], folder, ENVIRONMENT)
    return ["node", str(folder / "client.js")]


def go_client(folder: Path) -> list[str]:
    """The plugins and the client, compiled of locked public modules (go.sum)."""
    shutil.copytree(CLIENTS / "go", folder, dirs_exist_ok=True)
    # Where modules come from may be configured in the environment; what was compiled is kept.
    environment = {
        **os.environ,
        **{"GOBIN": str(GO / "bin"), "GOCACHE": str(GO / "cache"), "GOFLAGS": "-mod=readonly"},
        **{"GOTOOLCHAIN": "local", "CGO_ENABLED": "0"},
    }
    plugins = ("google.golang.org/protobuf/cmd/protoc-gen-go",)
    plugins += ("google.golang.org/grpc/cmd/protoc-gen-go-grpc",)
    with alone(GO):
        ran(["go", "install", *plugins], folder, environment)
    packages = [
        f"M{source}=stubs/gen/{source.parent}"
        for source in sorted(path.relative_to(PROTOS) for path in PROTOS.rglob("*.proto"))
    ]
    options = ",".join(["module=stubs", *packages])
    generate(
        *(
            f"--plugin=protoc-gen-{each}={GO / 'bin'}/protoc-gen-{each}"
            for each in ("go", "go-grpc")
        ),
        *(f"--{each}_out={options}:{folder}" for each in ("go", "go-grpc")),
    )
    ran(["go", "build", "-o", "client", "."], folder, environment)
    return [str(folder / "client")]


@pytest.fixture
def folder() -> Iterator[Path]:
    """For stubs; in the tree of build/, where Node finds the packages by going up."""
    TYPESCRIPT.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=TYPESCRIPT) as scratch:
        yield Path(scratch)


@pytest.mark.parametrize("make", [python_client, typescript_client, go_client])
def test_stubs_alone_drive_a_host(
    lab: Lab, h1: Host, pki: Path, folder: Path, make: Callable[[Path], list[str]]
) -> None:
    name = f"stubs-{secrets.token_hex(3)}"
    argv = [*make(folder), f"{h1.ipv4}:7441", h1.name, str(pki), name]
    try:
        seen, there = drive(argv, h1, name)
    finally:
        left = name in h1.run(["ip", "netns", "list"]).stdout.split()
        if left:
            support.hostler(lab, "-H", h1.name, "--yes", "netns", "delete", name)
    assert seen.pop("host") == {
        "hostname": h1.name,
        "domain": "netns",
        "caller": "spiffe://lab.hostler/user/operator",
    }
    plan = seen.pop("plan")
    assert plan["outcome"] == "OUTCOME_PLANNED"
    assert plan["steps"] != []
    assert seen.pop("create") == {"outcome": "OUTCOME_APPLIED", "changed": True}
    assert name in seen.pop("list")["names"]
    assert seen.pop("watch")["readings"] == [{"seq": n, "links": ["lo"]} for n in (1, 2)]
    error = {"code": "INVALID_ARGUMENT", "reason": "INVALID_REQUEST", "domain": "hostler"}
    assert seen.pop("error") == {**error, "fields": ["namespace.name"]}
    assert seen.pop("delete") == {"changed": True}
    assert seen == {}
    assert there == {"plan": False, "create": True, "list": True, "watch": True} | {
        "host": False,
        "error": True,
        "delete": False,
    }


def drive(argv: list[str], host: Host, name: str) -> tuple[dict[str, Any], dict[str, bool]]:
    """Run a client; answer what it told, and whether the namespace was there each time."""
    seen, there = {}, {}
    pipe = subprocess.PIPE
    with subprocess.Popen(
        argv, text=True, env=ENVIRONMENT, stdin=pipe, stdout=pipe, stderr=pipe
    ) as client:
        try:
            for line in client.stdout or ():
                told = json.loads(line)
                did = told.pop("did")
                seen[did] = told
                there[did] = name in host.run(["ip", "netns", "list"]).stdout.split()
                assert client.stdin
                client.stdin.write("\n")
                client.stdin.flush()
            assert client.wait(30) == 0, client.stderr and client.stderr.read()
        finally:
            client.kill()
    return seen, there


def test_the_lock_names_no_registry() -> None:
    """Packages are told by version and hash; where they come from is the machine's affair."""
    lock = json.loads((CLIENTS / "typescript" / "package-lock.json").read_text())
    packages = {name: entry for name, entry in lock["packages"].items() if name}
    assert all("resolved" not in entry for entry in packages.values())
    assert all(entry["integrity"].startswith("sha512-") for entry in packages.values())
