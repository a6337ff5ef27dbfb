"""Servers that speak before TLS begins: certificates put in place for mail and for a database."""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from scan_mysql import mysql
from scan_servers import (
    Place,
    Server,
    dovecot,
    place,
    postfix,
    postgres,
    prosody,
    slapd,
    vsftpd,
)
from ssl_authority import Authority, pem
from ssl_servers import Installer, wait_until

from hostlerd.ssl.installer import prober

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
]


@pytest.fixture
def at() -> Iterator[Place]:
    with place() as made:
        yield made


@pytest.fixture
def installer(at: Place) -> Iterator[Installer]:
    made = Installer(at.folder)
    yield made
    assert made.process
    made.process.terminate()
    made.process.wait(20)


def leaf(server: Server) -> str:
    """What a server serves, by the prober, in hexadecimal."""
    target = {"address": "127.0.0.1", "port": server.port, "starttls": server.starttls}
    found = prober.look({**target, "sni": server.name}, 30.0)
    assert "certificates" in found, found
    return hashlib.sha256(base64.b64decode(found["certificates"][0])).hexdigest()


@contextmanager
def by_hand(at: Place) -> Iterator[list[Server]]:
    with mysql(at.pki) as port:
        yield [Server("mysql", port, "mysql")]


@pytest.mark.parametrize("make", [postfix, dovecot, postgres, vsftpd, slapd, prosody, by_hand])
def test_every_server_is_asked_in_its_own_words(at: Place, make: Any) -> None:
    own = x509.load_pem_x509_certificates(Path(at.pki["rsa.pem"]).read_bytes())[0]
    wanted = own.public_bytes(Encoding.DER)
    with make(at) as servers:
        for server in servers:
            assert leaf(server) == hashlib.sha256(wanted).hexdigest(), server.label


def rotate(
    installer: Installer, files: Path, server: Server, told: Any, owner: str = "root"
) -> str:
    """Have a certificate installed and served; answers its fingerprint."""
    authority = Authority("mail")
    group = "root" if owner == "root" else "nogroup"
    file = {"owner": owner, "group": group}
    deployment = {
        "name": "mail",
        "subject_names": ["localhost"],
        "key": {**file, "path": str(files / "rsa.key"), "mode": 0o600},
        "full_chain": {**file, "path": str(files / "rsa.pem"), "mode": 0o644},
        "servers": [
            {
                "kind": told.kind,
                "unit": told.unit,
                "listeners": [f"127.0.0.1:{server.port}"],
                "starttls": server.starttls,
            }
        ],
        "key_kind": "rsa2048",
    }
    installer.configure(files, told, served_within_s=40)
    installer.start()
    made = installer.ask({"op": "make_key", "deployment": deployment})
    certificate = authority.issue(made["csr_pem"])
    answer = installer.install(deployment, pem(certificate, authority.intermediate))
    assert answer["ok"], answer
    assert [each["current"] for each in answer["served"]] == [True]
    return hashlib.sha256(certificate.public_bytes(Encoding.DER)).hexdigest()


def copied(at: Place) -> Path:
    """A folder with what the server starts with, which is then replaced."""
    files = at.folder / "mail-ssl"
    files.mkdir()
    for name in ("rsa.key", "rsa.pem"):
        (files / name).write_bytes(Path(at.pki[name]).read_bytes())
    return files


def test_postfix_reloads_and_serves_it_after_starttls(at: Place, installer: Installer) -> None:
    files = copied(at)
    with postfix(at) as (server,):
        main = at.folder / "postfix" / "main.cf"
        text = main.read_text()
        for name in ("rsa.key", "rsa.pem"):
            text = text.replace(at.pki[name], str(files / name))
        main.write_text(text)
        pid_file = at.folder / "queue" / "pid" / "master.pid"
        wait_until(pid_file.exists)
        told = SimpleNamespace(
            kind="postfix", unit="p.service", configuration=main.parent, pid_file=pid_file
        )
        assert rotate(installer, files, server, told) == leaf(server)


def test_dovecot_reloads_and_serves_it_after_starttls(at: Place, installer: Installer) -> None:
    files = copied(at)
    with dovecot(at) as (imap, pop3, imaps):
        main = at.folder / "dovecot.conf"
        text = main.read_text()
        for name in ("rsa.key", "rsa.pem"):
            text = text.replace(at.pki[name], str(files / name))
        main.write_text(text)
        pid_file = at.folder / "dovecot" / "master.pid"
        told = SimpleNamespace(
            kind="dovecot", unit="d.service", configuration=main, pid_file=pid_file
        )
        wanted = rotate(installer, files, imap, told)
        wait_until(lambda: {leaf(each) for each in (imap, pop3, imaps)} == {wanted})


def test_postgresql_reloads_and_serves_it(at: Place, installer: Installer) -> None:
    with postgres(at) as (server,):
        files = at.folder / "pg"
        told = SimpleNamespace(
            kind="postgresql",
            unit="pg.service",
            configuration=files / "data",
            pid_file=files / "data" / "postmaster.pid",
        )
        assert rotate(installer, files, server, told, owner="nobody") == leaf(server)
