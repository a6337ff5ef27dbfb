"""Tables of what policies must answer, the starters, and bundles that would lock all out."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from hostler import cedar
from hostler.core.bundle import Bundle
from hostler.policy import PolicyError, default_policies, split_policies, starters
from hostler.policy_cases import answers, load_cases

OF = "spiffe://lab.hostler/user/"


def bundle(*names: str, own: str = "", defaults: bool = True, **members: str) -> Bundle:
    """A bundle of starters and policies of one's own, with members of one group each."""
    texts = [starters()[name] for name in names] + [own]
    policies = [policy for text in texts for policy in split_policies(text, "own")]
    return Bundle(
        version=1,
        trust_domain="lab.hostler",
        created=datetime.now(UTC),
        members={OF + user: (group.replace("_", "-"),) for user, group in members.items()},
        policies=(*(default_policies() if defaults else ()), *policies),
        revoked=frozenset(),
    )


def said(tmp_path: Path, signed: Bundle, who: str, call: str, **more: object) -> set[str]:
    """What is answered to one call."""
    rows = {"who": who, "calls": [call], "expect": "allow", **more}
    words = "\n".join(f"{key} = {_toml(value)}" for key, value in rows.items())
    (tmp_path / "cases.toml").write_text(f"[[cases]]\n{words}\n")
    cases = load_cases(tmp_path / "cases.toml", "lab.hostler")
    return {answer.said for answer in answers(cases, signed)}


def _toml(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else repr(value)


# Kept by hand: starter, group, method, what its members are answered.
@pytest.mark.parametrize(
    ("starter", "method", "expected"),
    [
        ("network-team", "ApplyRulesets", "allow"),
        ("network-team", "CreateNamespace", "allow"),
        ("network-team", "ListDisksNot", ""),
        ("network-team", "MakeFilesystem", "deny"),
        ("network-team", "StartProcess", "deny"),
        ("network-team", "GetGraph", "allow"),
        ("storage-team", "MakeFilesystem", "allow"),
        ("storage-team", "ApplyRulesets", "deny"),
        ("storage-team", "ApplyMount", "deny"),
        ("storage-team", "ApplyExport", "deny"),
        ("storage-team", "ApplyAttachment", "allow"),
        ("certificate-team", "ApplyDeployment", "allow"),
        ("certificate-team", "IssueIdentity", "deny"),
        ("certificate-team", "ApplyRulesets", "deny"),
        ("certificate-team", "GetGraph", "deny"),
        ("on-call", "GetGraph", "allow"),
        ("on-call", "StartTrace", "allow"),
        ("on-call", "StartPayloadTrace", "deny"),
        ("on-call", "RevertPending", "allow"),
        ("on-call", "ConfirmPending", "deny"),
        ("on-call", "ApplyRulesets", "deny"),
        ("robots", "ApplyRulesets", "allow"),
        ("robots", "PushBundle", "deny"),
        ("robots", "MakeFilesystem", "deny"),
    ],
)
def test_a_starter_lets_its_group_do_its_work_and_no_more(tmp_path, starter, method, expected):
    signed = bundle(starter, zoe=starter)
    if not expected:
        with pytest.raises(PolicyError, match="no method"):
            said(tmp_path, signed, "zoe", method)
        return
    assert said(tmp_path, signed, "zoe", method) == {expected}
    # Nobody else has it from this policy.
    assert said(tmp_path, bundle(starter), "zoe", method) == {"deny"}


def test_two_persons_are_asked_for_what_loses_data_and_everybody_may_look(tmp_path):
    signed = bundle("two-persons", ada="admins")
    assert said(tmp_path, signed, "ada", "MakeFilesystem") == {"approval"}
    assert said(tmp_path, signed, "ada", "StartPayloadTrace") == {"approval"}
    assert said(tmp_path, signed, "ada", "MakeFilesystem", plan=True) == {"allow"}
    assert said(tmp_path, signed, "ada", "ApplyRulesets") == {"allow"}


@pytest.mark.parametrize("name", starters())
def test_every_starter_is_checked_against_the_api(name):
    policies = split_policies(starters()[name], name)
    assert (cedar.validate(policies), cedar.too_wide(policies)) == ([], [])


def test_the_door_and_the_resource_are_asked_for(tmp_path):
    own = (
        '@id("own") permit (principal == Identity::"spiffe://lab.hostler/user/zoe", '
        'action in Action::"class/CHANGE", resource) '
        'when { resource.domain == "netns" && resource.names.contains("web") };'
    )
    signed = bundle(own=own)
    assert said(tmp_path, signed, "zoe", "CreateNamespace", on="web") == {"allow"}
    assert said(tmp_path, signed, "zoe", "CreateNamespace", on="db") == {"deny"}
    both = said(tmp_path, signed, "zoe", "PushBundle", on="web")
    assert both == {"allow", "deny"}
    assert said(tmp_path, signed, "zoe", "PushBundle", on="web", domain="netns") == {"allow"}
    assert said(tmp_path, signed, "local/root", "DeleteNamespace") == {"allow"}


def test_every_fault_of_a_table_is_told_with_its_line(tmp_path):
    table = tmp_path / "cases.toml"
    table.write_text(
        '[[cases]]\nwho = "a"\ncalls = ["NoSuch", 1]\nexpect = "maybe"\n'
        '[[cases]]\nwho = "A B"\ncalls = ["ListNamespaces"]\nexpect = "deny"\nplan = 1\n'
        '[[cases]]\nwho = "a b"\ncalls = ["ListNamespaces"]\nexpect = "deny"\n'
        '[[cases]]\nwhom = "a"\ncalls = "x"\ndomain = "dns"\n'
        '[[cases]]\nwho = "a"\ncalls = ["GetGraph"]\nexpect = "deny"\ndomain = "ssl"\n'
    )
    with pytest.raises(PolicyError) as caught:
        load_cases(table, "lab.hostler")
    told = [line.removeprefix(f"{table}:") for line in str(caught.value).splitlines()]
    assert told == [
        "1: expect must be one of allow, deny, approval",
        "1: there is no method 'NoSuch'",
        "1: there is no method 1",
        "5: plan must be true or false",
        *(line for line in told if line.startswith("10: who: ")),
        "14: 'whom' is not one of who, calls, expect, on, domain, plan",
        "14: who is missing",
        "14: expect is missing",
        "14: calls must be a list",
        f"14: domain must be one of {', '.join(cedar.PORTS)}",
        "18: GetGraph is not served at the door of ssl",
    ]
    assert any(line.startswith("10: who: ") for line in told)


@pytest.mark.parametrize("text", ["", "cases = []", "x = 1", "[[cases]]\nwho =", "\0", "cases = 1"])
def test_what_is_no_table_is_refused(tmp_path, text):
    (tmp_path / "cases.toml").write_text(text)
    with pytest.raises(PolicyError):
        load_cases(tmp_path / "cases.toml", "lab.hostler")


def test_a_bundle_by_which_nobody_could_push_the_next_is_known():
    every = tuple(cedar.PORTS)
    assert cedar.Judge(bundle()).locked_out() == every
    assert cedar.Judge(bundle(vera="viewers")).locked_out() == every
    assert cedar.Judge(bundle(ada="admins")).locked_out() == ()
    assert cedar.Judge(bundle(defaults=False, ada="admins")).locked_out() == every
    shut = (
        '@id("own") forbid (principal, action in Action::"class/CHANGE", resource) '
        'when { resource.domain == "ssl" };'
    )
    assert cedar.Judge(bundle(own=shut, ada="admins")).locked_out() == ("ssl",)
    # A host's certificate is no person who could put it right.
    other = bundle(ada="admins")
    host = Bundle(
        version=1,
        trust_domain="lab.hostler",
        created=other.created,
        members={"spiffe://lab.hostler/host/ada": ("admins",)},
        policies=other.policies,
        revoked=frozenset(),
    )
    assert cedar.Judge(host).locked_out() == every
    # With two persons it is slower, and not shut.
    two = '@id("own") forbid (principal, action, resource) unless { context.approvals >= 1 };'
    assert cedar.Judge(bundle(own=two, ada="admins")).locked_out() == ()
