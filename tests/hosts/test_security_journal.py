"""What the daemons of a real host write to a real journald: fields, ids, thresholds, no secrets."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc
import pytest
import security_lab as support

from hostler.api.netns.v1 import (
    counter_pb2,
    counter_pb2_grpc,
    process_pb2,
    process_pb2_grpc,
)
from hostler.lab.host import Host
from hostler.lab.lab import Lab

pytestmark = [pytest.mark.hosts, pytest.mark.timeout(120)]

UNIT = "hostler-netns.service"
# Source: hostlerd.runtime.events, written out: they must not change.
READY = "1710496f0b0f48c89387f6f73956b1fd"
EXIT = "cc072420f0f8406f9ddeb6afa19135f7"
STREAM_ENDED = "88d877b2c2054fd1978f65ca68dcbeb9"
DEBUG, INFO = "7", "6"
SECRET = "s3cr3t-that-nobody-may-read"  # noqa: S105 - the tests look for it


class Journal(support.Journal):
    """What the daemon has said, with its fields."""

    def lines(self, *matches: str) -> list[dict[str, Any]]:
        return self._read(f"_SYSTEMD_UNIT={UNIT}", *matches)


@contextmanager
def configured(host: Host, lines: str) -> Iterator[None]:
    before = host.run(["cat", support.CONFIGURATION]).stdout
    assert before.count("\n[log]\n") == 1
    try:
        host.put(support.CONFIGURATION, before.replace("\n[log]\n", f"\n[log]\n{lines}"))
        support.stop(host)
        yield
    finally:
        host.put(support.CONFIGURATION, before)
        support.stop(host)


def wake(lab: Lab, host: Host) -> None:
    support.hostler(lab, "-H", host.name, "netns", "list")


def test_a_life_has_its_message_ids_and_fields(lab: Lab, h1: Host) -> None:
    support.stop(h1)
    journal = Journal(h1)
    wake(lab, h1)
    support.stop(h1)
    (ready,) = journal.lines(f"MESSAGE_ID={READY}")
    told = {k: ready[k] for k in ("PRIORITY", "SYSLOG_IDENTIFIER", "HOSTLER_CATEGORY")}
    assert told == {
        "PRIORITY": INFO,
        "SYSLOG_IDENTIFIER": "hostler",
        "HOSTLER_CATEGORY": "runtime.daemon",
    }
    assert ready["HOSTLER_DOMAIN"] == "netns" and ready["HOSTLER_PID"] == ready["_PID"]
    assert ready["CODE_FILE"].endswith("/hostlerd/runtime/daemon.py")
    (left,) = journal.lines(f"MESSAGE_ID={EXIT}")
    assert left["HOSTLER_WHY"] == "terminated"
    # A healthy daemon says no more than that.
    assert [line for line in journal.lines() if line.get("PRIORITY") == DEBUG] == []


def test_what_a_call_does_is_told_with_the_call(lab: Lab, h1: Host) -> None:
    journal = Journal(h1)
    pair = support.Pair.of(lab.pki, "viewer")
    with support.channel(lab, h1, "netns", pair) as channel:
        watch = opened(channel)
        h1.run(["systemctl", "restart", UNIT])
        with pytest.raises(grpc.RpcError):
            for _ in watch:
                pass
    (line,) = journal.lines(f"MESSAGE_ID={STREAM_ENDED}")
    assert line["HOSTLER_REASON"] == "DAEMON_STOPPING"
    assert line["HOSTLER_IDENTITY"] == "spiffe://lab.hostler/user/viewer"
    assert line["HOSTLER_METHOD"].endswith("/WatchCounters")
    assert line["HOSTLER_PEER"].startswith(f"{lab.bridge.ipv4(1)}:")


def opened(channel: grpc.Channel) -> Any:
    stub = counter_pb2_grpc.CounterServiceStub(channel)
    watch = stub.WatchCounters(counter_pb2.WatchCountersRequest(), timeout=60)
    assert next(watch).seq == 1
    return watch


def test_a_category_has_a_threshold_of_its_own(lab: Lab, h1: Host) -> None:
    with configured(h1, 'categories."runtime.gate" = {level = "debug"}\n'):
        journal = Journal(h1)
        wake(lab, h1)
        debug = [line for line in journal.lines() if line["PRIORITY"] == DEBUG]
    assert {line["HOSTLER_CATEGORY"] for line in debug} == {"runtime.gate"}
    assert {line["HOSTLER_VERBOSITY"] for line in debug} == {"1"}


def test_the_one_big_switch_opens_every_category(lab: Lab, h1: Host) -> None:
    folder = f"/run/systemd/system/{UNIT}.d"
    h1.run(["mkdir", "-p", folder])
    try:
        h1.put(f"{folder}/debug.conf", "[Service]\nEnvironment=HOSTLER_DEBUG_ALL=1\n")
        h1.run(["systemctl", "daemon-reload"])
        support.stop(h1)
        journal = Journal(h1)
        wake(lab, h1)
        seen = {line.get("HOSTLER_CATEGORY") for line in journal.lines(f"PRIORITY={DEBUG}")}
    finally:
        h1.run(["rm", "-rf", folder])
        h1.run(["systemctl", "daemon-reload"])
        support.stop(h1)
    assert {"runtime.gate", "runtime.relay"} <= seen


def test_nothing_of_a_payload_is_told_even_then(lab: Lab, h1: Host) -> None:
    """A secret goes in by every way that there is, with every category open."""
    with configured(h1, 'level = "debug"\nverbosity = 9\n'):
        journal = Journal(h1)
        pair = support.Pair.of(lab.pki, "admin")
        with support.channel(lab, h1, "netns", pair) as channel:
            stub = process_pb2_grpc.ProcessServiceStub(channel)
            process = process_pb2.Process(
                name="quiet",
                namespace="not-there",
                argv=["/bin/true"],
                environment={"TOKEN": SECRET},
            )
            request = process_pb2.StartProcessRequest(process=process)
            with pytest.raises(grpc.RpcError):
                stub.StartProcess(request, timeout=20)
            messages = [
                process_pb2.RunProcessRequest(start=process),
                process_pb2.RunProcessRequest(stdin=SECRET.encode()),
            ]
            with pytest.raises(grpc.RpcError):
                list(stub.RunProcess(iter(messages), timeout=20))
        lines = journal.lines()
    assert any(line["PRIORITY"] == DEBUG for line in lines)
    assert SECRET not in json.dumps(lines)


def test_a_level_that_is_none_is_named_and_the_daemon_does_not_start(h1: Host) -> None:
    with configured(h1, 'level = "loud"\n'):
        journal = Journal(h1)
        h1.run(["systemctl", "start", UNIT], check=False)
        assert any("log.level must be one of" in str(line["MESSAGE"]) for line in journal.lines())
        h1.run(["systemctl", "stop", UNIT])
    h1.run(["systemctl", "reset-failed", UNIT], check=False)
