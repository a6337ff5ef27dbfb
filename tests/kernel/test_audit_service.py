"""A real daemon and its log: what its callers see of it, also on a full disk."""

import threading
import time

import grpc
import pytest
from audit_daemon import DAEMON, WITH_JOURNAL, running
from audit_disk import Journal, fill, small_disk
from audit_support import verdict
from google.rpc import error_details_pb2, status_pb2

from hostler.api.common.v1 import (
    approval_pb2,
    approval_pb2_grpc,
    audit_pb2,
    audit_pb2_grpc,
    bundle_pb2,
    bundle_pb2_grpc,
    change_pb2,
    host_pb2,
    host_pb2_grpc,
)
from hostler.core.audit import Anchor, Verifier
from hostlerd.runtime.audit_files import all_files, records

pytestmark = pytest.mark.kernel

CONFIG = "[audit]\nfile_bytes = 6000\nreserve_bytes = 65536\nkeep_files = 1000\n"


@pytest.fixture(scope="module")
def daemon(tmp_path_factory):
    root = tmp_path_factory.mktemp("audit")
    with running(root, root / "log", CONFIG) as daemon:
        yield daemon


def get_host(channel):
    stub = host_pb2_grpc.HostServiceStub(channel)
    return stub.GetHost(host_pb2.GetHostRequest(), timeout=10).host


def push(channel, daemon, **options):
    daemon.authority.write_bundle()
    data = (daemon.authority.folder / "bundle.json").read_bytes()
    return bundle_pb2_grpc.BundleServiceStub(channel).PushBundle(
        bundle_pb2.PushBundleRequest(
            signed_bundle=data, change=change_pb2.ChangeOptions(**options)
        ),
        timeout=20,
    )


def approve(channel):
    """A change that could wait."""
    return approval_pb2_grpc.ApprovalServiceStub(channel).ApproveChange(
        approval_pb2.ApproveChangeRequest(id="none"), timeout=20
    )


def refusal(call):
    with pytest.raises(grpc.RpcError) as caught:
        call()
    status, info = status_pb2.Status(), error_details_pb2.ErrorInfo()
    for key, value in caught.value.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            status.ParseFromString(value)
    for detail in status.details:
        detail.Unpack(info)
    return caught.value.code().name, info.reason


def read_whole(stub, anchors=(), after=0):
    verifier, names = Verifier(anchors), []
    for piece in stub.ReadAuditLog(audit_pb2.ReadAuditLogRequest(after_seq=after), timeout=30):
        if piece.file not in names:
            names.append(piece.file)
        for line in piece.data.splitlines():
            verifier.take(line)
    return verifier, names


def test_a_client_can_verify_the_whole_log_and_the_anchors_of_its_changes(daemon):
    anchors = []
    with daemon.channel("olga") as channel:
        for n in range(30):
            change = push(channel, daemon, request_id=f"id-{n}").change
            anchors.append(Anchor(change.audit.seq, change.audit.head))
        stub = audit_pb2_grpc.AuditServiceStub(channel)
        verifier, names = read_whole(stub, anchors)
        found = verifier.finish()
        state = stub.GetAuditState(audit_pb2.GetAuditStateRequest())
    assert found.findings == () and found.anchors == 30 and found.records > 60
    # The last one is closed, and any may be compressed, at any time.
    plain = [name.removesuffix(".gz") for name in names[:-1]]
    there = [file.name.removesuffix(".gz") for file in state.files]
    assert plain == there[: len(plain)] and len(plain) > 3 and names[-1] == "audit.jsonl"
    assert state.oldest_seq == 1 and state.problem == "" and state.journal_from_seq == 0
    assert state.end.seq >= found.end.seq


def test_records_are_found_by_what_they_say(daemon):
    with daemon.channel("olga") as channel:
        change = push(channel, daemon, request_id="find-me").change
        stub = audit_pb2_grpc.AuditServiceStub(channel)

        def found(**filters):
            request = audit_pb2.ListAuditRecordsRequest(**filters)
            return list(stub.ListAuditRecords(request, timeout=10).records)

        intent, outcome = found(request_id="find-me")
        assert (intent.kind, outcome.kind) == ("intent", "outcome")
        assert outcome.intent_seq == intent.seq and outcome.seq == change.audit.seq
        assert outcome.outcome == "OUTCOME_APPLIED" and list(outcome.steps)
        assert found(request_id="find-me", kinds=["outcome"]) == [outcome]
        assert found(request_id="find-me", status="OK") == [outcome]
        assert found(request_id="nobody's") == []
        method = "/hostler.api.common.v1.BundleService/PushBundle"
        assert outcome in found(method=method, tail=10)
        assert found(method=method, tail=1, kinds=["outcome"]) == [outcome]
        late = audit_pb2.ListAuditRecordsRequest(method=method, tail=10)
        late.since.FromSeconds(int(time.time()) + 60)
        assert not stub.ListAuditRecords(late).records
        late.ClearField("since")
        late.until.FromSeconds(int(time.time()) - 3600)
        assert not stub.ListAuditRecords(late).records
    with daemon.channel("vera") as channel:
        stub = audit_pb2_grpc.AuditServiceStub(channel)
        assert refusal(lambda: push(channel, daemon))[0] == "PERMISSION_DENIED"
        time.sleep(0.3)
        last = found_one(stub, reason="PERMISSION_DENIED")
    assert last.kind == "refusal" and last.identity.endswith("/vera") and last.message


def found_one(stub, **filters):
    request = audit_pb2.ListAuditRecordsRequest(tail=1, **filters)
    (record,) = stub.ListAuditRecords(request, timeout=10).records
    return record


def test_a_stream_follows_over_rotations_and_resumes_where_it_was_cut(daemon):
    got, cut = [], []

    def follow(after, into, most):
        with daemon.channel("vera") as channel:
            stub = audit_pb2_grpc.AuditServiceStub(channel)
            request = audit_pb2.FollowAuditRecordsRequest(after_seq=after)
            stream = stub.FollowAuditRecords(request, timeout=30)
            for answer in stream:
                into += [record.seq for record in answer.records]
                cut.append(answer.seq)
                assert answer.dropped == 0
                if len(into) >= most:
                    stream.cancel()
                    return

    with daemon.channel("olga") as channel:
        follower = threading.Thread(target=follow, args=[0, got, 80])
        follower.start()
        for _ in range(12):
            push(channel, daemon)
        follower.join(30)
        rest = []
        follower = threading.Thread(target=follow, args=[cut[-1], rest, 20])
        follower.start()
        for _ in range(12):
            push(channel, daemon)
        follower.join(30)
    whole = got + rest
    assert whole == list(range(1, len(whole) + 1)) and len(whole) >= 100


def test_a_stream_says_what_was_dropped_before_it_came(daemon, tmp_path):
    with running(tmp_path, tmp_path / "log", CONFIG.replace("1000", "1")) as small:
        with small.channel("olga") as channel:
            for _ in range(30):
                push(channel, small)
            stub = audit_pb2_grpc.AuditServiceStub(channel)
            stream = stub.FollowAuditRecords(audit_pb2.FollowAuditRecordsRequest(), timeout=10)
            first = next(stream)
            stream.cancel()
            state = stub.GetAuditState(audit_pb2.GetAuditStateRequest())
            found = read_whole(stub)[0].finish()
    assert first.dropped == first.records[0].seq - 1 > 0
    assert len(state.files) == 2 and state.oldest_seq == first.records[0].seq
    assert found.ok and [f.flaw.value for f in found.findings] == ["dropped"]


@pytest.mark.parametrize("when_full", ["refuse", "allow"])
def test_a_full_disk_locks_nobody_out(tmp_path, when_full):
    journal = Journal(tmp_path / "journal")
    program = WITH_JOURNAL.format(socket=str(tmp_path / "journal")) + DAEMON
    config = f'[audit]\nreserve_bytes = 65536\nwhen_full = "{when_full}"\n'
    with small_disk(tmp_path, "ext4", 16) as disk:
        with running(tmp_path, disk / "log", config, program) as daemon:
            with daemon.channel("alice") as channel:
                assert get_host(channel).audit_problem == ""
                assert refusal(lambda: approve(channel))[1] != "AUDIT_UNAVAILABLE"
                hog = fill(disk)
                anchors = _until_degraded(channel, daemon)
                _while_full(channel, daemon, anchors, when_full)
                # Broken bundle on top: the last good one stays, and repair goes through.
                (tmp_path / "etc/bundle.json").write_bytes(b"{}")
                time.sleep(1.5)
                assert "bundle.json" in get_host(channel).bundle_problem
                _while_full(channel, daemon, anchors, when_full)
                _until_spilled(channel, daemon, anchors, journal)
                # A daemon that starts on the full disk serves as well.
                daemon.stop()
                daemon.start()
            with daemon.channel("alice") as channel:
                _while_full(channel, daemon, anchors, when_full)
                hog.unlink()
                time.sleep(1.2)
                get_host(channel)
                time.sleep(0.5)
                assert get_host(channel).audit_problem == ""
                assert refusal(lambda: approve(channel))[1] != "AUDIT_UNAVAILABLE"
                change = push(channel, daemon).change
                assert not change.warnings
                anchors.append(Anchor(change.audit.seq, change.audit.head))
        found = verdict(daemon.log, anchors)
        assert found.ok and found.anchors == len(anchors), found
        assert {f.flaw.value for f in found.findings} == {"in_journal"}
        told = [r["kind"] for r in records(daemon.log)]
        assert "degraded" in told and "gap" in told and "recovered" in told
    assert journal.lines


def _until_degraded(channel, daemon):
    anchors = []
    for _ in range(500):
        change = push(channel, daemon).change
        anchors.append(Anchor(change.audit.seq, change.audit.head))
        if get_host(channel).audit_problem:
            return anchors
    raise AssertionError("the disk is not full")


def _while_full(channel, daemon, anchors, when_full):
    start = time.monotonic()
    assert "disk" in get_host(channel).audit_problem
    stub = audit_pb2_grpc.AuditServiceStub(channel)
    state = stub.GetAuditState(audit_pb2.GetAuditStateRequest(), timeout=5)
    assert state.problem and state.end.seq >= anchors[-1].seq
    change = push(channel, daemon).change
    assert [w.code for w in change.warnings] == ["AUDIT_DEGRADED"] and change.changed
    anchors.append(Anchor(change.audit.seq, change.audit.head))
    refused = refusal(lambda: approve(channel))
    assert (refused == ("UNAVAILABLE", "AUDIT_UNAVAILABLE")) == (when_full == "refuse")
    assert time.monotonic() - start < 5


def _until_spilled(channel, daemon, anchors, journal):
    for _ in range(500):
        change = push(channel, daemon).change
        anchors.append(Anchor(change.audit.seq, change.audit.head))
        if journal.lines:
            return
    raise AssertionError("the reserve has no end")


def test_a_reader_who_asks_without_end_does_not_fill_the_log(tmp_path):
    config = "[audit]\nreads_per_minute = 1\nreads_burst = 20\n"
    with running(tmp_path, tmp_path / "log", config) as daemon:
        with daemon.channel("vera") as channel:
            for _ in range(1000):
                get_host(channel)
            for _ in range(100):
                refusal(lambda: push(channel, daemon))
        daemon.stop()
        told = list(records(daemon.log))
    assert len(told) < 60
    sums = {r["status"]: r["count"] for r in told if r["kind"] == "summary"}
    single = [r["status"] for r in told if r["kind"] in ("outcome", "refusal")]
    assert sums["OK"] + single.count("OK") == 1000
    assert sums["PERMISSION_DENIED"] + single.count("PERMISSION_DENIED") == 100


def test_the_log_is_for_its_group_and_nobody_else(daemon):
    assert {oct(f.path.stat().st_mode & 0o777) for f in all_files(daemon.log)} == {"0o640"}
    assert daemon.log.with_suffix(".lock").stat().st_mode & 0o777 == 0o600
