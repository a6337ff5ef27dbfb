"""Open streams of a real daemon: which end, when, with which reason, and what is on record."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import grpc
import pytest
import stream_daemon as support
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(60)]

# The daemon looks every second for a bundle that was installed beside it.
SOON_S = 3.0


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[support.Daemon]:
    with support.running(tmp_path) as daemon:
        yield daemon


def test_a_revoked_caller_is_cut_off_and_others_go_on(daemon: support.Daemon) -> None:
    with daemon.channel("rudi") as hers, daemon.channel("vera") as other:
        cut, kept = support.watch(hers), support.watch(other)
        daemon.authority.revoke("user/rudi")
        daemon.install_bundle()
        code, reason, took_s = support.end_of(cut)
        assert (code, reason) == ("UNAUTHENTICATED", "CERTIFICATE_REVOKED")
        assert took_s < SOON_S
        assert kept.is_active()
    record = daemon.outcome("rudi")
    assert (record["kind"], record["status"]) == ("outcome", "UNAUTHENTICATED")
    assert record["reason"] == "CERTIFICATE_REVOKED" and record["duration_s"] > 0


def test_who_is_taken_off_its_group_is_cut_off(daemon: support.Daemon) -> None:
    with daemon.channel("rudi") as channel:
        stream = support.watch(channel)
        daemon.authority.ungrant("rudi", "viewers")
        daemon.install_bundle()
        code, reason, took_s = support.end_of(stream)
    assert (code, reason) == ("PERMISSION_DENIED", "PERMISSION_DENIED")
    assert took_s < SOON_S
    assert daemon.outcome("rudi")["kind"] == "outcome"


def test_a_stream_ends_with_its_certificate_to_the_second(daemon: support.Daemon) -> None:
    ends = support.brief(daemon.authority, "rudi", 4)
    with daemon.channel("rudi") as channel, daemon.channel("vera") as other:
        stream, kept = support.watch(channel), support.watch(other)
        code, reason, _ = support.end_of(stream)
        late_s = (datetime.now(UTC) - ends).total_seconds()
        assert (code, reason) == ("UNAUTHENTICATED", "CERTIFICATE_EXPIRED")
        assert 0 <= late_s < 1
        assert kept.is_active()
    assert daemon.outcome("rudi")["reason"] == "CERTIFICATE_EXPIRED"


def test_a_caller_that_does_not_read_is_cut_off_as_well(daemon: support.Daemon) -> None:
    """Its stream waits in the middle of a write, for a window that never opens."""
    with daemon.channel("rudi", **{"grpc.http2.lookahead_bytes": 1 << 16}) as channel:
        stream = support.watch(channel, "flood")
        time.sleep(1)
        daemon.authority.revoke("user/rudi")
        begun = time.monotonic()
        daemon.install_bundle()
        record = daemon.outcome("rudi", within_s=10)
        assert record["reason"] == "CERTIFICATE_REVOKED"
        assert time.monotonic() - begun < SOON_S
        stream.cancel()


def test_a_caller_that_leaves_in_the_middle_of_a_write_is_on_record(
    daemon: support.Daemon,
) -> None:
    with daemon.channel("rudi", **{"grpc.http2.lookahead_bytes": 1 << 16}) as channel:
        stream = support.watch(channel, "flood")
        time.sleep(1)
        stream.cancel()
        assert daemon.outcome("rudi")["status"] == "CANCELLED"


def test_a_daemon_that_is_told_to_stop_says_so_and_goes_at_once(daemon: support.Daemon) -> None:
    with daemon.channel("vera") as channel:
        stream = support.watch(channel)
        begun = time.monotonic()
        daemon.process.send_signal(signal.SIGTERM)
        code, reason, _ = support.end_of(stream)
        assert (code, reason) == ("UNAVAILABLE", "DAEMON_STOPPING")
        assert daemon.process.wait(10) == 0
        assert time.monotonic() - begun < 3
    assert daemon.outcome("vera")["reason"] == "DAEMON_STOPPING"


def test_a_stream_that_says_nothing_of_itself_is_not_kept(daemon: support.Daemon) -> None:
    with daemon.channel("vera") as channel:
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        code, reason, took_s = support.end_of(stub.ServerReflectionInfo(_silence(), timeout=50))
    assert (code, reason) == ("DEADLINE_EXCEEDED", "NO_FIRST_MESSAGE")
    assert took_s < SOON_S


def _silence() -> Iterator[reflection_pb2.ServerReflectionRequest]:
    time.sleep(4)
    yield from ()


def test_a_policy_may_take_away_while_another_stream_of_the_caller_stays(
    daemon: support.Daemon,
) -> None:
    """The rule is about a method: of one caller's two streams the one it names is ended."""
    rule = daemon.authority.folder / "policies" / "no-watch.cedar"
    rule.parent.mkdir(exist_ok=True)
    with daemon.channel("vera") as channel:
        watched = support.watch(channel)
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        other = stub.ServerReflectionInfo(_slowly(), timeout=50)
        assert next(other).list_services_response
        rule.write_text(
            '@id("no-watch") forbid (principal, '
            'action == Action::"/grpc.health.v1.Health/Watch", resource);'
        )
        daemon.authority.write_bundle()
        daemon.install_bundle()
        code, _, took_s = support.end_of(watched)
        assert code == "PERMISSION_DENIED" and took_s < SOON_S
        assert next(other).list_services_response
        other.cancel()


def _slowly() -> Iterator[reflection_pb2.ServerReflectionRequest]:
    for _ in range(2):
        yield reflection_pb2.ServerReflectionRequest(list_services="")
        time.sleep(5)


def test_channels_are_not_needed_to_be_new(daemon: support.Daemon) -> None:
    """After the cut the same channel is refused as well, with the same reason."""
    with daemon.channel("rudi") as channel:
        stream = support.watch(channel)
        daemon.authority.revoke("user/rudi")
        daemon.install_bundle()
        support.end_of(stream)
        with pytest.raises(grpc.RpcError) as caught:
            support.watch(channel)
        assert support.reason_of(caught.value) == "CERTIFICATE_REVOKED"
