import json
from datetime import UTC, datetime

import cedarpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostler.core.names import Identity
from hostler.pki import Authority
from hostler.policy import (
    PolicyError,
    PolicySource,
    default_policies,
    read_policies,
    split_policies,
    unknown_groups,
)

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
ALICE = Identity("lab", "user", "alice")

BY_HAND = """\
# Ours.
default_policies = true

[members]
# On call this week.
"spiffe://lab/user/alice" = ["operators"]  # until Friday

[[revoked]]
serial = "0A:1B"
identity = "spiffe://lab/user/eve"
"""


def test_comments_and_order_of_a_file_edited_by_hand_stay():
    source = PolicySource(BY_HAND, "lab")
    assert source.grant(ALICE, "viewers")
    assert source.revoke("ff", "spiffe://lab/user/bob", NOW)
    source.version = 7
    text = source.to_bytes().decode()
    for kept in ("# Ours.", "# On call this week.", "# until Friday", 'serial = "0A:1B"'):
        assert kept in text
    again = PolicySource(text, "lab")
    assert again.version == 7
    assert again.members() == {str(ALICE): ("operators", "viewers")}
    assert [r.serial for r in again.revocations()] == ["a1b", "ff"]


def test_changes_that_change_nothing_say_so():
    source = PolicySource(BY_HAND, "lab")
    assert not source.grant(ALICE, "operators")
    assert not source.revoke("a1b", "", NOW)
    assert not source.ungrant(ALICE, "admins")
    assert source.to_bytes().decode() == BY_HAND
    assert source.ungrant(ALICE, "operators")
    assert source.members() == {}


@pytest.mark.parametrize(
    "text",
    [
        "x",
        "more = 1",
        'version = "1"',
        "version = -1",
        "version = true",
        'default_policies = "no"',
        "members = 1",
        'members = {a = "admins"}',
        "members = {a = [1]}",
        "revoked = 1",
        "revoked = [1]",
        "revoked = [{}]",
        "[[revoked]]\nserial = 5",
        '[[revoked]]\nserial = "xyz"',
    ],
)
def test_faults_are_told_with_the_file(text):
    with pytest.raises(PolicyError, match=r"^here\.toml: "):
        PolicySource(text, "lab", "here.toml")


@pytest.mark.parametrize(
    "text",
    [
        '[members]\nalice = ["admins"]',
        '[members]\n"spiffe://other/user/alice" = ["admins"]',
        '[members]\n"spiffe://lab/user/alice" = ["Admins"]',
        '[members]\n"spiffe://lab/user/alice" = ["admins", "admins"]',
    ],
)
def test_a_source_that_makes_no_bundle_is_not_signed(tmp_path, text):
    authority = Authority.create(tmp_path / "pki", "lab")
    (authority.folder / "policy.toml").write_text(text)
    with pytest.raises(PolicyError, match=r"policy\.toml: members"):
        authority.write_bundle()
    assert not authority.bundle_path.exists()


def test_inline_tables_can_be_edited_or_are_refused_in_words():
    source = PolicySource("members = {}\nrevoked = []\n", "lab")
    with pytest.raises(PolicyError, match=r"\[members\]"):
        source.grant(ALICE, "admins")
    with pytest.raises(PolicyError, match=r"\[\[revoked\]\]"):
        source.revoke("a1", "", NOW)


def test_own_policies_replace_the_default_ones_if_told(tmp_path):
    authority = Authority.create(tmp_path / "pki", "lab")
    (authority.folder / "policy.toml").write_text("default_policies = false\n")
    (authority.folder / "policies/b.cedar").write_text(
        '@id("b") permit (principal, action, resource);'
    )
    (authority.folder / "policies/a.cedar").write_text(
        '@id("a") forbid (principal, action, resource);'
    )
    assert [p.id for p in authority.write_bundle().policies] == ["a", "b"]


def test_a_policy_that_cedar_refuses_is_not_signed(tmp_path):
    authority = Authority.create(tmp_path / "pki", "lab")
    (authority.folder / "policies/a.cedar").write_text('@id("a") permit (principal, action);')
    with pytest.raises(PolicyError, match='@id\\("a"\\)'):
        authority.write_bundle()
    assert not authority.bundle_path.exists()


def test_semicolons_in_texts_and_comments_end_no_policy():
    text = """
    // one; two
    @id("a") permit (principal, action, resource)
    when { context.peer == "a;b\\"; // no comment" }; // after; all
    @since("now;") @id ( "b" )
    forbid (principal, action, resource);
    // the end;
    """
    policies = split_policies(text, "x")
    assert [policy.id for policy in policies] == ["a", "b"]
    for policy in policies:
        assert len(cedarpy.PolicySet.from_str(policy.cedar)) == 1


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("permit (principal, action, resource);", "no @id"),
        ('@id("a") @id("b") permit (principal, action, resource);', "no @id"),
        ('permit (principal, action, resource) when { "@id(\\"a\\")" == "" };', "no @id"),
        ('@id("a") permit (principal, action, resource)', "no semicolon"),
        ('@id("a") allow (principal, action, resource);', "not a permit or forbid"),
        ('@id("a") permit (principal, action, resource) when { "', "no semicolon"),
        (";", "not a permit or forbid"),
    ],
)
def test_bad_texts_are_told(text, fault):
    with pytest.raises(PolicyError, match=rf"^x: .*{fault}"):
        split_policies(text, "x")


@given(st.text('@id("a;b)permit//\n \\?'))
def test_no_text_breaks_the_splitter(text):
    try:
        policies = split_policies(text, "x")
    except PolicyError:
        return
    assert all(policy.cedar in text for policy in policies)


def test_splitting_agrees_with_cedar():
    text = "\n".join(policy.cedar for policy in default_policies())
    parsed = json.loads(cedarpy.policies_to_json_str(text))["staticPolicies"]
    ids = sorted(policy["annotations"]["id"] for policy in parsed.values())
    assert ids == sorted(policy.id for policy in split_policies(text, "x"))


def test_files_that_are_no_text_are_told(tmp_path):
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies/a.cedar").write_bytes(b"\xff")
    with pytest.raises(PolicyError, match=r"a\.cedar"):
        read_policies(tmp_path)
    (tmp_path / "policies/a.cedar").write_bytes(b" " * (1024 * 1024 + 1))
    with pytest.raises(PolicyError, match="larger"):
        read_policies(tmp_path)


def test_groups_that_no_policy_names_are_found():
    members = {"a": ("admins", "strangers")}
    assert unknown_groups(members, default_policies()) == {"strangers"}
