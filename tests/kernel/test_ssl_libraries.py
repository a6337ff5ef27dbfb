"""Processes with libraries that were replaced under them, as the reader sees them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from ssl_reader import reader

from hostlerd.ssl.kernel.reading import Reader
from hostlerd.ssl.model.library import LibraryUser, Linkage, Use

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(120)]
SYSTEM = Path("/usr/lib/x86_64-linux-gnu")
HOLD = """
import ctypes, sys
loaded = [ctypes.CDLL(path) for path in sys.argv[1:]]
print(1, flush=True)
sys.stdin.read()
"""
LISTEN = """
import socket, ssl, sys
listener = socket.create_server(("127.0.0.1", 0))
print(1, flush=True)
sys.stdin.read()
"""
Start = Callable[..., int]


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    if os.geteuid() != 0:
        pytest.skip("needs root: it reads others' processes")
    with reader(tmp_path_factory.mktemp("reader")) as one:
        yield one


@pytest.fixture
def start() -> Iterator[Start]:
    """Start a process that loads libraries; it ends with the test."""
    with ExitStack() as stack:

        def begin(*paths: Path) -> int:
            argv = [sys.executable, "-c", HOLD, *map(str, paths)]
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
            one = stack.enter_context(subprocess.Popen(argv, **pipes))  # type: ignore[call-overload]
            stack.callback(one.kill)
            assert one.stdout.readline() == b"1\n"
            return int(one.pid)

        yield begin


@pytest.fixture
def copies(tmp_path: Path) -> tuple[Path, Path]:
    """libcrypto and libssl of this machine, in a folder of the test."""
    names = ("libcrypto.so.3", "libssl.so.3")
    for name in names:
        shutil.copyfile(SYSTEM / name, tmp_path / name)
    return tmp_path / names[0], tmp_path / names[1]


def of(asked: Reader, pid: int, *, static: bool = False) -> LibraryUser:
    users, _ = asked.libraries(static=static)
    return next(each for each in users if each.pid == pid)


def openssl_says() -> str:
    told = subprocess.run(
        ["/usr/bin/openssl", "version"], capture_output=True, text=True, check=True
    )
    return told.stdout.split()[1]


def test_a_library_that_was_replaced_is_stale(
    asked: Reader, start: Start, copies: tuple[Path, Path]
) -> None:
    pid = start(*copies)
    mine = {each.path: each for each in of(asked, pid).libraries}
    assert [mine[str(path)].stale for path in copies] == [False, False]
    assert {mine[str(path)].version for path in copies} == {openssl_says()}
    assert mine[str(copies[0])].linkage is Linkage.BUNDLED
    old = copies[1].stat().st_ino
    fresh = copies[1].with_suffix(".new")
    shutil.copyfile(copies[1], fresh)
    fresh.rename(copies[1])
    new = copies[1].stat().st_ino
    mine = {each.path: each for each in of(asked, pid).libraries}
    # libssl says no version: it came with the libcrypto that is mapped, whose file is there.
    assert (mine[str(copies[1])].stale, mine[str(copies[0])].stale) == (True, False)
    assert mine[str(copies[1])].version == openssl_says()
    copies[0].unlink()
    mine = {each.path: each for each in of(asked, pid).libraries}
    assert mine[str(copies[1])].reason == f"replaced: inode {old} is now {new}"
    assert mine[str(copies[0])].reason == "deleted"
    # Its file is gone: it is read where the process has it mapped.
    assert mine[str(copies[0])].version == openssl_says()
    again = start(copies[1])
    assert not any(each.stale for each in of(asked, again).libraries if each.path == str(copies[1]))


def test_who_speaks_tls_is_told_from_who_hashes(asked: Reader, start: Start) -> None:
    tls, hashes = start(SYSTEM / "libssl.so.3"), start(SYSTEM / "libcrypto.so.3")
    assert of(asked, tls).use is Use.TLS
    found = of(asked, hashes)
    loaded = {each.library for each in found.libraries}
    assert found.use is (Use.TLS if "libssl" in loaded else Use.CRYPTO)


def test_the_version_of_a_package_is_dpkgs(asked: Reader, start: Start) -> None:
    shown = subprocess.run(
        ["/usr/bin/dpkg-query", "-W", "-f=${Version}", "libssl3"],
        capture_output=True,
        text=True,
        check=True,
    )
    pid = start(SYSTEM / "libssl.so.3")
    (library,) = (each for each in of(asked, pid).libraries if each.library == "libssl")
    assert library.package_version == shown.stdout


def test_a_copy_inside_a_program_is_known_by_its_words(asked: Reader, start: Start) -> None:
    import cryptography.hazmat.bindings._rust as rust
    from cryptography.hazmat.backends.openssl.backend import backend

    pid = start(Path(rust.__file__))
    (inside,) = (
        each
        for each in of(asked, pid, static=True).libraries
        if each.linkage is Linkage.STATIC and each.path == rust.__file__
    )
    assert f"OpenSSL {inside.version} " in backend.openssl_version_text()
    plain = [each for each in asked.libraries(static=False)[0] if each.pid == pid]
    assert not any(each.linkage is Linkage.STATIC for user in plain for each in user.libraries)


def test_who_listens_is_seen_to_have_a_network(asked: Reader) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", LISTEN], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as one:
        assert one.stdout and one.stdout.readline()
        try:
            assert of(asked, one.pid).network
        finally:
            one.kill()


def test_no_other_request_is_taken(asked: Reader) -> None:
    from hostlerd.ssl.errors import ReaderUnavailable

    for request in (
        {"op": "read", "path": "/etc/shadow"},
        {"op": "files", "path": "/etc/shadow"},
        {"op": "libraries", "static": "yes"},
        {"op": "libraries", "pid": True},
        {},
    ):
        with pytest.raises(ReaderUnavailable, match="refuses"):
            list(asked._ask(request))
