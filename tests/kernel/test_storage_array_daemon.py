"""Arrays through the daemon, as far as a kernel without md goes: plans, tokens and refusals."""

from __future__ import annotations

from collections.abc import Iterator

import grpc
import pytest
from storage_daemon import World, world
from storage_devices import Loop, called, graph, loop, run

from hostler.api.common.v1 import change_pb2

pytestmark = [pytest.mark.kernel]
NOUN = "array"


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with world(tmp_path_factory.mktemp("arrays")) as made:
        yield made


@pytest.fixture(scope="module")
def disks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Loop, Loop]]:
    folder = tmp_path_factory.mktemp("disks")
    with loop(folder, "one", 32) as one, loop(folder, "two", 32) as two:
        run("/usr/sbin/mkfs.ext4", "-q", "-L", "was here", one.device)
        yield one, two


def test_an_array_is_planned_for_its_devices_and_what_fails_leaves_them(
    host: World, disks: tuple[Loop, Loop]
) -> None:
    seen = graph()
    names = [called(one, seen) for one in disks]
    before = [one.hash() for one in disks]
    wanted = {"name": "data", "level": "raid1", "devices": names}
    planned = host.call(NOUN, "CreateArray", change={"validate_only": True}, **wanted).change
    assert planned.outcome == change_pb2.OUTCOME_PLANNED and planned.destroy_token
    (step,) = planned.plan.steps
    assert step.kind == "CreateArray" and "with a bitmap" in step.description
    assert all(name.rpartition("#")[0] in step.description for name in names)
    bare = lambda **more: host.call(NOUN, "CreateArray", **wanted, **more)  # noqa: E731
    assert host.refusal(bare) == "DESTROY_TOKEN_REQUIRED"
    with pytest.raises(grpc.RpcError) as denied:
        host.call(NOUN, "CreateArray", "olga", change={"validate_only": True}, **wanted)
    assert denied.value.code() is grpc.StatusCode.PERMISSION_DENIED
    # This machine has no md: the tool is not there, or the kernel says no.
    options = {"plan_hash": planned.plan.hash, "destroy_token": planned.destroy_token}
    assert host.refusal(lambda: bare(change=options)) in ("TOOL_MISSING", "TOOL_FAILED")
    assert [one.hash() for one in disks] == before


def test_what_is_asked_of_arrays_that_are_not_there(host: World) -> None:
    assert list(host.call(NOUN, "ListArrays", "vera").arrays) == []
    for method, fields in {
        "GetArray": {},
        "AddMember": {"device": "x"},
        "FailMember": {"device": "x"},
        "RemoveMember": {},
        "ReplaceMember": {"new": "x"},
        "GrowArray": {"raid_disks": 3},
        "CheckArray": {},
        "RepairArray": {},
        "SetSyncSpeed": {"most_bytes_per_second": 1024},
        "StopArray": {},
        "AssembleArray": {},
        "DeleteArray": {},
    }.items():
        asked = lambda m=method, f=fields: host.call(NOUN, m, array="data", **f)  # noqa: E731
        assert host.refusal(asked) == "ARRAY_NOT_FOUND", method
    odd = lambda: host.call(NOUN, "SetSyncSpeed", array="data", least_bytes_per_second=7)  # noqa: E731
    assert host.refusal(odd) == "INVALID_REQUEST"


def test_the_command_says_it_too(host: World, disks: tuple[Loop, Loop]) -> None:
    seen = graph()
    names = [called(one, seen) for one in disks]
    words = ("storage", "array", "create", "data", "--level", "raid10", "--layout", "o2", *names)
    shown = host.hostler("--plan", *words)
    assert "make raid10 data in layout o2" in shown
    assert disks[0].blkid("LABEL") == "was here"
    assert "INVALID_REQUEST" in host.hostler(
        "--plan", "storage", "array", "create", "a b", "--level", "raid1", *names, status=1
    )
    assert host.hostler("storage", "array", "list").startswith("HOST")
