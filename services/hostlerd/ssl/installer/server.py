"""The installer's door: what each operation works on, and its limits."""

from __future__ import annotations

import socket
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding

from hostlerd.privileged import door
from hostlerd.privileged.lines import answer_lines
from hostlerd.privileged.refused import Refused
from hostlerd.ssl.installer import (
    chain_file,
    challenge,
    configuration,
    contents,
    grammar,
    keys,
    run,
)
from hostlerd.ssl.installer.looking import Wanted

DAEMON_USER = "hostler-ssl"
MAX_REQUEST = 20 << 20
MAX_CONNECTIONS = 32
IDLE_S = 30.0
SEND_TIMEOUT_S = 30.0


@dataclass(slots=True)
class Installer:
    """What the operations work on. `turn` keeps those that change something apart."""

    settings: Path
    state: Path
    turn: threading.Lock = field(default_factory=threading.Lock)

    def runs(self) -> run.Runs:
        """Answer what carries out runs, by hostler.toml as it is now. Raises Refused."""
        journal = self.state / "journal"
        journal.mkdir(mode=0o700, parents=True, exist_ok=True)
        return run.Runs(configuration.read(self.settings), self.waiting(), journal)

    def waiting(self) -> keys.Waiting:
        """The keys that wait."""
        return keys.Waiting(self.state / "keys")

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """Carry out one request. Raises Refused, OSError."""
        match request["op"]:
            case "status":
                return self._status(request["deployment"], request.get("handshake", False))
            case "check":
                self.runs().check(request["deployment"])
                return {}
            case "read_chain":
                return chain_file.held(request["path"], self.runs().allowed)
            case "reload_time":
                return {"due_unix_s": min((w.due_unix_s for w in self.runs().waits()), default=0)}
        with self.turn:
            return self._change(request)

    def _change(self, request: dict[str, Any]) -> dict[str, Any]:
        match request["op"]:
            case "make_key":
                contents.targets(request["deployment"], self.runs().allowed)
                return self.waiting().make(request["deployment"])
            case "request":
                return self._request(request["deployment"], request["waiting"])
            case "install":
                items = [(item["deployment"], item["pem"]) for item in request["items"]]
                return {"served": self.runs().install(items)}
            case "write_chain":
                self.runs().write_chain(request["path"], request["pem"])
            case "reload_due":
                return {"runs": self.runs().reload_due()}
            case "forget":
                self._forget(request["name"])
            case "publish":
                allowed = self.runs().allowed
                challenge.publish(allowed, request["webroot"], request["token"], request["content"])
            case "withdraw":
                challenge.withdraw(self.runs().allowed, request["webroot"], request["token"])
        return {}

    def _request(self, deployment: dict[str, Any], waiting: bool) -> dict[str, Any]:
        """Sign a request with the key that waits, or with the one that is in use."""
        if waiting:
            key = self.waiting().get(deployment["name"])
        else:
            key = contents.key_in_use(contents.targets(deployment, self.runs().allowed))
        if key is None:
            raise Refused("NO_KEY", "there is no such key of the deployment on this host")
        return {
            "csr_pem": keys.request(key, deployment["subject_names"]),
            "spki_sha256": keys.spki_sha256(key.public_key()),
        }

    def _forget(self, name: str) -> None:
        self.waiting().drop(name)
        for waits in self.runs().waits():
            if waits.names == [name]:
                waits.commit()

    def _status(self, deployment: dict[str, Any], handshake: bool) -> dict[str, Any]:
        """What is in place, what waits, and what is served."""
        runs = self.runs()
        found = contents.installed(contents.targets(deployment, runs.allowed))
        waits = next((w for w in runs.waits() if deployment["name"] in w.names), None)
        key = self.waiting().get(deployment["name"])
        own = contents.key_in_use(contents.targets(deployment, runs.allowed))
        told: dict[str, Any] = {
            "certificates": [c.public_bytes(Encoding.PEM).decode() for c in found],
            "spki_sha256": keys.spki_sha256(own.public_key()) if own else "",
            "waiting_spki_sha256": keys.spki_sha256(key.public_key()) if key else "",
            "due_unix_s": waits.due_unix_s if waits else 0,
            "left": waits.left if waits else [],
        }
        if handshake:
            wanted = Wanted(contents.sha256(found[0])) if found else None
            told["served"] = run.served([(deployment, wanted)], waits)
        return told


def serve(listener: socket.socket, installer: Installer, idle_s: float = IDLE_S) -> None:
    """Undo what was cut off, then answer callers until there has been none for a while."""
    with suppress(Refused):
        for words in installer.runs().recover():
            print(f"ssl-installer: {words}", file=sys.stderr, flush=True)

    def answer(request: Any) -> dict[str, Any]:
        return installer.answer(grammar.check_request(request))

    def answer_all(peer: socket.socket) -> None:
        answer_lines(peer, answer, MAX_REQUEST, IDLE_S, SEND_TIMEOUT_S)

    allowed = door.ROOT | door.uid_of(DAEMON_USER)
    door.serve(listener, answer_all, allowed, MAX_CONNECTIONS, idle_s)
