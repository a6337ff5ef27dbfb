"""What every request must be: bytes of its type, and times that can be converted."""

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from hostler.api.common.v1 import audit_pb2, change_pb2
from hostler.api.netns.v1 import namespace_pb2
from hostler.api.storage.v1 import backup_pb2
from hostlerd.runtime.errors import Code, InvalidRequest
from hostlerd.runtime.readable import Unreadable, reading, require_times

INT64 = st.integers(-(2**63), 2**63 - 1) | st.sampled_from([-62135596801, 253402300800, 0])
INT32 = st.integers(-(2**31), 2**31 - 1) | st.sampled_from([-1, 0, 10**9 - 1, 10**9])


def fields_at_fault(request):
    try:
        require_times(request)
    except InvalidRequest as e:
        return [violation.field for violation in e.violations]
    return []


@given(INT64, INT32)
def test_a_time_is_let_through_if_it_can_be_converted(seconds, nanos):
    """The witness is protobuf's own conversion, which knows the range of each type."""
    since = Timestamp(seconds=seconds, nanos=nanos)
    within = Duration(seconds=seconds, nanos=nanos)
    asked = audit_pb2.ListAuditRecordsRequest(since=since)
    change = change_pb2.ChangeOptions(confirm=change_pb2.ConfirmOptions(within=within))
    create = namespace_pb2.CreateNamespaceRequest(change=change)
    assert (fields_at_fault(asked) == []) == converts(since.ToJsonString)
    assert (fields_at_fault(create) == []) == converts(within.ToJsonString)


def converts(conversion):
    try:
        conversion()
    except ValueError:
        return False
    return True


def test_each_is_named_where_it_stands():
    bad = Timestamp(seconds=2**62)
    asked = audit_pb2.ListAuditRecordsRequest(since=bad, until=Timestamp(nanos=-1))
    assert fields_at_fault(asked) == ["since", "until"]
    confirm = change_pb2.ConfirmOptions(within=Duration(seconds=1, nanos=-1))
    deep = namespace_pb2.CreateNamespaceRequest(change=change_pb2.ChangeOptions(confirm=confirm))
    assert fields_at_fault(deep) == ["change.confirm.within"]


def test_in_lists_too_and_a_flood_of_them_is_not_told_in_full():
    response = audit_pb2.ListAuditRecordsResponse()
    for seconds in (0, 2**62, 5, -(2**62)):
        response.records.add().time.seconds = seconds
    assert fields_at_fault(response) == ["records[1].time", "records[3].time"]
    for _ in range(1000):
        response.records.add().time.nanos = -1
    assert len(fields_at_fault(response)) == 20


def test_types_that_hold_themselves_and_types_without_times():
    assert fields_at_fault(FileDescriptorSet()) == []
    assert fields_at_fault(backup_pb2.ListBackupsRequest()) == []


def test_bytes_of_no_message_are_kept_for_whoever_may_be_told():
    read = reading(audit_pb2.ListAuditRecordsRequest.FromString)
    assert read(audit_pb2.ListAuditRecordsRequest(tail=7).SerializeToString()).tail == 7
    told = read(b"\x0a\x7fsecret")
    assert isinstance(told, Unreadable)
    assert told.empty == audit_pb2.ListAuditRecordsRequest()
    error = told.error()
    assert (error.code, error.reason) == (Code.INVALID_ARGUMENT, "REQUEST_UNREADABLE")
    assert "secret" not in error.message and error.metadata["size_bytes"] == "8"


def test_only_what_cannot_be_read_is_answered_so():
    def parse(data):
        raise MemoryError

    with pytest.raises(MemoryError):
        reading(parse)(b"")
