"""Copies from host to host through a client: whole or not there, whoever is killed meanwhile."""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from hosts_witness import eventually
from storage_backups import described, odd_tree
from storage_copies import CopyWorld, copy_world

from hostler.aio import Client
from hostler.api.storage.v1 import copy_pb2 as pb
from hostler.api.storage.v1 import copy_pb2_grpc
from hostler.file_copies import Between, copy_between
from hostler.fleet import Fleet, Host
from hostler.results import CallFailed

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(180)]
MIB = 1 << 20
LARGE = 320 * MIB
# What a shell would run: it says how much it has relayed, once it has.
RELAY = """
import asyncio, sys
from hostler.aio import Client
from hostler.file_copies import Between, copy_between
from hostler.fleet import Fleet, Host

place, source, target = sys.argv[1:]
hosts = [Host(name, f"unix:{place}") for name in ("one", "two")]
say = lambda done, total: print(done, flush=True)
asyncio.run(copy_between(Client(None, Fleet()), hosts, Between(source, target), say))
"""


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CopyWorld]:
    place, root = (tmp_path_factory.mktemp(name) for name in ("daemon", "root"))
    with copy_world(place, root) as made:
        yield made


@pytest.fixture
def folder(host: CopyWorld, request: pytest.FixtureRequest) -> Iterator[Path]:
    made = host.root / request.node.originalname.removeprefix("test_")[:40]
    made.mkdir()
    yield made
    shutil.rmtree(made)


def large(folder: Path) -> Path:
    source = folder / "source"
    source.mkdir()
    with (source / "large").open("wb") as file:
        for _ in range(LARGE // (4 * MIB)):
            file.write(os.urandom(4 * MIB))
    (source / "small").write_bytes(b"small")
    return source


def relay(host: CopyWorld, source: Path, target: Path, **more: Any) -> tuple[Any, int]:
    """Copy; answer the outcome, and how many bytes were relayed."""
    hosts = [Host(name, f"unix:{host.place}") for name in ("one", "two")]
    relayed = [0]

    def say(done: int, total: int) -> None:
        relayed.append(done)

    wanted = Between(str(source), str(target), **more)
    return asyncio.run(copy_between(Client(None, Fleet()), hosts, wanted, say)), relayed[-1]


def left(folder: Path) -> list[Path]:
    return sorted(folder.glob(".hostler-copy-*"))


def begun(host: CopyWorld, source: Path, target: Path, least: int) -> subprocess.Popen[str]:
    """A client that has relayed so many bytes already."""
    argv = [sys.executable, "-c", RELAY, str(host.place), str(source), str(target)]
    client = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert client.stdout is not None
    for line in client.stdout:
        if int(line) > least:
            return client
    raise AssertionError(client.communicate())


def test_an_odd_tree_arrives_as_it_is(host: CopyWorld, folder: Path) -> None:
    (folder / "tree").mkdir()
    odd_tree(folder / "tree")
    before = described(folder / "tree")
    outcome, relayed = relay(host, folder / "tree", folder / "new", manifest=True)
    assert described(folder / "new") == before == described(folder / "tree")
    assert outcome.entries == len(before) and len(outcome.digest) == 64
    # Holes are not sent.
    assert relayed < 1 * MIB < (folder / "new/sparse").stat().st_size
    host.call("copy", "VerifyFiles", manifest=str(folder / "new.manifest"))
    with pytest.raises(CallFailed) as caught:
        relay(host, folder / "tree", folder / "new")
    assert caught.value.error.reason == "COPY_TARGET_EXISTS"
    with pytest.raises(CallFailed) as caught:
        relay(host, folder / "nothing", folder / "newer")
    assert caught.value.error.reason == "COPY_FAILED", caught.value
    assert not (folder / "newer").exists()


@pytest.mark.parametrize("killed", ["client", "copier", "daemon"])
def test_killed_in_the_middle_it_leaves_no_target_and_goes_on(
    host: CopyWorld, folder: Path, killed: str
) -> None:
    source, target = large(folder), folder / "new"
    client = begun(host, source, target, LARGE // 2)
    if killed == "client":
        client.kill()
    elif killed == "copier":
        host.kill_copier()
    else:
        host.daemon.kill_and_start()
    client.communicate(timeout=60)
    assert client.returncode != 0
    assert not target.exists() and len(left(folder)) == 1
    outcome, relayed = eventually(lambda: tried(host, source, target), 30)
    assert 0 < relayed < LARGE, "nothing of it was kept"
    assert outcome.resumed_bytes >= LARGE - relayed > 64 * MIB - 1
    assert digest(target / "large") == digest(source / "large")
    assert described_names(target) == ["large", "small"] and left(folder) == []
    print(f"\n{killed} killed: {relayed} of {LARGE} bytes relayed again")


def tried(host: CopyWorld, source: Path, target: Path) -> tuple[Any, int] | None:
    """A copy; None while the one that was cut has not been noticed to be gone."""
    try:
        return relay(host, source, target)
    except CallFailed as failed:
        assert failed.error.reason == "COPY_BUSY", failed
        return None


def described_names(folder: Path) -> list[str]:
    return sorted(one.name for one in folder.iterdir())


def digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def test_what_is_too_large_for_the_target_is_refused_while_it_is_sent(
    host: CopyWorld, folder: Path
) -> None:
    small = folder / "small"
    small.mkdir()
    subprocess.run(["/usr/bin/mount", "-t", "tmpfs", "-o", "size=64M", "tmpfs", small], check=True)
    try:
        source = large(folder)
        start = time.monotonic()
        with pytest.raises(CallFailed) as caught:
            relay(host, source, small / "new")
        assert caught.value.error.reason == "COPY_TARGET_FULL", caught.value
        assert time.monotonic() - start < 30
        assert list(small.iterdir()) == []
    finally:
        subprocess.run(["/usr/bin/umount", small], check=True)


def start(target: Path, **more: Any) -> pb.WriteFilesRequest:
    begin = pb.WriteFilesStart(target=str(target), source="one:/x", **more)
    return pb.WriteFilesRequest(start=begin)


def part(**fields: Any) -> pb.WriteFilesRequest:
    return pb.WriteFilesRequest(part=pb.FilePart(**fields))


FOLDER = pb.FileEntry(mode=0o40755)


@pytest.mark.parametrize(
    ("requests", "reason"),
    [
        ([part(begin=pb.FileBegin())], "INVALID_REQUEST"),
        (["start", "start"], "INVALID_REQUEST"),
        (["start", pb.WriteFilesRequest()], "INVALID_REQUEST"),
        (["start", part()], "INVALID_REQUEST"),
        (["start", part(data=pb.FileData(data=bytes(300_000)))], "INVALID_REQUEST"),
        (["start", part(data=pb.FileData(data=b"x"))], "COPY_MALFORMED"),
        (
            ["start", part(entry=FOLDER), part(entry=pb.FileEntry(path=b"../x", mode=0o40755))],
            "COPY_MALFORMED",
        ),
        (
            ["start", part(entry=FOLDER), part(end=pb.FileEnd(entries=1, digest="0" * 64))],
            "COPY_NOT_EQUAL",
        ),
        (["start", part(entry=FOLDER)], "COPY_CUT_OFF"),
    ],
)
def test_a_stream_that_makes_no_sense_is_refused(
    host: CopyWorld, folder: Path, requests: list[Any], reason: str
) -> None:
    target = folder / "new"
    messages = [start(target) if one == "start" else one for one in requests]
    with host.daemon.channel("alice") as channel:
        stub = copy_pb2_grpc.CopyServiceStub(channel)
        refused = host.refusal(lambda: list(stub.WriteFiles(iter(messages), timeout=30)))
    assert refused == reason
    assert not target.exists()
    # What was cut off is kept for the next one, what was refused is not.
    assert bool(left(folder)) == (reason == "COPY_CUT_OFF")


def test_only_who_is_as_good_as_root_reads_and_writes_streams(
    host: CopyWorld, folder: Path
) -> None:
    (folder / "file").write_text("a file")
    for user in ("vera", "olga"):
        with host.daemon.channel(user) as channel:
            stub = copy_pb2_grpc.CopyServiceStub(channel)
            calls = (
                lambda stub=stub: list(
                    stub.ReadFiles(pb.ReadFilesRequest(source=str(folder / "file")), timeout=30)
                ),
                lambda stub=stub: list(stub.WriteFiles(iter([start(folder / "new")]), timeout=30)),
            )
            for call in calls:
                with pytest.raises(grpc.RpcError) as caught:
                    call()
                assert caught.value.code() == grpc.StatusCode.PERMISSION_DENIED
    assert not (folder / "new").exists()
