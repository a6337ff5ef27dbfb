from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from client_doors import World, world

import hostler
from hostler.api.netns.v1 import counter_pb2, namespace_pb2
from hostler.runs import open_runs

LIST = hostler.rpc(namespace_pb2, "NamespaceService", "ListNamespaces")
WATCH = hostler.rpc(counter_pb2, "CounterService", "WatchCounters")
CREATE = hostler.rpc(namespace_pb2, "NamespaceService", "CreateNamespace")


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[World]:
    with world(tmp_path) as made:
        made.start("h1")
        yield made


def test_outside_of_a_loop(fleet: World) -> None:
    with hostler.connect(config=fleet.config) as client:
        assert client.call(LIST, namespace_pb2.ListNamespacesRequest(), "h1")[0].ok
        assert client.list_all(LIST, namespace_pb2.ListNamespacesRequest(), "all")[0].ok


async def test_inside_of_a_running_loop(fleet: World) -> None:
    assert asyncio.get_running_loop().is_running()
    client = hostler.connect(config=fleet.config)
    assert client.call(LIST, namespace_pb2.ListNamespacesRequest(), "h1")[0].ok


def test_from_many_threads(fleet: World) -> None:
    client = hostler.connect(config=fleet.config)
    good: list[bool] = []

    def work() -> None:
        good.extend(r.ok for r in client.call(LIST, namespace_pb2.ListNamespacesRequest(), "h1"))

    threads = [threading.Thread(target=work) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert good == [True] * 20


def test_a_kept_session_and_a_stream(fleet: World) -> None:
    client = hostler.connect(config=fleet.config)
    with client.session(client.select("h1")[0]) as session:
        for _ in range(3):
            session.call(LIST, namespace_pb2.ListNamespacesRequest())
        assert session.list_all(LIST, namespace_pb2.ListNamespacesRequest()) is not None
        readings = list(session.stream(WATCH, counter_pb2.WatchCountersRequest(count=4)))
        assert [reading.seq for reading in readings] == [1, 2, 3, 4]
        stream = session.stream(WATCH, counter_pb2.WatchCountersRequest(count=100))
        assert next(stream).seq == 1
        stream.close()  # type: ignore[attr-defined] # it is a generator


def test_a_change(fleet: World) -> None:
    client = hostler.connect(config=fleet.config)
    request = namespace_pb2.CreateNamespaceRequest(namespace=namespace_pb2.Namespace(name="a"))
    change = hostler.RpcChange(CREATE, request)
    hosts = client.select("all")
    plans = client.plan(change, hosts)
    assert plans[0].value().steps[0].description == "create namespace a"
    assert fleet.hosts["h1"].namespaces == {}
    assert client.apply(change, hosts, plans)[0].value().change.changed
    assert not client.apply(change, hosts)[0].value().change.changed


def test_names_are_loaded_late() -> None:
    assert hostler.aio.Client is not hostler.Client
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = hostler.nothing


def test_a_rollout_is_recorded(fleet: World) -> None:
    client = hostler.connect(config=fleet.config)
    request = namespace_pb2.CreateNamespaceRequest(namespace=namespace_pb2.Namespace(name="b"))
    options = hostler.Rollout(batches=hostler.Batches.parse("100%"))
    rolled = client.roll_out(
        hostler.RpcChange(CREATE, request), client.select("h1"), options=options
    )
    assert [result.outcome for result in rolled.results] == [hostler.Outcome.APPLIED]
    with open_runs() as runs:
        assert runs.find(rolled.run).state == "done"
        assert runs.find(rolled.run).argv == ()
