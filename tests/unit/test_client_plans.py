"""Changes in two phases, over real channels."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from client_doors import World, rich, world

import hostler.aio
from hostler.api.netns.v1 import namespace_pb2
from hostler.fleet import Host
from hostler.limits import Tolerance
from hostler.plans import RpcChange, group_plans

CREATE = hostler.aio.rpc(namespace_pb2, "NamespaceService", "CreateNamespace")
BUSY = rich(grpc.StatusCode.FAILED_PRECONDITION, "BUSY", "not now")


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[World]:
    with world(tmp_path) as made:
        for number in range(1, 6):
            made.start(f"h{number}")
        yield made


def request(name: str) -> Any:
    return namespace_pb2.CreateNamespaceRequest(namespace=namespace_pb2.Namespace(name=name))


def applied(fleet: World) -> list[str]:
    return [name for name, host in fleet.hosts.items() if host.namespaces]


async def test_plans_are_grouped_and_carried_out_as_seen(fleet: World) -> None:
    fleet.hosts["h2"].namespaces["a"] = namespace_pb2.Namespace(name="a")
    client = hostler.aio.connect(config=fleet.config)
    hosts = client.select("all")
    change = RpcChange(CREATE, request("a"))
    plans = await client.plan(change, hosts)
    groups = group_plans(plans)
    assert [(len(g.planned.steps), g.hosts) for g in groups] == [
        (1, ("h1", "h3", "h4", "h5")),
        (0, ("h2",)),
    ]
    assert applied(fleet) == ["h2"]
    results = await client.apply(change, hosts, plans)
    assert [result.value().change.changed for result in results] == [True, False, True, True, True]
    ids = set()
    for host in fleet.hosts.values():
        first, second = host.named("CreateNamespace")
        assert first.change.validate_only
        assert not first.change.request_id
        assert not second.change.validate_only
        assert len(second.change.plan_hash) == 64
        ids.add(second.change.request_id)
    assert len(ids) == 5


async def test_the_request_id_is_kept_over_retries(fleet: World) -> None:
    def cut(message: Any, context: Any) -> None:
        if not message.change.validate_only:
            context.abort(grpc.StatusCode.UNAVAILABLE, "going away")

    fleet.hosts["h1"].refusals["CreateNamespace"] = [None, cut, cut]
    client = hostler.aio.connect(config=fleet.config)
    (result,) = await client.apply(RpcChange(CREATE, request("a")), client.select("h1"))
    assert result.ok
    _, *rest = fleet.hosts["h1"].named("CreateNamespace")
    assert len(rest) == 3
    assert len({each.change.request_id for each in rest}) == 1


async def test_the_canary_goes_first_and_its_failure_spares_the_rest(fleet: World) -> None:
    fleet.hosts["h1"].refusals["CreateNamespace"] = [None, BUSY]
    client = hostler.aio.connect(config=fleet.config)
    results = await client.apply(RpcChange(CREATE, request("a")), client.select("all"))
    assert [r.error.reason if r.error else None for r in results] == ["BUSY"] + ["NOT_STARTED"] * 4
    assert applied(fleet) == []
    assert all(len(fleet.hosts[f"h{n}"].named("CreateNamespace")) == 1 for n in range(2, 6))


async def test_the_canary_is_the_first_with_anything_to_do(fleet: World) -> None:
    fleet.hosts["h1"].namespaces["a"] = namespace_pb2.Namespace(name="a")
    fleet.hosts["h2"].refusals["CreateNamespace"] = [None, BUSY]
    client = hostler.aio.connect(config=fleet.config)
    results = await client.apply(RpcChange(CREATE, request("a")), client.select("all"))
    assert [r.error.reason if r.error else None for r in results] == [
        "NOT_STARTED", "BUSY", "NOT_STARTED", "NOT_STARTED", "NOT_STARTED",
    ]  # fmt: skip


async def test_failures_are_tolerated_as_asked(fleet: World) -> None:
    fleet.hosts["h1"].refusals["CreateNamespace"] = [None, BUSY]
    fleet.hosts["h4"].refusals["CreateNamespace"] = [BUSY]
    client = hostler.aio.connect(config=fleet.config)
    change = RpcChange(CREATE, request("a"))
    results = await client.apply(change, client.select("all"), tolerance=Tolerance(percent=40))
    assert [result.ok for result in results] == [False, True, True, False, True]


async def test_a_host_that_cannot_plan_stops_the_change(fleet: World) -> None:
    fleet.dead("h6")
    client = hostler.aio.connect(config=fleet.config)
    results = await client.apply(RpcChange(CREATE, request("a")), client.select("all"))
    assert applied(fleet) == []
    assert [r.error.reason for r in results if r.error] == ["NOT_STARTED"] * 5 + ["UNREACHABLE"]


async def test_a_plan_that_has_changed_is_not_carried_out(fleet: World) -> None:
    client = hostler.aio.connect(config=fleet.config)
    hosts = client.select("h1")
    change = RpcChange(CREATE, request("a"))
    plans = await client.plan(change, hosts)
    fleet.hosts["h1"].namespaces["a"] = namespace_pb2.Namespace(name="a", hostname="other")
    (result,) = await client.apply(change, hosts, plans)
    assert result.error is not None
    assert (result.error.code, result.error.reason) == ("ABORTED", "PLAN_CHANGED")
    assert fleet.hosts["h1"].namespaces["a"].hostname == "other"


async def test_each_host_may_have_its_own_request(fleet: World) -> None:
    def make(host: Host) -> Any:
        return request(f"on-{host.name}")

    client = hostler.aio.connect(config=fleet.config)
    await client.apply(RpcChange(CREATE, make), client.select("h1", "h2"))
    assert list(fleet.hosts["h1"].namespaces) == ["on-h1"]
    assert list(fleet.hosts["h2"].namespaces) == ["on-h2"]
