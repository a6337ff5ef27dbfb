"""The default policies, judged by Cedar itself on the entities that daemons use."""

import json
from datetime import UTC, datetime
from importlib import resources

import cedarpy
import pytest

from hostler import cedar
from hostler.core.bundle import Bundle, Policy
from hostler.core.decision import Question
from hostler.policy import PolicyError, default_policies, mentioned_groups

POLICIES = default_policies()
CLASSES = ("READ", "CHANGE", "DESTROY", "ROOT_EQUIVALENT")
GET_HOST = "/hostler.api.common.v1.HostService/GetHost"
ALICE = "spiffe://lab.hostler/user/alice"
WEB = "spiffe://lab.hostler/host/web"


def decide(identity, action, access_class, groups=(), *, local=False, policies=POLICIES):
    entities = [
        {
            "uid": {"type": "Action", "id": action},
            "attrs": {},
            "parents": [
                {"type": "Action", "id": f"class/{access_class}"},
                {"type": "Action", "id": "domain/netns"},
            ],
        },
        {
            "uid": {"type": "Identity", "id": identity},
            "attrs": {},
            "parents": [{"type": "Group", "id": group} for group in groups],
        },
        {
            "uid": {"type": "Resource", "id": "netns/web"},
            "attrs": {"domain": "netns", "names": ["web"]},
            "parents": [],
        },
    ]
    request = {
        "principal": {"type": "Identity", "id": identity},
        "action": {"type": "Action", "id": action},
        "resource": {"type": "Resource", "id": "netns/web"},
        "context": {"peer": "10.0.0.1", "local": local, "validate_only": False, "approvals": 0},
    }
    text = "\n".join(policy.cedar for policy in policies)
    result = cedarpy.is_authorized(request, text, json.dumps(entities))
    assert result.diagnostics.errors == []
    ids = result.diagnostics.id_annotations_by_reason
    return result.allowed, {ids[reason] for reason in result.diagnostics.reasons}


def classes_of(identity, groups=(), *, local=False):
    return tuple(decide(identity, "/a.S/M", c, groups, local=local)[0] for c in CLASSES)


# Kept by hand; columns READ, CHANGE, DESTROY, ROOT_EQUIVALENT.
@pytest.mark.parametrize(
    ("identity", "groups", "local", "allowed"),
    [
        (ALICE, ("viewers",), False, (True, False, False, False)),
        (ALICE, ("operators",), False, (True, True, False, False)),
        (ALICE, ("admins",), False, (True, True, True, True)),
        (ALICE, ("viewers", "operators"), False, (True, True, False, False)),
        (ALICE, (), False, (False, False, False, False)),
        (ALICE, ("strangers",), False, (False, False, False, False)),
        (WEB, (), False, (False, False, False, False)),
        (WEB, ("viewers",), False, (True, False, False, False)),
        ("local/root", (), True, (True, True, True, True)),
        ("local/uid/1000", (), True, (True, False, False, False)),
        # A name alone is no proof: the door must be the local one.
        ("local/root", (), False, (False, False, False, False)),
        ("spiffe://lab.hostler/user/root", (), True, (True, False, False, False)),
    ],
)
def test_who_may_do_what(identity, groups, local, allowed):
    assert classes_of(identity, groups, local=local) == allowed


def test_an_action_of_no_class_is_denied_to_all():
    for identity, local in ((ALICE, False), ("local/root", True)):
        assert decide(identity, "/a.S/M", "UNSPECIFIED", ("admins",), local=local)[0] is False


@pytest.mark.parametrize("identity", [ALICE, WEB])
def test_whoever_has_authenticated_may_ask_what_the_host_is(identity):
    assert decide(identity, GET_HOST, "READ") == (True, {"anyone-get-host"})


def test_a_decision_names_the_policy_by_its_id():
    assert decide(ALICE, "/a.S/M", "ROOT_EQUIVALENT", ("admins",)) == (
        True,
        {"admins-root-equivalent"},
    )


def test_a_forbid_of_ones_own_overrides():
    text = '@id("no-web") forbid (principal, action, resource == Resource::"netns/web");'
    own = Policy("no-web", text)
    answer = decide(ALICE, "/a.S/M", "READ", ("admins",), policies=(*POLICIES, own))
    assert answer == (False, {"no-web"})


def test_each_default_policy_is_needed():
    """Without any one of them some decision of the table above is another."""
    cases = [
        (ALICE, "/a.S/M", c, (group,), False)
        for c in CLASSES
        for group in ("viewers", "operators", "admins")
    ]
    cases += [(f"local/{who}", "/a.S/M", c, (), True) for c in CLASSES for who in ("root", "uid/1")]
    cases.append((WEB, GET_HOST, "READ", (), False))

    def decisions(policies):
        return [
            decide(identity, action, c, groups, local=local, policies=policies)[0]
            for identity, action, c, groups, local in cases
        ]

    whole = decisions(POLICIES)
    for policy in POLICIES:
        assert decisions([p for p in POLICIES if p != policy]) != whole, policy.id


def test_cedar_sees_the_ids_that_the_bundle_carries():
    for policy in POLICIES:
        parsed = json.loads(cedarpy.policies_to_json_str(policy.cedar))["staticPolicies"]
        assert [p["annotations"]["id"] for p in parsed.values()] == [policy.id]


def test_the_default_policies_hold_against_the_api():
    assert cedar.validate(POLICIES) == []
    assert mentioned_groups(POLICIES) == {"viewers", "operators", "admins"}


@pytest.mark.parametrize(
    "text",
    [
        'permit (principal, action in Action::"class/REED", resource);',
        'permit (principal, action == Action::"/a.S/M", resource);',
        'permit (principal in Groop::"admins", action, resource);',
        'forbid (principal, action, resource) when { resource.name == "x" };',
        "forbid (principal, action, resource) when { context.remote };",
    ],
)
def test_misspelt_policies_are_found(text):
    found = cedar.validate([Policy("own", text)])
    assert found and all(line.startswith('@id("own"): ') for line in found)


@pytest.mark.parametrize("access_class", CLASSES)
def test_a_policy_on_any_class_is_fine_even_if_no_method_has_it_yet(access_class):
    text = f'forbid (principal, action in Action::"class/{access_class}", resource);'
    assert cedar.validate([Policy("own", text)]) == []


def test_every_method_of_the_api_has_a_class_in_the_schema():
    actions = cedar.schema()[""]["actions"]
    methods = {name: entry for name, entry in actions.items() if name.startswith("/")}
    assert "/hostler.api.netns.v1.ProcessService/RunProcess" in methods
    known = {f"class/{c}" for c in CLASSES}
    for entry in methods.values():
        assert len(known & {parent["id"] for parent in entry["memberOf"]}) == 1


@pytest.mark.parametrize(
    "text",
    [
        "permit (principal, action, resource) when { 1 + };",
        "permit (principal == ?principal, action, resource);",
        "permit (principal, action, resource); permit (principal, action, resource);",
        "",
    ],
)
def test_what_is_not_one_policy_is_refused(text):
    with pytest.raises(PolicyError, match="own"):
        cedar.check_syntax([Policy("own", text)])


def example():
    """The policy that default.cedar shows in its comments."""
    text = resources.files("hostler").joinpath("policies/default.cedar").read_text("utf-8")
    lines = [line.removeprefix("//").strip() for line in text.splitlines()]
    begin = lines.index('@id("two-persons")')
    end = next(n for n in range(begin, len(lines)) if lines[n].endswith(";"))
    return Policy("two-persons", "\n".join(lines[begin : end + 1]))


def question(user, method, **more):
    action = next(a for a in cedar.known_actions() if a.method.endswith(f"/{method}"))
    return Question(f"spiffe://lab.hostler/user/{user}", (), action, "netns", "web", **more)


def signed(*policies):
    return Bundle(
        version=1,
        trust_domain="lab.hostler",
        created=datetime.now(UTC),
        members={ALICE: ("admins",), "spiffe://lab.hostler/user/vera": ("viewers",)},
        policies=policies,
        revoked=frozenset(),
    )


def test_the_example_of_two_persons_holds_against_the_api():
    assert cedar.validate([example()]) == [] and cedar.too_wide([example()]) == []


def test_it_is_explained_what_an_approval_would_do():
    bundle = signed(*POLICIES, example())
    run = cedar.Judge(bundle).explain(question("alice", "RunProcess"))
    assert run.approval_needed and run.decision.policies == ("two-persons",)
    assert run.approved.policies == ("admins-root-equivalent",)
    start = cedar.Judge(bundle).explain(question("alice", "StartProcess"))
    assert start.decision.allowed and not start.approval_needed
    planning = question("alice", "RunProcess", validate_only=True)
    assert cedar.Judge(bundle).explain(planning).decision.allowed
    denied = cedar.Judge(bundle).explain(question("vera", "RunProcess"))
    assert not denied.approval_needed and not denied.approved.allowed
    # A read cannot wait for anybody.
    never = Policy(
        "r", '@id("r") forbid (principal, action, resource) unless {context.approvals>0};'
    )
    read = cedar.Judge(signed(*POLICIES, never)).explain(question("vera", "ListNamespaces"))
    assert not read.decision.allowed and not read.approval_needed


@pytest.mark.parametrize(
    ("scope", "wide"),
    [
        ("action", True),
        ('action in Action::"domain/netns"', True),
        ('action in [Action::"class/READ", Action::"domain/netns"]', True),
        ('action in [Action::"domain/netns", Action::"class/ROOT_EQUIVALENT"]', False),
        ('action in Action::"class/CHANGE"', False),
        ('action in Action::"domain/firewall"', False),
        ('action == Action::"/hostler.api.netns.v1.ProcessService/RunProcess"', False),
    ],
)
def test_a_permit_that_covers_root_equivalent_without_naming_it_is_pointed_out(scope, wide):
    text = f'@id("own") permit (principal, {scope}, resource);'
    found = cedar.too_wide([Policy("own", text)])
    assert bool(found) is wide
    assert all(line.startswith('@id("own")') and "ROOT_EQUIVALENT" in line for line in found)
    assert cedar.too_wide([Policy("own", text.replace("permit", "forbid"))]) == []


def test_no_default_policy_is_too_wide():
    assert cedar.too_wide(POLICIES) == []
