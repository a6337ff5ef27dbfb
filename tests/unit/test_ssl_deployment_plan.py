"""Planning deployments: the second apply is empty, and what is due is due at the right time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostler.core.ssl.together import together
from hostlerd.runtime.errors import DomainError, InvalidRequest
from hostlerd.runtime.steps import Plan, Step
from hostlerd.ssl.errors import (
    AcmeRateLimited,
    DeploymentNotFound,
    KeyMismatch,
    NoAcmeSource,
    TooManyDeployments,
)
from hostlerd.ssl.model.deployment import (
    DEPLOYMENTS_MOST,
    UNITS,
    AcmeSource,
    Attempt,
    Brought,
    DeployedServer,
    Deployment,
    Known,
    Listener,
    Placed,
    Window,
    check,
    check_name,
    file,
)
from hostlerd.ssl.model.deployment_steps import (
    DropKey,
    ForgetDeployment,
    InstallCertificate,
    InstallTogether,
    MakeKey,
    ObtainCertificate,
    RevokeCertificate,
    SaveDeployment,
)
from hostlerd.ssl.plan import deployment as plan

NOW = datetime(2026, 3, 1, tzinfo=UTC)
ACME = AcmeSource("https://acme.test/dir", "a@a.test")
NAMES = st.sampled_from(["a", "web", "mail-1", "x.y"])
SERVERS = st.builds(
    DeployedServer,
    st.sampled_from(sorted(UNITS)),
    st.sampled_from(["nginx.service", "haproxy.service", "x.service", "y.service"]),
    st.just(("127.0.0.1:443",)),
    st.sampled_from(["", "smtp"]),
    st.none() | st.builds(Window, st.just("03:00"), st.just(3600), st.just("UTC")),
)
DEPLOYMENTS = st.builds(
    lambda name, names, servers, kind, acme, reuse_key: Deployment(
        name,
        tuple(names),
        key=file("key", f"/etc/ssl/{name}.key", "", "", 0),
        full_chain=file("full_chain", f"/etc/ssl/{name}.pem", "", "", 0),
        servers=tuple(servers),
        key_kind=kind,
        acme=acme,
        reuse_key=reuse_key,
    ),
    NAMES,
    st.lists(st.sampled_from(["a.test", "b.test", "192.0.2.1"]), min_size=1, unique=True),
    st.lists(SERVERS, max_size=3),
    st.sampled_from(["ec256", "rsa3072"]),
    st.none() | st.just(ACME),
    st.booleans(),
)
ONE = Deployment("web", ("a.test",), key=file("key", "/etc/ssl/k", "", "", 0), acme=ACME)


def brought(number: int, days: float = 90, age: float = 0, key: int = 1) -> Brought:
    start = NOW - timedelta(days=age)
    return Brought(
        f"{number:064x}", f"{key:064x}", start, start + timedelta(days=days), frozenset({"a.test"})
    )


def known(*certificates: Brought, one: Deployment = ONE, **attempt: object) -> Known:
    placed = Placed(("pem",) * len(certificates), certificates, f"{1:064x}")
    return Known(one, placed, Attempt(**attempt))  # type: ignore[arg-type]


def carry_out(steps: Sequence[Step], have: dict[str, Deployment]) -> dict[str, Deployment]:
    """What the records are when steps are done."""
    after = dict(have)
    for step in steps:
        if isinstance(step, SaveDeployment):
            after[step.deployment.name] = step.deployment
        elif isinstance(step, ForgetDeployment):
            del after[step.before.name]
    return after


@given(st.lists(DEPLOYMENTS, max_size=4), DEPLOYMENTS)
def test_the_second_apply_is_empty_and_the_way_back_leads_back(many, want):
    have = {one.name: one for one in many}
    first = plan.apply(want, have)
    after = carry_out(first.steps, have)
    assert after[want.name] == want
    assert plan.apply(want, after).steps == ()
    assert first.etag_after == plan.apply(want, after).etag
    backward = [step.inverse() for step in reversed(first.steps)]
    assert carry_out([step for step in backward if step], after) == have
    gone = plan.delete(want.name, {n: Known(d) for n, d in after.items()})
    left = carry_out(gone.steps, after)
    assert want.name not in left
    assert plan.delete(want.name, {n: Known(d) for n, d in left.items()}).steps == ()
    assert carry_out([s for s in (gone.steps[0].inverse(),) if s], left) == after


@given(st.lists(DEPLOYMENTS, max_size=6, unique_by=lambda one: one.name))
def test_groups_share_no_server_and_lose_nobody(many):
    groups = together(many, lambda one: {server.unit for server in one.servers})
    assert sorted(d.name for g in groups for d in g) == sorted(d.name for d in many)
    units = [{s.unit for d in g for s in d.servers} for g in groups]
    assert all(not a & b for a, b in combinations(units, 2))


@given(
    st.floats(1, 400), st.floats(0, 500), st.integers(0, 500), st.booleans(), st.integers(0, 10**6)
)
def test_a_renewal_is_due_at_two_thirds_or_when_advised_but_in_time(
    days, age, advised, known_, ago
):
    leaf = brought(1, days, age)
    start = int((leaf.not_before + timedelta(days=advised)).timestamp())
    attempt = {"advised": start, "advised_for": leaf.fingerprint_sha256} if known_ else {}
    have = known(leaf, **attempt)
    at = plan.renew_time(have)
    assert at is not None and at <= leaf.not_after - (leaf.not_after - leaf.not_before) / 10.001
    if not known_:
        two_thirds = leaf.not_before + timedelta(days=days) * 2 / 3
        assert abs((at - two_thirds).total_seconds()) < 1
    assert plan.is_due(have, NOW) == (at <= NOW)
    steps = plan.renew(have, plan.Renewal(), NOW).steps
    assert bool(steps) == (at <= NOW)
    failed = replace(have.attempt, problem="no", attempt_time=int(NOW.timestamp()) - ago)
    resting = ago < plan.REST.total_seconds()
    assert plan.is_due(replace(have, attempt=failed), NOW) == (at <= NOW and not resting)


def test_how_a_certificate_is_renewed():
    have = known(brought(1, age=80))
    same = replace(have, deployment=replace(have.deployment, reuse_key=True))
    nothing = Known(same.deployment)
    for one, new_key, fresh in (
        *((have, False, True), (have, True, True)),
        *((same, False, False), (same, True, True), (nothing, False, True)),
    ):
        steps = plan.renew(one, plan.Renewal(new_key=new_key), NOW).steps
        rest = (ObtainCertificate(one.deployment, fresh), InstallCertificate(one.deployment))
        assert steps == (*((MakeKey(one.deployment),) if fresh else ()), *rest)
        only = plan.renew(one, plan.Renewal(new_key=new_key, obtain_only=True), NOW).steps
        assert only == steps[:-1]
    early = known(brought(1))
    told = plan.renew(early, plan.Renewal(), NOW)
    assert told.steps == () and told.notices[0].code == "NOT_DUE"
    assert plan.renew(early, plan.Renewal(force=True), NOW).steps
    limited = known(brought(1, age=80), not_before=int(NOW.timestamp()) + 60)
    with pytest.raises(AcmeRateLimited):
        plan.renew(limited, plan.Renewal(force=True), NOW)
    assert not plan.is_due(limited, NOW)
    by_hand = replace(ONE, acme=None)
    with pytest.raises(NoAcmeSource):
        plan.renew(Known(by_hand), plan.Renewal(), NOW)
    assert not plan.is_due(Known(by_hand), NOW) and not plan.wants_advice(Known(by_hand), NOW)
    assert plan.is_due(Known(ONE), NOW) and not plan.wants_advice(Known(ONE), NOW)


def test_a_certificate_that_lacks_a_name_is_renewed_at_once_but_not_again_and_again():
    more = replace(ONE, subject_names=("a.test", "b.test"))
    assert not plan.is_due(known(brought(1)), NOW)
    assert plan.is_due(known(brought(1), one=more), NOW)
    yesterday, today = (int((NOW - timedelta(hours=h)).timestamp()) for h in (25, 23))
    assert plan.is_due(known(brought(1), one=more, success_time=yesterday), NOW)
    assert not plan.is_due(known(brought(1), one=more, success_time=today), NOW)
    assert plan.renew(known(brought(1), one=more, success_time=today), plan.Renewal(), NOW).steps


def test_when_a_server_is_asked_for_its_advice():
    asked = int(NOW.timestamp())
    have = known(brought(1), asked_time=asked, advised_for=f"{1:064x}")
    assert not plan.wants_advice(have, NOW + timedelta(hours=5))
    assert plan.wants_advice(have, NOW + timedelta(hours=6))
    assert plan.wants_advice(known(brought(2), asked_time=asked, advised_for=f"{1:064x}"), NOW)


def test_what_is_installed_needs_a_key_and_is_installed_once():
    leaf, issuer, root = brought(1), brought(2, key=2), brought(3, key=3)
    steps = plan.install(
        Known(ONE, Placed(spki_sha256=leaf.spki_sha256)), "p", [leaf, issuer]
    ).steps
    assert steps == (InstallCertificate(ONE, "p", leaf.fingerprint_sha256),)
    # The waiting key counts too.
    waits = Placed(waiting_spki_sha256=leaf.spki_sha256)
    assert plan.install(Known(ONE, waits), "p", [issuer, leaf]).steps
    with pytest.raises(KeyMismatch):
        plan.install(known(leaf), "p", [brought(4, key=4)])
    there = known(leaf, issuer)
    assert plan.install(there, "p", [leaf, issuer]).steps == ()
    assert plan.install(there, "p", [leaf, issuer, root]).steps == ()
    assert plan.install(there, "p", [leaf]).steps
    # What is in place and not served is installed again.
    dark = replace(there, placed=replace(there.placed, served=(Listener("127.0.0.1:1"),)))
    assert plan.install(dark, "p", [leaf, issuer]).steps


def test_what_is_in_place_is_no_part_of_a_run_and_none_at_all_is_no_run():
    steps = [InstallCertificate(ONE, "p", f"{n:064x}") for n in (1, 2)]
    plans = [Plan((steps[0],), "a"), Plan((), "b"), Plan((steps[1],), "c")]
    assert plan.install_together(plans).steps == (InstallTogether(tuple(steps)),)
    assert plan.install_together(plans[1:2]).steps == ()
    plan.check_together(["web", "mail"])
    for names in ([], ["web", "mail", "web"], [f"n{n}" for n in range(DEPLOYMENTS_MOST + 1)]):
        with pytest.raises(InvalidRequest):
            plan.check_together(names)


def test_what_waits_goes_with_its_deployment():
    waits = Known(ONE, Placed(waiting_spki_sha256="1"))
    steps = plan.delete("web", {"web": waits}).steps
    assert [type(s) for s in steps] == [ForgetDeployment, DropKey]
    assert steps[1].inverse() is None


def test_what_is_revoked():
    step = plan.revoke(known(brought(1)), "", "keyCompromise").steps[0]
    assert step == RevokeCertificate(ONE, f"{1:064x}", "keyCompromise")
    assert step.inverse() is None and "keyCompromise" in step.describe()
    assert plan.revoke(known(brought(1)), "ab", "").steps[0].describe().endswith("of web")
    with pytest.raises(InvalidRequest):
        plan.revoke(known(brought(1)), "", "because")
    with pytest.raises(InvalidRequest):
        plan.revoke(Known(ONE), "", "")
    with pytest.raises(NoAcmeSource):
        plan.revoke(Known(replace(ONE, acme=None)), "ab", "")


def test_what_there_is_too_much_of_or_twice_is_refused():
    full = {f"d{n}": replace(ONE, name=f"d{n}", key=None) for n in range(DEPLOYMENTS_MOST)}
    with pytest.raises(TooManyDeployments):
        plan.apply(ONE, full)
    with pytest.raises(InvalidRequest, match="is a file of deployment other"):
        plan.apply(ONE, {"other": replace(ONE, name="other")})
    with pytest.raises(DeploymentNotFound):
        plan.get("x", full)
    assert plan.get("d1", full).name == "d1"


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"name": "../x"}, "name"),
        ({"subject_names": ()}, "subject_names"),
        ({"servers": (DeployedServer("iis", "iis.service", ()),)}, "servers[0].kind"),
        ({"acme": AcmeSource("http://acme.test/dir")}, "acme.directory_url"),
        ({"acme": AcmeSource("https://acme.test/dir?x")}, "acme.directory_url"),
        ({"acme": replace(ACME, email="a b@c")}, "acme.email"),
        ({"acme": replace(ACME, dns_hook="../sh")}, "acme.dns_hook"),
        ({"acme": replace(ACME, dns_hook="dns", webroot="/var/www")}, "acme.webroot"),
        ({"subject_names": ("*.a.test",)}, "acme.dns_hook"),
    ],
)
def test_what_is_wrong_with_a_deployment_is_named(changes, field):
    check(ONE)
    with pytest.raises(InvalidRequest) as refused:
        check(replace(ONE, **changes))
    assert f"deployment.{field}" in {v.field for v in refused.value.violations}


def test_names_and_defaults():
    check_name("web")
    for name in ("", "-x", "a/b", "A", "x" * 64):
        with pytest.raises(DomainError):
            check_name(name)
    assert file("key", "/k", "", "", 0).mode == 0o600
    assert file("chain", "/c", "", "ssl-cert", 0o640).group == "ssl-cert"
    window = Window("03:00", 60, "UTC")
    server = DeployedServer("nginx", "nginx.service", ("127.0.0.1:443",), "", window)
    told = replace(ONE, servers=(server,)).asked
    assert told["servers"][0]["window"] == {"start": "03:00", "duration_s": 60, "time_zone": "UTC"}
    assert told["key"]["mode"] == 0o600 and "acme" not in told


@given(DEPLOYMENTS)
def test_steps_say_what_they_do_and_hold_no_certificate_in_their_words(one):
    steps = [
        SaveDeployment(one),
        SaveDeployment(one, one),
        MakeKey(one),
        ObtainCertificate(one, True),
        InstallCertificate(one, "PEM", "ab" * 32),
        InstallTogether((InstallCertificate(one, "PEM", "ab" * 32),)),
    ]
    for step in steps:
        assert one.name in step.describe() or one.subject_names[0] in step.describe()
        assert "PEM" not in step.describe() and "PEM" not in repr(step)
    assert steps[1].inverse() == SaveDeployment(one, one)
    assert MakeKey(one).inverse() == DropKey(one.name)
    assert "drop" in DropKey("x").describe()
    assert ObtainCertificate(one, True).inverse() is None
    assert steps[4].hashed[2] == "PEM" and MakeKey(one).hashed[0] == one.name
    assert steps[4].inverse() is None and steps[5].inverse() is None
    assert steps[5].hashed == (steps[4].hashed,)
