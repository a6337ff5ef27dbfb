from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from hostlerd.runtime.sockets import ListenerKind, SocketsUnusable, listener_of, require_private

# A child that takes the sockets and says what it found; its arguments: pid to claim, number.
CHILD = """
import json, os, sys
owner = sys.argv[1] or str(os.getpid())
os.environ.update(LISTEN_PID=owner, LISTEN_FDS=sys.argv[2], LISTEN_FDNAMES="rpc:rpc")
from hostlerd.runtime.sockets import SocketsUnusable, inherited
try:
    found = inherited()
except SocketsUnusable as error:
    print(json.dumps({"error": str(error)}))
    sys.exit()
print(json.dumps({
    "kinds": [listener.kind.value for listener in found],
    "ports": [listener.socket.getsockname() for listener in found],
    "blocking": [os.get_blocking(listener.socket.fileno()) for listener in found],
    "inheritable": [os.get_inheritable(listener.socket.fileno()) for listener in found],
    "left": [name for name in os.environ if name.startswith("LISTEN_")],
    "again": len(inherited()),
}))
"""


def child(sockets: list[socket.socket], owner: str = "", number: str = "") -> dict[str, object]:
    """Run the child with the sockets as descriptors 3, 4, ..., as systemd passes them."""
    high = [os.dup2(s.fileno(), 200 + n, inheritable=True) for n, s in enumerate(sockets)]
    places = [(os.POSIX_SPAWN_DUP2, fd, 3 + n) for n, fd in enumerate(high)]
    read, write = os.pipe()
    argv = [sys.executable, "-c", CHILD, owner, number or str(len(sockets))]
    # posix_spawn applies the actions in their order, after the fork.
    actions = [(os.POSIX_SPAWN_DUP2, write, 1), *places]
    pid = os.posix_spawn(sys.executable, argv, os.environ, file_actions=actions)
    os.close(write)
    for fd in high:
        os.close(fd)
    with os.fdopen(read) as stream:
        text = stream.read()
    assert os.waitpid(pid, 0)[1] == 0
    answer: dict[str, object] = json.loads(text)
    return answer


def tcp(family: socket.AddressFamily = socket.AF_INET) -> socket.socket:
    sock = socket.socket(family)
    sock.bind(("::1" if family == socket.AF_INET6 else "127.0.0.1", 0))
    sock.listen()
    return sock


def test_inherited_sockets_are_told_apart_by_family(tmp_path: Path) -> None:
    local = socket.socket(socket.AF_UNIX)
    local.bind(str(tmp_path / "s"))
    local.listen()
    sockets = [local, tcp(), tcp(socket.AF_INET6)]
    found = child(sockets)
    assert found["kinds"] == ["local", "tcp", "tcp"]
    names = [s.getsockname() for s in sockets]
    assert found["ports"] == [list(n) if isinstance(n, tuple) else n for n in names]
    assert found["blocking"] == [False] * 3
    assert found["inheritable"] == [False] * 3
    assert found["left"] == []
    assert found["again"] == 0


def test_sockets_for_another_process_are_left_alone() -> None:
    assert child([tcp()], owner="1")["kinds"] == []


def test_no_sockets_at_all() -> None:
    env = {name: value for name, value in os.environ.items() if not name.startswith("LISTEN_")}
    code = "from hostlerd.runtime.sockets import inherited; print(inherited())"
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("number", ["x", "-1", "65", "99999999999999"])
def test_absurd_number_is_refused(number: str) -> None:
    assert "LISTEN_FDS" in str(child([tcp()], number=number)["error"])


def test_closed_descriptor_is_refused() -> None:
    assert "fd 4" in str(child([tcp()], number="2")["error"])


def test_socket_that_does_not_listen_is_refused() -> None:
    with socket.socket() as idle, pytest.raises(SocketsUnusable, match="no listening"):
        listener_of(idle)


def test_datagram_socket_is_refused() -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as sock, pytest.raises(SocketsUnusable):
        listener_of(sock)


def test_kind_of_a_listener() -> None:
    with tcp() as sock:
        assert listener_of(sock).kind is ListenerKind.TCP


def test_private_folder(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir(mode=0o700)
    require_private(folder)
    folder.chmod(0o710)
    with pytest.raises(SocketsUnusable, match="0700"):
        require_private(folder)


def test_missing_private_folder(tmp_path: Path) -> None:
    with pytest.raises(SocketsUnusable, match="No such file"):
        require_private(tmp_path / "gone")


@pytest.mark.skipif(os.geteuid() != 0, reason="giving a folder away takes root")
def test_private_folder_of_somebody_else(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir(mode=0o700)
    os.chown(folder, 65534, 65534)
    with pytest.raises(SocketsUnusable, match="ours"):
        require_private(folder)
