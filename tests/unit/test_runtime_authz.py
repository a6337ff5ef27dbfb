"""Decisions by the default policies and by policies on single resources."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

import hostler
from hostler.core.bundle import Bundle, Policy
from hostlerd.runtime.access import Method
from hostlerd.runtime.authz import (
    Authorizer,
    CertificateRevoked,
    ForeignTrustDomain,
    NoBundle,
    PermissionDenied,
    PolicyFaulty,
)
from hostlerd.runtime.call import Call, Caller

DEFAULT = (Path(hostler.__file__).parent / "policies/default.cedar").read_text()
CLASSES = ("READ", "CHANGE", "DESTROY", "ROOT_EQUIVALENT")
METHODS = {c: Method(f"/hostler.api.netns.v1.S/{c}", c, ("name",)) for c in CLASSES}
GET_HOST = Method("/hostler.api.common.v1.HostService/GetHost", "READ")


def who(name):
    return f"spiffe://t.test/user/{name}"


def bundle(*policies, **changed):
    values = dict(
        version=1,
        trust_domain="t.test",
        created=datetime.now(UTC),
        members={who(g): (f"{g}s",) for g in ("viewer", "operator", "admin")},
        policies=tuple(Policy(f"p{i}", text) for i, text in enumerate(policies or (DEFAULT,))),
        revoked=frozenset(),
    )
    return Bundle(**{**values, **changed})


def authorizer(made=None):
    authorizer = Authorizer("netns", [*METHODS.values(), GET_HOST])
    if made is not None:
        authorizer.use(made)
    return authorizer


def allowed(authorizer, identity, method, *names, local=False):
    call = Call(method, Caller(identity, "peer", local), resources=names)
    try:
        authorizer.authorize(call)
    except PermissionDenied:
        return False
    return True


# Kept by hand: rows are callers, columns READ, CHANGE, DESTROY, ROOT_EQUIVALENT.
TABLE = {
    (who("viewer"), False): (True, False, False, False),
    (who("operator"), False): (True, True, False, False),
    (who("admin"), False): (True, True, True, True),
    (who("stranger"), False): (False, False, False, False),
    ("spiffe://t.test/host/h1", False): (False, False, False, False),
    ("local/root", True): (True, True, True, True),
    ("local/uid/1000", True): (True, False, False, False),
    ("local/root", False): (False, False, False, False),
}


@pytest.mark.parametrize("caller", TABLE)
def test_default_policies(caller):
    authz = authorizer(bundle())
    identity, local = caller
    found = tuple(allowed(authz, identity, METHODS[c], "web", local=local) for c in CLASSES)
    assert found == TABLE[caller]
    assert allowed(authz, identity, GET_HOST, local=local)


def test_a_policy_on_one_resource_does_not_open_others():
    only_web = '@id("w") permit (principal, action, resource == Resource::"netns/web");'
    authz = authorizer(bundle(only_web))
    assert allowed(authz, who("x"), METHODS["CHANGE"], "web")
    assert not allowed(authz, who("x"), METHODS["CHANGE"], "db")
    assert not allowed(authz, who("x"), METHODS["CHANGE"], "web", "db")
    assert not allowed(authz, who("x"), METHODS["CHANGE"])


def test_a_forbid_wins_and_the_denial_names_it():
    forbid = '@id("no-db") forbid (principal, action, resource == Resource::"netns/db");'
    authz = authorizer(bundle(DEFAULT, forbid))
    call = Call(METHODS["CHANGE"], Caller(who("admin"), "peer", False), ("db",))
    with pytest.raises(PermissionDenied) as caught:
        authz.authorize(call)
    assert caught.value.metadata["policies"] == "no-db"
    assert caught.value.metadata["identity"] == who("admin")
    assert "db" not in caught.value.message


def test_a_policy_that_cannot_be_evaluated_opens_nothing():
    """Cedar passes over a forbid whose condition fails; it must not let the call through."""
    faulty = '@id("f") forbid (principal, action, resource) when { resource.nosuch == "x" };'
    authz = authorizer(bundle(DEFAULT, faulty))
    call = Call(METHODS["READ"], Caller(who("admin"), "peer", False), ("web",))
    with pytest.raises(PolicyFaulty):
        authz.authorize(call)


def test_without_a_bundle_only_host_and_health():
    authz = authorizer()
    authz.authorize(Call(GET_HOST, Caller(who("x"), "p", False)))
    with pytest.raises(NoBundle):
        authz.authorize(Call(METHODS["READ"], Caller("local/root", "p", True)))


def test_revoked_and_foreign_identities():
    authz = authorizer(bundle(revoked=frozenset({"ab"})))
    with pytest.raises(CertificateRevoked):
        authz.check_identity(Call(GET_HOST, Caller(who("x"), "p", False, "ab")))
    with pytest.raises(ForeignTrustDomain):
        authz.check_identity(
            Call(GET_HOST, Caller("spiffe://t.test.evil/user/admin", "p", False, "cd"))
        )
    authz.check_identity(Call(GET_HOST, Caller(who("x"), "p", False, "cd")))


def test_policies_that_do_not_parse_leave_the_ones_in_force():
    authz = authorizer(bundle())
    with pytest.raises(ValueError):
        authz.use(bundle("permit (principal"))
    assert allowed(authz, who("admin"), METHODS["CHANGE"], "web")


TWO = """
@id("two")
forbid (principal, action in [Action::"class/DESTROY", Action::"class/READ"], resource)
unless { context.approvals >= 1 };
"""
ADMIN, OPERATOR = who("admin"), who("operator")


def judged(authz, identity, method, *names, **more):
    """The call after it was let through, or None."""
    call = Call(method, Caller(identity, "peer", False), resources=names, **more)
    try:
        authz.authorize(call)
    except PermissionDenied:
        return None
    return call


def test_what_an_approval_would_allow_goes_as_far_as_the_guard():
    authz = authorizer(bundle(DEFAULT, TWO))
    assert judged(authz, ADMIN, METHODS["DESTROY"], "web").approval_needed
    assert not judged(authz, ADMIN, METHODS["CHANGE"], "web").approval_needed
    assert judged(authz, OPERATOR, METHODS["DESTROY"], "web") is None


def test_a_read_cannot_wait_for_an_approval():
    """It has no plan that somebody could look at, and no guard in its way."""
    assert judged(authorizer(bundle(DEFAULT, TWO)), ADMIN, METHODS["READ"], "web") is None


@pytest.mark.parametrize(
    ("service", "waits"),
    [
        ("ApprovalService/ApproveChange", False),
        ("JobService/CancelJob", False),
        ("ConfirmService/ConfirmPending", False),
        ("BundleService/PushBundle", True),
    ],
)
def test_what_approves_confirms_and_cancels_cannot_wait_for_an_approval(service, waits):
    method = Method(f"/hostler.api.common.v1.{service}", "CHANGE")
    authz = Authorizer("netns", [method])
    authz.use(bundle(DEFAULT, TWO.replace("class/READ", "class/CHANGE")))
    assert bool(judged(authz, ADMIN, method)) is waits


def test_one_resource_of_many_that_needs_an_approval_is_enough():
    two = TWO.replace("resource)", 'resource == Resource::"netns/db")')
    authz = authorizer(bundle(DEFAULT, two))
    assert not judged(authz, ADMIN, METHODS["DESTROY"], "web").approval_needed
    assert judged(authz, ADMIN, METHODS["DESTROY"], "web", "db").approval_needed


def test_a_denial_that_no_approval_helps_against_names_what_stands_in_the_way():
    never = '@id("never") forbid (principal, action, resource == Resource::"netns/db");'
    authz = authorizer(bundle(DEFAULT, TWO, never))
    call = Call(METHODS["DESTROY"], Caller(ADMIN, "peer", False), resources=("db",))
    with pytest.raises(PermissionDenied) as caught:
        authz.authorize(call)
    assert caught.value.metadata["policies"] == "never" and not call.approval_needed


def test_a_policy_may_let_plans_pass():
    two = TWO.replace(">= 1", ">= 1 || context.validate_only")
    authz = authorizer(bundle(DEFAULT, two))
    assert not judged(authz, ADMIN, METHODS["DESTROY"], "web", validate_only=True).approval_needed
    assert judged(authz, ADMIN, METHODS["DESTROY"], "web").approval_needed


@pytest.mark.parametrize(
    ("scope", "opens"),
    [
        ("action", False),
        ('action in Action::"domain/netns"', False),
        ('action in [Action::"domain/netns", Action::"class/CHANGE"]', False),
        ('action in Action::"class/ROOT_EQUIVALENT"', True),
        ('action == Action::"/hostler.api.netns.v1.S/ROOT_EQUIVALENT"', True),
        ('action in [Action::"domain/netns", Action::"class/ROOT_EQUIVALENT"]', True),
    ],
)
def test_root_equivalent_is_permitted_in_so_many_words_or_not_at_all(scope, opens):
    authz = authorizer(bundle(f'@id("own") permit (principal, {scope}, resource);'))
    assert allowed(authz, ADMIN, METHODS["ROOT_EQUIVALENT"], "web") is opens
    if scope == "action":
        assert allowed(authz, ADMIN, METHODS["DESTROY"], "web")


def test_a_forbid_that_names_the_class_is_not_what_permits_it():
    wide = '@id("wide") permit (principal, action, resource);'
    other = """@id("other") forbid (principal, action in Action::"class/ROOT_EQUIVALENT", resource)
    when { context.local };"""
    authz = authorizer(bundle(wide, other))
    call = Call(METHODS["ROOT_EQUIVALENT"], Caller(ADMIN, "peer", False))
    with pytest.raises(PermissionDenied) as caught:
        authz.authorize(call)
    assert caught.value.metadata["policies"] == "wide: without naming ROOT_EQUIVALENT"
