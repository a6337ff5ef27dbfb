"""A bundle that locks everybody out, pushed under confirm: the one before comes back by itself."""

from __future__ import annotations

import time
import uuid
from dataclasses import replace

import pytest
from confirm_lab import DOORS, GET_PENDING, confirm_options, ended, refused
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from hosts_client import ask
from hosts_witness import eventually

from hostler.api.common.v1 import bundle_pb2, change_pb2, confirm_pb2, host_pb2
from hostler.channel import rpc
from hostler.core import bundle as bundles
from hostler.lab.host import Host
from hostler.lab.lab import Lab

pytestmark = [pytest.mark.hosts, pytest.mark.timeout(300)]

GET_HOST = rpc(host_pb2, "HostService", "GetHost")
PUSH = rpc(bundle_pb2, "BundleService", "PushBundle")
WITHIN_S = 8.0


def version(lab: Lab, host: Host, door: str) -> int:
    answer = ask(lab, GET_HOST.at(door), host_pb2.GetHostRequest(), host=host.name)
    return int(answer.host.bundle_version)


def nobody(lab: Lab, above: int) -> bytes:
    """A bundle of which nobody is a member of anything."""
    signed = (lab.pki / "bundle.json").read_bytes()
    current = bundles.verify(signed, (lab.pki / "ca.pem").read_bytes())
    empty = replace(current, version=above + 1, members={}, sha256="")
    key = load_pem_private_key((lab.pki / "ca.key").read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return bundles.sign(bundles.compose(empty), key)


def test_a_bundle_that_locks_everybody_out_goes_back(lab: Lab, h1: Host) -> None:
    before = {door: version(lab, h1, door) for door in DOORS}
    data = nobody(lab, max(before.values()))
    group, asked_at = str(uuid.uuid4()), time.monotonic()
    for n, door in enumerate(DOORS):
        request = bundle_pb2.PushBundleRequest(signed_bundle=data)
        request.change.CopyFrom(confirm_options(group, 0 if n else WITHIN_S))
        answer = ask(lab, PUSH.at(door), request, host="h1")
        assert answer.change.outcome == change_pb2.OUTCOME_PENDING_CONFIRM
        assert answer.bundle.version == max(before.values()) + 1
    # Who somebody is, and which bundle is in force, every certificate's owner may ask.
    assert {version(lab, h1, door) for door in DOORS} == {max(before.values()) + 1}
    request = confirm_pb2.GetPendingRequest()
    for door in DOORS:
        error = refused(lambda door=door: ask(lab, GET_PENDING.at(door), request))
        assert error.code == "PERMISSION_DENIED"
    eventually(lambda: {door: version(lab, h1, door) for door in DOORS} == before, 30)
    assert WITHIN_S - 1 < time.monotonic() - asked_at < WITHIN_S + 10
    # It goes on record when every door has its bundle back.
    for door in DOORS:
        eventually(lambda door=door: ended(lab, h1, door)[0].group == group)
        assert ended(lab, h1, door)[0].outcome == change_pb2.OUTCOME_ROLLED_BACK
