"""Streams that are open on a real host: which end when the bundle or the clock says so, and how."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import pytest
import security_lab as support
import security_people

from hostler.api.common.v1 import audit_pb2, audit_pb2_grpc
from hostler.api.netns.v1 import counter_pb2, counter_pb2_grpc
from hostler.core.certificates import Validity
from hostler.lab.host import Host
from hostler.lab.lab import Lab
from hostler.pki import Authority

pytestmark = [pytest.mark.hosts, pytest.mark.timeout(240)]

# The promise is 35 s from the bundle's arrival, for daemons that are not told; they are told.
# The doors that the streams are open at.
STREAMED = ("netns", "firewall")
PROMISED_S = 35.0
LIFE_S = 60


@dataclass
class Open:
    """A stream that somebody reads: what came, and how and when it ended."""

    stream: Any
    messages: int = 0
    ended: threading.Event = field(default_factory=threading.Event)
    ended_at: datetime | None = None
    refusal: support.Refusal | None = None

    def read(self) -> None:
        try:
            for _ in self.stream:
                self.messages += 1
        except grpc.RpcError as e:
            self.refusal = support.refusal(e)
        self.ended_at = datetime.now(UTC)
        self.ended.set()

    def end(self, within_s: float) -> tuple[str, str]:
        """How it ended, in time."""
        assert self.ended.wait(within_s), "it is still open"
        assert self.refusal is not None
        return self.refusal.code, self.refusal.reason


@contextmanager
def opened(lab: Lab, host: Host, pair: support.Pair | None) -> Iterator[dict[str, Open]]:
    """Three streams of one caller: a chatty one, a quiet one, and a quiet one at another door."""
    with ExitStack() as stack:
        netns = stack.enter_context(support.channel(lab, host, "netns", pair))
        firewall = stack.enter_context(support.channel(lab, host, "firewall", pair))
        chatty = counter_pb2.WatchCountersRequest()
        chatty.interval.FromMilliseconds(200)
        quiet = counter_pb2.WatchCountersRequest()
        quiet.interval.FromSeconds(3600)
        stub = counter_pb2_grpc.CounterServiceStub(netns)
        audit = audit_pb2_grpc.AuditServiceStub(firewall)
        # Of nobody's records, so that nothing comes.
        follow = audit_pb2.FollowAuditRecordsRequest(after_seq=-1, identity="nobody")
        streams = {
            "chatty": Open(stub.WatchCounters(chatty)),
            "quiet": Open(stub.WatchCounters(quiet)),
            "other door": Open(audit.FollowAuditRecords(follow)),
        }
        for one in streams.values():
            threading.Thread(target=one.read, daemon=True).start()
        for one in streams.values():
            one.stream.initial_metadata()
            assert not one.ended.is_set(), one.refusal
        yield streams
        for one in streams.values():
            one.stream.cancel()


@pytest.fixture
def kept(lab: Lab, h1: Host) -> Iterator[dict[str, Open]]:
    """The streams of somebody whom nothing happens to; at the end they are still there."""
    with opened(lab, h1, support.Pair.of(lab.pki, "viewer")) as streams:
        yield streams
        before = streams["chatty"].messages
        time.sleep(1)
        assert not any(one.ended.is_set() for one in streams.values())
        assert streams["chatty"].messages > before


def outcome(lab: Lab, host: Host, domain: str, user: str) -> dict[str, Any]:
    """The record of how a user's last stream ended."""
    records = support.audit(lab, host, domain, f"spiffe://lab.hostler/user/{user}")
    ends = [r for r in records if r["method"].endswith(("/WatchCounters", "/FollowAuditRecords"))]
    return ends[-1]


def person(lab: Lab, name: str, validity: Validity | None = None) -> tuple[str, support.Pair]:
    authority = Authority.open(lab.pki)
    user = f"{security_people.PREFIX}-{name}"
    pair = security_people.issue(authority, user, validity)
    authority.grant(user, "viewers")
    return user, pair


@pytest.mark.parametrize(
    ("words", "code", "reason"),
    [
        (["policy", "revoke"], "UNAUTHENTICATED", "CERTIFICATE_REVOKED"),
        (["policy", "ungrant"], "PERMISSION_DENIED", "PERMISSION_DENIED"),
    ],
    ids=["revoked", "off-its-group"],
)
def test_a_push_ends_the_streams_it_takes_the_leave_from(
    lab: Lab, h1: Host, kept: dict[str, Open], words: list[str], code: str, reason: str
) -> None:
    user, pair = person(lab, f"stream-{reason[-7:].lower()}")
    support.push(lab, h1.name)
    with opened(lab, h1, pair) as streams:
        if "ungrant" in words:
            support.hostler(lab, *words, f"user/{user}", "viewers")
        else:
            support.hostler(lab, *words, f"user/{user}")
        support.push(lab, h1.name)
        arrived = datetime.now(UTC)
        for name, one in streams.items():
            assert one.end(PROMISED_S) == (code, reason), name
        late = {n: (s.ended_at - arrived).total_seconds() for n, s in streams.items() if s.ended_at}
    assert max(late.values()) < PROMISED_S
    print(f"\n{reason}: ended so many seconds after the push had ended: {late}")
    for domain in STREAMED:
        record = outcome(lab, h1, domain, user)
        told = {key: record[key] for key in ("kind", "status", "reason")}
        assert told == {"kind": "outcome", "status": code, "reason": reason}
        assert record["duration"] != "0s"


def test_a_certificate_of_a_minute_ends_its_streams_with_it(
    lab: Lab, h1: Host, kept: dict[str, Open]
) -> None:
    ends = (datetime.now(UTC) + timedelta(seconds=LIFE_S)).replace(microsecond=0)
    user, pair = person(lab, "brief", Validity(ends - timedelta(seconds=LIFE_S), ends))
    support.push(lab, h1.name)
    with opened(lab, h1, pair) as streams:
        for name, one in streams.items():
            end = one.end(LIFE_S + PROMISED_S)
            assert end == ("UNAUTHENTICATED", "CERTIFICATE_EXPIRED"), name
        late = {n: (s.ended_at - ends).total_seconds() for n, s in streams.items() if s.ended_at}
    assert all(0 <= seconds < 2 for seconds in late.values()), late
    print(f"\nended so many seconds after the certificate: {late}")
    for domain in STREAMED:
        record = outcome(lab, h1, domain, user)
        assert (record["kind"], record["reason"]) == ("outcome", "CERTIFICATE_EXPIRED")
