"""An authority on a real host: issued for nginx, judged by openssl, revoked, refused, killed."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
import pytest
import security_lab as support
from authority_place import csr, openssl
from ssl_servers import free_port, running

from hostler.api.common.v1 import host_pb2, host_pb2_grpc
from hostler.api.ssl.v1 import authority_pb2 as pb
from hostler.api.ssl.v1 import authority_pb2_grpc
from hostler.lab.host import Host
from hostler.lab.lab import Lab

pytestmark = [pytest.mark.hosts, pytest.mark.timeout(300)]

PATIENCE_S = 90.0
UNITS = ("hostler-ssl-signer.service", "hostler-ssl.service", "hostler-ssl-responder.service")
CONFIGURATION = """
[authority]
publish_url = "http://{address}:7480"
[authority.profiles.server]
dns_names = ["*.example.net"]
max_validity_days = 30
[authority.identities]
allowed = ["user/zoe", "host/*"]
dns_names = ["*.example.net"]
"""
NGINX = """
daemon off; pid {folder}/pid; error_log {folder}/error.log; events {{}}
http {{ access_log off; server {{ listen 127.0.0.1:{port} ssl; server_name www.example.net;
  ssl_certificate {folder}/web.pem; ssl_certificate_key {folder}/key.pem; return 200 "ok"; }} }}
"""


class Ca:
    """An authority on the first host, made anew, and how to ask it as somebody."""

    def __init__(self, lab: Lab, host: Host) -> None:
        self.lab = lab
        self.host = host
        self.url = f"http://{host.ipv4}:7480"

    def cli(self, *words: str) -> str:
        return support.hostler(self.lab, "-H", self.host.name, "--yes", "ssl", "authority", *words)

    def call(self, method: str, request: Any, who: str = "admin", timeout_s: float = 60) -> Any:
        pair = support.Pair.of(self.lab.pki, who)
        with support.channel(self.lab, self.host, "ssl", pair) as channel:
            stub = authority_pb2_grpc.CertificateAuthorityServiceStub(channel)
            return getattr(stub, method)(request, timeout=timeout_s, wait_for_ready=True)

    def refused(self, method: str, request: Any, who: str = "admin") -> support.Refusal:
        with pytest.raises(grpc.RpcError) as caught:
            self.call(method, request, who)
        return support.refusal(caught.value)

    def root(self, folder: Path) -> Path:
        (folder / "root.pem").write_text(self.cli("show", "--pem"))
        return folder / "root.pem"


@pytest.fixture(scope="module")
def ca(lab: Lab) -> Iterator[Ca]:
    host = lab.hosts[0]
    if host.leader() is None:
        lab.boot(host.name)
    before = host.run(["cat", support.CONFIGURATION]).stdout
    added = CONFIGURATION.format(address=host.ipv4)
    host.put(support.CONFIGURATION, before.replace("\n[authority]\n", added))
    host.run(["systemctl", "stop", *UNITS])
    host.run(["systemctl", "enable", "--now", "hostler-ssl-responder.socket"])
    one = Ca(lab, host)
    one.cli("init", "--name", "Lab CA", "--trust-domain", "lab.hostler")
    try:
        yield one
    finally:
        host.run(["systemctl", "disable", "--now", "hostler-ssl-responder.socket"])
        host.run(["systemctl", "stop", *UNITS])
        clear = "rm -rf /var/lib/hostler/ssl-authority/* /var/lib/hostler/ssl-responder/*"
        host.run(["sh", "-c", clear])
        host.put(support.CONFIGURATION, before)


def test_init_once_more_changes_nothing(ca: Ca) -> None:
    before = ca.call("GetAuthority", pb.GetAuthorityRequest()).authority
    again = ca.call("InitAuthority", pb.InitAuthorityRequest(name="Other"))
    assert not again.change.changed
    assert again.authority.certificates[0] == before.certificates[0]
    assert before.identity_certificates[0].names[0].value == "spiffe://lab.hostler"
    assert before.crl_urls == [f"{ca.url}/service.crl"]


def test_nginx_serves_what_was_issued_and_openssl_takes_it_until_it_is_revoked(
    ca: Ca, tmp_path: Path
) -> None:
    root = ca.root(tmp_path)
    csr(tmp_path, "DNS:www.example.net", cn="www.example.net")
    files = ("--csr", str(tmp_path / "request.pem"), "--out", str(tmp_path / "web.pem"))
    ca.cli("issue", "server", "--validity", "7d", *files)
    port = free_port()
    (tmp_path / "nginx.conf").write_text(NGINX.format(folder=tmp_path, port=port))
    argv = ["/usr/sbin/nginx", "-c", tmp_path / "nginx.conf", "-p", tmp_path]
    with running([*argv, "-e", tmp_path / "error.log"], port):
        assert "verify OK" in crl_of(ca, root, tmp_path)
        assert handshake(port, root, tmp_path) == "ok"
        assert "web.pem: good" in ocsp(ca, root, tmp_path)
        text = openssl("x509", "-in", tmp_path / "web.pem", "-noout", "-serial")
        serial = text.strip().removeprefix("serial=")
        assert ca.url in openssl("x509", "-in", tmp_path / "web.pem", "-noout", "-ocsp_uri")
        ca.cli("revoke", serial, "--reason", "key-compromise")
        crl_of(ca, root, tmp_path)
        assert handshake(port, root, tmp_path) == "certificate revoked"
    told = ocsp(ca, root, tmp_path)
    assert "web.pem: revoked" in told
    assert "Reason: keyCompromise" in told
    assert serial.lower().lstrip("0") in ca.cli("list", "--revoked")


def crl_of(ca: Ca, root: Path, folder: Path) -> str:
    """Get the CRL by curl from the responder, as PEM beside it; what openssl says of it."""
    der = folder / "crl.der"
    curl = ["/usr/bin/curl", "-sSf", "--max-time", "60", "-o", str(der), f"{ca.url}/service.crl"]
    subprocess.run(curl, check=True, timeout=90)
    return openssl(
        *("crl", "-inform", "DER", "-in", der, "-CAfile", root, "-out", folder / "crl.pem")
    )


def handshake(port: int, root: Path, folder: Path) -> str:
    """What a strict client with a CRL makes of the server: "ok" or the error of openssl."""
    argv = [
        *("/usr/bin/openssl", "s_client", "-connect", f"127.0.0.1:{port}", "-CAfile", str(root)),
        *("-servername", "www.example.net", "-verify_hostname", "www.example.net"),
        *("-crl_check", "-CRL", str(folder / "crl.pem"), "-verify_return_error"),
    ]
    done = subprocess.run(argv, input="", capture_output=True, text=True, timeout=90)
    told = done.stdout + done.stderr
    if done.returncode == 0 and "Verify return code: 0 (ok)" in told:
        return "ok"
    return "certificate revoked" if "certificate revoked" in told else told


def ocsp(ca: Ca, root: Path, folder: Path) -> str:
    told = openssl(
        *("ocsp", "-issuer", root, "-CAfile", root, "-cert", folder / "web.pem"),
        *("-url", f"{ca.url}/ocsp"),
    )
    assert "Response verify OK" in told
    return told


def test_what_the_profile_does_not_allow_is_refused_with_the_reason(ca: Ca, tmp_path: Path) -> None:
    asked = pb.IssueCertificateRequest(profile="server", csr=csr(tmp_path, "DNS:www.example.org"))
    refused = ca.refused("IssueCertificate", asked)
    assert refused.reason == "NOT_ALLOWED_BY_PROFILE"
    assert "www.example.org is not a name of the profile" in refused.message
    asked.change.validate_only = True
    assert ca.refused("IssueCertificate", asked) == refused
    asked.csr = csr(tmp_path, "DNS:a.example.net", "URI:spiffe://lab.hostler/user/admin")
    assert ca.refused("IssueCertificate", asked).reason == "INVALID_REQUEST"
    asked = pb.IssueCertificateRequest(profile="none", csr=csr(tmp_path, "DNS:a.example.net"))
    assert ca.refused("IssueCertificate", asked).reason == "PROFILE_NOT_FOUND"
    asked = pb.IssueCertificateRequest(profile="server", csr=b"0" * 70_000)
    assert ca.refused("IssueCertificate", asked).reason == "INVALID_REQUEST"
    identity = pb.IssueIdentityRequest(identity="user/admin", csr=csr(tmp_path))
    assert ca.refused("IssueIdentity", identity).reason == "NOT_ALLOWED_BY_PROFILE"


def test_who_may_not_is_denied(ca: Ca, tmp_path: Path) -> None:
    request = csr(tmp_path, "DNS:a.example.net")
    issue = pb.IssueCertificateRequest(profile="server", csr=request)
    assert ca.refused("IssueCertificate", issue, "viewer").code == "PERMISSION_DENIED"
    issue.change.validate_only = True
    assert ca.call("IssueCertificate", issue, "operator").change.plan.hash
    identity = pb.IssueIdentityRequest(identity="user/zoe", csr=request)
    identity.change.validate_only = True
    assert ca.refused("IssueIdentity", identity, "operator").code == "PERMISSION_DENIED"
    assert ca.call("IssueIdentity", identity, "admin").change.plan.hash
    revoke = pb.RevokeCertificateRequest(serial="1")
    assert ca.refused("RevokeCertificate", revoke, "viewer").code == "PERMISSION_DENIED"


def test_a_plan_issues_nothing_and_a_retry_answers_the_same(ca: Ca, tmp_path: Path) -> None:
    asked = pb.IssueCertificateRequest(profile="server", csr=csr(tmp_path, "DNS:r.example.net"))
    asked.change.validate_only = True
    planned = ca.call("IssueCertificate", asked)
    assert (planned.pem, issued_for(ca, "r.example.net")) == ("", 0)
    asked.change.validate_only = False
    asked.change.plan_hash = planned.change.plan.hash
    asked.change.request_id = secrets.token_hex(8)
    first, again = ca.call("IssueCertificate", asked), ca.call("IssueCertificate", asked)
    assert first.pem == again.pem
    assert issued_for(ca, "r.example.net") == 1
    # A daemon that has gone and come answers it, too.
    ca.host.run(["systemctl", "stop", "hostler-ssl.service"])
    assert ca.call("IssueCertificate", asked).pem == first.pem
    assert issued_for(ca, "r.example.net") == 1


def issued_for(ca: Ca, name: str) -> int:
    page = ca.call("ListIssuedCertificates", pb.ListIssuedCertificatesRequest(name=name))
    return len(page.issued)


def test_killed_in_the_middle_each_is_issued_once(ca: Ca, tmp_path: Path) -> None:
    asked: list[Any] = []
    answers: dict[str, Any] = {}
    cut_off: list[Any] = []
    deadline = time.monotonic() + PATIENCE_S
    # A fast machine may answer all of them before the kill reaches the daemon: then more are asked.
    while not cut_off:
        assert time.monotonic() < deadline, "the daemon answers all before it is killed"
        more = [
            asked_for(tmp_path, f"k{number}.example.net")
            for number in range(len(asked), len(asked) + 60)
        ]
        asked += more
        cut_off = issue_all(ca, more, answers, kill_at=10)
    deadline = time.monotonic() + PATIENCE_S
    while cut_off:
        assert time.monotonic() < deadline, "the daemon does not come back"
        cut_off = issue_all(ca, cut_off, answers)
    assert [issued_for(ca, name) for name, _ in asked] == [1] * len(asked)
    lost = [answer for answer in answers.values() if not answer.pem]
    # The one that was finished by the recovery: the answer says so, and the certificate is there.
    assert [answer.change.warnings[0].code for answer in lost] == ["CHANGE_INTERRUPTED"] * len(lost)
    print(f"\nkilled with {len(asked)} asked for; finished by the recovery: {len(lost)}")


def asked_for(folder: Path, name: str) -> tuple[str, Any]:
    """A name, and the request for a certificate of it, which may be made again."""
    request = csr(folder, f"DNS:{name}", new_key=not (folder / "key.pem").exists())
    one = pb.IssueCertificateRequest(profile="server", csr=request)
    one.change.request_id = secrets.token_hex(8)
    return name, one


def issue_all(
    ca: Ca, asked: list[Any], answers: dict[str, Any], kill_at: int | None = None
) -> list[Any]:
    """Ask for all at once; answer those that got no answer."""
    cut_off = []
    ca.call("GetAuthority", pb.GetAuthorityRequest())
    daemon = daemon_of(ca.host)
    pair = support.Pair.of(ca.lab.pki, "admin")
    with support.channel(ca.lab, ca.host, "ssl", pair) as channel:
        stub = authority_pb2_grpc.CertificateAuthorityServiceStub(channel)
        calls = [stub.IssueCertificate.future(one, timeout=60) for _, one in asked]
        for number, (call, (name, one)) in enumerate(zip(calls, asked, strict=True)):
            if number == kill_at:
                # From outside: asking systemd on the host takes longer than all of the answers.
                os.kill(daemon, signal.SIGKILL)
            try:
                answers[name] = call.result(60)
            except grpc.RpcError as e:
                assert support.refusal(e).code in ("UNAVAILABLE", "CANCELLED"), e
                cut_off.append((name, one))
    return cut_off


def daemon_of(host: Host) -> int:
    """The daemon's PID as this machine has it."""
    argv = ["systemctl", "show", "-p", "MainPID", "--value", "hostler-ssl.service"]
    inside, space = host.run(argv).stdout.strip(), Path(f"/proc/{host.leader()}/ns/pid").readlink()
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            status = (process / "status").read_text()
            numbers = next(n for n in status.splitlines() if n.startswith("NSpid:")).split()
            if numbers[-1] == inside and (process / "ns/pid").readlink() == space:
                return int(process.name)
    raise AssertionError("the daemon does not run")


def test_an_identity_opens_a_door_where_its_issuer_is_trusted(ca: Ca, tmp_path: Path) -> None:
    csr(tmp_path)
    files = ("--csr", str(tmp_path / "request.pem"), "--out", str(tmp_path / "zoe.pem"))
    ca.cli("identity", "user/zoe", *files)
    pair = support.Pair(tmp_path / "zoe.pem", tmp_path / "key.pem")

    def host_name() -> str:
        with support.channel(ca.lab, ca.host, "netns", pair) as channel:
            stub = host_pb2_grpc.HostServiceStub(channel)
            return str(stub.GetHost(host_pb2.GetHostRequest(), timeout=30).host.hostname)

    with pytest.raises(grpc.RpcError) as caught:
        host_name()
    assert support.refusal(caught.value).code == "UNAVAILABLE"
    trusted = "/etc/hostler/pki/ca.pem"
    before = ca.host.run(["cat", trusted]).stdout
    try:
        ca.host.put(trusted, before + ca.cli("show", "--identity-pem"))
        ca.host.run(["systemctl", "stop", "hostler-netns.service"])
        assert host_name() == ca.host.name
        # The issuer of profiles is no way in, whatever a certificate of it says.
        web = ("--csr", str(tmp_path / "request.pem"), "--out", str(tmp_path / "web.pem"))
        csr(tmp_path, "DNS:zoe.example.net", new_key=False)
        ca.cli("issue", "server", *web)
        pair = support.Pair(tmp_path / "web.pem", tmp_path / "key.pem")
        with pytest.raises(grpc.RpcError):
            host_name()
    finally:
        ca.host.put(trusted, before)
        ca.host.run(["systemctl", "stop", "hostler-netns.service"])


def test_the_keys_are_nowhere_but_with_the_signer(ca: Ca, tmp_path: Path) -> None:
    folder = "/var/lib/hostler/ssl-authority"
    keys = [
        ca.host.run(["cat", f"{folder}/{name}.key"]).stdout.splitlines()[1]
        for name in ("service", "identity")
    ]
    answers = [
        ca.call("GetAuthority", pb.GetAuthorityRequest()),
        ca.call("ListIssuedCertificates", pb.ListIssuedCertificatesRequest()),
        ca.call("GetRevocationList", pb.GetRevocationListRequest()),
    ]
    told = "".join(map(str, answers)) + ca.host.run(["journalctl", "-q", "-o", "json"]).stdout
    told += json.dumps(support.audit(ca.lab, ca.host, "ssl"))
    assert "IssueCertificate" in told
    assert not [key for key in keys if key in told]
    # On the whole disk the first line of a key is in its own file, and in no other.
    places = "/var /etc /run /tmp /opt /root"
    for name, key in zip(("service", "identity"), keys, strict=True):
        found = ca.host.run(["sh", "-c", f"grep -rlsF -- '{key}' {places}"]).stdout.split()
        assert found == [f"{folder}/{name}.key"]
    shown = ca.host.run(["stat", "-c", "%a %U %G %n", folder, f"{folder}/service.key"]).stdout
    assert shown.splitlines() == [
        f"700 hostler-ssl-signer hostler-ssl-signer {folder}",
        f"600 hostler-ssl-signer hostler-ssl-signer {folder}/service.key",
    ]
    for user in ("hostler-ssl", "hostler-ssl-responder"):
        argv = ["runuser", "-u", user, "--", "cat", f"{folder}/service.key"]
        assert "Permission denied" in ca.host.run(argv, check=False).stderr


def test_the_signer_answers_the_ssl_daemon_alone(ca: Ca) -> None:
    ask = (
        "import socket;s=socket.socket(socket.AF_UNIX);s.connect('/run/hostler/ssl-signer.sock');"
        's.sendall(b\'\\0\\0\\0\\x0e{"op":"state"}\');print(len(s.recv(10)))'
    )
    for user, expected in (("hostler-ssl", "10"), ("root", "0"), ("hostler-netns", "")):
        argv = ["runuser", "-u", user, "--", "/usr/bin/python3", "-I", "-c", ask]
        done = ca.host.run(argv, check=False)
        if expected == "0":
            assert done.stdout.strip() == "0" or "Error" in done.stderr, user
        else:
            assert done.stdout.strip() == expected, (user, done.stderr)


def test_the_signer_and_the_responder_have_no_network_and_no_cores(ca: Ca) -> None:
    ca.call("GetAuthority", pb.GetAuthorityRequest())
    for name in ("signer", "responder"):
        unit = f"hostler-ssl-{name}.service"
        ca.host.run(["systemctl", "start", unit])
        pid = ca.host.run(["systemctl", "show", "-p", "MainPID", "--value", unit]).stdout.strip()
        links = ca.host.run(["nsenter", "-t", pid, "-n", "ip", "-json", "link"]).stdout
        assert [link["ifname"] for link in json.loads(links)] == ["lo"], name
        limits = ca.host.run(["cat", f"/proc/{pid}/limits"]).stdout
        assert "Max core file size        0                    0" in limits
        status = ca.host.run(["cat", f"/proc/{pid}/status"]).stdout
        assert "CapEff:\t0000000000000000" in status


def test_a_refresh_by_the_timers_unit_publishes(ca: Ca, tmp_path: Path) -> None:
    root = ca.root(tmp_path)
    ca.host.run(["sh", "-c", "rm /var/lib/hostler/ssl-responder/service.crl"])
    ca.host.run(["systemctl", "start", "hostler-ssl-publish.service"])
    assert "verify OK" in crl_of(ca, root, tmp_path)
    shown = ca.host.run(["stat", "-c", "%a %G", "/var/lib/hostler/ssl-responder/service.ocsp"])
    assert shown.stdout.strip() == "640 hostler-ssl-responder"
    # Armed by being installed.
    timer = ca.host.run(["systemctl", "is-active", "hostler-ssl-publish.timer"], check=False)
    assert timer.stdout.strip() == "active"
