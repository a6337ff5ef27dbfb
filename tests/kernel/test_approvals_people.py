"""Two-person approval at a real daemon: who counts as the second person, for what, and once."""

import json
import os
import shutil
import signal
import time

import pytest
from jobs_place import answered, approvals, fill, get_job, refusal, running, stubs, until, wipe

from hostler.api.common.v1 import approval_pb2, change_pb2, job_pb2

pytestmark = pytest.mark.kernel

TWO = """
@id("two-to-destroy")
forbid (principal, action in Action::"class/DESTROY", resource) unless { context.approvals >= 1 };
@id("two-to-open")
forbid (
  principal,
  action == Action::"/hostler.api.vault.v1.VaultService/OpenVault",
  resource
)
unless { context.approvals >= 1 };
@id("two-to-fill-special")
forbid (
  principal,
  action == Action::"/hostler.api.vault.v1.VaultService/FillVault",
  resource == Resource::"netns/special"
)
unless { context.approvals >= 1 || context.validate_only };
"""
HIDDEN = {"secret": "hunter2"}
REQUESTED, APPROVED, USED, EXPIRED, WITHDRAWN = range(1, 6)


@pytest.fixture
def place(tmp_path):
    with running(tmp_path) as place:
        place.use_policies(TWO)
        (place.vault / "a").write_text("gold")
        yield place


@pytest.fixture
def people(place):
    """A channel of each."""
    names = ("alice", "bob", "carol", "olga", "vera")
    channels = {name: place.channel(name) for name in names}
    yield channels
    for channel in channels.values():
        channel.close()


def destroy(channel, name="a", **options):
    """Wipe with a token of now, as the client does it."""
    token = wipe(channel, name, validate_only=True).destroy_token
    return wipe(channel, name, destroy_token=token, **options)


def ask(channel, name="a"):
    """Ask for approval; answers its id."""
    refused = refusal(lambda: destroy(channel, name))
    assert (refused.code, refused.reason) == ("FAILED_PRECONDITION", "APPROVAL_REQUIRED"), refused
    return refused.metadata["approval"]


def approve(channel, approval, **options):
    request = approval_pb2.ApproveChangeRequest(
        id=approval, change=change_pb2.ChangeOptions(**options)
    )
    return approvals(channel).ApproveChange(request, timeout=10)


def withdraw(channel, approval):
    request = approval_pb2.WithdrawApprovalRequest(id=approval)
    return approvals(channel).WithdrawApproval(request, timeout=10)


def get(channel, approval):
    request = approval_pb2.GetApprovalRequest(id=approval)
    return approvals(channel).GetApproval(request, timeout=10).approval


def gold(place):
    return (place.vault / "a").read_text() == "gold"


def test_the_plan_is_shown_and_says_what_is_missing(place, people):
    planned = wipe(people["alice"], "a", validate_only=True)
    assert planned.outcome == change_pb2.OUTCOME_PLANNED and planned.destroy_token
    (warning,) = planned.warnings
    assert warning.code == "APPROVAL_NEEDED" and warning.subject == ask(people["alice"])


def test_approved_by_another_it_is_done_once_across_restarts(place):
    with place.channel("alice") as alice:
        approval = ask(alice)
        assert ask(alice) == approval and gold(place)
    place.restart()
    with place.channel("bob") as bob:
        shown = get(bob, approval)
        assert shown.state == REQUESTED and shown.requester.endswith("/user/alice")
        assert shown.method.endswith("/WipeVault") and list(shown.resources) == ["a"]
        assert [s.description for s in shown.plan.steps] == ["wipe 4 bytes of box a"]
        answer = approve(bob, approval, plan_hash=shown.plan.hash)
        assert answer.change.changed and answer.approval.approver.endswith("/user/bob")
        assert not approve(bob, approval).change.changed and gold(place)
    os.kill(place.audit("start")[-1]["pid"], signal.SIGKILL)
    with place.channel("alice") as alice:
        until(lambda: answered(lambda: get(alice, approval).state == APPROVED))
        done = destroy(alice)
        assert done.changed and not gold(place)
        assert get(alice, approval).state == USED
        outcome = next(r for r in place.audit("outcome") if r["seq"] == done.audit.seq)
        assert outcome["approval"] == approval
        (place.vault / "a").write_text("gold")
        assert ask(alice) == approval
        assert get(alice, approval).state == REQUESTED and gold(place)


def test_used_once_though_the_daemon_dies_right_after(place):
    with place.channel("alice") as alice, place.channel("bob") as bob:
        approve(bob, ask(alice))
        destroy(alice)
    os.kill(place.audit("start")[-1]["pid"], signal.SIGKILL)
    (place.vault / "a").write_text("gold")
    with place.channel("alice") as alice:
        until(lambda: answered(lambda: wipe(alice, "a", validate_only=True)))
        ask(alice)
    assert gold(place)


def test_not_for_another_plan(place, people):
    approval = ask(people["alice"])
    approve(people["bob"], approval)
    (place.vault / "a").write_text("more gold")
    other = ask(people["alice"])
    assert other != approval and get(people["alice"], other).state == REQUESTED
    assert get(people["alice"], approval).state == APPROVED
    (place.vault / "b").write_text("gold")
    assert ask(people["alice"], "b") not in (approval, other)


def test_not_for_another_caller(place, people):
    approve(people["bob"], ask(people["alice"]))
    assert get(people["carol"], ask(people["carol"])).state == REQUESTED
    assert gold(place)


def second_certificate(place):
    """Issue another certificate of alice's; the first is kept as good as it was."""
    users = place.authority.folder / "users"
    first = place.root / "first"
    first.mkdir()
    for kind in ("pem", "key"):
        shutil.copy(users / f"alice.{kind}", first)
    place.authority.issue_user("alice", renew=True)
    assert (users / "alice.pem").read_bytes() != (first / "alice.pem").read_bytes()


def test_not_by_the_requester_under_a_second_certificate(place):
    second_certificate(place)
    with place.channel("alice", "first") as first, place.channel("alice") as second:
        approval = ask(first)
        for channel in (first, second):
            refused = refusal(lambda c=channel: approve(c, approval))
            assert (refused.code, refused.reason) == ("PERMISSION_DENIED", "APPROVAL_NOT_COUNTED")
            assert "nobody approves what he has asked for" in refused.message
        assert get(first, approval).state == REQUESTED
        serials = {
            r["certificate_serial"]
            for r in place.audit()
            if r.get("method", "").endswith("veChange")
        }
        assert len(serials) == 2
    # It is the caller that counts, so that a renewed certificate may use what was approved before.
    with place.channel("bob") as bob, place.channel("alice") as second:
        approve(bob, approval)
        assert destroy(second).changed


def test_not_by_local_root_nor_by_who_may_not_do_it(place, people):
    approval = ask(people["alice"])
    with place.local() as root:
        refused = refusal(lambda: approve(root, approval))
        assert refused.reason == "APPROVAL_NOT_COUNTED" and "local" in refused.message
    # An operator may call ApproveChange, but may not destroy.
    refused = refusal(lambda: approve(people["olga"], approval))
    assert refused.reason == "APPROVAL_NOT_COUNTED" and "allowed to make it" in refused.message
    assert refusal(lambda: approve(people["vera"], approval)).reason == "PERMISSION_DENIED"
    assert get(people["vera"], approval).state == REQUESTED


def test_not_by_a_host_however_mighty(place, people):
    place.authority.grant("host/h1", "admins")
    place.install_bundle()
    hosts = place.root / "hosts"
    hosts.mkdir()
    for kind in ("pem", "key"):
        shutil.copy(place.root / f"pki/hosts/h1.{kind}", hosts)
    approval = ask(people["alice"])
    with place.channel("h1", "hosts") as h1:
        until(lambda: answered(lambda: get(h1, approval)))
        refused = refusal(lambda: approve(h1, approval))
    assert refused.reason == "APPROVAL_NOT_COUNTED" and "only users" in refused.message


def test_even_local_root_needs_a_second_person(place, people):
    with place.local() as root:
        approval = ask(root)
        assert get(people["bob"], approval).requester == "local/root"
        approve(people["bob"], approval)
        assert destroy(root).changed


def test_an_approval_counts_no_more_when_its_approver_has_lost_the_leave(place, people):
    for take_away in (
        lambda: place.authority.ungrant("bob", "admins"),
        lambda: place.authority.revoke("user/carol"),
    ):
        approval = ask(people["alice"])
        approver = "bob" if "bob" in str(take_away.__code__.co_consts) else "carol"
        approve(people[approver], approval)
        take_away()
        place.install_bundle()
        version = place.authority.read_bundle().version
        until(lambda v=version: str(v) in in_force(people["alice"]))
        assert ask(people["alice"]) == approval and gold(place)
        assert get(people["alice"], approval).state == REQUESTED
        assert get(people["alice"], approval).approver == ""


def in_force(channel):
    from hostler.api.common.v1 import host_pb2, host_pb2_grpc

    answer = host_pb2_grpc.HostServiceStub(channel).GetHost(host_pb2.GetHostRequest(), timeout=10)
    return str(answer.host.bundle_version)


def test_it_can_be_withdrawn_by_who_asked_and_by_who_could_approve(place, people):
    for who in ("alice", "bob"):
        approval = ask(people["alice"])
        approve(people["carol"], approval)
        refused = refusal(lambda a=approval: withdraw(people["olga"], a))
        assert refused.reason == "APPROVAL_NOT_COUNTED"
        assert withdraw(people[who], approval).approval.state == WITHDRAWN
        assert refusal(lambda a=approval: approve(people["carol"], a)).reason == "APPROVAL_CLOSED"
        assert ask(people["alice"]) == approval
        assert get(people["alice"], approval).state == REQUESTED
        withdraw(people["alice"], approval)


def test_it_expires(place, people):
    approval = ask(people["alice"])
    approve(people["bob"], approval)
    path = place.root / f"state/approvals/{approval}.json"
    data = json.loads(path.read_text())
    assert 3590 < data["expires"] - time.time() <= 3600
    path.write_text(json.dumps({**data, "created": data["created"] - 3700, "expires": time.time()}))
    assert get(people["bob"], approval).state == EXPIRED
    assert refusal(lambda: approve(people["bob"], approval)).reason == "APPROVAL_CLOSED"
    assert ask(people["alice"]) == approval and gold(place)


def test_the_approver_says_which_plan_he_has_seen(place, people):
    approval = ask(people["alice"])
    refused = refusal(lambda: approve(people["bob"], approval, plan_hash="0" * 64))
    assert (refused.code, refused.reason) == ("ABORTED", "PLAN_CHANGED")
    seen = approve(people["bob"], approval, validate_only=True)
    assert seen.change.outcome == change_pb2.OUTCOME_PLANNED and seen.change.changed
    assert get(people["bob"], approval).state == REQUESTED
    approve(people["bob"], approval, plan_hash=seen.change.plan.hash)
    assert get(people["bob"], approval).state == APPROVED


def test_a_policy_can_name_a_method_and_a_resource_and_let_plans_pass(place, people):
    assert fill(people["olga"], "b").changed
    assert fill(people["olga"], "special", validate_only=True).changed
    refused = refusal(lambda: fill(people["olga"], "special"))
    assert refused.reason == "APPROVAL_REQUIRED" and place.boxes == {"a", "b"}
    approve(people["bob"], refused.metadata["approval"])
    assert fill(people["olga"], "special").changed


def open_vault(channel, name="a", **fields):
    pb, grpc_pb = stubs()
    stream = grpc_pb.VaultServiceStub(channel).OpenVault(
        pb.OpenVaultRequest(name=name, **fields), timeout=10
    )
    return [message.content for message in stream]


def test_a_stream_begins_once_and_with_the_request_that_was_approved(place, people):
    refused = refusal(lambda: open_vault(people["alice"], **HIDDEN))
    assert refused.reason == "APPROVAL_REQUIRED", refused
    approval = refused.metadata["approval"]
    shown = get(people["bob"], approval)
    assert "hunter2" not in str(shown) and '"name":"a"' in shown.plan.steps[0].description
    approve(people["bob"], approval)
    for other in ({"name": "b"}, {"secret": "hunter3"}):
        assert refusal(lambda o=other: open_vault(people["alice"], **o)).metadata["approval"] != (
            approval
        )
    assert open_vault(people["alice"], **HIDDEN) == [b"gold"]
    assert refusal(lambda: open_vault(people["alice"], **HIDDEN)).reason == ("APPROVAL_REQUIRED")


def test_a_job_uses_the_approval_when_it_is_taken_on(place):
    with place.channel("alice") as alice, place.channel("bob") as bob:
        token = wipe(alice, "a", validate_only=True).destroy_token
        refused = refusal(lambda: wipe(alice, "a", destroy_token=token, job=True))
        assert refused.reason == "APPROVAL_REQUIRED" and place.queue == []
        approve(bob, refused.metadata["approval"])
        # The token was not used up by the call that lacked the approval.
        name = wipe(alice, "a", destroy_token=token, job=True).job
        assert get(bob, refused.metadata["approval"]).state == USED and gold(place)
        ask(alice)
    place.restart()
    place.run_job()
    with place.channel("alice") as alice:
        assert get_job(alice, name).state == job_pb2.JOB_STATE_SUCCEEDED and not gold(place)


def test_lists_show_the_newest_first_and_what_is_open(place, people):
    ids = []
    for name in ("x", "y", "z"):
        (place.vault / name).write_text("gold")
        ids.append(ask(people["alice"], name))
    withdraw(people["alice"], ids[1])
    stub = approvals(people["vera"])
    first = stub.ListApprovals(approval_pb2.ListApprovalsRequest(page_size=2))
    rest = stub.ListApprovals(approval_pb2.ListApprovalsRequest(page_token=first.next_page_token))
    assert [a.id for a in (*first.approvals, *rest.approvals)] == ids[::-1]
    shown = stub.ListApprovals(approval_pb2.ListApprovalsRequest(open_only=True)).approvals
    assert [a.id for a in shown] == [ids[2], ids[0]]
    missing = refusal(lambda: get(people["vera"], "../destroy/key"))
    assert (missing.code, missing.reason) == ("NOT_FOUND", "APPROVAL_NOT_FOUND")
