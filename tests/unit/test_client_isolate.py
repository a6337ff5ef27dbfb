"""The composite over real channels: what it asks for, and what it takes back."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from client_doors import World, rich, world

import hostler.aio
from hostler.api.firewall.v1 import ruleset_pb2
from hostler.api.netns.v1 import namespace_pb2, process_pb2
from hostler.config import HostlerError
from hostler.fleet import LOCAL_HOST
from hostler.isolate import Isolate, Remove
from hostler.isolation import Isolation, Publish
from hostler.push import PushBundle
from hostler.recordable import NotRecordable

WEB = Isolation(
    name="web",
    argv=("python3", "-m", "http.server", "8000"),
    publish=(Publish(8080, 8000), Publish(5353, 53, "udp", "10.0.0.1")),
    dns=("192.0.2.53",),
    user="www-data",
    private_tmp=True,
    memory_max_bytes=64 << 20,
    restart="on-failure",
    unprivileged_port_start=80,
    uplink="eth0",
    persistent=True,
)
FAILED = rich(grpc.StatusCode.FAILED_PRECONDITION, "NO_USER", "no user www-data")
INTERNAL = rich(grpc.StatusCode.INTERNAL, "BUG", "a bug")


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[World]:
    with world(tmp_path) as made:
        made.start("h1")
        yield made


async def isolate(fleet: World, change: Any = None) -> Any:
    client = hostler.aio.connect(config=fleet.config)
    (result,) = await client.apply(change or Isolate(WEB), client.select("h1"))
    return result


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("8080:8000", Publish(8080, 8000)),
        ("80", Publish(80, 80)),
        ("8080:8000/udp", Publish(8080, 8000, "udp")),
        ("10.0.0.1:8080:8000", Publish(8080, 8000, "tcp", "10.0.0.1")),
        ("[fd00::1]:8080:8000/tcp", Publish(8080, 8000, "tcp", "fd00::1")),
    ],
)
def test_publish(text: str, expected: Publish) -> None:
    assert Publish.parse(text) == expected


@pytest.mark.parametrize(
    "text", ["", "x", "0:80", "80:65536", "1:2:3:4", "80/sctp", "10.0.0.999:80:80", "fd00::1:8:8"]
)
def test_publish_refuses(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        Publish.parse(text)


async def test_three_parts_in_order_from_the_planned_addresses(fleet: World) -> None:
    result = await isolate(fleet)
    host = fleet.hosts["h1"]
    changes = [
        name
        for name, request in host.calls
        if hasattr(request, "change") and not request.change.validate_only
    ]
    assert changes == ["CreateNamespace", "ApplyRuleset", "StartProcess"]
    (link,) = host.namespaces["web"].interfaces
    assert (link.ipv4_pool, link.ipv6_pool, link.default_route) == ("default", "default", True)
    assert host.namespaces["web"].dns.servers == ["192.0.2.53"]
    assert host.namespaces["web"].unprivileged_port_start == 80
    forward = ruleset_pb2.Forward
    ruleset = host.rulesets["web"]
    assert ruleset == ruleset_pb2.Ruleset(
        name="web",
        masquerades=[
            ruleset_pb2.Masquerade(source="10.200.0.0/30", uplink="eth0"),
            ruleset_pb2.Masquerade(source="fd00:200::/64", uplink="eth0"),
        ],
        forwards=[
            forward(
                protocol="PROTOCOL_TCP", port=8080, target_address="10.200.0.2", target_port=8000
            ),
            forward(
                protocol="PROTOCOL_TCP", port=8080, target_address="fd00:200::2", target_port=8000
            ),
            forward(
                protocol="PROTOCOL_UDP",
                port=5353,
                addresses=["10.0.0.1"],
                target_address="10.200.0.2",
                target_port=53,
            ),
        ],
        isolated_networks=["10.200.0.0/30", "fd00:200::/64"],
        persistent=True,
    )
    process = host.processes["web", "main"].process
    assert process.user == "www-data"
    assert process.private_tmp
    assert process.limits.memory_max_bytes == 64 << 20
    assert process.restart.policy == process_pb2.Restart.POLICY_ON_FAILURE
    assert result.value().changed
    shown = result.as_dict()["result"]
    assert shown["changed"] is True
    assert shown["process"]["status"]["main_pid"] == 4242
    assert len(shown["plan"]["steps"]) == 5


async def test_the_plan_shows_all_parts_and_changes_nothing(fleet: World) -> None:
    client = hostler.aio.connect(config=fleet.config)
    (plan,) = await client.plan(Isolate(WEB), client.select("h1"))
    words = [step.description for step in plan.value().steps]
    assert words[0] == "create namespace web"
    assert words[-2] == "replace table for web"
    assert words[-1] == ("start web/main: python3 -m http.server 8000 (as www-data, private tmp)")
    assert fleet.hosts["h1"].namespaces == {}
    assert fleet.hosts["h1"].rulesets == {}


async def test_the_second_time_nothing_is_done(fleet: World) -> None:
    await isolate(fleet)
    result = await isolate(fleet)
    assert result.ok
    assert not result.value().changed
    assert result.value().planned.steps == ()


@pytest.mark.parametrize("method", ["ApplyRuleset", "StartProcess"])
async def test_a_part_that_fails_takes_the_others_with_it(fleet: World, method: str) -> None:
    host = fleet.hosts["h1"]
    host.refusals[method] = [None, FAILED]
    result = await isolate(fleet)
    part = {"ApplyRuleset": "ruleset", "StartProcess": "process"}[method]
    assert result.error.reason == "NO_USER"
    assert result.error.metadata["part"] == part
    assert result.error.message.startswith(f"{part}: no user www-data; removed again: ")
    assert (host.namespaces, host.rulesets, host.processes) == ({}, {}, {})


async def test_what_is_wrong_with_the_process_comes_up_before_anything_is_made(
    fleet: World,
) -> None:
    host = fleet.hosts["h1"]
    host.refusals["StartProcess"] = [FAILED]
    result = await isolate(fleet)
    assert result.error.reason == "NO_USER"
    assert all(request.change.validate_only for request in host.named("CreateNamespace"))


async def test_what_was_there_before_is_put_back(fleet: World) -> None:
    host = fleet.hosts["h1"]
    host.namespaces["web"] = namespace_pb2.Namespace(
        name="web", interfaces=[namespace_pb2.Interface(addresses=["10.9.0.2/30"])]
    )
    old = ruleset_pb2.Ruleset(name="web", priority=7)
    host.rulesets["web"] = old
    host.refusals["StartProcess"] = [None, FAILED]
    result = await isolate(fleet)
    assert result.error.metadata["removed_again"] == "ruleset"
    assert host.rulesets["web"] == old
    assert list(host.namespaces) == ["web"]


async def test_an_uncertain_part_is_taken_back_too(fleet: World) -> None:
    host = fleet.hosts["h1"]

    def done_all_the_same(request: Any, context: Any) -> None:
        if not request.change.validate_only:
            host.rulesets["web"] = request.ruleset
            context.abort(grpc.StatusCode.INTERNAL, "lost the answer")

    host.refusals["ApplyRuleset"] = [None, done_all_the_same]
    result = await isolate(fleet)
    assert result.error.metadata["removed_again"] == "ruleset,namespace"
    assert (host.namespaces, host.rulesets) == ({}, {})


async def test_what_cannot_be_taken_back_is_told(fleet: World) -> None:
    host = fleet.hosts["h1"]
    host.refusals["StartProcess"] = [None, FAILED]
    host.refusals["DeleteNamespace"] = [INTERNAL]
    result = await isolate(fleet)
    assert result.error.reason == "NO_USER"
    assert "namespace: INTERNAL BUG: a bug" in result.error.metadata["not_removed"]
    assert host.rulesets == {}


async def test_an_interrupt_takes_back_what_was_made(fleet: World) -> None:
    host = fleet.hosts["h1"]
    reached = asyncio.Event()
    loop = asyncio.get_running_loop()

    def hang(_request: Any, context: Any) -> None:
        loop.call_soon_threadsafe(reached.set)
        context.add_callback(lambda: None)
        while context.is_active():
            pass

    host.refusals["StartProcess"] = [None, hang]
    task = asyncio.create_task(isolate(fleet))
    await reached.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (host.namespaces, host.rulesets) == ({}, {})


async def test_no_network_for_what_is_published(fleet: World) -> None:
    with pytest.raises(HostlerError, match="nothing in the namespace can take"):
        WEB.ruleset(namespace_pb2.Namespace(name="web"))
    only_v6 = Isolation("web", ("x",), (Publish(1, 1, "tcp", "10.0.0.1"),), ipv4_pool="")
    result = await isolate(fleet, Isolate(only_v6))
    assert result.error.reason == "NO_ADDRESS"
    assert fleet.hosts["h1"].namespaces == {}


async def test_remove(fleet: World) -> None:
    await isolate(fleet)
    host = fleet.hosts["h1"]
    result = await isolate(fleet, Remove("web"))
    assert result.value().changed
    assert (host.namespaces, host.rulesets, host.processes) == ({}, {}, {})
    again = await isolate(fleet, Remove("web"))
    assert again.ok
    assert not again.value().changed


@pytest.mark.parametrize("left", ["namespaces", "rulesets", "processes"])
async def test_remove_in_any_state(fleet: World, left: str) -> None:
    await isolate(fleet)
    host = fleet.hosts["h1"]
    for kind in {"namespaces", "rulesets", "processes"} - {left}:
        getattr(host, kind).clear()
    result = await isolate(fleet, Remove("web"))
    assert result.ok
    assert (host.namespaces, host.rulesets, host.processes) == ({}, {}, {})


async def test_remove_tries_every_part_and_tells_every_error(fleet: World) -> None:
    await isolate(fleet)
    host = fleet.hosts["h1"]
    host.refusals["DeleteRuleset"] = [None, INTERNAL]
    host.refusals["StopProcess"] = [None, FAILED]
    result = await isolate(fleet, Remove("web"))
    assert "process: no user www-data" in result.error.message
    assert "ruleset: a bug" in result.error.message
    assert result.error.metadata["removed"] == "namespace"
    assert host.namespaces == {}


async def test_remove_with_one_door_closed(fleet: World) -> None:
    await isolate(fleet)
    text = fleet.fleet.read_text()
    fleet.fleet.write_text(re.sub(r"firewall = \d+", "firewall = 1", text))
    result = await isolate(fleet, Remove("web"))
    host = fleet.hosts["h1"]
    assert (host.namespaces, host.processes) == ({}, {})
    assert result.error.reason == "UNREACHABLE"
    assert "ruleset: " in result.error.message


def test_a_record_makes_the_same_isolation_again() -> None:
    kept = json.loads(json.dumps(Isolate(WEB).to_record(LOCAL_HOST)))
    again = Isolate.from_record(kept)
    assert Isolation.from_record(again.to_record(LOCAL_HOST)) == WEB
    assert Remove.from_record(Remove("web").to_record(LOCAL_HOST)).to_record(LOCAL_HOST) == {
        "name": "web"
    }
    secret = replace(WEB, environment=(("TOKEN", "hush"),))
    with pytest.raises(NotRecordable) as caught:
        Isolate(secret).to_record(LOCAL_HOST)
    assert caught.value.secrets == ("hush",)


def test_a_record_makes_the_same_push_again() -> None:
    kept = PushBundle(b"signed", ("netns", "firewall")).to_record(LOCAL_HOST)
    assert PushBundle.from_record(json.loads(json.dumps(kept))).to_record(LOCAL_HOST) == kept
