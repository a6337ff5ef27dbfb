"""What can go wrong in a rotation, by server: rolled back, and whoever polls is served on.

Of nginx, which has more ways to go wrong, see test_ssl_install.py.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from ssl_authority import Authority, pem
from ssl_process import end
from ssl_rotation import contents, deployment, first, renewed, sha256
from ssl_servers import (
    Apache,
    Haproxy,
    Installer,
    Lighttpd,
    Poller,
    Postfix,
    running,
    served,
    served_by_mail,
    wait_until,
)

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
]


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that the users of servers may read, too."""
    folder = Path(tempfile.mkdtemp(prefix="hostler-ssl-faults-"))
    folder.chmod(0o755)
    (folder / "ssl").mkdir()
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def installer(place: Path) -> Iterator[Installer]:
    made = Installer(place)
    yield made
    assert made.process
    made.process.terminate()
    made.process.wait(20)


@contextmanager
def up(server: Any) -> Iterator[None]:
    try:
        with running(server.argv(), server.port):
            # Postfix says that it is there before its master has written down who it is.
            wait_until(server.pid_file.exists)
            yield
    finally:
        if server.kind == "postfix" and server.pid_file.exists():
            end(int(server.pid_file.read_text()))


@pytest.mark.parametrize(
    ("kind", "fault", "words", "look"),
    [
        pytest.param(Apache, "NoSuchDirective on", "NoSuchDirective", served, id="apache"),
        pytest.param(Haproxy, " no-such-keyword", "no-such-keyword", served, id="haproxy"),
        pytest.param(Lighttpd, "no.such = ", "parser failed", served, id="lighttpd"),
        pytest.param(Postfix, "x y", "bad field count", served_by_mail, id="postfix"),
    ],
)
def test_everything_that_is_wrong_is_rolled_back_and_nobody_notices(
    place: Path,
    installer: Installer,
    kind: type,
    fault: str,
    words: str,
    look: Callable[[int], str],
) -> None:
    files, elsewhere, authority = place / "ssl", place / "elsewhere", Authority("test")
    server = kind(place, files)
    one = deployment(files, server)
    installer.configure(files, server)
    installer.start()
    old = first(installer, authority, one)
    shutil.copytree(files, elsewhere)
    before = contents(files)

    def refused(reason: str, text: str) -> str:
        answer = installer.install(one, text)
        assert not answer["ok"] and answer["reason"] == reason, answer
        assert contents(files) == before
        if kind is Postfix:
            # One of its processes may have begun while the new files lay there for the check of
            # its syntax, and goes on with them for a hundred conversations.
            wait_until(lambda: all(look(server.port) == sha256(old) for _ in range(3)))
        else:
            assert look(server.port) == sha256(old)
        return str(answer["message"])

    with up(server), Poller(server.port, look) as poller:
        new = renewed(installer, authority, one)
        good = pem(new, authority.intermediate)
        # A wrong chain: an issuer that is none.
        refused("CHAIN_BROKEN", pem(new, Authority("other").intermediate))
        # A certificate for somebody else's key.
        stranger, _ = authority.issue_for("a.test")
        refused("KEY_MISMATCH", pem(stranger, authority.intermediate))
        # A syntax error that is found only now.
        server.configure(files, fault)
        assert words in refused("SYNTAX_CHECK_FAILED", good)
        # A server that goes on serving the old one: it reads its files elsewhere.
        server.configure(elsewhere)
        installer.configure(files, server, served_within_s=1)
        assert "another certificate is served" in refused("NOT_SERVED", good)
        # After all that, the good one goes in.
        server.configure(files)
        installer.configure(files, server)
        answer = installer.install(one, good)
        assert answer["ok"], answer
        wait_until(lambda: poller.seen[-1] == sha256(new))
    assert not poller.failures
    assert {*poller.seen} == {sha256(old), sha256(new)}
