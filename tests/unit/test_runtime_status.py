"""Errors on the wire: code, ErrorInfo, violations, bounds."""

from google.rpc import error_details_pb2

from hostlerd.runtime.errors import Code, DomainError, InvalidRequest, Violation
from hostlerd.runtime.status import room_of, to_status


class Busy(DomainError):
    code, reason = Code.FAILED_PRECONDITION, "NAMESPACE_BUSY"


def details(status, kind):
    found = []
    for detail in status.details:
        message = kind()
        if detail.Unpack(message):
            found.append(message)
    return found


def test_error_info_names_reason_domain_and_case():
    status = to_status(Busy("namespace has running processes", name="web", pids=[1, 2]))
    assert status.code == 9 and status.message == "namespace has running processes"
    (info,) = details(status, error_details_pb2.ErrorInfo)
    assert (info.reason, info.domain) == ("NAMESPACE_BUSY", "hostler")
    assert dict(info.metadata) == {"name": "web", "pids": "[1, 2]"}


def test_field_violations_are_a_bad_request():
    error = InvalidRequest.of([Violation("namespace.name", "too long"), Violation("b", "c")])
    (bad,) = details(to_status(error), error_details_pb2.BadRequest)
    assert [(v.field, v.description) for v in bad.field_violations] == [
        ("namespace.name", "too long"),
        ("b", "c"),
    ]


def test_what_stands_in_the_way_is_a_precondition_failure():
    error = Busy("busy", violations=[Violation("web", "pid 7 runs")])
    (failure,) = details(to_status(error), error_details_pb2.PreconditionFailure)
    assert failure.violations[0].subject == "web"


def test_details_stay_within_one_header_and_tell_what_is_left_out():
    error = InvalidRequest.of([Violation(f"namespaces[{i}].name", "x" * 50) for i in range(1000)])
    status = to_status(error)
    assert status.ByteSize() <= 6144
    (bad,) = details(status, error_details_pb2.BadRequest)
    (info,) = details(status, error_details_pb2.ErrorInfo)
    assert int(info.metadata["violations_left_out"]) == 1000 - len(bad.field_violations)


def test_a_caller_with_more_room_gets_more():
    error = InvalidRequest.of([Violation(f"namespaces[{i}].name", "x" * 50) for i in range(1000)])
    room = room_of([("hostler-details-bytes", "262144")])
    (bad,) = details(to_status(error, room), error_details_pb2.BadRequest)
    assert len(bad.field_violations) == 1000
    assert room_of([("hostler-details-bytes", "9" * 30)]) == 256 << 10
    assert room_of([("hostler-details-bytes", "-1")]) == room_of([]) == 6 << 10
