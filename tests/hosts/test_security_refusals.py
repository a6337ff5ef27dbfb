"""Callers that must not get in, at the doors of a real host: each refused for its own reason."""

from __future__ import annotations

import re
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import security_calls as calls
import security_lab as support
import security_people

from hostler.api.common.v1 import host_pb2
from hostler.api.firewall.v1 import ruleset_pb2
from hostler.api.netns.v1 import counter_pb2, counter_pb2_grpc, namespace_pb2, process_pb2
from hostler.api.ssl.v1 import library_pb2
from hostler.api.storage.v1 import graph_pb2
from hostler.api.tracing.v1 import diagnosis_pb2
from hostler.lab.host import Host
from hostler.lab.lab import Lab
from hostler.pki import Authority

pytestmark = [pytest.mark.hosts, pytest.mark.timeout(180)]

DOMAINS = pytest.mark.parametrize("domain", support.DOMAINS)
GET_HOST = host_pb2.DESCRIPTOR.services_by_name["HostService"].methods_by_name["GetHost"]
LIST = {
    "netns": namespace_pb2.DESCRIPTOR.services_by_name["NamespaceService"].methods_by_name[
        "ListNamespaces"
    ],
    "firewall": ruleset_pb2.DESCRIPTOR.services_by_name["RulesetService"].methods_by_name[
        "ListRulesets"
    ],
    "tracing": diagnosis_pb2.DESCRIPTOR.services_by_name["DiagnosisService"].methods_by_name[
        "DiagnoseStuck"
    ],
    "storage": graph_pb2.DESCRIPTOR.services_by_name["GraphService"].methods_by_name["GetGraph"],
    "ssl": library_pb2.DESCRIPTOR.services_by_name["LibraryService"].methods_by_name[
        "ListLibraryUsers"
    ],
}
CREATE = namespace_pb2.DESCRIPTOR.services_by_name["NamespaceService"].methods_by_name[
    "CreateNamespace"
]
START, RUN = (
    process_pb2.DESCRIPTOR.services_by_name["ProcessService"].methods_by_name[name]
    for name in ("StartProcess", "RunProcess")
)
APPLY = ruleset_pb2.DESCRIPTOR.services_by_name["RulesetService"].methods_by_name["ApplyRuleset"]
IN_THE_HANDSHAKE = {
    "none": "PEER_DID_NOT_RETURN_A_CERTIFICATE",
    "other-ca": "unable to get local issuer certificate",
    "expired": "certificate has expired",
}
# What a bundle needs so that it can be replaced, and nothing else.
ONLY_PUSH = """\
@id("only-push")
permit (
  principal in Group::"admins",
  action in
    [Action::"/hostler.api.common.v1.BundleService/PushBundle",
     Action::"/hostler.api.common.v1.AuditService/ListAuditRecords"],
  resource
);
"""


@pytest.fixture(scope="module")
def people(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> security_people.People:
    for host in lab.hosts:
        if host.leader() is None:
            lab.boot(host.name)
    return security_people.gather(lab, tmp_path_factory.mktemp("people"))


def refused(channel: grpc.Channel, method: Any) -> support.Refusal:
    with pytest.raises(grpc.RpcError) as caught:
        calls.call(channel, method)
    return support.refusal(caught.value)


def knock(lab: Lab, host: Host, domain: str, pair: support.Pair | None) -> bytes:
    """Knock with Python's own TLS 1.3; answer what the server says after its handshake.

    grpcio ends a refused handshake with the alert close_notify, which reads as the end of the
    stream; a connection that is merely cut would raise SSLEOFError.
    """
    context = ssl.create_default_context(cafile=lab.pki / "ca.pem")
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.set_alpn_protocols(["h2"])
    if pair:
        context.load_cert_chain(pair.certificate, pair.key)
    with socket.create_connection((host.ipv4, support.PORTS[domain]), 10) as plain:
        with context.wrap_socket(
            plain, server_hostname=host.name, suppress_ragged_eofs=False
        ) as tls:
            return tls.recv(1024)


@DOMAINS
@pytest.mark.parametrize("who", IN_THE_HANDSHAKE)
def test_a_handshake_ends_and_the_journal_says_why(
    lab: Lab, h1: Host, people: security_people.People, who: str, domain: str
) -> None:
    good = support.Pair.of(lab.pki, "viewer")
    assert knock(lab, h1, domain, good) != b"", "a good certificate is greeted"
    audited = support.audit(lab, h1, domain)[-1]["seq"]
    journal = support.Journal(h1)
    assert knock(lab, h1, domain, people[who]) == b""
    with support.channel(lab, h1, domain, people[who]) as channel:
        error = refused(channel, GET_HOST)
    assert (error.code, error.reason) == ("UNAVAILABLE", "")
    line = wait_for_line(journal, domain, IN_THE_HANDSHAKE[who])
    assert "Handshake failed" in line or "handshake" in line.lower()
    # Whoever has not authenticated leaves no record under anybody's name: there is our reading.
    new = [r for r in support.audit(lab, h1, domain) if r["seq"] > audited and r["method"]]
    assert {r["method"].split("/")[-1] for r in new} == {"ListAuditRecords"}


def wait_for_line(journal: support.Journal, domain: str, words: str) -> str:
    end = time.monotonic() + 5
    while time.monotonic() < end:
        for line in journal.text(domain).splitlines():
            if words.lower() in line.lower():
                return line
        time.sleep(0.2)
    raise AssertionError(f"{words!r} is not in the journal: {journal.text(domain)}")


@DOMAINS
def test_tls_1_2_is_refused_for_what_it_is(lab: Lab, h1: Host, tmp_path: Path, domain: str) -> None:
    """A call over TLS 1.2, made by curl: the handshake works, the call is refused.

    Without a message: curl gives up, before it reads, when the answer is faster than its message.
    """
    admin, port = support.Pair.of(lab.pki, "admin"), support.PORTS[domain]
    argv = ["/usr/bin/curl", "-sS", "--http2", "--cacert", str(lab.pki / "ca.pem")]
    argv += ["--cert", str(admin.certificate), "--key", str(admin.key)]
    argv += ["-H", "content-type: application/grpc", "-H", "te: trailers"]
    argv += ["--resolve", f"{h1.name}:{port}:{h1.ipv4}", "-X", "POST", "-D", "-"]
    argv += ["-o", str(tmp_path / "body")]
    argv += [f"https://{h1.name}:{port}/hostler.api.common.v1.HostService/GetHost"]

    def answer(*more: str) -> str:
        done = subprocess.run([*argv, *more], input=bytes(5), capture_output=True, timeout=15)
        return done.stdout.decode().lower()

    refused = answer("--tls-max", "1.2")
    assert "grpc-status: 16" in refused
    assert re.search(r"grpc-message:.*tls.*1\.3", refused)
    assert "grpc-status: 16" not in answer(), "the very same call is let in over TLS 1.3"
    assert "grpc-status: 0" in answer("--data-binary", "@-"), "and is good with its message"


@pytest.mark.parametrize(
    ("who", "domain", "method"),
    [
        ("viewer", "netns", CREATE),
        ("viewer", "netns", START),
        ("viewer", "firewall", APPLY),
        ("operator", "netns", START),
        ("operator", "netns", RUN),
        ("stranger", "netns", LIST["netns"]),
        ("stranger", "firewall", LIST["firewall"]),
    ],
    ids=lambda value: getattr(value, "name", value),
)
def test_a_denial_names_who_and_what_and_is_audited(
    lab: Lab, h1: Host, people: security_people.People, who: str, domain: str, method: Any
) -> None:
    name = f"/{method.containing_service.full_name}/{method.name}"
    user = who if who != "stranger" else f"{security_people.PREFIX}-stranger"
    identity = f"spiffe://lab.hostler/user/{user}"
    with support.channel(lab, h1, domain, people[who]) as channel:
        error = refused(channel, method)
    assert (error.code, error.reason) == ("PERMISSION_DENIED", "PERMISSION_DENIED")
    assert error.message == f"{identity} may not call {name}"
    last = support.audit(lab, h1, domain, identity)[-1]
    told = {key: last[key] for key in ("kind", "method", "status", "reason")}
    assert told == {
        "kind": "refusal",
        "method": name,
        "status": "PERMISSION_DENIED",
        "reason": "PERMISSION_DENIED",
    }
    serial = Authority.open(lab.pki).show(f"user/{user}").certificate.serial
    assert last["certificate_serial"].lstrip("0").lower() == serial.lstrip("0").lower()
    assert last["peer"].startswith(f"{lab.bridge.ipv4(1)}:")


def test_a_revoked_certificate_is_refused_on_a_live_channel(lab: Lab, h1: Host) -> None:
    """Both a kept channel and an open stream end, by the real command."""
    authority = Authority.open(lab.pki)
    user = f"{security_people.PREFIX}-rudi"
    pair = security_people.issue(authority, user)
    authority.grant(user, "operators")
    support.push(lab, h1.name)
    with (
        support.channel(lab, h1, "netns", pair) as netns,
        support.channel(lab, h1, "firewall", pair) as firewall,
    ):
        for channel, domain in ((netns, "netns"), (firewall, "firewall")):
            calls.call(channel, LIST[domain])
        request = counter_pb2.WatchCountersRequest()
        stream = counter_pb2_grpc.CounterServiceStub(netns).WatchCounters(request, timeout=60)
        assert next(stream).seq == 1
        support.hostler(lab, "policy", "revoke", f"user/{user}")
        support.push(lab, h1.name)
        for channel, domain in ((netns, "netns"), (firewall, "firewall")):
            error = refused(channel, LIST[domain])
            assert (error.code, error.reason) == ("UNAUTHENTICATED", "CERTIFICATE_REVOKED")
            last = support.audit(lab, h1, domain, f"spiffe://lab.hostler/user/{user}")[-1]
            assert (last["kind"], last["reason"]) == ("refusal", "CERTIFICATE_REVOKED")
        cut = time.monotonic()
        with pytest.raises(grpc.RpcError) as caught:
            for _ in stream:
                assert time.monotonic() - cut < 15
        assert support.refusal(caught.value).reason == "CERTIFICATE_REVOKED"
        print(f"\nan open stream ended {time.monotonic() - cut:.1f} s after the push")


@pytest.fixture
def no_policies(lab: Lab, h1: Host) -> Iterator[None]:
    """A bundle whose policies say nothing about what domains do; put right afterwards."""
    source, extra = lab.pki / "policy.toml", lab.pki / "policies" / "only-push.cedar"
    before = source.read_text()
    try:
        source.write_text(f"default_policies = false\n{before}")
        extra.write_text(ONLY_PUSH)
        support.hostler(lab, "policy", "sign")
        support.push(lab, h1.name)
        yield
    finally:
        extra.unlink(missing_ok=True)
        source.write_text(source.read_text().replace("default_policies = false\n", ""))
        support.hostler(lab, "policy", "sign")
        support.push(lab)


@DOMAINS
@pytest.mark.usefixtures("no_policies")
def test_what_no_policy_speaks_of_is_denied_to_all(lab: Lab, h1: Host, domain: str) -> None:
    with support.channel(lab, h1, domain, support.Pair.of(lab.pki, "admin")) as channel:
        error = refused(channel, LIST[domain])
    assert (error.code, error.reason) == ("PERMISSION_DENIED", "PERMISSION_DENIED")
    last = support.audit(lab, h1, domain, "spiffe://lab.hostler/user/admin")
    assert [r["reason"] for r in last if r["method"].endswith(LIST[domain].name)][-1] == error.code
