"""A whole daemon behind its relay: who is let in, who is refused and why, and what is recorded.

The daemon is a real process with inherited sockets; callers are grpcio and openssl.
"""

import asyncio
import itertools
import json
import os
import shutil
import socket
import ssl
import subprocess
import sys
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc

from hostler.api.common.v1 import (
    audit_pb2,
    audit_pb2_grpc,
    bundle_pb2,
    bundle_pb2_grpc,
    change_pb2,
    host_pb2,
    host_pb2_grpc,
)
from hostler.core.certificates import Validity
from hostler.pki import Authority
from hostlerd.runtime.audit import hash_of, records

pytestmark = pytest.mark.kernel

DAEMON = """
from hostlerd.runtime.domain import Domain
from hostlerd.runtime.server import main
main("netns", lambda runtime: Domain(services=()))
"""


@dataclass
class Refusal:
    code: str
    reason: str
    message: str


@dataclass
class Place:
    """A daemon's folders, its authority and where it listens."""

    root: Path
    authority: Authority
    port: int
    process: subprocess.Popen | None = None

    @property
    def audit(self):
        return list(records(self.root / "log/audit.jsonl"))

    @property
    def journal(self):
        return (self.root / "stderr").read_text()

    def credentials(self, user, authority=None):
        pki = (authority or self.authority).folder
        return grpc.ssl_channel_credentials(
            self.authority.ca_pem,
            (pki / f"users/{user}.key").read_bytes() if user else None,
            (pki / f"users/{user}.pem").read_bytes() if user else None,
        )

    def channel(self, user, authority=None):
        return grpc.secure_channel(
            f"127.0.0.1:{self.port}",
            self.credentials(user, authority),
            options=[("grpc.ssl_target_name_override", "h1"), ("grpc.enable_retries", 0)],
        )

    def local(self):
        return grpc.insecure_channel(f"unix:{self.root}/netns.sock")

    def install_bundle(self):
        shutil.copy(self.authority.folder / "bundle.json", self.root / "etc/bundle.json")


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as s:
        return s.getsockname()[1]


@contextmanager
def running(root, config="idle_s = 30\n", program=DAEMON):
    authority = Authority.create(root / "pki", "test.hostler")
    authority.issue_host("h1", dns_names=["h1"], ip_addresses=["127.0.0.1"])
    for user in ("alice", "olga", "vera", "ned"):
        authority.issue_user(user)
    for user, group in (("alice", "admins"), ("olga", "operators"), ("vera", "viewers")):
        authority.grant(user, group)
    etc = root / "etc/pki"
    for folder in (etc, root / "state", root / "log"):
        folder.mkdir(parents=True)
    (root / "run").mkdir(mode=0o700)
    shutil.copy(root / "pki/ca.pem", etc)
    shutil.copy(root / "pki/hosts/h1.pem", etc / "host.pem")
    shutil.copy(root / "pki/hosts/h1.key", etc / "host.key")
    (root / "etc/hostler.toml").write_text(config)
    place = Place(root, authority, free_port())
    place.install_bundle()
    place.process = start(place, program)
    try:
        yield place
    finally:
        place.process.terminate()
        place.process.wait(20)


def start(place, program=DAEMON):
    env = {
        "PATH": os.environ["PATH"],
        "CONFIGURATION_DIRECTORY": str(place.root / "etc"),
        "STATE_DIRECTORY": str(place.root / "state"),
        "RUNTIME_DIRECTORY": str(place.root / "run"),
        "LOGS_DIRECTORY": str(place.root / "log"),
    }
    keep = [f"--setenv={key}={value}" for key, value in env.items()]
    argv = ["/usr/bin/systemd-socket-activate", *keep, "-l", f"127.0.0.1:{place.port}"]
    argv += ["-l", f"{place.root}/netns.sock", sys.executable, "-c", program]
    with (place.root / "stderr").open("ab") as stderr:
        process = subprocess.Popen(argv, stderr=stderr)
    for _ in range(100):
        if (place.root / "netns.sock").exists():
            break
        time.sleep(0.05)
    return process


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    with running(tmp_path_factory.mktemp("gate")) as place:
        yield place


def refusal_of(call):
    with pytest.raises(grpc.RpcError) as caught:
        call()
    error = caught.value
    status = status_pb2.Status()
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            status.ParseFromString(value)
    info = error_details_pb2.ErrorInfo()
    for detail in status.details:
        if detail.Is(info.DESCRIPTOR):
            detail.Unpack(info)
    return Refusal(error.code().name, info.reason, error.details())


def get_host(channel, timeout=10):
    return (
        host_pb2_grpc.HostServiceStub(channel)
        .GetHost(host_pb2.GetHostRequest(), timeout=timeout)
        .host
    )


def get_bundle(channel):
    return (
        bundle_pb2_grpc.BundleServiceStub(channel)
        .GetBundle(bundle_pb2.GetBundleRequest(), timeout=10)
        .bundle
    )


def push(channel, data=b"{}", **options):
    return bundle_pb2_grpc.BundleServiceStub(channel).PushBundle(
        bundle_pb2.PushBundleRequest(
            signed_bundle=data, change=change_pb2.ChangeOptions(**options)
        ),
        timeout=10,
    )


def test_each_caller_is_who_its_certificate_says(place):
    for user in ("alice", "olga", "vera", "ned"):
        with place.channel(user) as channel:
            host = get_host(channel)
            assert host.caller == f"spiffe://test.hostler/user/{user}"
            assert host.hostname == socket.gethostname() and host.bundle_version > 0


def test_local_root_is_the_break_glass_identity(place):
    with place.local() as channel:
        assert get_host(channel).caller == "local/root"
        assert get_bundle(channel).version > 0


def test_a_viewer_reads_and_does_not_change(place):
    with place.channel("vera") as channel:
        assert get_bundle(channel).members["spiffe://test.hostler/user/vera"].groups == ["viewers"]
        refused = refusal_of(lambda: push(channel))
    assert (refused.code, refused.reason) == ("PERMISSION_DENIED", "PERMISSION_DENIED")
    assert "user/vera may not call" in refused.message


def test_one_in_no_group_may_only_ask_the_host(place):
    with place.channel("ned") as channel:
        assert refusal_of(lambda: get_bundle(channel)).code == "PERMISSION_DENIED"


def test_a_refusal_is_in_the_audit_log_and_the_chain_is_whole(place):
    with place.channel("vera") as channel:
        refusal_of(lambda: push(channel))
    time.sleep(0.2)
    last = [r for r in place.audit if r["kind"] == "refusal"][-1]
    assert last["identity"] == "spiffe://test.hostler/user/vera"
    assert last["method"].endswith("/PushBundle") and last["reason"] == "PERMISSION_DENIED"
    assert last["certificate_serial"] and last["peer"].startswith("127.0.0.1:")
    assert all(hash_of(r) == r["hash"] for r in place.audit)


def test_permission_is_checked_before_the_request_is(place):
    """An operator learns that the bundle is bad; a viewer learns nothing of it."""
    with place.channel("olga") as channel:
        assert refusal_of(lambda: push(channel)).reason == "BUNDLE_REFUSED"


def push_bytes(channel, data):
    name = "/hostler.api.common.v1.BundleService/PushBundle"
    return channel.unary_unary(name, None, None)(data, timeout=10)


def test_bytes_that_are_no_message_are_refused_as_such(place):
    """Not as gRPC does it, which answers UNKNOWN with a parser's words, to whomever it is."""
    for data in (b"\x0a\x7fab", b"\x00\x01", b"\xff" * 2000):
        for user, code, reason in (
            ("olga", "INVALID_ARGUMENT", "REQUEST_UNREADABLE"),
            ("vera", "PERMISSION_DENIED", "PERMISSION_DENIED"),
        ):
            with place.channel(user) as channel:
                refused = refusal_of(lambda channel=channel, data=data: push_bytes(channel, data))
            assert (refused.code, refused.reason) == (code, reason)
            expected = (f"spiffe://test.hostler/user/{user}", code, reason)
            for _ in range(100):
                # Nobody waits for the disk where nothing has changed.
                told = tuple(place.audit[-1].get(key) for key in ("identity", "status", "reason"))
                if told == expected:
                    break
                time.sleep(0.05)
            assert told == expected


def test_times_that_are_none_are_refused_by_name(place):
    asked = audit_pb2.ListAuditRecordsRequest()
    asked.since.seconds, asked.until.nanos = 2**62, -1
    with place.channel("vera") as channel:
        stub = audit_pb2_grpc.AuditServiceStub(channel)
        refused = refusal_of(lambda: stub.ListAuditRecords(asked, timeout=10))
    assert (refused.code, refused.reason) == ("INVALID_ARGUMENT", "INVALID_REQUEST")
    assert refused.message.startswith("since: ") and "; until: " in refused.message


def handshake_refused(place, channel):
    before = len(place.audit)
    with channel:
        error = refusal_of(lambda: get_host(channel, timeout=5))
    assert error.code == "UNAVAILABLE" and error.reason == ""
    assert len(place.audit) == before
    return error


def test_a_good_certificate_is_greeted(place):
    assert knock(place, *pair(place.authority, "alice")) != b""


def test_no_certificate_ends_in_the_handshake(place):
    handshake_refused(place, place.channel(None))
    assert knock(place) == b""
    assert "PEER_DID_NOT_RETURN_A_CERTIFICATE" in place.journal


def test_a_certificate_of_another_ca_ends_in_the_handshake(place, tmp_path):
    other = Authority.create(tmp_path / "other", "test.hostler")
    other.issue_user("alice")
    handshake_refused(place, place.channel("alice", other))
    assert knock(place, *pair(other, "alice")) == b""
    assert "unable to get local issuer certificate" in place.journal.lower()


def test_an_expired_certificate_ends_in_the_handshake(place):
    past = datetime.now(UTC) - timedelta(days=30)
    place.authority.issue_user("paula", validity=Validity(past, past + timedelta(days=7)))
    handshake_refused(place, place.channel("paula"))
    assert knock(place, *pair(place.authority, "paula")) == b""
    assert "certificate has expired" in place.journal.lower()


def pair(authority, user):
    users = authority.folder / "users"
    return users / f"{user}.pem", users / f"{user}.key"


def knock(place, *certificate):
    """Knock with Python's own TLS 1.3, and answer what the server sends after its handshake.

    grpcio answers a bad certificate with the alert close_notify, which is read here as the end of
    the stream (a connection that is only cut would raise SSLEOFError); the reason is the journal's.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(place.authority.folder / "ca.pem")
    context.set_alpn_protocols(["h2"])
    if certificate:
        context.load_cert_chain(*certificate)
    with socket.create_connection(("127.0.0.1", place.port), 10) as plain:
        with context.wrap_socket(plain, server_hostname="h1", suppress_ragged_eofs=False) as tls:
            return tls.recv(1024)


def test_tls_1_2_is_refused_with_its_own_reason(place, tmp_path):
    """A real call over TLS 1.2, made by curl: the handshake works, the call is refused.

    Without a message: curl gives up, before it reads, when the answer is faster than its message.
    """
    users = place.authority.folder / "users"
    argv = ["/usr/bin/curl", "-sS", "--http2", "--tls-max", "1.2", "--cacert"]
    argv += [str(place.authority.folder / "ca.pem"), "--cert", str(users / "alice.pem")]
    argv += ["--key", str(users / "alice.key"), "-H", "content-type: application/grpc"]
    argv += ["-H", "te: trailers", "--resolve", f"h1:{place.port}:127.0.0.1", "-X", "POST"]
    argv += ["-D", "-", "-o", str(tmp_path / "body")]
    argv += [f"https://h1:{place.port}/hostler.api.common.v1.HostService/GetHost"]
    done = subprocess.run(argv, capture_output=True, timeout=15)
    headers = done.stdout.decode().lower()
    assert "grpc-status: 16" in headers, done
    assert "tls" in headers and "1.3" in headers


def test_a_revoked_certificate_is_refused_on_a_live_channel(place):
    place.authority.issue_user("rudi")
    place.authority.grant("rudi", "operators")
    place.install_bundle()
    with place.channel("rudi") as channel:
        wait_for(lambda: get_bundle(channel).version == place.authority.read_bundle().version)
        place.authority.revoke("user/rudi")
        with place.channel("olga") as other:
            data = (place.authority.folder / "bundle.json").read_bytes()
            done = push(other, data)
            assert done.change.changed and done.change.audit.seq > 0
        refused = refusal_of(lambda: get_host(channel))
    assert (refused.code, refused.reason) == ("UNAUTHENTICATED", "CERTIFICATE_REVOKED")


def wait_for(condition, timeout_s=10):
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        try:
            if condition():
                return
        except grpc.RpcError:
            pass
        time.sleep(0.1)
    raise AssertionError("not in time")


def test_a_push_is_planned_recorded_and_done_once(place):
    place.authority.write_bundle()
    data = (place.authority.folder / "bundle.json").read_bytes()
    with place.channel("olga") as channel:
        seen = push(channel, data, validate_only=True).change
        assert seen.outcome == change_pb2.OUTCOME_PLANNED and len(seen.plan.steps) == 1
        done = push(channel, data, plan_hash=seen.plan.hash, request_id="one").change
        again = push(channel, data, plan_hash=seen.plan.hash, request_id="one").change
        assert done == again and done.changed
        assert not push(channel, data).change.changed
        stale = refusal_of(lambda: push(channel, data, etag="0" * 64))
        assert (stale.code, stale.reason) == ("ABORTED", "ETAG_MISMATCH")
        reused = refusal_of(lambda: push(channel, b"{}", request_id="one"))
        assert reused.reason == "REQUEST_ID_REUSED"
    outcome = next(r for r in place.audit if r["seq"] == done.audit.seq)
    assert outcome["hash"] == done.audit.head and outcome["plan_hash"] == seen.plan.hash
    intent = next(r for r in place.audit if r["seq"] == outcome["intent_seq"])
    assert intent["kind"] == "intent" and intent["seq"] < outcome["seq"]
    assert "bytes)" in intent["request"]


def test_an_older_bundle_is_refused(place):
    data = (place.authority.folder / "bundle.json").read_bytes()
    place.authority.write_bundle()
    with place.channel("olga") as channel:
        push(channel, (place.authority.folder / "bundle.json").read_bytes())
        refused = refusal_of(lambda: push(channel, data))
    assert refused.reason == "BUNDLE_REFUSED" and "not newer" in refused.message


def test_a_request_of_five_megabytes_is_refused(place):
    with place.channel("olga") as channel:
        refused = refusal_of(lambda: push(channel, b"x" * (5 << 20)))
    assert (refused.code, refused.reason) == ("RESOURCE_EXHAUSTED", "REQUEST_TOO_LARGE")
    assert "at most 4194304" in refused.message


def test_health_and_reflection_answer(place):
    with place.channel("vera") as channel:
        health = health_pb2_grpc.HealthStub(channel)
        answer = health.Check(health_pb2.HealthCheckRequest(service=""), timeout=10)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
        from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
            ProtoReflectionDescriptorDatabase,
        )

        names = ProtoReflectionDescriptorDatabase(channel).get_services()
        assert "hostler.api.common.v1.HostService" in names


def test_audit_records_are_listed_in_pages_and_from_the_end(place):
    with place.channel("vera") as channel:
        stub = audit_pb2_grpc.AuditServiceStub(channel)
        first = stub.ListAuditRecords(audit_pb2.ListAuditRecordsRequest(page_size=3))
        assert [r.seq for r in first.records] == [1, 2, 3]
        second = stub.ListAuditRecords(
            audit_pb2.ListAuditRecordsRequest(page_size=3, page_token=first.next_page_token)
        )
        assert [r.seq for r in second.records] == [4, 5, 6]
        tail = stub.ListAuditRecords(audit_pb2.ListAuditRecordsRequest(tail=2))
        assert [r.seq for r in tail.records] == [tail.end.seq - 1, tail.end.seq]
        refused = refusal_of(
            lambda: stub.ListAuditRecords(audit_pb2.ListAuditRecordsRequest(page_token="x"))  # noqa: S106 - a page
        )
        assert refused.reason == "INVALID_REQUEST"


def test_without_a_bundle_only_the_host_answers(tmp_path):
    with running(tmp_path) as place:
        (tmp_path / "etc/bundle.json").write_bytes(b"{}")
        with place.channel("alice") as channel:
            host = get_host(channel)
            assert host.bundle_version == 0 and "bundle.json" in host.bundle_problem
            assert refusal_of(lambda: get_bundle(channel)).reason == "NO_BUNDLE"
            place.install_bundle()
            wait_for(lambda: get_bundle(channel).version > 0)
            (tmp_path / "etc/bundle.json").write_bytes(b"{}")
            wait_for(lambda: "bundle.json" in get_host(channel).bundle_problem)
            assert get_bundle(channel).version > 0


def test_without_a_usable_certificate_local_root_is_still_served(tmp_path):
    with running(tmp_path) as place:
        (tmp_path / "etc/pki/host.key").write_bytes(b"broken")
        with place.local() as channel:
            host = get_host(channel)
            assert host.caller == "local/root" and not host.HasField("certificate_expire_time")
            assert get_bundle(channel).version > 0
        assert "only local callers are served" in place.journal


def test_a_certificate_that_comes_late_is_served_though_local_callers_never_pause(tmp_path):
    with running(tmp_path) as place:
        key = (tmp_path / "etc/pki/host.key").read_bytes()
        (tmp_path / "etc/pki/host.key").write_bytes(b"broken")
        with place.local() as channel:
            get_host(channel)
            (tmp_path / "etc/pki/host.key").write_bytes(key)
            while place.process.poll() is None and "takes over" not in place.journal:
                get_host(channel)
                time.sleep(0.2)
        # The daemon has ended in order; what systemd starts next finds the certificate.
        assert place.process.wait(20) == 0
        (tmp_path / "netns.sock").unlink()
        place.process = start(place)
        with place.channel("alice") as channel:
            assert get_host(channel).caller == "spiffe://test.hostler/user/alice"


def test_an_idle_daemon_goes_and_its_record_says_so(tmp_path):
    with running(tmp_path, "idle_s = 0.5\n") as place:
        with place.channel("alice") as channel:
            get_host(channel)
        assert place.process.wait(15) == 0
        assert b"why=idle" in (tmp_path / "stderr").read_bytes()


def test_a_method_without_annotation_does_not_start_the_daemon(tmp_path):
    program = DAEMON.replace(
        "\nmain(",
        """
import hostlerd.runtime.access as access
from google.protobuf import descriptor_pool, descriptor_pb2
file = descriptor_pb2.FileDescriptorProto(name="x.proto", package="x", syntax="proto3")
file.message_type.add(name="M")
file.service.add(name="S").method.add(name="Do", input_type=".x.M", output_type=".x.M")
pool = descriptor_pool.DescriptorPool()
pool.Add(file)
from hostlerd.runtime.domain import Service
bare = Service(pool.FindServiceByName("x.S"), lambda *_: None, None)
main(""",
    ).replace("Domain(services=())", "Domain(services=(bare,))")
    with running(tmp_path, program=program) as place:
        with place.channel("alice") as channel:
            with pytest.raises(grpc.RpcError):
                get_host(channel, timeout=5)
        assert place.process.wait(10) != 0
    assert b"/x.S/Do has no access annotation" in (tmp_path / "stderr").read_bytes()


async def test_many_honest_calls_at_once(place):
    async with grpc.aio.secure_channel(
        f"127.0.0.1:{place.port}",
        place.credentials("vera"),
        options=[("grpc.ssl_target_name_override", "h1")],
    ) as channel:
        stub = host_pb2_grpc.HostServiceStub(channel)
        answers = await asyncio.gather(
            *(stub.GetHost(host_pb2.GetHostRequest(), timeout=30) for _ in range(200))
        )
    assert {a.host.caller for a in answers} == {"spiffe://test.hostler/user/vera"}


async def test_calls_whose_message_never_comes_keep_nobody_out(tmp_path):
    """One who may only read holds calls open, more than there is room for; others are answered."""
    hasty = "from hostlerd.runtime import streams\nstreams.FIRST_MESSAGE_S = 5.0\n" + DAEMON
    config = "idle_s = 30\n[limits]\ncalls = 40\n"
    with running(tmp_path, config, hasty) as place:
        async with grpc.aio.secure_channel(
            f"127.0.0.1:{place.port}",
            place.credentials("vera"),
            options=[("grpc.ssl_target_name_override", "h1"), ("grpc.enable_retries", 0)],
        ) as channel:
            paths = [f"/hostler.api.common.v1.{name}" for name in HELD]
            kinds = [channel.stream_unary, channel.stream_stream]
            held = [kinds[n % 2](paths[n % 2])(timeout=60) for n in range(50)]
            ends = [asyncio.create_task(reason_at_the_end(call)) for call in held]
            for end in itertools.islice(asyncio.as_completed(ends), 15):
                assert await end == "TOO_MANY_CALLS"
            for others in (place.channel("alice"), place.local()):
                with others:
                    assert await asyncio.to_thread(get_host, others)
            told = Counter(await asyncio.gather(*ends))
            assert told == {"TOO_MANY_CALLS": 15, "NO_FIRST_MESSAGE": 35}
            empty = channel.stream_unary(paths[0])(timeout=60)
            await empty.done_writing()
            assert await reason_at_the_end(empty) == "NO_MESSAGE"
            call = channel.unary_unary(paths[0])
            assert await call(b"", timeout=10), "the same channel, and the room is back"


HELD = ("HostService/GetHost", "AuditService/FollowAuditRecords")


async def reason_at_the_end(call):
    status = status_pb2.Status()
    for key, value in await call.trailing_metadata():
        if key == "grpc-status-details-bin":
            status.ParseFromString(value)
    info = error_details_pb2.ErrorInfo()
    assert status.details and status.details[0].Unpack(info), await call.code()
    return info.reason


def test_secrets_never_reach_the_record():
    from hostler.api.netns.v1 import process_pb2
    from hostlerd.runtime.redact import to_json

    process = process_pb2.Process(name="web", argv=["x"], environment={"TOKEN": "hunter2"})
    shown = to_json(process_pb2.StartProcessRequest(process=process))
    assert "hunter2" not in shown and json.loads(shown)["process"]["environment"] == "(redacted)"
