"""Certificates from a real ACME server that rejects nonces, installed into a running nginx."""

from __future__ import annotations

import hashlib
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import requests
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from ssl_authority import Authority, pem
from ssl_pebble import Pebble, pebble
from ssl_servers import Poller, running, served, wait_until
from ssl_world import World

import hostlerd.ssl.responder.__main__ as responder_main
from hostler.api.common.v1 import change_pb2
from hostler.api.ssl.v1 import deployment_pb2 as pb
from hostlerd.runtime.errors import InvalidRequest
from hostlerd.ssl.errors import (
    AcmeFailed,
    CertificateNotIssued,
    DeploymentNotFound,
    KeyMismatch,
    ReloadFailed,
)
from hostlerd.ssl.service.upkeep import Upkeep

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
]
KEY_WORDS = b"PRIVATE KEY"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    made.serve()
    yield made
    assert made.installer.process
    made.installer.process.terminate()
    made.installer.process.wait(20)


@contextmanager
def web(world: World, server: Pebble) -> Iterator[Any]:
    """An nginx with a first certificate of our own, and http-01 out of the webroot."""
    leaf, key = Authority("first").issue_for("a.test")
    (world.files / "full.pem").write_text(pem(leaf))
    (world.files / "key.pem").write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    )
    (world.files / "key.pem").chmod(0o600)
    world.webroot.chmod(0o755)
    world.nginx.configure(
        extra=f"server {{ listen 127.0.0.1:{server.http_port}; root {world.webroot}; }}"
    )
    with running(world.nginx.argv(), world.nginx.port) as process:
        yield process


def leaf_of(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificates(path.read_bytes())[0]


def sha256(certificate: x509.Certificate) -> str:
    return hashlib.sha256(certificate.public_bytes(Encoding.DER)).hexdigest()


async def test_issued_installed_served_renewed_revoked(world: World, tmp_path: Path) -> None:
    (tmp_path / "pebble").mkdir()
    with pebble(tmp_path / "pebble") as server, web(world, server):
        world.serve(server.roots)
        acme = pb.AcmeSource(
            directory_url=server.directory_url, email="a@a.test", webroot=str(world.webroot)
        )
        want = world.deployment(acme=acme)
        assert (await world.apply(want)).change.changed
        assert not (await world.apply(want)).change.changed
        with Poller(world.nginx.port) as poller:
            # Not issued by this server, but not due either: forced.
            quiet = await world.ask("RenewDeployment", name="web")
            assert not quiet.change.changed and quiet.change.warnings[0].code == "NOT_DUE"
            first = await world.ask("RenewDeployment", name="web", force=True, new_key=True)
            assert [s.current for s in first.served] == [True]
            one = leaf_of(world.files / "full.pem")
            assert "Pebble" in one.issuer.rfc4514_string()
            assert server.status(one.serial_number) == "Valid"
            wait_until(lambda: poller.seen[-1] == sha256(one))
            # The same key again, where that is wanted.
            assert (await world.apply(world.deployment(acme=acme, reuse_key=True))).change.changed
            second = await world.ask("RenewDeployment", name="web", force=True)
            assert [s.current for s in second.served] == [True]
            two = leaf_of(world.files / "full.pem")
            assert sha256(two) != sha256(one) and two.public_key() == one.public_key()
            wait_until(lambda: poller.seen[-1] == sha256(two))
            await world.ask(
                "RevokeDeployedCertificate",
                name="web",
                fingerprint_sha256=sha256(one),
                reason="superseded",
            )
            assert server.status(one.serial_number) == "Revoked"
            assert server.status(two.serial_number) == "Valid"
            with pytest.raises(CertificateNotIssued):
                await world.ask(
                    "RevokeDeployedCertificate", name="web", fingerprint_sha256="0" * 64
                )
        assert not poller.failures
        log = (tmp_path / "pebble" / "pebble.log").read_text()
        assert log.count("badNonce") + log.count("nonce") > 0
        (told,) = (await world.ask("ListDeployments", handshake=True)).deployments
        assert told.installed.fingerprint_sha256 == sha256(two)
        assert told.served[0].current and not told.findings and not told.problem
        assert not list((world.webroot / ".well-known" / "acme-challenge").iterdir())
    account = next((tmp_path / "state" / "acme").glob("*/account.key"))
    assert stat.S_IMODE(account.stat().st_mode) == 0o600
    _no_key_beside_its_files(world, account)


def _no_key_beside_its_files(world: World, account: Path) -> None:
    """The key in use is in its own file alone, and no key but the account's is the daemon's."""
    body = (world.files / "key.pem").read_bytes().splitlines()[1]
    everywhere = [p for p in world.place.rglob("*") if p.is_file()]
    assert {p for p in everywhere if body in p.read_bytes()} == {world.files / "key.pem"}
    state = [p for p in (world.place / "state").rglob("*") if p.is_file()]
    assert state and {p for p in state if KEY_WORDS in p.read_bytes()} == {account}


async def test_a_timer_renews_what_is_due_and_says_what_it_did(
    world: World, tmp_path: Path
) -> None:
    (tmp_path / "pebble").mkdir()
    with pebble(tmp_path / "pebble") as server, web(world, server):
        world.serve(server.roots)
        acme = pb.AcmeSource(directory_url=server.directory_url, webroot=str(world.webroot))
        await world.apply(world.deployment(acme=acme))
        upkeep = Upkeep(world.kernel)
        # The certificate of our own is good for 90 days; its server is asked for advice though.
        assert upkeep.due() == 0.0
        assert upkeep.work() == ()
        assert Upkeep(world.kernel).due() is None
        # Two months later, by the clock that the daemon looks at.
        old = leaf_of(world.files / "full.pem")
        late = old.not_valid_after_utc.timestamp() - 20 * 24 * 3600
        later = Upkeep(world.kernel, clock=lambda: late)
        assert later.due() == 0.0
        assert later.work() == ("renewed web",)
        new = leaf_of(world.files / "full.pem")
        assert served(world.nginx.port) == sha256(new)
        assert "Pebble" in new.issuer.rfc4514_string()
        assert new.public_key() != old.public_key()
        # The same key once more, where that is wanted.
        await world.apply(world.deployment(acme=acme, reuse_key=True))
        late = new.not_valid_after_utc.timestamp() - 3600
        assert Upkeep(world.kernel, clock=lambda: late).work() == ("renewed web",)
        newest = leaf_of(world.files / "full.pem")
        assert newest != new and newest.public_key() == new.public_key()
        new = newest
        # Where the server gives advice (RFC 9773), it is taken; Debian's pebble gives none.
        directory = requests.get(server.directory_url, verify=str(server.roots), timeout=30).json()
        advised = world.kernel.advise(world.kernel.known("web")).advised
        if "renewalInfo" in directory:
            start, end = (new.not_valid_before_utc, new.not_valid_after_utc)
            assert start.timestamp() < advised < end.timestamp()
        else:
            assert advised == 0


async def test_dns_01_by_a_hook_and_a_wildcard(world: World, tmp_path: Path) -> None:
    (tmp_path / "pebble").mkdir()
    with pebble(tmp_path / "pebble") as server, web(world, server):
        world.serve(server.roots)
        hook = tmp_path / "hooks" / "dns"
        hook.write_text(
            "#!/usr/bin/python3 -I\n"
            "import json, sys, urllib.request\n"
            "verb, name, record, value = sys.argv[1:]\n"
            f"url = '{server.dns_url}/' + ('set-txt' if verb == 'present' else 'clear-txt')\n"
            "data = json.dumps({'host': record + '.', 'value': value}).encode()\n"
            "urllib.request.urlopen(urllib.request.Request(url, data))\n"
        )
        acme = pb.AcmeSource(directory_url=server.directory_url, dns_hook="dns")
        want = world.deployment(acme=acme)
        want.subject_names[:] = ["a.test", "*.a.test"]
        await world.apply(want)
        with pytest.raises(AcmeFailed, match="hooks/dns present"):
            await world.ask("RenewDeployment", name="web", force=True)
        (told,) = (await world.ask("ListDeployments")).deployments
        assert "hooks/dns present" in told.problem
        hook.chmod(0o755)
        await world.ask("RenewDeployment", name="web", force=True)
        names = leaf_of(world.files / "full.pem").extensions.get_extension_for_class(
            x509.SubjectAlternativeName
        )
        assert set(names.value.get_values_for_type(x509.DNSName)) == {"a.test", "*.a.test"}


async def test_http_01_by_our_own_responder(world: World, tmp_path: Path) -> None:
    (tmp_path / "pebble").mkdir()
    with pebble(tmp_path / "pebble") as server, web(world, server):
        world.serve(server.roots)
        await world.apply(world.deployment(acme=pb.AcmeSource(directory_url=server.directory_url)))
        # nginx has that port for the webroot, which is empty: it lets go of it.
        world.nginx.configure()
        world.nginx.reload()
        wait_until(lambda: not answers(server.http_port))
        argv = ["/usr/bin/python3", "-I", "-S", responder_main.__file__]
        folder, port = str(tmp_path / "responder"), str(server.http_port)
        with running([*argv, folder, "--listen", port], server.http_port):
            await world.ask("RenewDeployment", name="web", force=True, new_key=True)
            assert served(world.nginx.port) == sha256(leaf_of(world.files / "full.pem"))
            # What is no challenge, or not there, is not answered; neither is anything else.
            url = f"http://127.0.0.1:{port}"
            (tmp_path / "responder" / "secret.key").write_text("x")
            for path in ("/", "/.well-known/acme-challenge/secret.key", "/%2e%2e/etc/passwd"):
                assert requests.get(url + path, timeout=30).status_code == 404
            with socket.create_connection(("127.0.0.1", server.http_port), 30) as rude:
                rude.sendall(b"\x16\x03\x01" * 4000)
                assert rude.recv(12) in (b"HTTP/1.1 404", b"")


def answers(port: int) -> bool:
    with suppress(OSError):
        socket.create_connection(("127.0.0.1", port), 5).close()
        return True
    return False


async def test_a_name_that_is_not_ours_changes_nothing(world: World, tmp_path: Path) -> None:
    (tmp_path / "pebble").mkdir()
    with pebble(tmp_path / "pebble") as server, web(world, server):
        world.serve(server.roots)
        # Nobody answers there: the responder is not started.
        acme = pb.AcmeSource(directory_url=server.directory_url)
        await world.apply(world.deployment(acme=acme))
        before = (world.files / "full.pem").read_bytes()
        with pytest.raises(AcmeFailed, match=r"a\.test: http-01"):
            await world.ask("RenewDeployment", name="web", force=True, new_key=True)
        assert (world.files / "full.pem").read_bytes() == before
        assert not list((tmp_path / "responder").iterdir())


async def test_by_hand_csr_install_list_delete(world: World, tmp_path: Path) -> None:
    authority = Authority("corporate")
    bare = world.deployment()
    del bare.servers[:]
    planned = await world.ask(
        "ApplyDeployment",
        deployment=bare,
        change=change_pb2.ChangeOptions(validate_only=True),
    )
    assert planned.change.outcome == change_pb2.OUTCOME_PLANNED
    with pytest.raises(DeploymentNotFound):
        await world.ask("CreateSigningRequest", name="web")
    await world.apply(bare)
    asked = await world.ask("CreateSigningRequest", name="web")
    csr = x509.load_pem_x509_csr(asked.csr_pem.encode())
    assert csr.is_signature_valid
    text = pem(authority.issue(asked.csr_pem), authority.intermediate, authority.root)
    stranger, _ = authority.issue_for("a.test")
    with pytest.raises(KeyMismatch):
        await world.ask("InstallCertificate", name="web", pem=pem(stranger))
    with pytest.raises(InvalidRequest, match="private key"):
        await world.ask("InstallCertificate", name="web", pem=f"{text}-----BEGIN PRIVATE KEY-----")
    done = await world.ask("InstallCertificate", name="web", pem=text)
    assert done.change.changed
    assert (world.files / "full.pem").read_text().count("BEGIN") == 2
    again = await world.ask("InstallCertificate", name="web", pem=text)
    assert not again.change.changed
    with pytest.raises(InvalidRequest, match="install_directories"):
        elsewhere = pb.Deployment(**{})
        elsewhere.CopyFrom(bare)
        elsewhere.name, elsewhere.key.path = "x", "/etc/shadow"
        await world.apply(elsewhere)
    with pytest.raises(InvalidRequest, match="names no nginx"):
        unknown = world.deployment()
        unknown.servers[0].unit = "ssh.service"
        await world.apply(unknown)
    gone = await world.ask("DeleteDeployment", name="web")
    assert gone.change.changed and (world.files / "full.pem").exists()
    assert not (await world.ask("DeleteDeployment", name="web")).change.changed
    assert not (await world.ask("ListDeployments")).deployments


async def test_a_server_that_does_not_run_is_told_and_nothing_stays(
    world: World, tmp_path: Path
) -> None:
    authority = Authority("corporate")
    bare = world.deployment()
    bare.servers[0].listeners[:] = [f"127.0.0.1:{world.nginx.port}"]
    await world.apply(bare)
    asked = await world.ask("CreateSigningRequest", name="web")
    text = pem(authority.issue(asked.csr_pem), authority.intermediate)
    world.installer.configure(world.files, world.nginx, served_within_s=1)
    # nginx is not running: nobody is there to be reloaded.
    with pytest.raises(ReloadFailed, match="no process of it runs; everything is as it was"):
        await world.ask("InstallCertificate", name="web", pem=text)
    assert not list(world.files.iterdir())
