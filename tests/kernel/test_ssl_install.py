"""Rotation by proof: real servers, a client that polls, and everything that can go wrong."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import threading
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from ssl_authority import Authority, pem
from ssl_rotation import contents, deployment, first, renewed, sha256
from ssl_servers import (
    Apache,
    Haproxy,
    Installer,
    Lighttpd,
    Nginx,
    Poller,
    running,
    served,
    wait_until,
)

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
]
KEY_WORDS = b"PRIVATE KEY"


@pytest.fixture
def authority() -> Authority:
    return Authority("test")


@pytest.fixture
def files(tmp_path: Path) -> Path:
    place = tmp_path / "ssl"
    place.mkdir()
    return place


@pytest.fixture
def installer(tmp_path: Path) -> Iterator[Installer]:
    made = Installer(tmp_path)
    yield made
    if made.process:
        made.process.terminate()
        made.process.wait(20)


@pytest.mark.parametrize("kind", [Nginx, Haproxy, Apache, Lighttpd])
def test_installed_served_and_rotated_without_a_gap(tmp_path, files, installer, authority, kind):
    server = kind(tmp_path, files)
    one = deployment(files, server)
    installer.configure(files, server)
    installer.start()
    old = first(installer, authority, one)
    with running(server.argv(), server.port), Poller(server.port) as poller:
        new = renewed(installer, authority, one)
        answer = installer.install(one, pem(new, authority.intermediate))
        assert answer["ok"], answer
        (seen,) = answer["served"]
        assert seen["current"] and seen["fingerprint_sha256"] == sha256(new)
        # openssl is asked too: the chain that it gets is whole.
        (tmp_path / "root.pem").write_text(pem(authority.root))
        said = subprocess.run(
            [
                *("openssl", "s_client", "-connect", f"127.0.0.1:{server.port}"),
                *("-servername", "a.test", "-verify_return_error", "-verify_hostname", "a.test"),
                *("-CAfile", tmp_path / "root.pem"),
            ],
            input=b"",
            capture_output=True,
            check=False,
        )
        assert b"Verify return code: 0 (ok)" in said.stdout, said
        wait_until(lambda: poller.seen[-1] == sha256(new))
    assert not poller.failures
    assert poller.seen[0] == sha256(old)
    assert sorted(p.name for p in files.iterdir()) == ["bundle.pem", "full.pem", "key.pem"]
    assert stat.S_IMODE((files / "key.pem").stat().st_mode) == 0o600


def test_everything_that_is_wrong_is_rolled_back_and_nobody_notices(
    tmp_path, files, installer, authority
):
    server = Nginx(tmp_path, files)
    one = deployment(files, server)
    installer.configure(files, server)
    installer.start()
    old = first(installer, authority, one)
    before = contents(files)

    def refused(reason: str, text: str, what: dict[str, Any] = one) -> str:
        answer = installer.install(what, text)
        assert not answer["ok"] and answer["reason"] == reason, answer
        assert contents(files) == before
        assert served(server.port) == sha256(old)
        return str(answer["message"])

    with running(server.argv(), server.port) as nginx, Poller(server.port) as poller:
        new = renewed(installer, authority, one)
        # A wrong chain: an issuer that is none.
        refused("CHAIN_BROKEN", pem(new, Authority("other").intermediate))
        # A certificate for somebody else's key.
        stranger, _ = authority.issue_for("a.test")
        refused("KEY_MISMATCH", pem(stranger, authority.intermediate))
        # A syntax error that is found only now.
        server.configure(extra="ssl_protocols TLSv9;")
        words = refused("SYNTAX_CHECK_FAILED", pem(new, authority.intermediate))
        assert "TLSv9" in words
        # A key that nginx reads from elsewhere, and that does not belong to the certificate.
        key = tmp_path / "elsewhere.key"
        key.write_bytes((files / "key.pem").read_bytes())
        server.key = key
        server.configure()
        words = refused("SYNTAX_CHECK_FAILED", pem(new, authority.intermediate))
        assert "key values mismatch" in words
        server.key = files / "key.pem"
        server.configure()
        # A server that does not read its files again.
        os.kill(nginx.pid, signal.SIGSTOP)
        installer.configure(files, server, served_within_s=2)
        words = refused("NOT_SERVED", pem(new, authority.intermediate))
        assert "another certificate is served" in words
        os.kill(nginx.pid, signal.SIGCONT)
        installer.configure(files, server)
        # A server that is not sent what goes with the leaf.
        no_chain = {k: v for k, v in one.items() if k != "full_chain"}
        no_chain |= {"certificate": one["full_chain"]}
        refused("NOT_SERVED", pem(new, authority.intermediate), no_chain)
        # After all that, the good one goes in.
        assert installer.install(one, pem(new, authority.intermediate))["ok"]
        wait_until(lambda: poller.seen[-1] == sha256(new))
    assert not poller.failures
    assert {*poller.seen} <= {sha256(old), sha256(new)}


def test_keys_are_nowhere_but_in_their_files(tmp_path, files, installer, authority):
    server = Nginx(tmp_path, files)
    one = deployment(files, server)
    installer.configure(files, server)
    installer.start()
    first(installer, authority, one)
    with running(server.argv(), server.port):
        new = renewed(installer, authority, one)
        waiting = (installer.state / "keys" / "web").read_bytes()
        installer.ask({"op": "status", "deployment": one, "handshake": True})
        assert not installer.install(one, pem(new, Authority("x").root))["ok"]
        assert installer.install(one, pem(new, authority.intermediate))["ok"]
    body = waiting.splitlines()[1]
    assert KEY_WORDS in waiting and body in (files / "key.pem").read_bytes()
    holders = {p for p in tmp_path.rglob("*") if p.is_file() and body in p.read_bytes()}
    assert holders == {files / "key.pem", files / "bundle.pem"}
    said = "".join(installer.answers).encode() + installer.log.read_bytes()
    assert said and KEY_WORDS not in said and body not in said


def test_a_kill_in_the_middle_is_undone_by_the_next_start(tmp_path, files, installer, authority):
    server = Nginx(tmp_path, files)
    one = deployment(files, server)
    installer.configure(files, server)
    installer.start()
    old = first(installer, authority, one)
    before = contents(files)
    with running(server.argv(), server.port) as nginx, Poller(server.port) as poller:
        new = renewed(installer, authority, one)
        # It waits for what is never served, with the new files in place.
        os.kill(nginx.pid, signal.SIGSTOP)
        asking = threading.Thread(
            target=_cut_off, args=(installer, one, pem(new, authority.intermediate))
        )
        asking.start()
        wait_until(lambda: _has_waiting(nginx.pid, signal.SIGHUP))
        assert '"reloading"' in "".join(_journal(installer))
        assert contents(files) != before
        installer.kill()
        asking.join()
        os.kill(nginx.pid, signal.SIGCONT)
        # By now the server has the new one: files and reload both have to be taken back.
        wait_until(lambda: served(server.port) == sha256(new))
        installer.start()
        assert contents(files) == before
        wait_until(lambda: served(server.port) == sha256(old))
    assert not poller.failures
    assert not _journal(installer)


def _has_waiting(pid: int, number: int) -> bool:
    """Whether a signal waits for a process that is stopped. proc(5), ShdPnd."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    mask = next(line.split()[1] for line in lines if line.startswith("ShdPnd:"))
    return bool(int(mask, 16) >> (number - 1) & 1)


def _cut_off(installer: Installer, one: dict[str, Any], text: str) -> None:
    with suppress(OSError, ValueError):
        installer.install(one, text)


def _journal(installer: Installer) -> list[str]:
    return [p.read_text() for p in (installer.state / "journal").glob("*.json")]


def test_files_go_only_where_they_may(tmp_path, files, installer, authority):
    server = Nginx(tmp_path, files)
    installer.configure(files, server)
    installer.start()
    (tmp_path / "outside").mkdir()
    (files / "door").symlink_to(tmp_path / "outside")
    (files / "link.pem").symlink_to(tmp_path / "outside" / "victim")
    (tmp_path / "outside" / "victim").write_text("untouched")
    one = deployment(files)
    leaf, _ = authority.issue_for("a.test")

    def reason(**file: Any) -> str:
        what = {**one, "key": {**one["key"], **file}}
        made = installer.ask({"op": "make_key", "deployment": what})
        if not made["ok"]:
            return str(made["reason"])
        text = pem(authority.issue(made["csr_pem"]), authority.intermediate)
        return str(installer.install(what, text)["reason"])

    assert reason(path=str(tmp_path / "outside" / "victim")) == "PATH_NOT_ALLOWED"
    assert reason(path=f"{files}/../outside/victim") == "INVALID"
    assert reason(path=str(files / "door" / "victim")) == "NO_FOLDER"
    assert reason(path=str(files / "link.pem")) == "NOT_A_FILE"
    assert reason(mode=0o644) == "INVALID"
    assert reason(mode=0o4600) == "INVALID"
    assert reason(owner="nobody-of-that-name") == "INVALID"
    assert (tmp_path / "outside" / "victim").read_text() == "untouched"
    unknown = {**one, "servers": [{**deployment(files, server)["servers"][0], "unit": "x.service"}]}
    assert installer.install(unknown, pem(leaf))["reason"] in {"KEY_MISMATCH"}


def test_a_server_with_a_window_is_reloaded_when_it_opens(tmp_path, files, installer, authority):
    server = Nginx(tmp_path, files)
    installer.configure(files, server)
    installer.start()
    one = deployment(files, server)
    old = first(installer, authority, one)
    opens = datetime.now(UTC) + timedelta(hours=3)
    window = {"start": f"{opens:%H:%M}", "duration_s": 3600, "time_zone": "UTC"}
    later = {**one, "servers": [{**one["servers"][0], "window": window}]}
    with running(server.argv(), server.port):
        new = renewed(installer, authority, later)
        answer = installer.install(later, pem(new, authority.intermediate))
        (seen,) = answer["served"]
        assert not seen["current"] and seen["fingerprint_sha256"] == sha256(old)
        assert abs(seen["reload_unix_s"] - opens.timestamp()) < 61
        assert installer.ask({"op": "reload_due"})["runs"] == []
        assert served(server.port) == sha256(old)
        # The hour comes.
        assert not _journal(installer)
        (path,) = (installer.state / "waiting").glob("*.json")
        path.write_text(path.read_text().replace(str(seen["reload_unix_s"]), "1"))
        text = path.read_text()
        path.write_text(text.replace(window["start"], f"{datetime.now(UTC):%H:%M}"))
        (done,) = installer.ask({"op": "reload_due"})["runs"]
        assert done["problem"] == "" and done["served"][0]["current"]
        assert served(server.port) == sha256(new)


def test_one_server_of_two_deployments_is_reloaded_once(tmp_path, files, installer, authority):
    server = Nginx(tmp_path, files)
    installer.configure(files, server)
    installer.start()
    one = deployment(files, server)
    two = {
        **deployment(files, server),
        "name": "second",
        "key": {**one["key"], "path": str(files / "key2.pem")},
        "full_chain": {**one["full_chain"], "path": str(files / "full2.pem")},
        "bundle": {**one["bundle"], "path": str(files / "bundle2.pem")},
        "subject_names": ["b.test"],
    }
    first(installer, authority, one)
    first(installer, authority, two)
    server.configure(
        extra=f"server {{ listen 127.0.0.1:{server.port} ssl; server_name b.test; return 204; "
        f"ssl_certificate {files}/full2.pem; ssl_certificate_key {files}/key2.pem; }}"
    )
    with running(server.argv(), server.port):
        items = [
            {
                "deployment": each,
                "pem": pem(renewed(installer, authority, each), authority.intermediate),
            }
            for each in (one, two)
        ]
        answer = installer.ask({"op": "install", "items": items})
        assert answer["ok"], answer
        assert [each["current"] for each in answer["served"]] == [True, True]
        log = (tmp_path / "error.log").read_text()
        assert log.count("signal 1 (SIGHUP) received") == 1
