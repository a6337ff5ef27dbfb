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
    call = Call(method, Caller(identity, "peer", local), names)
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
