from __future__ import annotations

import json

import grpc
import grpc.aio
import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc import error_details_pb2, status_pb2

from hostler.api.firewall.v1 import ruleset_pb2
from hostler.api.netns.v1 import namespace_pb2, process_pb2
from hostler.limits import Tolerance
from hostler.outcome import Outcome, of_error
from hostler.results import (
    DETAILS_KEY,
    CallFailed,
    HostError,
    HostResult,
    exit_code,
    from_rpc_error,
    plain,
)


def rpc_error(trailers: bytes | None, details: str = "plain words") -> grpc.aio.AioRpcError:
    metadata = (
        grpc.aio.Metadata() if trailers is None else grpc.aio.Metadata((DETAILS_KEY, trailers))
    )
    return grpc.aio.AioRpcError(
        grpc.StatusCode.FAILED_PRECONDITION, grpc.aio.Metadata(), metadata, details
    )


def test_all_details_are_decoded() -> None:
    status = status_pb2.Status(code=9, message="rich words")
    for message in (
        error_details_pb2.ErrorInfo(reason="NAMESPACE_BUSY", metadata={"pids": "1,2"}),
        error_details_pb2.BadRequest(
            field_violations=[{"field": "a.b[3]", "description": "is wrong"}]  # type: ignore[list-item]
        ),
        error_details_pb2.PreconditionFailure(
            violations=[{"type": "T", "subject": "web", "description": "runs"}]  # type: ignore[list-item]
        ),
        error_details_pb2.Help(),
    ):
        packed = AnyMessage()
        packed.Pack(message)
        status.details.append(packed)
    error = from_rpc_error(rpc_error(status.SerializeToString()))
    assert error == HostError(
        "FAILED_PRECONDITION",
        "NAMESPACE_BUSY",
        "rich words",
        {"pids": "1,2"},
        (
            {"field": "a.b[3]", "description": "is wrong"},
            {"type": "T", "subject": "web", "description": "runs"},
        ),
    )
    assert str(error) == (
        "FAILED_PRECONDITION NAMESPACE_BUSY: rich words; a.b[3]: is wrong; T web: runs"
    )


@pytest.mark.parametrize("trailers", [None, b"\xff\xff\xff", b""])
def test_without_usable_details_the_status_itself_speaks(trailers: bytes | None) -> None:
    error = from_rpc_error(rpc_error(trailers))
    assert (error.code, error.message) == ("FAILED_PRECONDITION", "plain words")


def test_plain_keeps_numbers_names_and_empty_fields() -> None:
    space = namespace_pb2.Namespace(name="web", inode=4026532000)
    space.interfaces.add(veth=namespace_pb2.Veth(bridge="br0"))
    space.create_time.FromJsonString("2026-01-01T00:00:00Z")
    answer = json.loads(json.dumps(plain(space)))
    assert answer["inode"] == 4026532000
    assert answer["drift"] == []
    assert answer["create_time"] == "2026-01-01T00:00:00Z"
    assert answer["interfaces"][0]["veth"]["bridge"] == "br0"
    assert "macvlan" not in answer["interfaces"][0]
    assert "unprivileged_port_start" not in answer


def test_plain_enums_maps_and_bytes() -> None:
    rule = ruleset_pb2.Rule(action=ruleset_pb2.ACTION_DROP)
    assert plain(rule)["action"] == "ACTION_DROP"
    rule.action = 99
    assert plain(rule)["action"] == 99
    task = process_pb2.Task(namespaces={"pid": 2, "net": 1})
    assert plain(task)["namespaces"] == {"net": 1, "pid": 2}
    assert plain(process_pb2.RunProcessRequest(stdin=b"x"))["stdin"] == "eA=="


def test_exit_codes() -> None:
    good, bad = HostResult("a", 1), HostResult[int]("b", error=HostError("X", "Y", "z"))
    assert exit_code([good]) == 0
    assert exit_code([good, bad]) == 1
    assert exit_code([]) == 3
    assert good.value() == 1
    with pytest.raises(CallFailed, match="X Y: z"):
        bad.value()


def test_result_shapes() -> None:
    assert HostResult("a", {"x": 1}).as_dict() == {"host": "a", "ok": True, "result": {"x": 1}}
    assert HostResult("a", error=HostError("X", "Y", "z"), domain="netns").as_dict() == {
        "host": "a",
        "domain": "netns",
        "ok": False,
        "error": {"code": "X", "reason": "Y", "message": "z", "metadata": {}, "violations": []},
    }


@pytest.mark.parametrize(
    ("text", "total", "allowed"), [("0", 10, 0), ("3", 10, 3), ("10%", 25, 2), ("0.5%", 1000, 5)]
)
def test_tolerance(text: str, total: int, allowed: int) -> None:
    assert Tolerance.parse(text).allowed(total) == allowed


@pytest.mark.parametrize("text", ["", "-1", "101%", "x", "1.5", "%"])
def test_tolerance_refuses(text: str) -> None:
    with pytest.raises(ValueError, match="neither a number nor a percentage"):
        Tolerance.parse(text)


def test_a_fault_that_the_message_tells_is_not_told_twice() -> None:
    faults = ({"field": "a", "description": "is bad"}, {"field": "b", "description": "is worse"})
    error = HostError("INVALID_ARGUMENT", "INVALID_REQUEST", "a: is bad; and 1 more", {}, faults)
    assert str(error) == "INVALID_ARGUMENT INVALID_REQUEST: a: is bad; and 1 more; b: is worse"


def test_an_error_that_tells_what_became_of_the_change_is_believed() -> None:
    for told, outcome in (
        ("OUTCOME_UNKNOWN", Outcome.UNKNOWN),
        ("OUTCOME_INTERRUPTED", Outcome.INTERRUPTED),
        ("OUTCOME_APPLIED", Outcome.APPLIED),
        ("OUTCOME_OF_ANOTHER_VERSION", Outcome.FAILED),
        ("", Outcome.FAILED),
    ):
        lost = HostError("ABORTED", "WORKER_LOST", "closed", {"outcome": told})
        assert of_error(lost) is outcome
    refused = HostError("INVALID_ARGUMENT", "INVALID", "no", {"outcome": "OUTCOME_APPLIED"})
    assert of_error(refused) is Outcome.FAILED
