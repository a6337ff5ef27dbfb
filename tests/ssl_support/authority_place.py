"""A signer of the internal CA in folders of a test's own, as a process, and how to ask it."""

from __future__ import annotations

import base64
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from hostlerd.authority import wire

CONFIGURATION = """
[authority]
publish_url = "http://127.0.0.1:7480"
[authority.profiles.server]
dns_names = ["*.example.net"]
networks = ["192.0.2.0/24"]
max_validity_days = 30
[authority.profiles.client]
dns_names = ["*.example.net"]
usages = ["client"]
max_validity_hours = 1
[authority.identities]
allowed = ["host/*", "user/ann"]
dns_names = ["*.example.net"]
"""


class Place:
    """The signer's folders and socket; `start` runs it."""

    def __init__(self, root: Path, configuration: str = CONFIGURATION) -> None:
        self.root = root
        self.folder = root / "authority"
        self.publish = root / "publish"
        self.socket = root / "signer.sock"
        self.configuration = root / "hostler.toml"
        self.configuration.write_text(configuration)
        for folder in (self.folder, self.publish):
            folder.mkdir(mode=0o700)
        self.process: subprocess.Popen[bytes] | None = None

    def argv(self, part: str) -> list[str]:
        return [
            *(sys.executable, "-m", "hostlerd.authority", part),
            *("--folder", str(self.folder), "--publish", str(self.publish)),
            *("--configuration", str(self.configuration)),
        ]

    def start(self, *words: str, environment: dict[str, str] | None = None) -> None:
        self.socket.unlink(missing_ok=True)
        argv = [*self.argv("signer"), "--listen", str(self.socket), *words]
        self.process = subprocess.Popen(argv, env=environment)
        deadline = time.monotonic() + 60
        while True:
            with suppress(OSError), socket.socket(socket.AF_UNIX) as probe:
                probe.connect(str(self.socket))
                return
            assert time.monotonic() < deadline, "the signer did not start"
            assert self.process.poll() is None, "the signer has ended"
            time.sleep(0.02)

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def ask(self, op: str, **fields: Any) -> dict[str, Any]:
        with socket.socket(socket.AF_UNIX) as peer:
            peer.connect(str(self.socket))
            wire.send(peer, {"op": op, **fields}, wire.MAX_REQUEST_BYTES)
            answer = wire.receive(peer, wire.MAX_ANSWER_BYTES, 60)
        assert answer is not None
        return answer

    def init(self, trust_domain: str = "") -> dict[str, Any]:
        return self.ask("init", name="Test CA", trust_domain=trust_domain, external=False)

    def issue(self, csr: bytes, profile: str = "server", **fields: Any) -> dict[str, Any]:
        asked = {"id": secrets.token_hex(16), "validity_s": 0, "requester": "user/test", **fields}
        return self.ask("issue", profile=profile, csr=b64(csr), **asked)


@contextmanager
def running(root: Path, configuration: str = CONFIGURATION) -> Iterator[Place]:
    place = Place(root, configuration)
    place.start()
    try:
        yield place
    finally:
        place.kill()


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def openssl(*words: str | Path, fails: bool = False) -> str:
    done = subprocess.run(
        ["/usr/bin/openssl", *map(str, words)], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode != 0) == fails, done.stdout + done.stderr
    return done.stdout + done.stderr


def csr(folder: Path, *names: str, cn: str = "a.example.net", new_key: bool = True) -> bytes:
    """A request of openssl's, with the key in key.pem of the folder."""
    key, path = folder / "key.pem", folder / "request.pem"
    if new_key or not key.exists():
        openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", key)
    san = ("-addext", f"subjectAltName={','.join(names)}") if names else ()
    openssl("req", "-new", "-key", key, "-subj", f"/CN={cn}", *san, "-out", path)
    return path.read_bytes()


def pem(answer: dict[str, Any], path: Path) -> Path:
    """Write the certificate of an answer as PEM."""
    body = base64.encodebytes(base64.b64decode(answer["issued"]["der"])).decode()
    path.write_text(f"-----BEGIN CERTIFICATE-----\n{body}-----END CERTIFICATE-----\n")
    return path
