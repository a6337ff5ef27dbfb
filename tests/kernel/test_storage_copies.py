"""Copies within a host: asked of the daemon, made by a program of its own, whole or not there."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
import storage_jobs
from foremost import foremost
from hosts_witness import eventually
from storage_backups import described, odd_tree
from storage_copies import CopyWorld, copy_world
from storage_programs import running_job

from hostler.api.common.v1 import job_pb2
from hostler.core.copying.contents import data_ranges

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(120)]
NOUN = "copy"
MIB = 1 << 20
LARGE = 600 * MIB


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
    """A file that takes long enough to be disturbed; most of it is sparse."""
    source = folder / "large"
    with source.open("wb") as file:
        for at in range(0, LARGE, 4 * MIB):
            file.seek(at)
            file.write(os.urandom(MIB))
        file.truncate(LARGE)
    return source


def left(folder: Path) -> list[Path]:
    """What a copy has left beside its target, under whatever name."""
    return sorted(folder.glob(".hostler-copy-*"))


def state(job: Any) -> str:
    return str(job_pb2.JobState.Name(job.state)).removeprefix("JOB_STATE_")


def test_an_odd_tree_is_copied_as_it_is_and_its_manifest_finds_a_changed_byte(
    host: CopyWorld, folder: Path
) -> None:
    odd_tree(folder / "tree")
    before = described(folder / "tree")
    asked: dict[str, Any] = {"source": str(folder / "tree"), "target": str(folder / "new")}
    planned = host.call(NOUN, "CopyFiles", manifest=True, change={"validate_only": True}, **asked)
    assert planned.change.changed and not planned.HasField("outcome")
    assert not (folder / "new").exists()
    made = host.call(NOUN, "CopyFiles", manifest=True, **asked)
    assert made.change.changed and made.outcome.entries == len(before)
    assert described(folder / "new") == before
    sparse = folder / "new/sparse"
    assert sparse.stat().st_blocks * 512 < 1 * MIB < sparse.stat().st_size
    assert host.refusal(lambda: host.call(NOUN, "CopyFiles", **asked)) == "COPY_TARGET_EXISTS"
    manifest = str(folder / "new.manifest")
    whole = host.call(NOUN, "VerifyFiles", manifest=manifest).outcome
    assert (whole.entries, whole.files) == (made.outcome.entries, made.outcome.files)
    with (folder / "new/noise").open("r+b") as file:
        file.seek(123_456)
        byte = file.read(1)
        file.seek(123_456)
        file.write(bytes([byte[0] ^ 1]))
    with pytest.raises(grpc.RpcError) as caught:
        host.call(NOUN, "VerifyFiles", manifest=manifest)
    assert "noise: the contents are not what was copied [CONTENTS]" in caught.value.details()
    assert left(folder) == []


def test_a_job_tells_how_far_it_is_and_cancelled_leaves_nothing(
    host: CopyWorld, folder: Path
) -> None:
    asked = {"source": str(large(folder)), "target": str(folder / "new")}
    name, process = storage_jobs.begin(host, NOUN, "CopyFiles", **asked)
    with begun_to_write(folder):
        # It is held until the job has been told, so that it does not end before.
        host.copier.send_signal(signal.SIGSTOP)
    storage_jobs.cancel(host, name)
    time.sleep(1)
    host.copier.send_signal(signal.SIGCONT)
    seen = storage_jobs.told(host, name, process)
    assert state(seen[-1]) == "CANCELLED", seen[-1]
    progress = seen[-1].progress
    assert (progress.unit, progress.total) == ("bytes", 2 * LARGE) and 0 < progress.done
    assert not (folder / "new").exists()
    eventually(lambda: not left(folder), 10)
    storage_jobs.done(host, NOUN, "CopyFiles", **asked)
    assert (folder / "new").read_bytes() == (folder / "large").read_bytes()


def test_the_program_killed_in_the_middle_leaves_no_target_and_the_next_request_goes_on(
    host: CopyWorld, folder: Path
) -> None:
    source, target = large(folder), folder / "new"
    asked = {"source": str(source), "target": str(target)}
    name, process = storage_jobs.begin(host, NOUN, "CopyFiles", manifest=True, **asked)
    with begun_to_write(folder) as staged:
        host.kill_copier()
    (job,) = storage_jobs.told(host, name, process)[-1:]
    assert state(job) == "INTERRUPTED", job
    assert "goes on with what it left" in job.error.message and job.resume
    assert not target.exists() and written(staged)
    # Another one beside it leaves that alone; what is of another source is removed, and said so.
    (folder / "small").write_bytes(b"small")
    host.call(NOUN, "CopyFiles", source=str(folder / "small"), target=str(folder / "twin"))
    assert written(staged)
    asked["manifest"] = True
    planned = host.call(NOUN, "CopyFiles", change={"validate_only": True}, **asked).change
    assert [one.code for one in planned.warnings] == ["COPY_RESUMED"]
    made = host.call(NOUN, "CopyFiles", **asked).outcome
    assert 0 < made.resumed_bytes < LARGE and not made.begun_anew
    assert target.read_bytes() == source.read_bytes()
    assert data_of(target) == data_of(source)
    assert host.call(NOUN, "VerifyFiles", manifest=f"{target}.manifest").outcome.files == 1
    assert left(folder) == []
    print(f"\nresumed {made.resumed_bytes} of {LARGE} bytes")


def data_of(path: Path) -> list[tuple[int, int]]:
    with path.open("rb") as file:
        return list(data_ranges(file.fileno(), path.stat().st_size))


@contextmanager
def begun_to_write(folder: Path) -> Iterator[Path]:
    """What a copy writes to, as soon as it has written something; the copy is over in a moment."""
    end_s = time.monotonic() + 30
    with foremost():
        while not (grown := [p for p in folder.glob(".hostler-copy-*/copy") if written(p)]):
            assert time.monotonic() < end_s
            time.sleep(0.002)
        (staged,) = grown
        yield staged


def written(path: Path) -> bool:
    return path.stat().st_blocks * 512 > 4 * MIB


@pytest.mark.parametrize(
    "damage", ["a byte of the copy", "the source", "a hole in the source", "another source"]
)
def test_what_was_left_is_never_taken_for_more_than_it_is(
    host: CopyWorld, folder: Path, damage: str
) -> None:
    source, target = large(folder), folder / "new"
    asked = {"source": str(source), "target": str(target)}
    name, process = storage_jobs.begin(host, NOUN, "CopyFiles", **asked)
    with begun_to_write(folder) as staged:
        host.kill_copier()
    storage_jobs.told(host, name, process)
    if damage == "another source":
        (folder / "other").write_bytes(b"other" * MIB)
        source = folder / "other"
        asked["source"] = str(source)
    elif damage == "a hole in the source":
        os.truncate(source, 3)
        os.truncate(source, LARGE)
    else:
        changed = staged if damage == "a byte of the copy" else source
        with changed.open("r+b") as file:
            file.seek(3)
            byte = file.read(1)
            file.seek(3)
            file.write(bytes([byte[0] ^ 128]))
    made = host.call(NOUN, "CopyFiles", **asked).outcome
    assert target.read_bytes() == source.read_bytes()
    assert made.resumed_bytes == 0
    assert made.begun_anew == (damage == "another source")
    assert data_of(target) == data_of(source)


def test_a_job_that_is_killed_says_that_the_copy_goes_on(host: CopyWorld, folder: Path) -> None:
    source, target = large(folder), folder / "new"
    name, process = storage_jobs.begin(
        host, NOUN, "CopyFiles", source=str(source), target=str(target)
    )
    eventually(lambda: storage_jobs.get(host, name).progress.unit == "bytes", 30)
    process.kill()
    process.wait()
    # The next process of jobs looks what became of it.
    with running_job(host) as next_one:
        (job,) = storage_jobs.told(host, name, next_one)[-1:]
    assert state(job) == "INTERRUPTED" and "goes on without this job" in job.error.message
    eventually(target.exists, 60)
    assert target.read_bytes() == source.read_bytes()


def test_nothing_leads_out_of_the_folders_that_are_declared(host: CopyWorld, folder: Path) -> None:
    outside = host.place / "outside"
    outside.mkdir()
    (outside / "secret").write_text("not to be copied")
    (folder / "link").symlink_to(outside)
    (folder / "file").write_text("a file")

    def refused(source: Path, target: Path) -> str:
        return host.refusal(
            lambda: host.call(NOUN, "CopyFiles", source=str(source), target=str(target))
        )

    assert refused(outside / "secret", folder / "new") == "COPY_OUTSIDE"
    assert refused(folder / "file", outside / "new") == "COPY_OUTSIDE"
    assert refused(folder / "link/secret", folder / "new") == "COPY_OUTSIDE"
    assert refused(folder / "file", folder / "link/new") == "COPY_OUTSIDE"
    assert refused(host.root, folder / "new") == "INVALID_REQUEST"
    assert refused(folder / "file", host.root) == "COPY_OUTSIDE"
    assert refused(folder / "file", folder / "file") == "INVALID_REQUEST"
    up = f"{folder}/../../{outside.name}/secret"
    assert refused(Path(up), folder / "new") == "INVALID_REQUEST"
    verify = lambda: host.call(NOUN, "VerifyFiles", manifest=str(outside / "secret"))  # noqa: E731
    assert host.refusal(verify) == "COPY_OUTSIDE"
    # A symlink itself is copied as one.
    host.call(NOUN, "CopyFiles", source=str(folder / "link"), target=str(folder / "new"))
    assert (folder / "new").readlink() == outside
    assert sorted(one.name for one in outside.iterdir()) == ["secret"]
    assert left(folder) == left(outside) == []


def test_a_folder_that_becomes_a_symlink_again_and_again_leads_nobody_out(
    host: CopyWorld, folder: Path
) -> None:
    outside = host.place / "beyond"
    outside.mkdir()
    (folder / "file").write_text("a file")
    (folder / "real").mkdir()
    (folder / "other").symlink_to(outside)
    swap = (
        "import ctypes, sys\nlibc = ctypes.CDLL(None)\na, b = (w.encode() for w in sys.argv[1:])\n"
        "while True: libc.renameat2(-100, a, -100, b, 2)"
    )
    words = [sys.executable, "-c", swap, str(folder / "real"), str(folder / "other")]
    swapper = subprocess.Popen(words)
    reasons: dict[str, int] = {}
    try:
        end = time.monotonic() + 4
        while time.monotonic() < end:
            target = str(folder / "real" / f"new{len(reasons)}-{sum(reasons.values())}")
            try:
                host.call(NOUN, "CopyFiles", source=str(folder / "file"), target=target)
                reason = "copied"
            except grpc.RpcError as e:
                reason = e.details()
                reason = "refused" if "symlink" in reason else reason
            reasons[reason] = reasons.get(reason, 0) + 1
    finally:
        swapper.kill()
        swapper.wait()
    assert list(outside.iterdir()) == []
    assert {"copied", "refused"} <= set(reasons), reasons
    print(f"\n{reasons}")


@pytest.mark.parametrize(
    "text",
    [
        '[copies]\nroots = ["/"]\n',
        '[copies]\nroots = ["/etc/hostler/x"]\n',
        '[copies]\nroots = ["/var/lib"]\n',
        '[copies]\nroots = ["srv"]\n',
        '[copies]\nroots = "/srv"\n',
        "copies = 1\n",
        "[copies\n",
    ],
)
def test_a_declaration_that_cannot_be_meant_stops_all_copies(host: CopyWorld, text: str) -> None:
    file = host.place / "storage.d/wrong.toml"
    file.write_text(text)
    try:
        asked = {"source": f"{host.root}/a", "target": f"{host.root}/b"}
        reason = host.refusal(lambda: host.call(NOUN, "CopyFiles", **asked))
        assert reason == "COPY_ROOTS_UNUSABLE"
        file.write_text("[copies]\nroots = []\n")
        file.chmod(0o666)
        reason = host.refusal(lambda: host.call(NOUN, "CopyFiles", **asked))
        assert reason == "COPY_ROOTS_UNUSABLE"
    finally:
        file.unlink()


def test_who_may_not_change_may_not_copy(host: CopyWorld) -> None:
    asked = {"source": f"{host.root}/a", "target": f"{host.root}/b"}
    for method, fields in (("CopyFiles", asked), ("VerifyFiles", {"manifest": "/x"})):
        with pytest.raises(grpc.RpcError) as caught:
            host.call(NOUN, method, "vera", **fields)
        assert caught.value.code() == grpc.StatusCode.PERMISSION_DENIED


def test_the_command_has_a_host_copy_as_a_job(host: CopyWorld, folder: Path) -> None:
    (folder / "file").write_text("a file")
    here = f"local:{folder}"
    told = host.command("--yes", "storage", "copy", f"{here}/file", f"{here}/new", "--manifest")
    assert "jobs/" in told or "job" in told, told
    with running_job(host) as process:
        assert process.wait(30) == 0
    assert (folder / "new").read_text() == "a file"
    host.command("--yes", "storage", "verify", f"{here}/new.manifest")
    with running_job(host) as process:
        assert process.wait(30) == 0
    mixed = host.command("storage", "copy", f"{here}/file", "/x", status=2)
    assert "from host to host" in mixed
    planned = host.command("--plan", "storage", "copy", f"{here}/file", "h:/x")
    assert planned == f"Would copy {here}/file to h:/x, through this machine.\n"
    told = host.command(
        "--yes", "storage", "verify", "--redundancy", f"{here}/new.manifest", status=1
    )
    assert "NO_REDUNDANCY" in told, told
