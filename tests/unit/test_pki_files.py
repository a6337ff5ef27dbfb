import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from hostler.core import files


def mode_of(path):
    return path.stat().st_mode & 0o7777


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


def test_write_new_never_replaces(tmp_path):
    path = tmp_path / "key"
    files.write_new(path, b"one", mode=0o600)
    with pytest.raises(FileExistsError):
        files.write_new(path, b"two", mode=0o600)
    assert path.read_bytes() == b"one"
    assert names_in(tmp_path) == ["key"]


def test_write_new_does_not_follow_a_link_that_lies_there(tmp_path):
    (tmp_path / "key").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(FileExistsError):
        files.write_new(tmp_path / "key", b"secret", mode=0o600)
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("umask", [0o000, 0o077])
def test_modes_do_not_depend_on_the_umask(tmp_path, umask):
    before = os.umask(umask)
    try:
        files.write_new(tmp_path / "key", b"", mode=0o600)
        files.replace(tmp_path / "cert", b"", mode=0o644)
        files.append_line(tmp_path / "log", b"x", mode=0o600)
    finally:
        os.umask(before)
    assert [mode_of(tmp_path / n) for n in ("key", "cert", "log")] == [0o600, 0o644, 0o600]


def test_replace_leaves_the_old_file_if_it_fails(tmp_path):
    target = tmp_path / "folder"
    (target / "inside").mkdir(parents=True)
    with pytest.raises(OSError):
        files.replace(target, b"new", mode=0o600)
    assert names_in(tmp_path) == ["folder"]


def test_move_does_not_replace_and_ends_an_interrupted_move(tmp_path):
    a, b = tmp_path / "a", tmp_path / "b"
    a.write_bytes(b"a")
    b.write_bytes(b"b")
    with pytest.raises(FileExistsError):
        files.move(a, b)
    assert (a.read_bytes(), b.read_bytes()) == (b"a", b"b")
    b.unlink()
    os.link(a, b)
    files.move(a, b)
    assert not a.exists() and b.read_bytes() == b"a"


def test_append_cuts_off_a_torn_line(tmp_path):
    log = tmp_path / "log"
    files.append_line(log, b"one", mode=0o600)
    log.write_bytes(log.read_bytes() + b"torn" * 3000)
    files.append_line(log, b"two", mode=0o600)
    assert log.read_bytes() == b"one\ntwo\n"
    log.write_bytes(b"torn")
    files.append_line(log, b"three", mode=0o600)
    assert log.read_bytes() == b"three\n"


def test_append_does_not_follow_a_link(tmp_path):
    (tmp_path / "log").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError):
        files.append_line(tmp_path / "log", b"x", mode=0o600)
    assert not (tmp_path / "elsewhere").exists()


def test_read_bounded_refuses_more(tmp_path):
    (tmp_path / "f").write_bytes(b"12345")
    assert files.read_bounded(tmp_path / "f", 5) == b"12345"
    with pytest.raises(ValueError, match="larger than 4 bytes"):
        files.read_bounded(tmp_path / "f", 4)


def test_sweep_takes_what_killed_writers_left_and_nothing_else(tmp_path):
    (tmp_path / ".key.0123.tmp").write_bytes(b"half")
    (tmp_path / "key").write_bytes(b"whole")
    (tmp_path / ".hidden").write_bytes(b"")
    assert files.sweep(tmp_path) == 1
    assert names_in(tmp_path) == [".hidden", "key"]


def test_the_lock_holds_between_threads_and_times_out(tmp_path):
    held, release = threading.Event(), threading.Event()

    def hold():
        with files.locked(tmp_path):
            held.set()
            release.wait(10)

    holder = threading.Thread(target=hold)
    holder.start()
    assert held.wait(10)
    with pytest.raises(TimeoutError, match="locked by another"), files.locked(tmp_path, 0.05):
        pass
    release.set()
    holder.join(10)
    with files.locked(tmp_path, 0.05):
        pass


WRITER = """
import sys
from pathlib import Path
from hostler.core import files
folder, n = Path(sys.argv[1]), 0
print("ready", flush=True)
while True:
    n += 1
    data = str(n % 10).encode() * 200_000
    with files.locked(folder):
        files.replace(folder / "state", data, mode=0o600)
        files.write_new(folder / f"new-{n}", data, mode=0o600)
        (folder / f"new-{n}").unlink()
"""


def test_a_killed_writer_leaves_whole_files_only(tmp_path):
    files.replace(tmp_path / "state", b"0" * 200_000, mode=0o600)
    for kill in range(8):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE
        )
        assert writer.stdout.readline() == b"ready\n"
        time.sleep(0.005 + 0.013 * kill)
        writer.send_signal(signal.SIGKILL)
        writer.wait(10)
        writer.stdout.close()
        for path in tmp_path.iterdir():
            if not path.name.startswith("."):
                data = path.read_bytes()
                assert len(data) == 200_000 and len(set(data)) == 1
        # A kill frees the lock at once.
        with files.locked(tmp_path, 1):
            files.sweep(tmp_path)
        assert not list(tmp_path.glob(".*"))
