"""Asks the installer, which alone acts as root: one request a connection, bounded in time."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hostlerd.runtime.errors import DomainError, InvalidRequest, RollbackFailed, Violation
from hostlerd.ssl.errors import (
    ChainBroken,
    InstallerRefused,
    InstallerUnavailable,
    KeyMismatch,
    NotServed,
    ReloadFailed,
    SyntaxCheckFailed,
)
from hostlerd.ssl.model.deployment import Deployment, Listener

SOCKET = Path("/run/hostler/ssl-installer.sock")
MAX_ANSWER = 8 << 20
CONNECT_S = 10.0
ANSWER_S = 60.0
# Checks, reloads and handshakes of some servers, and all of it once more on the way back.
INSTALL_S = 1800.0

_REASONS: Mapping[str, type[DomainError]] = {
    "KEY_MISMATCH": KeyMismatch,
    "CHAIN_BROKEN": ChainBroken,
    "SYNTAX_CHECK_FAILED": SyntaxCheckFailed,
    "RELOAD_FAILED": ReloadFailed,
    "NOT_SERVED": NotServed,
    "ROLLBACK_FAILED": RollbackFailed,
}
_INVALID = frozenset({"INVALID", "PATH_NOT_ALLOWED", "SERVER_NOT_CONFIGURED"})


class Installer:
    """The installer, as far as the domain needs it. Every method blocks, within bounds.

    All raise InstallerRefused, or what stands behind its reason, and InstallerUnavailable.
    """

    def __init__(self, path: Path = SOCKET) -> None:
        self._path = path

    def check(self, deployment: Deployment) -> None:
        """Raise InvalidRequest unless all that it names is allowed on this host."""
        self._ask({"op": "check", "deployment": deployment.asked})

    def make_key(self, deployment: Deployment) -> str:
        """Make a key that waits; answer the request for it, PEM."""
        return str(self._ask({"op": "make_key", "deployment": deployment.asked})["csr_pem"])

    def request(self, deployment: Deployment, *, waiting: bool) -> str:
        """Answer a request of the key that waits, or of the one in use, PEM."""
        asked = {"op": "request", "deployment": deployment.asked, "waiting": waiting}
        return str(self._ask(asked)["csr_pem"])

    def forget(self, name: str) -> None:
        """Drop the key that waits, and stay with what is in place; none is no error."""
        self._ask({"op": "forget", "name": name})

    def status(self, deployment: Deployment, *, handshake: bool) -> dict[str, Any]:
        """What is in place, what waits, and what is served if that is asked for."""
        asked = {"op": "status", "deployment": deployment.asked, "handshake": handshake}
        return self._ask(asked, answer_s=INSTALL_S if handshake else ANSWER_S)

    def install(self, items: Sequence[tuple[Deployment, str]]) -> tuple[Listener, ...]:
        """Put certificates in place and have them served, each server reloaded once."""
        asked = [{"deployment": one.asked, "pem": pem} for one, pem in items]
        answer = self._ask({"op": "install", "items": asked}, answer_s=INSTALL_S)
        return tuple(map(listener, answer["served"]))

    def read_chain(self, path: str) -> tuple[str, ...] | None:
        """The certificates of a chain file, PEM; None if there is no such file."""
        told = self._ask({"op": "read_chain", "path": path})
        return tuple(told["certificates"]) if told["exists"] else None

    def write_chain(self, path: str, pem: str) -> None:
        """Put a chain file in place, whole and read again, or leave the old one."""
        self._ask({"op": "write_chain", "path": path, "pem": pem})

    def reload_due(self) -> list[dict[str, Any]]:
        """Do what waited for a window that is open now."""
        return list(self._ask({"op": "reload_due"}, answer_s=INSTALL_S)["runs"])

    def reload_time(self) -> int:
        """When the next window opens that something waits for, in seconds since 1970; 0: none."""
        return int(self._ask({"op": "reload_time"})["due_unix_s"])

    def publish(self, webroot: str, token: str, content: str) -> None:
        """Put an answer to http-01 below a web server's folder."""
        asked = {"op": "publish", "webroot": webroot, "token": token, "content": content}
        self._ask(asked)

    def withdraw(self, webroot: str, token: str) -> None:
        """Remove it."""
        self._ask({"op": "withdraw", "webroot": webroot, "token": token})

    def _ask(self, request: Mapping[str, Any], answer_s: float = ANSWER_S) -> dict[str, Any]:
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(CONNECT_S)
                connection.connect(os.fspath(self._path))
                connection.settimeout(answer_s)
                connection.sendall(json.dumps(request).encode() + b"\n")
                with connection.makefile("rb") as lines:
                    line = lines.readline(MAX_ANSWER)
        except OSError as e:
            words = "did not answer in time" if isinstance(e, TimeoutError) else e.strerror
            raise InstallerUnavailable(f"installer: {words}") from e
        if not line.endswith(b"\n"):
            raise InstallerUnavailable("the installer closed the connection")
        answer: dict[str, Any] = json.loads(line)
        if not answer["ok"]:
            raise _refusal(answer)
        return answer


def listener(told: Mapping[str, Any]) -> Listener:
    """Make a listener of what the installer tells of one."""
    return Listener(
        told["listener"],
        told["fingerprint_sha256"],
        told["current"],
        told["problem"],
        told["reload_unix_s"],
    )


def _refusal(answer: Mapping[str, Any]) -> DomainError:
    reason, message = answer["reason"], answer["message"]
    violations = [Violation(v["field"], v["description"]) for v in answer["violations"]]
    if reason in _INVALID and violations:
        return InvalidRequest.of(violations)
    kind = _REASONS.get(reason)
    if kind:
        return kind(message, violations=violations)
    return InstallerRefused(message, violations=violations, installer_reason=reason)
