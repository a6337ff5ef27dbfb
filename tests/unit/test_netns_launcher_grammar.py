"""The launcher's grammar: what is in it, and that nothing else is."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hostlerd.netns.kernel.process import to_unit
from hostlerd.netns.launcher import units
from hostlerd.netns.launcher.grammar import REQUESTS, UNIT, check_names, check_request
from hostlerd.netns.model.process import (
    DeviceLimit,
    Limits,
    Place,
    Process,
    Restart,
    RestartPolicy,
    check,
)
from hostlerd.privileged.refused import Refused

UNIT_BASE: dict[str, Any] = {"namespace": "web", "name": "http", "argv": ["true"]}

names = st.from_regex(r"[a-z][a-z0-9-]{0,31}", fullmatch=True)
words = st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)), max_size=40)
accounts = st.one_of(st.just(""), st.from_regex(r"[a-z_][a-z0-9_-]{0,15}", fullmatch=True))
limits = st.builds(
    Limits,
    memory_max_bytes=st.none() | st.integers(1 << 20, 1 << 40),
    cpu_max_millicpus=st.none() | st.integers(10, 100_000),
    tasks_max=st.none() | st.integers(3, 1000),
    io_weight=st.none() | st.integers(1, 10_000),
    devices=st.lists(
        st.builds(
            DeviceLimit, st.sampled_from(("/dev/sda", "/dev/nvme0n1")), st.integers(1, 1 << 40)
        ),
        max_size=2,
        unique_by=lambda d: d.device,
    ).map(tuple),
)
processes = st.builds(
    Process,
    name=names,
    namespace=names,
    argv=st.tuples(st.sampled_from(("true", "/bin/sh")), words, words),
    user=accounts,
    group=accounts,
    supplementary_groups=st.lists(accounts.filter(bool), max_size=3).map(tuple),
    working_directory=st.sampled_from(("", "/", "/srv/a b%n$x")),
    environment=st.dictionaries(
        st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,9}", fullmatch=True), words, max_size=3
    ).map(lambda d: tuple(sorted(d.items()))),
    private_tmp=st.booleans(),
    private_uts=st.booleans(),
    private_ipc=st.booleans(),
    private_pid=st.booleans(),
    limits=limits,
    restart=st.builds(Restart, st.sampled_from(RestartPolicy), st.integers(0, 86_400_000)),
    persistent=st.booleans(),
    stop_timeout_ms=st.integers(0, 86_400_000),
)
places = st.builds(
    Place, hostname=st.sampled_from(("", "a.b-c")), remove_with_processes=st.booleans()
)
plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=6,
)


def refusal(request: Any) -> Refused:
    with pytest.raises(Refused) as caught:
        check_request(request)
    return caught.value


def unit(**more: Any) -> dict[str, Any]:
    return {"op": "start", "unit": {**UNIT_BASE, **more}}


@given(processes, places)
def test_everything_the_model_permits_is_in_the_grammar(process: Process, place: Place) -> None:
    assert check(process) == []
    request = json.loads(json.dumps({"op": "start", "unit": to_unit(process, place)}))
    checked = check_request(request)
    assert checked["unit"]["argv"] == list(process.argv)


@given(processes, places)
def test_nothing_of_a_caller_reaches_the_command_of_systemd_run(
    process: Process, place: Place
) -> None:
    checked = check_request({"op": "start", "unit": to_unit(process, place)})["unit"]
    composed = units.compose(checked)
    told = json.dumps(composed)
    for value in (*process.argv[1:], *(value for _, value in process.environment)):
        if len(value) > 12:
            assert json.dumps(value)[1:-1] not in told
    command = composed[composed.index("--") + 1 :]
    assert command[-3:] == ["enter", process.namespace, process.name]


@given(st.lists(st.tuples(names, names), min_size=2, max_size=2, unique=True))
def test_no_two_processes_share_a_unit(pairs: list[tuple[str, str]]) -> None:
    first, second = (units.unit_name(*pair) for pair in pairs)
    assert first != second
    assert [units.names_of(first), units.names_of(second)] == pairs


@given(st.dictionaries(st.sampled_from(["op", "unit", "names", "net", "x"]), plain) | plain)
@settings(max_examples=300)
def test_whatever_comes_is_checked_or_refused(request: Any) -> None:
    try:
        assert check_request(request)["op"] in REQUESTS
    except Refused as e:
        assert e.reason == "MALFORMED"


@given(plain)
def test_whatever_a_unit_is_it_is_checked_or_refused(value: Any) -> None:
    assert refusal({"op": "start", "unit": value}).faults


@pytest.mark.parametrize(
    ("more", "field"),
    [
        ({"ExecStartPre": "/bin/sh"}, "unit.ExecStartPre"),
        ({"namespace": "../etc"}, "unit.namespace"),
        ({"namespace": "a.b"}, "unit.namespace"),
        ({"name": "x\n"}, "unit.name"),
        ({"name": ""}, "unit.name"),
        ({"name": "a" * 33}, "unit.name"),
        ({"argv": []}, "unit.argv"),
        ({"argv": ["x"] * 1025}, "unit.argv"),
        ({"argv": ["x" * 70_000, "y" * 70_000]}, "unit.argv"),
        ({"argv": ["a\0b"]}, "unit.argv[0]"),
        ({"argv": "true"}, "unit.argv"),
        ({"user": "root\nX=1"}, "unit.user"),
        ({"user": True}, "unit.user"),
        ({"working_directory": "tmp"}, "unit.working_directory"),
        ({"working_directory": "/tmp\n"}, "unit.working_directory"),
        ({"environment": {"A=B": "x"}}, "unit.environment['A=B']"),
        ({"environment": {"A": "x\0"}}, "unit.environment['A']"),
        ({"environment": {"A": "x" * 70_000}}, "unit.environment"),
        ({"private_tmp": 1}, "unit.private_tmp"),
        ({"hostname": "a b"}, "unit.hostname"),
        ({"limits": {"memory_max_bytes": 1}}, "unit.limits.memory_max_bytes"),
        ({"limits": {"memory_max_bytes": True}}, "unit.limits.memory_max_bytes"),
        ({"limits": {"MemoryMax": 1 << 30}}, "unit.limits.MemoryMax"),
        ({"limits": {"devices": [{"device": "/dev/sda 1"}]}}, "unit.limits.devices[0].device"),
        ({"limits": {"devices": [{"device": "/etc/x"}]}}, "unit.limits.devices[0].device"),
        ({"restart": "on-abort"}, "unit.restart"),
        ({"stop_timeout_ms": 1.5}, "unit.stop_timeout_ms"),
    ],
)
def test_a_unit_outside_the_grammar_is_refused_by_its_field(
    more: dict[str, Any], field: str
) -> None:
    assert [f for f, _ in refusal(unit(**more)).faults] == [field]


def test_all_faults_come_at_once_and_secrets_are_not_quoted() -> None:
    request = unit(user="", extra=1, environment={"1": "hunter2", "B": "hunter3\0"})
    refused = refusal(request)
    assert len(refused.faults) == 4
    assert "hunter" not in json.dumps(refused.answer())


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        ({"op": "attach", "names": []}, "names"),
        ({"op": "attach", "names": ["a", "a"]}, "names"),
        ({"op": "attach", "names": [f"a{i}" for i in range(251)]}, "names"),
        ({"op": "detach", "names": ["/"]}, "names[0]"),
        ({"op": "signal", "namespace": "a", "name": "b", "signal": "9"}, "signal"),
        ({"op": "stop", "namespace": "a"}, "name"),
        ({"op": "tasks", "net": 0}, "net"),
        ({"op": "exec"}, "op"),
        ({"op": []}, "op"),
        ([], "op"),
    ],
)
def test_other_requests_outside_the_grammar_are_refused(request_: Any, field: str) -> None:
    assert [f for f, _ in refusal(request_).faults] == [field]


def test_names_of_the_command_line_are_checked() -> None:
    check_names("web", "http")
    for bad in ("", "../x", "a.b", "A", "a" * 33):
        with pytest.raises(Refused):
            check_names(bad, "http")
        with pytest.raises(Refused):
            check_names("web", bad)


def test_a_saved_unit_with_all_its_defaults_is_in_the_grammar_again() -> None:
    faults: list[Any] = []
    UNIT(check_request(unit())["unit"], "unit", faults)
    assert faults == []
