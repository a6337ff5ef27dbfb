"""Processes as models and plans."""

from __future__ import annotations

import json
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration
from hypothesis import given
from hypothesis import strategies as st

from hostler.api.netns.v1 import process_pb2 as pb
from hostlerd.netns.errors import (
    NamespaceNotFound,
    NamespaceNotPersistent,
    ProcessDiffers,
    ProcessNotFound,
    ProcessNotRunning,
    ProcessStopping,
)
from hostlerd.netns.kernel.process import how_it_ended, to_status
from hostlerd.netns.kernel.task import is_ours
from hostlerd.netns.model.process import (
    DeviceLimit,
    Limits,
    Place,
    Process,
    ProcessState,
    ProcessView,
    Restart,
    RestartPolicy,
    Status,
    check,
    check_run,
    check_signal,
    from_record,
    to_record,
)
from hostlerd.netns.model.process_steps import (
    ForgetProcess,
    SaveProcess,
    SignalProcess,
    StartProcess,
    StopProcess,
)
from hostlerd.netns.plan import process as plan
from hostlerd.netns.service.process_convert import (
    exited_to_proto,
    process_from_proto,
    process_to_proto,
    status_to_proto,
)
from hostlerd.runtime.errors import InvalidRequest
from hostlerd.runtime.steps import Step

WANT = Process("http", "web", ("python3", "-m", "http.server"), user="www-data")
FULL = Process(
    "http",
    "web",
    ("true",),
    "u",
    "g",
    ("a", "b"),
    "/srv",
    (("A", "s3cret"), ("B", "")),
    True,
    True,
    True,
    True,
    Limits(1 << 20, 10, 3, 1, (DeviceLimit("/dev/sda", 1, 2), DeviceLimit("/dev/sdb", None, 3))),
    Restart(RestartPolicy.ALWAYS, 5),
    True,
    0,
)
PLACES = {"web": Place(), "kept": Place(persistent=True)}


def view(*statuses: Status, desired: tuple[Process, ...] = ()) -> ProcessView:
    return ProcessView(PLACES, {p.key: p for p in desired}, {s.process.key: s for s in statuses})


def carry(have: ProcessView, steps: tuple[Step, ...]) -> ProcessView:
    """What a host is like after the steps, as far as plans see it."""
    desired, statuses = dict(have.desired), dict(have.statuses)
    for step in steps:
        match step:
            case SaveProcess():
                desired[step.process.key] = step.process
            case ForgetProcess():
                desired.pop((step.namespace, step.name), None)
            case StartProcess():
                running = Status(step.process, ProcessState.RUNNING, main_pid=7)
                statuses[step.process.key] = running
            case StopProcess():
                statuses.pop((step.namespace, step.name), None)
    return ProcessView(have.places, desired, statuses)


def test_one_that_has_strayed_is_stopped_and_started_anew() -> None:
    status = Status(WANT, ProcessState.RUNNING, main_pid=7, net_inode=11)
    same = ProcessView(PLACES, {WANT.key: WANT}, {WANT.key: status}, {"web": 11})
    assert plan.start(WANT, same).steps == ()
    other = ProcessView(PLACES, {WANT.key: WANT}, {WANT.key: status}, {"web": 12})
    made = plan.start(WANT, other)
    assert [type(step) for step in made.steps] == [StopProcess, SaveProcess, StartProcess]
    assert made.steps[0].inverse() is None
    assert [notice.code for notice in made.notices] == ["PROCESS_STRAYED"]
    # The inode is another on every host, the plan is not.
    third = ProcessView(PLACES, {WANT.key: WANT}, {WANT.key: status}, {"web": 13})
    assert plan.start(WANT, third).hash == made.hash


states = st.sampled_from([s for s in ProcessState if s is not ProcessState.STOPPING])
haves = st.one_of(
    st.just(view()),
    st.just(view(desired=(WANT,))),
    st.builds(lambda s: view(Status(WANT, s), desired=(WANT,)), states),
    st.builds(
        lambda s: view(Status(FULL, s), desired=(FULL,)),
        st.sampled_from([ProcessState.EXITED, ProcessState.FAILED]),
    ),
)


@given(haves)
def test_the_second_start_is_empty(have: ProcessView) -> None:
    first = plan.start(WANT, have)
    after = carry(have, first.steps)
    assert after.statuses[WANT.key].alive
    second = plan.start(WANT, after)
    assert second.steps == ()
    assert second.etag == first.etag_after


@given(haves)
def test_the_second_stop_is_empty_and_what_ran_is_brought_back_by_undoing(
    have: ProcessView,
) -> None:
    first = plan.stop("web", "http", have)
    after = carry(have, first.steps)
    assert WANT.key not in after.statuses
    assert WANT.key not in after.desired
    assert plan.stop("web", "http", after).steps == ()
    undone = [i for s in reversed(first.steps) if (i := s.inverse())]
    back = carry(after, tuple(undone))
    ran = have.statuses.get(WANT.key)
    if ran and ran.alive and WANT.key in have.desired:
        assert back.statuses[WANT.key].alive
        assert back.desired == have.desired


def test_a_failed_start_is_undone_to_what_was_on_record() -> None:
    have = view(Status(FULL, ProcessState.FAILED), desired=(FULL,))
    save, start = plan.start(WANT, have).steps
    assert save.inverse() == SaveProcess(FULL, WANT)
    assert start.inverse() == StopProcess("web", "http", Place())


def test_running_in_another_shape_is_an_error() -> None:
    have = view(Status(FULL, ProcessState.RUNNING), desired=(FULL,))
    with pytest.raises(ProcessDiffers):
        plan.start(WANT, have)
    with pytest.raises(ProcessStopping):
        plan.start(WANT, view(Status(WANT, ProcessState.STOPPING), desired=(WANT,)))


def test_the_namespace_must_be_there_and_last_as_long() -> None:
    with pytest.raises(NamespaceNotFound):
        plan.start(Process("a", "nowhere", ("true",)), view())
    with pytest.raises(NamespaceNotPersistent):
        plan.start(Process("a", "web", ("true",), persistent=True), view())
    assert plan.start(Process("a", "kept", ("true",), persistent=True), view()).steps


def test_signals() -> None:
    running = view(Status(WANT, ProcessState.RUNNING, main_pid=7), desired=(WANT,))
    steps = plan.send_signal("web", "http", "SIGHUP", running).steps
    assert steps == (SignalProcess("web", "http", "SIGHUP"),)
    assert steps[0].inverse() is None
    with pytest.raises(ProcessNotFound):
        plan.send_signal("web", "other", "SIGHUP", running)
    with pytest.raises(ProcessNotRunning):
        plan.send_signal("web", "http", "SIGHUP", view(Status(WANT, ProcessState.FAILED)))
    with pytest.raises(InvalidRequest):
        plan.send_signal("web", "http", "HUP", running)
    assert check_signal("SIGKILL", "signal") == []


def test_stop_all_names_every_process_of_the_namespace_alone() -> None:
    other = Process("x", "kept", ("true",))
    have = view(
        Status(WANT, ProcessState.RUNNING),
        Status(other, ProcessState.RUNNING),
        desired=(WANT, other),
    )
    steps = plan.stop_all("web", have)
    assert [type(s) for s in steps] == [StopProcess, ForgetProcess]
    assert {getattr(s, "namespace", None) for s in steps} == {"web"}


def test_secrets_are_in_no_description_and_no_repr() -> None:
    steps = plan.start(FULL, ProcessView({"web": Place(persistent=True)}, {}, {})).steps
    for step in steps:
        assert "s3cret" not in step.describe()
        assert "s3cret" not in repr(step)
    assert "s3cret" not in str(process_to_proto(FULL))


def test_describe_is_short_whatever_the_command() -> None:
    long = Process("a", "web", ("true", "x" * 5000))
    assert len(StartProcess(long, Place()).describe()) < 200


def test_records_are_read_back_as_they_were_and_rubbish_is_refused() -> None:
    assert from_record(json.loads(json.dumps(to_record(FULL)))) == FULL
    for broken in ({}, {**to_record(FULL), "name": "../x"}, {**to_record(FULL), "more": 1}):
        with pytest.raises((KeyError, TypeError, ValueError)):
            from_record(broken)


def violations(**changes: Any) -> set[str]:
    base: dict[str, Any] = {"name": "http", "namespace": "web", "argv": ("true",)}
    return {v.field for v in check(Process(**{**base, **changes}))}


@pytest.mark.parametrize(
    ("changes", "fields"),
    [
        ({}, set()),
        ({"name": "Http", "namespace": ""}, {"process.name", "process.namespace"}),
        ({"argv": ()}, {"process.argv"}),
        ({"argv": ("",)}, {"process.argv[0]"}),
        ({"argv": ("bin/true",)}, {"process.argv[0]"}),
        ({"argv": ("true", "a\0b")}, {"process.argv[1]"}),
        ({"argv": ("true", "x" * (128 << 10))}, {"process.argv"}),
        ({"argv": ("true",) * 1025}, {"process.argv"}),
        ({"user": "a b"}, {"process.user"}),
        ({"group": "-1"}, {"process.group"}),
        ({"supplementary_groups": ("a", "b:")}, {"process.supplementary_groups[1]"}),
        ({"supplementary_groups": ("a",) * 65}, {"process.supplementary_groups"}),
        ({"working_directory": "srv"}, {"process.working_directory"}),
        ({"environment": (("A B", ""),)}, {'process.environment["A B"]'}),
        ({"environment": (("A", "\0"),)}, {'process.environment["A"]'}),
        ({"environment": (("A", "x" * (64 << 10)),)}, {"process.environment"}),
        ({"limits": Limits(memory_max_bytes=1)}, {"process.limits.memory_max_bytes"}),
        ({"limits": Limits(cpu_max_millicpus=9)}, {"process.limits.cpu_max_millicpus"}),
        ({"limits": Limits(tasks_max=0)}, {"process.limits.tasks_max"}),
        ({"limits": Limits(tasks_max=2), "private_pid": True}, {"process.limits.tasks_max"}),
        ({"limits": Limits(io_weight=10_001)}, {"process.limits.io_weight"}),
        ({"limits": Limits(devices=(DeviceLimit("sda", 1),))},
         {"process.limits.devices[0].device"}),
        ({"limits": Limits(devices=(DeviceLimit("/dev/../x", 1),))},
         {"process.limits.devices[0].device"}),
        ({"limits": Limits(devices=(DeviceLimit("/dev/sda"),))}, {"process.limits.devices[0]"}),
        ({"limits": Limits(devices=(DeviceLimit("/dev/sda", 1),) * 2)},
         {"process.limits.devices[1].device"}),
        ({"limits": Limits(devices=(DeviceLimit("/dev/sda", 0, -1),))},
         {"process.limits.devices[0].read_bytes_per_second",
          "process.limits.devices[0].write_bytes_per_second"}),
        ({"limits": Limits(devices=(DeviceLimit("/dev/sda", 1),) * 65)},
         {"process.limits.devices",
          *(f"process.limits.devices[{i}].device" for i in range(1, 64))}),
        ({"restart": Restart(RestartPolicy.ALWAYS, -1)}, {"process.restart.delay"}),
        ({"stop_timeout_ms": 86_400_001}, {"process.stop_timeout"}),
    ],
)  # fmt: skip
def test_every_fault_is_told_by_its_field(changes: dict[str, Any], fields: set[str]) -> None:
    assert violations(**changes) == fields


def test_a_run_is_neither_restarted_nor_persistent() -> None:
    fields = [v.field for v in check_run(FULL)]
    assert fields == ["start.restart.policy", "start.persistent"]


@pytest.mark.parametrize("process", [WANT, FULL])
def test_proto_and_model_agree_but_for_the_environment(process: Process) -> None:
    message = process_to_proto(process)
    assert dict(message.environment) == {}
    message.environment.update(dict(process.environment))
    assert process_from_proto(pb.Process.FromString(message.SerializeToString())) == process


def test_what_is_left_out_has_its_documented_default() -> None:
    process = process_from_proto(pb.Process(name="a", namespace="b", argv=["c"]))
    assert process == Process("a", "b", ("c",))
    assert (process.stop_timeout_ms, process.restart.delay_ms) == (10_000, 1000)
    short = process_from_proto(pb.Process(stop_timeout=Duration(nanos=1)))
    assert short.stop_timeout_ms == 1


@pytest.mark.parametrize(
    ("active", "end", "state", "code", "signal_name"),
    [
        ("active", {}, ProcessState.RUNNING, None, ""),
        ("activating", {}, ProcessState.STARTING, None, ""),
        ("deactivating", {}, ProcessState.STOPPING, None, ""),
        ("inactive", ("success", "exited", "0"), ProcessState.EXITED, 0, ""),
        ("inactive", ("success", "killed", "TERM"), ProcessState.EXITED, None, "SIGTERM"),
        ("failed", ("exit-code", "exited", "3"), ProcessState.FAILED, 3, ""),
        ("inactive", ("oom-kill", "killed", "KILL"), ProcessState.FAILED, None, "SIGKILL"),
    ],
)
def test_states_of_units(
    active: str, end: Any, state: ProcessState, code: int | None, signal_name: str
) -> None:
    keys = ("result", "exit_code", "exit_status")
    numbers = dict.fromkeys(
        ("main_pid", "net_inode", "start_time", "restarts", "memory_bytes", "cpu_ns", "tasks"), 5
    )
    shown = {"active": active, "end": dict(zip(keys, end, strict=False)), "words": "", **numbers}
    status = to_status(shown, WANT)
    assert (status.state, status.exit_code, status.exit_signal) == (state, code, signal_name)
    message = status_to_proto(status)
    assert message.state == state.value
    assert message.HasField("exit_code") == (code is not None)
    assert message.out_of_memory == ("oom-kill" in end)
    assert message.cpu_time.nanos == 5


def test_a_signal_counts_as_128_and_its_number() -> None:
    end = {"exit_code": "killed", "exit_status": "TERM"}
    assert exited_to_proto(*how_it_ended(end)).exit_code == 143
    assert exited_to_proto(*how_it_ended({})).exit_code == 128


def test_threads_of_ours_make_no_namespace_busy() -> None:
    for unit in ("hostler-netns", "hostler-job@netns", "hostler-revert@netns"):
        assert is_ours(f"/system.slice/system-x.slice/{unit}.service")
        assert is_ours(f"/system.slice/{unit}.service/inner")
    for path in ("/system.slice/hostler-netns.service.d", "/hostler-run-netns.a.service", "/"):
        assert not is_ours(path)
