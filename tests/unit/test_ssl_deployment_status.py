"""What is told of a deployment: when it is renewed, what is served, and what is wrong with it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from ssl_authority import Authority, pem

from hostler.api.ssl.v1 import certificate_pb2
from hostler.api.ssl.v1 import deployment_pb2 as pb
from hostlerd.ssl.kernel.pem import read, read_placed
from hostlerd.ssl.model.deployment import Attempt, Known, Listener, Placed
from hostlerd.ssl.plan.deployment import is_overdue
from hostlerd.ssl.service.deployment_convert import from_message, status, to_message

TWO_DAYS_S = 2 * 24 * 3600.0
FULL = pb.Deployment(
    name="web",
    subject_names=["a.test", "192.0.2.1"],
    key=pb.DeployedFile(path="/etc/ssl/h/key.pem"),
    certificate=pb.DeployedFile(path="/etc/ssl/h/c.pem", owner="www-data", group="adm", mode=0o640),
    servers=[
        pb.DeployedServer(
            kind="postfix",
            listeners=["127.0.0.1:25"],
            starttls="smtp",
            window=pb.Window(start="03:00", duration={"seconds": 60}),
        )
    ],
    acme=pb.AcmeSource(directory_url="https://acme.test/dir", email="a@a.test", dns_hook="dns"),
)


def known(life_days: float = 90) -> Known:
    authority = Authority("test", life=timedelta(days=life_days))
    leaf, _ = authority.issue_for("a.test", "b.test")
    texts = (pem(leaf), pem(authority.intermediate))
    deployment = replace(from_message(FULL), subject_names=("a.test",))
    return Known(deployment, Placed(texts, read_placed(texts), "ab"))


def codes(one: Known, now: datetime) -> set[str]:
    return {finding.code for finding in status(one, TWO_DAYS_S, now).findings}


def test_what_is_asked_for_comes_back_with_its_defaults():
    model = from_message(FULL)
    again = to_message(model)
    assert from_message(again) == model
    assert again.key.mode == 0o600 and again.key.owner == "root"
    assert again.certificate.mode == 0o640 and again.certificate.owner == "www-data"
    assert again.servers[0].unit == "postfix.service"
    assert again.servers[0].window.time_zone == "UTC"
    assert again.key_kind == "ec256"


def test_when_it_is_renewed_and_what_it_is():
    one, now = known(), datetime.now(UTC)
    told = status(one, TWO_DAYS_S, now)
    assert not told.findings
    assert {n.value for n in told.installed.names} == {"a.test", "b.test"}
    assert told.installed.key.type == certificate_pb2.KEY_TYPE_EC
    life = told.installed.not_after.seconds - told.installed.not_before.seconds
    assert abs(told.renew_time.seconds - told.installed.not_before.seconds - life * 2 / 3) < 2


def test_what_is_wrong_is_found():
    one, now = known(), datetime.now(UTC)
    assert codes(Known(one.deployment), now) == {"NOT_INSTALLED"}
    # Two thirds of 90 days are 60; two days more are allowed.
    assert codes(one, now + timedelta(days=61)) == set()
    assert codes(one, now + timedelta(days=63)) == {"RENEWAL_OVERDUE"}
    assert codes(one, now + timedelta(days=91)) == {"RENEWAL_OVERDUE", "EXPIRED"}
    by_hand = replace(one, deployment=replace(one.deployment, acme=None))
    assert codes(by_hand, now + timedelta(days=63)) == set()
    assert not is_overdue(by_hand, now + timedelta(days=63), TWO_DAYS_S)
    assert not is_overdue(Known(one.deployment), now, TWO_DAYS_S)
    waits = replace(one, placed=replace(one.placed, reload_time=int(now.timestamp()) + 60))
    assert codes(waits, now) == {"NOT_YET_SERVED"}
    dark = replace(one.placed, served=(Listener("127.0.0.1:25", "ab", problem="another"),))
    assert codes(replace(one, placed=dark), now) == {"NOT_THE_FILE"}
    failed = replace(one, attempt=Attempt(attempt_time=5, problem="no"))
    assert status(failed, TWO_DAYS_S, now).problem == "no"


def test_what_a_caller_brings_must_be_certificates_and_nothing_else():
    leaf, _ = Authority("test").issue_for("a.test")
    (brought,) = read(pem(leaf))
    assert brought.names == {"a.test"}
    for text in ("", "x", pem(leaf) + "-----BEGIN PRIVATE KEY-----", pem(leaf) * 20, "x" * 2**21):
        with pytest.raises(Exception, match="pem"):
            read(text)
    assert read_placed(["x", pem(leaf)]) == (brought,)
