"""A real daemon whose CA is replaced: channels live on, until the CA they came by is dropped."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import grpc
import pytest
import stream_daemon as support

from hostler.api.common.v1 import host_pb2, host_pb2_grpc
from hostler.ca_rotation import Rotation
from hostler.core import files, trust

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(120)]
SOON_S = 10.0


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[support.Daemon]:
    with support.running(tmp_path) as daemon:
        yield daemon


def install(daemon: support.Daemon, name: str, content: bytes) -> None:
    files.replace(daemon.root / "etc/pki" / name, content, mode=0o644)


def authorities(channel: grpc.Channel) -> set[str]:
    said = host_pb2_grpc.HostServiceStub(channel).GetHost(host_pb2.GetHostRequest(), timeout=20)
    return set(said.host.authorities)


def test_who_came_by_the_dropped_ca_is_cut_off_and_others_go_on(daemon: support.Daemon) -> None:
    rotation = Rotation(daemon.authority.folder)
    pair = rotation.begin()
    install(daemon, "ca.pem", trust.changed(pair.old_pem, pair.new_pem, ()))
    rotation.switch()
    after = replace(daemon, authority=rotation.authority)
    after.authority.issue_user("vera", renew=True)
    after.install_bundle()
    with daemon.channel("rudi") as old, after.channel("vera") as new:
        cut, kept = support.watch(old), support.watch(new)
        # The host's own certificate changes below both.
        path = after.authority.issue_host("h1", renew=True).path
        assert path is not None
        install(daemon, "host.key", path.with_suffix(".key").read_bytes())
        install(daemon, "host.pem", path.read_bytes())
        assert authorities(old) == authorities(new) == {pair.old, pair.new}
        assert cut.is_active() and kept.is_active()
        install(daemon, "ca.pem", pair.new_pem)
        code, reason, took_s = support.end_of(cut)
        assert (code, reason) == ("UNAUTHENTICATED", "CERTIFICATE_UNTRUSTED")
        assert took_s < SOON_S
        with pytest.raises(grpc.RpcError) as refused:
            authorities(old)
        assert support.reason_of(refused.value) == "CERTIFICATE_UNTRUSTED"
        assert kept.is_active()
        assert authorities(new) == {pair.new}
    record = daemon.outcome("rudi")
    assert (record["kind"], record["reason"]) == ("outcome", "CERTIFICATE_UNTRUSTED")
