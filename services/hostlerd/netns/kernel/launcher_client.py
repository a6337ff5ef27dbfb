"""Asks the launcher, which alone acts as root: one request, one connection, bounded in time."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from hostlerd.netns.errors import (
    LauncherRefused,
    LauncherUnavailable,
    NamespaceNotFound,
    ProcessDiffers,
    ProcessNotRunning,
    ProcessNotStarted,
)
from hostlerd.runtime.errors import DomainError, InvalidRequest, Violation

SOCKET = Path("/run/hostler/launcher.sock")
MAX_REQUEST = 384 * 1024
MAX_ANSWER = 256 * 1024
MAX_HANDLES = 250
# asm-generic/socket.h; Python has no name for it.
_SO_SNDBUFFORCE = 32
CONNECT_S = 10.0
ANSWER_S = 30.0
# systemd gives a start 20 s, and stopping what failed may take as long again.
START_S = 90.0

_REASONS: Mapping[str, type[DomainError]] = {
    "NAMESPACE_NOT_FOUND": NamespaceNotFound,
    "PROCESS_EXISTS": ProcessDiffers,
    "PROCESS_NOT_RUNNING": ProcessNotRunning,
    "START_FAILED": ProcessNotStarted,
}


class Launcher:
    """The launcher, as far as the domain needs it. Every method blocks, within bounds.

    All raise LauncherRefused, or what stands behind its reason, and LauncherUnavailable.
    """

    def __init__(self, path: Path = SOCKET) -> None:
        self._path = path

    def attach_many(self, handles: Sequence[tuple[str, int]]) -> None:
        """Mount namespaces, given by descriptors, at their handles; all of them or none."""
        done: list[str] = []
        try:
            for start in range(0, len(handles), MAX_HANDLES):
                part = handles[start : start + MAX_HANDLES]
                names = [name for name, _ in part]
                self._ask({"op": "attach", "names": names}, fds=[fd for _, fd in part])
                done += names
        except DomainError:
            with suppress(DomainError):
                self.detach_many(done)
            raise

    def detach(self, name: str) -> None:
        """Remove a handle; one that is not there is no error."""
        self.detach_many([name])

    def detach_many(self, names: Sequence[str]) -> None:
        """Remove handles."""
        for start in range(0, len(names), MAX_HANDLES):
            self._ask({"op": "detach", "names": list(names[start : start + MAX_HANDLES])})

    def start(self, unit: Mapping[str, Any]) -> int:
        """Start a process that goes on by itself; answer its PID, 0 if it has ended already.

        Raises InvalidRequest for what this host has not, ProcessNotStarted, NamespaceNotFound.
        """
        (answer,) = self._ask({"op": "start", "unit": unit}, answer_s=START_S, at="process")
        return int(answer["pid"])

    def run(self, unit: Mapping[str, Any], fds: Sequence[int]) -> tuple[socket.socket, int]:
        """Run a process on three descriptors; answer a connection that tells its end, and its PID.

        Closing the connection ends the process. `parse` understands what comes.
        """
        connection = self._connect(START_S)
        try:
            send(connection, {"op": "run", "unit": unit}, fds)
            answer = parse(receive(connection), at="start")
        except BaseException:
            connection.close()
            raise
        return connection, int(answer["started"]["pid"])

    def stop(self, namespace: str, name: str, stop_timeout_s: float) -> None:
        """Stop a process with its children and forget it; one that is not there is no error."""
        request = {"op": "stop", "namespace": namespace, "name": name}
        self._ask(request, answer_s=stop_timeout_s + ANSWER_S)

    def evict(self, namespace: str) -> None:
        """End every process in a namespace, whoever started it. Raises LauncherRefused."""
        self._ask({"op": "evict", "namespace": namespace})

    def signal(self, namespace: str, name: str, word: str) -> None:
        """Send a signal to a process itself. Raises ProcessNotRunning."""
        self._ask({"op": "signal", "namespace": namespace, "name": name, "signal": word})

    def status(self, namespace: str = "", name: str = "") -> list[dict[str, Any]]:
        """What is known of processes; empty names stand for all."""
        request = {"op": "status"}
        request |= {"namespace": namespace} if namespace else {}
        request |= {"name": name} if name else {}
        return [unit for answer in self._ask(request) for unit in answer["units"]]

    def tasks(
        self, *, with_argv: bool = False, net: int = 0, except_net: int = 0
    ) -> tuple[list[dict[str, Any]], bool]:
        """The tasks of a network namespace, of all, or of all but one, by inode.

        Answers them by PID, and whether there are more than the launcher tells.
        """
        request: dict[str, Any] = {"op": "tasks", "with_argv": with_argv}
        request |= {"net": net} if net else {}
        request |= {"except_net": except_net} if except_net else {}
        answers = self._ask(request)
        return [task for a in answers for task in a["tasks"]], bool(answers[-1]["truncated"])

    def tasks_in(self, inode: int) -> tuple[int, ...]:
        """The PIDs of the processes in a network namespace."""
        return tuple(task["pid"] for task in self.tasks(net=inode)[0])

    def _ask(
        self,
        request: Mapping[str, Any],
        *,
        fds: Sequence[int] = (),
        answer_s: float = ANSWER_S,
        at: str = "",
    ) -> list[dict[str, Any]]:
        """Send a request and answer all that comes back to it."""
        with self._connect(answer_s) as connection:
            send(connection, request, fds)
            return list(_answers(connection, at))

    def _connect(self, answer_s: float) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            connection.settimeout(CONNECT_S)
            connection.connect(os.fspath(self._path))
            connection.settimeout(answer_s)
        except OSError as e:
            connection.close()
            raise _unavailable(e) from e
        return connection


def send(connection: socket.socket, request: Mapping[str, Any], fds: Sequence[int]) -> None:
    """Send one request. Raises InvalidRequest if it is too large, LauncherUnavailable."""
    data = json.dumps(request, ensure_ascii=False).encode()
    if len(data) > MAX_REQUEST:
        words = "command and environment are too large together"
        raise InvalidRequest.of([Violation("process", words)])
    with suppress(PermissionError):
        # A packet must fit into the buffer as a whole, and the usual one has 208 KiB.
        connection.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, MAX_REQUEST)
    try:
        socket.send_fds(connection, [data], list(fds))
    except OSError as e:
        raise _unavailable(e) from e


def receive(connection: socket.socket) -> bytes:
    """Receive one answer; empty when the launcher has gone. Raises LauncherUnavailable."""
    try:
        return connection.recv(MAX_ANSWER)
    except OSError as e:
        raise _unavailable(e) from e


def parse(data: bytes, at: str = "") -> dict[str, Any]:
    """Make something of one answer; raise what a refusal stands for.

    Fields at fault are told below `at`, such as "process".
    """
    if not data:
        raise LauncherUnavailable("the launcher closed the connection")
    answer: dict[str, Any] = json.loads(data)
    if answer.get("more") or answer.get("ok"):
        return answer
    reason, message = answer["reason"], answer["message"]
    violations = [
        Violation(
            f"{at}.{v['field'].removeprefix('unit.')}" if at else v["field"], v["description"]
        )
        for v in answer["violations"]
    ]
    if violations and at:
        raise InvalidRequest.of(violations)
    if kind := _REASONS.get(reason):
        raise kind(message)
    raise LauncherRefused(message, violations=violations, launcher_reason=reason)


def _answers(connection: socket.socket, at: str) -> Iterator[dict[str, Any]]:
    more = True
    while more:
        answer = parse(receive(connection), at)
        yield answer
        more = answer.get("more", False)


def _unavailable(error: OSError) -> LauncherUnavailable:
    words = "did not answer in time" if isinstance(error, TimeoutError) else error.strerror
    return LauncherUnavailable(f"launcher: {words}")
