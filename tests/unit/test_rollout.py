"""Rollouts over real channels: waves, limits, gates, interrupts, and each outcome by its name."""

from __future__ import annotations

import asyncio
import socket
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from client_doors import World, rich, world
from client_pending import DOORS

import hostler.aio
from hostler.api.common.v1 import change_pb2
from hostler.api.netns.v1 import namespace_pb2
from hostler.fanout import Halt
from hostler.health_gate import Gate
from hostler.limits import Batches, Tolerance
from hostler.outcome import Outcome
from hostler.plans import Planned, RpcChange
from hostler.rollout import INTERRUPTED, Rolled, Rollout
from hostler.session import Session

CREATE = hostler.aio.rpc(namespace_pb2, "NamespaceService", "CreateNamespace")
BUSY = rich(grpc.StatusCode.FAILED_PRECONDITION, "BUSY", "not now")


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[World]:
    with world(tmp_path) as made:
        for number in range(1, 11):
            made.start(f"h{number}")
        yield made


def change(name: str = "a") -> RpcChange:
    request = namespace_pb2.CreateNamespaceRequest(namespace=namespace_pb2.Namespace(name=name))
    return RpcChange(CREATE, request)


async def roll(fleet: World, selector: str = "all", **options: Any) -> Rolled:
    client = hostler.aio.connect(config=fleet.config, timeout_s=options.pop("timeout_s", 10))
    halt, say = options.pop("halt", None), options.pop("say", None)
    hosts = client.select(*selector.split())
    return await client.roll_out(change(), hosts, options=Rollout(**options), halt=halt, say=say)


def outcomes(rolled: Rolled) -> dict[str, str]:
    return {result.host: str(result.outcome) for result in rolled.results}


def applied(fleet: World) -> list[str]:
    return [name for name, host in fleet.hosts.items() if host.namespaces]


def waits(seconds: float) -> Callable[..., None]:
    return lambda *_: time.sleep(seconds)


def answers(fleet: World, host: str, outcome: str) -> None:
    """Have a host answer that the change is not in force."""
    door = fleet.hosts[host]
    whole = door.change

    def told(*args: Any) -> change_pb2.Change:
        made = whole(*args)
        if made.outcome == change_pb2.OUTCOME_APPLIED:
            made.outcome = change_pb2.Outcome.Value(outcome)
        return made

    door.change = told


async def test_waves_go_out_one_after_the_other(fleet: World) -> None:
    said: list[str] = []
    rolled = await roll(fleet, batches=Batches.parse("1,30%,100%"), say=said.append)
    assert rolled.stop is None
    assert [len(wave) for wave in rolled.waves] == [1, 2, 7]
    assert set(outcomes(rolled).values()) == {"applied"}
    assert said == [
        "wave 1 of 3, 1 host: h1",
        "wave 2 of 3, 2 hosts: h2, h3",
        "wave 3 of 3, 7 hosts: h4, h5, h6, h7, h8, h9, h10",
    ]


class LastOn(RpcChange):
    """A change that some hosts are to make when all others are through with it."""

    def __init__(self, *hosts: str) -> None:
        made = change()
        super().__init__(made.rpc, made.message)
        self.hosts = hosts

    async def plan(self, session: Session) -> Planned:
        planned = await super().plan(session)
        return replace(planned, last=session.host.name in self.hosts)


async def test_what_is_last_waits_for_all_the_others(fleet: World) -> None:
    client = hostler.aio.connect(config=fleet.config, timeout_s=10)
    made = LastOn("h1", "h4")
    options = Rollout(batches=Batches.parse("1,100%"))
    rolled = await client.roll_out(made, client.select("h[1-5]"), options=options)
    assert rolled.waves == (("h2",), ("h3", "h5"), ("h1", "h4"))
    assert set(outcomes(rolled).values()) == {"applied"}
    # Where others have failed before the limit, what is last goes on; after it, it is not begun.
    for host in fleet.hosts.values():
        host.namespaces.clear()
    fleet.hosts["h3"].refusals["CreateNamespace"] = [None, BUSY]
    rolled = await client.roll_out(LastOn("h1"), client.select("h[1-3]"), options=Rollout())
    assert outcomes(rolled) == {"h1": "not_started", "h2": "applied", "h3": "failed"}
    fleet.hosts["h3"].refusals["CreateNamespace"] = [None, BUSY]
    options = Rollout(tolerance=Tolerance.parse("1"))
    rolled = await client.roll_out(LastOn("h1"), client.select("h[1-3]"), options=options)
    assert outcomes(rolled) == {"h1": "applied", "h2": "unchanged", "h3": "failed"}


async def test_it_stops_at_the_limit_and_says_where(fleet: World) -> None:
    for name in ("h3", "h4", "h6"):
        fleet.hosts[name].refusals["CreateNamespace"] = [None, BUSY]
    rolled = await roll(
        fleet, batches=Batches.parse("1,40%,60%,100%"), tolerance=Tolerance.parse("20%")
    )
    assert rolled.stop is not None
    assert (rolled.stop.kind, rolled.stop.wave, rolled.stop.waves) == ("failures", 3, 4)
    assert outcomes(rolled) == {
        "h1": "applied", "h2": "applied", "h3": "failed", "h4": "failed", "h5": "applied",
        "h6": "failed", "h7": "not_started", "h8": "not_started", "h9": "not_started",
        "h10": "not_started",
    }  # fmt: skip
    assert rolled.where() == (
        "stopped in wave 3 of 4: 3 failed, 2 may; failed: h3, h4, h6; not started: h7, h8, h9, h10"
    )
    assert applied(fleet) == ["h1", "h2", "h5"]


async def test_a_pause_is_waited_between_waves_and_ends_with_a_halt(fleet: World) -> None:
    start = time.monotonic()
    await roll(fleet, "h1 h2", pause_s=0.5)
    assert 0.5 <= time.monotonic() - start < 20
    for host in fleet.hosts.values():
        host.namespaces.clear()
    halt = Halt()

    async def interrupt() -> None:
        while applied(fleet) != ["h1"]:
            await asyncio.sleep(0.05)
        await asyncio.sleep(0.5)
        halt.pull(INTERRUPTED, "interrupted")

    start = time.monotonic()
    rolled, _ = await asyncio.gather(roll(fleet, pause_s=60, halt=halt), interrupt())
    assert time.monotonic() - start < 40
    assert rolled.stop is not None
    assert (rolled.stop.kind, rolled.stop.wave) == (INTERRUPTED, 1)
    assert applied(fleet) == ["h1"]


async def test_a_halt_lets_those_in_flight_end(fleet: World) -> None:
    halt = Halt()
    for name in ("h2", "h3"):
        fleet.hosts[name].refusals["CreateNamespace"] = [None, waits(1)]
    fleet.hosts["h4"].refusals["CreateNamespace"] = [None, BUSY]
    asyncio.get_running_loop().call_later(0.8, halt.pull, INTERRUPTED, "interrupted")
    rolled = await roll(
        fleet, batches=Batches.parse("30%,100%"), tolerance=Tolerance.parse("5"), halt=halt
    )
    assert applied(fleet) == ["h1", "h2", "h3"]
    assert [r.outcome for r in rolled.results[3:]] == [Outcome.NOT_STARTED] * 7
    assert rolled.where().startswith("stopped in wave 1 of 2: interrupted; not started: h4, h5")


@pytest.mark.parametrize(
    ("outcome", "word"),
    [
        ("OUTCOME_INTERRUPTED", "interrupted"),
        ("OUTCOME_ROLLED_BACK", "rolled_back"),
        ("OUTCOME_UNKNOWN", "unknown"),
    ],
)
async def test_a_change_that_is_not_in_force_is_a_failure(
    fleet: World, outcome: str, word: str
) -> None:
    answers(fleet, "h1", outcome)
    rolled = await roll(fleet, "h1 h2")
    assert outcomes(rolled) == {"h1": word, "h2": "not_started"}
    error = rolled.results[0].error
    assert error is not None
    assert (error.code, error.reason) == ("ABORTED", word.upper())


async def test_a_job_that_was_started_is_no_failure(fleet: World) -> None:
    answers(fleet, "h1", "OUTCOME_STARTED")
    rolled = await roll(fleet, "h1 h2", as_job=True)
    assert outcomes(rolled) == {"h1": "started", "h2": "applied"}
    asked = fleet.hosts["h1"].named("CreateNamespace")
    assert [request.change.job for request in asked] == [False, True]


async def test_what_was_lost_after_it_was_sent_is_unknown(fleet: World) -> None:
    fleet.hosts["h1"].refusals["CreateNamespace"] = [None, waits(3)]
    rolled = await roll(fleet, "h1 h2", timeout_s=1, tolerance=Tolerance.parse("1"))
    assert outcomes(rolled) == {"h1": "unknown", "h2": "applied"}
    error = rolled.results[0].error
    assert error is not None
    assert error.reason == "TIMEOUT"


async def test_what_was_never_sent_has_failed(fleet: World) -> None:
    client = hostler.aio.connect(config=fleet.config, timeout_s=2)
    hosts = client.select("h1", "h2", "h3")
    plans = await client.plan(change(), hosts)
    fleet.hosts["h1"].doors["netns"].end()
    listener = socket.create_server(("127.0.0.1", 0))
    text = fleet.fleet.read_text()
    fleet.hosts["h2"].doors["netns"].end()
    fleet.fleet.write_text(
        text.replace(str(fleet.hosts["h2"].doors["netns"].port), str(listener.getsockname()[1]))
    )
    again = hostler.aio.connect(config=fleet.config, timeout_s=2)
    rolled = await again.roll_out(
        change(),
        again.select("h1", "h2", "h3"),
        plans,
        options=Rollout(tolerance=Tolerance.parse("100%")),
    )
    listener.close()
    assert outcomes(rolled) == {"h1": "failed", "h2": "failed", "h3": "applied"}
    errors = [result.error for result in rolled.results if result.error]
    assert [error.reason for error in errors] == ["UNREACHABLE", "TIMEOUT"]
    assert not any(error.uncertain for error in errors)


async def test_a_word_of_the_daemon_after_a_lost_answer_is_certain(fleet: World) -> None:
    def cut(_message: Any, context: Any) -> None:
        context.abort(grpc.StatusCode.UNAVAILABLE, "going away")

    fleet.hosts["h1"].refusals["CreateNamespace"] = [None, cut, BUSY]
    fleet.hosts["h2"].refusals["CreateNamespace"] = [None, *[cut] * 20]
    rolled = await roll(fleet, "h1 h2", tolerance=Tolerance.parse("2"))
    assert outcomes(rolled) == {"h1": "failed", "h2": "unknown"}


async def test_the_run_goes_with_every_call(fleet: World) -> None:
    client = hostler.aio.connect(config=fleet.config)
    run = client.new_run()
    hosts = client.select("h1", "h2")
    plans = await client.plan(change(), hosts, run=run)
    rolled = await client.roll_out(change(), hosts, plans, run=run)
    assert rolled.run == run.id
    assert [fleet.hosts[name].runs for name in ("h1", "h2")] == [[run.id] * 2] * 2
    await client.call(CREATE, namespace_pb2.CreateNamespaceRequest(), "h1")
    assert fleet.hosts["h1"].runs[-1] == ""


class TestGate:
    """The health gate."""

    @staticmethod
    def program(folder: Path, text: str) -> str:
        path = folder / "gate.py"
        path.write_text(f"import os, sys, time\n{text}\n")
        return f"{sys.executable} {path}"

    async def test_it_gets_the_hosts_of_the_wave(self, fleet: World, tmp_path: Path) -> None:
        log = tmp_path / "log"
        text = (
            f"print(os.environ['HOSTLER_WAVE'], os.environ['HOSTLER_HOSTS'], sys.argv[1:], "
            f"file=open({str(log)!r}, 'a'))"
        )
        gate = Gate.parse(self.program(tmp_path, text) + " --of {hosts} end")
        rolled = await roll(fleet, "h1 h2 h3", gate=gate)
        assert rolled.stop is None
        assert log.read_text().splitlines() == [
            "1 h1 ['--of', 'h1', 'end']",
            "2 h2 h3 ['--of', 'h2', 'h3', 'end']",
        ]

    async def test_it_stops_the_rollout(self, fleet: World, tmp_path: Path) -> None:
        text = "print('latency is', 'up'); sys.exit(os.environ['HOSTLER_WAVE'] == '2')"
        gate = Gate.parse(self.program(tmp_path, text))
        rolled = await roll(fleet, batches=Batches.parse("1,30%,100%"), gate=gate)
        assert applied(fleet) == ["h1", "h2", "h3"]
        assert rolled.where() == (
            "stopped in wave 2 of 3: the health gate refused the wave: exit status 1: "
            "latency is up; not started: h4, h5, h6, h7, h8, h9, h10"
        )

    async def test_of_the_last_wave_it_says_so_too(self, fleet: World) -> None:
        rolled = await roll(fleet, "h1", gate=Gate.parse("/bin/false"))
        assert rolled.stop is not None
        assert rolled.stop.kind == "gate"
        assert outcomes(rolled) == {"h1": "applied"}

    async def test_its_time_ends_with_all_it_started(self, fleet: World, tmp_path: Path) -> None:
        pid = tmp_path / "pid"
        text = (
            "import subprocess\n"
            "p = subprocess.Popen(['sleep', '60'])\n"
            f"open({str(pid)!r}, 'w').write(str(p.pid)); time.sleep(60)"
        )
        gate = Gate.parse(self.program(tmp_path, text), timeout_s=2)
        start = time.monotonic()
        rolled = await roll(fleet, "h1", gate=gate)
        assert time.monotonic() - start < 10
        assert rolled.stop is not None
        assert rolled.stop.why.endswith("no answer within 2 s")
        await asyncio.sleep(0.2)
        stat = Path(f"/proc/{pid.read_text()}/stat")
        assert not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] == "Z"

    async def test_a_shell_has_no_part_in_it(self, fleet: World, tmp_path: Path) -> None:
        gate = Gate.parse(f"/bin/echo '$HOME' ; touch {tmp_path}/made")
        assert gate.argv == ("/bin/echo", "$HOME", ";", "touch", f"{tmp_path}/made")
        assert (await roll(fleet, "h1", gate=gate)).stop is None
        assert not (tmp_path / "made").exists()

    async def test_one_that_cannot_be_started_stops(self, fleet: World) -> None:
        rolled = await roll(fleet, "h1 h2", gate=Gate.parse("/nonexistent/gate"))
        assert rolled.stop is not None
        assert "cannot start /nonexistent/gate: No such file" in rolled.stop.why
        assert applied(fleet) == ["h1"]


class TestConfirm:
    """--confirm-within on a fleet."""

    async def test_hosts_that_answer_are_confirmed_wave_by_wave(self, fleet: World) -> None:
        rolled = await roll(fleet, "h1 h2 h3", confirm_within_s=10)
        assert outcomes(rolled) == dict.fromkeys(("h1", "h2", "h3"), "applied")
        groups = set()
        for name in ("h1", "h2", "h3"):
            host = fleet.hosts[name]
            assert [ended.outcome for ended in host.pending.ended] == [change_pb2.OUTCOME_APPLIED]
            asked = host.named("CreateNamespace")
            assert len({request.change.confirm.group for request in asked}) == 1
            assert asked[1].change.confirm.within.ToMilliseconds() == 10_000
            groups.add(asked[1].change.confirm.group)
        assert len(groups) == 3
        # The second wave begins after the first was confirmed at its doors.
        assert len(fleet.hosts["h1"].named("ConfirmPending")) == len(DOORS)

    async def test_one_that_is_cut_off_takes_it_back_and_stops_the_rest(self, fleet: World) -> None:
        fleet.hosts["h2"].pending.shuts = DOORS
        rolled = await roll(
            fleet, "h1 h2 h3 h4", batches=Batches.parse("1,2,100%"), confirm_within_s=3
        )
        assert outcomes(rolled) == {
            "h1": "applied", "h2": "rolled_back", "h3": "not_started", "h4": "not_started"
        }  # fmt: skip
        assert applied(fleet) == ["h1"]

    async def test_a_refused_gate_takes_the_wave_back_at_once(self, fleet: World) -> None:
        start = time.monotonic()
        rolled = await roll(fleet, "h1 h2", gate=Gate.parse("/bin/false"), confirm_within_s=60)
        assert time.monotonic() - start < 10
        assert outcomes(rolled) == {"h1": "rolled_back", "h2": "not_started"}
        assert applied(fleet) == []

    async def test_one_gone_for_good_is_unknown(
        self, fleet: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("hostler.confirm.AFTER_S", 1.0)
        fleet.hosts["h1"].pending.shuts = DOORS
        fleet.hosts["h1"].pending.opens = False
        rolled = await roll(fleet, "h1 h2", confirm_within_s=2)
        assert outcomes(rolled) == {"h1": "unknown", "h2": "not_started"}

    async def test_a_wave_wider_than_the_window_is_confirmed_in_parts(self, fleet: World) -> None:
        client = hostler.aio.connect(config=fleet.config, window=3)
        options = Rollout(batches=Batches.parse("100%"), confirm_within_s=10)
        order: list[tuple[str, str]] = []
        for name, host in fleet.hosts.items():
            host.refusals["ConfirmPending"] = [
                lambda *_, name=name: order.append(("confirm", name))
            ]
            host.refusals["CreateNamespace"] = [
                None, lambda *_, name=name: order.append(("apply", name))
            ]  # fmt: skip
        rolled = await client.roll_out(change(), client.select("all"), options=options)
        assert {result.outcome for result in rolled.results} == {Outcome.APPLIED}
        kinds = [kind for kind, _ in order]
        assert kinds[:6] == ["apply"] * 3 + ["confirm"] * 3
