"""Copies are equal in all that other tools see, were on the disk, and are whole or not there."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hosts_witness import eventually

from hostler.core.copying.copy import Copied, copy
from hostler.core.copying.refused import CopyRefused
from hostler.core.copying.verify import load, verify

pytestmark = pytest.mark.kernel

HOLES = 3333
MIB = 1 << 20
STRACE = "/usr/bin/strace"
NOBODY = 65534
COPY = (
    "import sys; from pathlib import Path; from hostler.core.copying.copy import copy; "
    "copy(Path(sys.argv[1]), Path(sys.argv[2]), with_manifest=True)"
)


def run(*argv: str | Path | bytes, cwd: Path | None = None) -> bytes:
    done = subprocess.run(argv, capture_output=True, timeout=60, check=False, cwd=cwd)
    assert done.returncode == 0, (argv, done.stdout, done.stderr)
    return done.stdout


@contextmanager
def disk(folder: Path, name: str, size_mib: int) -> Iterator[Path]:
    """An ext4 on a loop device; its image is NAME.img."""
    image, place = folder / f"{name}.img", folder / name
    with image.open("wb") as file:
        file.truncate(size_mib * MIB)
    run("/usr/sbin/mkfs.ext4", "-q", "-m", "0", image)
    place.mkdir()
    run("/usr/bin/mount", "-o", "loop,strictatime", image, place)
    try:
        yield place
    finally:
        run("/usr/bin/umount", place)


@pytest.fixture(scope="module")
def ext4() -> Iterator[Path]:
    with TemporaryDirectory(prefix="hostler-copies-") as folder:
        Path(folder).chmod(0o755)  # A user copies there too.
        with disk(Path(folder), "disk", 256) as place:
            yield place


@pytest.fixture
def place(ext4: Path, request: pytest.FixtureRequest) -> Path:
    folder = ext4 / re.sub(r"\W", "_", request.node.name)
    folder.mkdir()
    return folder


def sparse(path: Path, holes: int) -> None:
    """Data of 4 KiB after each hole of 4 KiB, and a hole at the end."""
    with path.open("wb") as file:
        for number in range(holes - 1):
            file.seek(8192 * number + 4096)
            file.write(hashlib.sha256(b"%d" % number).digest() * 128)
        file.truncate(8192 * holes)


def odd_tree(root: Path) -> None:
    root.mkdir()
    (root / "empty").touch()
    sparse(root / "sparse", HOLES)
    (root / "hole").touch()
    os.truncate(root / "hole", 9 * MIB + 5)
    (root / "large").write_bytes(os.urandom(9 * MIB + 77))
    for name in (b"line\nbreak", b"\xff\xfe not text", b"n" * 255, b"-rf", b" '\"*$`\\ "):
        Path(os.fsdecode(os.fsencode(root) + b"/" + name)).write_bytes(name)
    (root / "link").symlink_to("sparse")
    (root / "dangling").symlink_to("/nowhere/at all")
    os.mkfifo(root / "fifo", 0o640)
    os.mknod(root / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    with socket.socket(socket.AF_UNIX) as bound:
        here = os.open(root, os.O_RDONLY)
        bound.bind(f"/proc/self/fd/{here}/socket")
        os.close(here)
    os.link(root / "large", root / "second name")
    (root / "set-id").write_bytes(b"#!")
    os.chown(root / "set-id", 1234, 5678)
    (root / "set-id").chmod(0o6755)
    (root / "forbidden").write_bytes(b"to all")
    (root / "forbidden").chmod(0)
    (root / "acl").write_bytes(b"acl")
    run("/usr/bin/setfacl", "-m", "u:4321:rw,g:99:x", root / "acl")
    (root / "xattr").write_bytes(b"xattr")
    os.setxattr(root / "xattr", "user.odd", bytes(range(256)))
    os.setxattr(root / "xattr", "trusted.kept", b"by root")
    (root / "able").write_bytes(b"capable")
    run("/usr/sbin/setcap", "cap_net_raw+ep", root / "able")
    folder = root / "folder"
    folder.mkdir()
    os.link(root / "set-id", folder / "the same")
    run("/usr/bin/setfacl", "-d", "-m", "u:4321:rwx", folder)
    (folder / "below").mkdir(mode=0o500)
    folder.chmod(0o3751)
    os.utime(root / "empty", ns=(1, 1_000_000_007))
    os.utime(root / "dangling", ns=(5, 4_102_444_800_123_456_789), follow_symlinks=False)
    os.utime(folder, ns=(7, 86_400_000_000_001))


def witnessed(root: Path) -> dict[str, bytes]:
    """What find, getfacl, getfattr, sha256sum and stat say of a tree."""
    find = ("/usr/bin/find", ".", "-printf")
    told = {"find": run(*find, r"%P\0%y %m %U %G %n %T@ %l\0\n", cwd=root)}
    sizes = run("/usr/bin/find", ".", "-type", "f", "-printf", r"%P %s\0\n", cwd=root)
    told["sizes"] = sizes
    told["devices"] = run("/usr/bin/stat", "--format=%t:%T", "null", cwd=root)
    told["acls"] = run("/usr/bin/getfacl", "--recursive", "--numeric", "--physical", ".", cwd=root)
    attributes = ("/usr/bin/getfattr", "-R", "-h", "-P", "-d", "-m", "-", "-e", "hex", ".")
    told["xattrs"] = run(*attributes, cwd=root)
    hashes = (*find[:2], "-type", "f", "-exec", "/usr/bin/sha256sum", "{}", ";")
    told["contents"] = run(*hashes, cwd=root)
    return {key: b"\n".join(sorted(value.split(b"\n"))) for key, value in told.items()}


def read_at(root: Path, paths: list[Path]) -> list[int]:
    """When each was read last. To look for them would be to read folders."""
    return [(root / path).lstat().st_atime_ns for path in paths]


def extents(path: Path) -> list[tuple[int, int]]:
    """Logical begin and length, in blocks, of what filefrag says has data."""
    listed = run("/usr/sbin/filefrag", "-v", path).decode()
    found: list[tuple[int, int]] = []
    for first, last in re.findall(r"^ *\d+: +(\d+)\.\. +(\d+):", listed, re.MULTILINE):
        begin, length = int(first), int(last) - int(first) + 1
        if found and sum(found[-1]) == begin:  # Where on the disk it is torn is no matter of ours.
            found[-1] = (found[-1][0], found[-1][1] + length)
        else:
            found.append((begin, length))
    return found


def left(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@contextmanager
def stopped(argv: list[str | Path], call: str, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run until the first such call, and stop there."""
    inject = f"--inject={call}:signal=SIGSTOP:when=1"
    traced = [STRACE, "-f", "-o", log, "-e", f"trace={call}", inject, *argv]
    with subprocess.Popen(traced, stderr=subprocess.PIPE) as process:
        try:
            eventually(lambda: log.exists() and "stopped by SIGSTOP" in log.read_text())
            yield process
        finally:
            process.kill()


def go_on(process: subprocess.Popen[bytes]) -> tuple[int, str]:
    child = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
    os.kill(int(child), signal.SIGCONT)
    _, told = process.communicate(timeout=60)
    return process.returncode, told.decode()


def command(source: Path, target: Path) -> list[str | Path]:
    return [sys.executable, "-c", COPY, source, target]


def test_a_sparse_file_and_20_odd_files_are_equal_to_other_tools(place: Path) -> None:
    odd_tree(place / "tree")
    before = witnessed(place / "tree")
    paths = [path.relative_to(place / "tree") for path in (place / "tree").rglob("*")]
    read = read_at(place / "tree", paths)
    copied = copy(place / "tree", place / "copy")
    assert read_at(place / "copy", paths) == read
    # Whoever reads a link leaves a trace.
    files = [path for path in paths if not (place / "tree" / path).is_symlink()]
    assert read_at(place / "tree", files) == read_at(place / "copy", files)
    after = witnessed(place / "copy")
    assert len(before["find"].split(b"\0\n")) > 21
    for key, told in before.items():
        assert after[key] == told, key
    assert left(place) == {"tree", "copy"}
    assert copied.entries == len(paths) + 1
    for name in ("large", "set-id"):
        other = {"large": "second name", "set-id": "folder/the same"}[name]
        assert (place / "copy" / name).samefile(place / "copy" / other)
    for name in ("sparse", "hole", "large"):
        assert extents(place / "copy" / name) == extents(place / "tree" / name)
    assert len(extents(place / "copy/sparse")) == HOLES - 1


def test_a_copy_is_on_the_disk_and_read_from_it_before_it_has_its_name(place: Path) -> None:
    (place / "file").write_bytes(os.urandom(MIB))
    told = place / "trace"
    traced = "trace=pwrite64,fsync,fadvise64,preadv,preadv2,renameat2"
    trace = [STRACE, "-f", "-qq", "-y", "-o", told, "-e", traced]
    run(*trace, *command(place / "file", place / "copy"))
    copied = rf"\(\d+<{place}/\.hostler-copy-\w+/copy>, "
    folder = rf"\(\d+<{place}/\.hostler-copy-\w+>, "
    steps = (
        f"pwrite64{copied}",
        rf"fsync{copied[:-2]}\)",
        rf"fadvise64{copied}0, 0, POSIX_FADV_DONTNEED\) = 0",
        f"preadv2?{copied}",
        rf"renameat2{folder}\"copy\", \d+<{place}>, \"copy\", RENAME_NOREPLACE\) = 0",
        rf"fsync\(\d+<{place}>\)",
    )
    assert re.search(".*".join(steps), told.read_text(), re.DOTALL), told.read_text()


def test_what_the_disk_changed_silently_is_no_copy(tmp_path: Path) -> None:
    with disk(tmp_path, "disk", 32) as place:
        (tmp_path / "source").write_bytes(os.urandom(3 * MIB))
        # It stops where all is about to go to the disk, and all is there by then.
        argv = command(tmp_path / "source", place / "copy")
        with stopped(argv, "fsync", tmp_path / "log") as process:
            run("/usr/bin/sync", "--file-system", place)
            damage(tmp_path / "disk.img", (tmp_path / "source").read_bytes()[2 * MIB :][:4096])
            status, told = go_on(process)
        assert status == 1
        assert "the disk answers something else than was written" in told
        assert left(place) == {"lost+found"}


def damage(image: Path, data: bytes) -> None:
    """Write something else where a disk has these data."""
    at = image.read_bytes().index(data)
    with image.open("r+b") as file:
        file.seek(at + 100)
        file.write(bytes(8))


@pytest.mark.parametrize(
    "at",
    [
        "mkdirat:1",
        "ftruncate:1",
        "pwrite64:1",
        "pwrite64:3",
        "fsync:1",
        "lsetxattr:1",
        "utimensat:2",
        "fsync:3",
        "renameat2:1",
    ],
)
def test_a_copy_killed_on_the_way_leaves_no_target(place: Path, at: str) -> None:
    source = place / "tree"
    source.mkdir()
    (source / "file").write_bytes(os.urandom(9 * MIB))
    os.setxattr(source / "file", "user.a", b"1")
    (source / "second").write_bytes(b"2")
    call, _, when = at.partition(":")
    inject = f"--inject={call}:signal=SIGKILL:when={when}"
    trace = [STRACE, "-f", "-qq", "-o", "/dev/null", "-e", f"trace={call}", inject]
    killed = subprocess.run([*trace, *command(source, place / "copy")], timeout=60, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert "copy" not in left(place)
    assert "copy.manifest" not in left(place)
    copy(source, place / "another")  # To any name in that folder.
    assert left(place) == {"tree", "another"}


def refused(source: Path, target: Path) -> CopyRefused:
    with pytest.raises(CopyRefused) as caught:
        copy(source, target, with_manifest=True)
    return caught.value


def change(tree: Path, how: str) -> None:
    file = tree / "file"
    if how == "longer":
        with file.open("ab") as opened:
            opened.write(b"2")
    elif how == "shorter":
        os.truncate(file, 10)
    elif how == "replaced":
        (tree.parent / "new").write_bytes(file.read_bytes())
        (tree.parent / "new").rename(file)
    elif how == "mode":
        file.chmod(0o600)
    elif how == "new":
        (tree / "new").touch()
    else:
        (tree / "last").unlink()


@pytest.mark.parametrize("how", ["longer", "shorter", "replaced", "mode", "new", "gone"])
def test_a_source_that_changes_meanwhile_is_not_copied(
    place: Path, tmp_path: Path, how: str
) -> None:
    source = place / "tree"
    source.mkdir()
    (source / "file").write_bytes(b"1" * 5000)
    (source / "last").touch()
    with stopped(command(source, place / "copy"), "fsync", tmp_path / "log") as process:
        change(source, how)
        status, told = go_on(process)
    assert status == 1
    assert "changed while it was copied" in told or (how == "gone" and "No such file" in told)
    assert left(place) == {"tree"}


def test_a_full_target_is_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(os.urandom(12 * MIB))
    with disk(tmp_path, "disk", 10) as place:
        free = os.statvfs(place).f_bfree
        assert refused(tmp_path / "source", place / "copy").reason == "TARGET_FULL"
        assert left(place) == {"lost+found"}
        eventually(lambda: os.statvfs(place).f_bfree == free)


def test_what_is_there_stays(place: Path) -> None:
    (place / "source").write_bytes(b"new")
    (place / "copy").write_bytes(b"old")
    assert refused(place / "source", place / "copy").reason == "TARGET_EXISTS"
    (place / "copy").rename(place / "other.manifest")
    found = refused(place / "source", place / "other")
    assert (found.reason, found.path) == ("TARGET_EXISTS", str(place / "other.manifest"))
    assert left(place) == {"source", "other.manifest"}
    assert (place / "other.manifest").read_bytes() == b"old"


@pytest.mark.parametrize("name", ["copy", "copy.manifest"])
def test_what_comes_meanwhile_stays(place: Path, tmp_path: Path, name: str) -> None:
    (place / "source").write_bytes(b"new")
    argv = command(place / "source", place / "copy")
    with stopped(argv, "fsync", tmp_path / "log") as process:
        (place / name).write_bytes(b"in between")
        status, told = go_on(process)
    assert status == 1
    assert "is there already" in told
    assert left(place) == {"source", name}
    assert (place / name).read_bytes() == b"in between"


def test_a_folder_is_not_copied_into_itself(place: Path) -> None:
    (place / "tree/below").mkdir(parents=True)
    (place / "way").symlink_to("tree/below")
    assert refused(place / "tree", place / "way/copy").reason == "INSIDE_SOURCE"
    assert left(place / "tree/below") == set()


def test_a_second_copy_to_the_same_target_waits_for_nobody(place: Path, tmp_path: Path) -> None:
    (place / "source").write_bytes(b"one")
    argv = command(place / "source", place / "copy")
    with stopped(argv, "fsync", tmp_path / "log") as process:
        assert refused(place / "source", place / "copy").reason == "BUSY"
        copy(place / "source", place / "another")  # Removes nothing that somebody works in.
        status, told = go_on(process)
    assert status == 0, told
    assert left(place) == {"source", "another", "copy", "copy.manifest"}


def test_another_filesystem_inside_is_said_and_not_entered(place: Path) -> None:
    (place / "tree/mounted").mkdir(parents=True)
    run("/usr/bin/mount", "-t", "tmpfs", "none", place / "tree/mounted")
    try:
        found = refused(place / "tree", place / "copy")
    finally:
        run("/usr/bin/umount", place / "tree/mounted")
    assert (found.reason, found.path) == ("OTHER_FILESYSTEM", str(place / "tree/mounted"))
    assert left(place) == {"tree"}


def test_a_target_that_keeps_no_xattrs_gets_no_copy(place: Path) -> None:
    (place / "source").write_bytes(b"1")
    os.setxattr(place / "source", "user.a", b"1")
    (place / "ram").mkdir()
    run("/usr/bin/mount", "-t", "ramfs", "none", place / "ram")
    try:
        found = refused(place / "source", place / "ram/copy")
        assert left(place / "ram") == set()
    finally:
        run("/usr/bin/umount", place / "ram")
    assert os.strerror(errno.EOPNOTSUPP) in str(found)


def test_acls_of_the_target_s_folder_are_not_inherited(place: Path) -> None:
    (place / "source").write_bytes(b"1")
    (place / "into").mkdir()
    run("/usr/bin/setfacl", "-d", "-m", "u:4321:rwx", place / "into")
    copy(place / "source", place / "into/copy")
    assert b"4321" not in run("/usr/bin/getfacl", "--numeric", place / "into/copy")


def test_a_user_s_own_tree_is_copied_though_its_modes_forbid_much(place: Path) -> None:
    tree = place / "tree"
    (tree / "below").mkdir(parents=True)
    (tree / "below/file").write_bytes(b"1")
    for path in (place, tree, tree / "below", tree / "below/file"):
        os.chown(path, NOBODY, NOBODY)
    (tree / "below").chmod(0o500)
    tree.chmod(0o555)
    child = os.fork()
    if child == 0:
        # No interpreter to start: nobody need be able to read this checkout.
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
        try:
            os.chdir(os.open("/", os.O_RDONLY))
            os._exit(0 if copy(tree, place / "copy").files == 1 else 3)
        except BaseException as error:  # noqa: BLE001 - a child of fork() must not go on with the tests
            os.write(2, repr(error).encode())
            os._exit(4)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert stat.S_IMODE((place / "copy").stat().st_mode) == 0o555
    assert left(place) == {"tree", "copy"}


def made(place: Path) -> Copied:
    tree = place / "tree"
    (tree / "folder").mkdir(parents=True)
    (tree / "file").write_bytes(os.urandom(5 * MIB))
    os.link(tree / "file", tree / "same")
    os.setxattr(tree / "file", "user.a", b"1")
    Path(os.fsdecode(os.fsencode(tree) + b"/\xff\n")).write_bytes(b"odd")
    return copy(tree, place / "copy", with_manifest=True)


def findings(place: Path) -> set[tuple[str, str]]:
    return {(one.path, one.code) for one in verify(load(place / "copy.manifest"), place / "copy")}


def test_a_manifest_finds_each_thing_that_is_not_as_it_was(place: Path) -> None:
    made(place)
    assert findings(place) == set()
    file, folder = place / "copy/file", place / "copy/folder"
    status = file.stat()
    with file.open("r+b") as opened:  # Damage that no time or size tells of.
        opened.seek(4 * MIB + 3)
        byte = opened.read(1)
        opened.seek(4 * MIB + 3)
        opened.write(bytes([byte[0] ^ 1]))
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert findings(place) == {("file", "CONTENTS")}
    (place / "copy/same").unlink()
    os.removexattr(file, "user.a")
    (folder / "extra").touch()
    assert findings(place) == {
        ("file", "CONTENTS"),
        ("file", "ATTRIBUTES"),
        ("same", "MISSING"),
        ("", "ATTRIBUTES"),  # Its time.
        ("folder", "ATTRIBUTES"),
        ("folder/extra", "UNLISTED"),
    }
