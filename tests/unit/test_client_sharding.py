"""A fleet in shards: by processes of this machine and by Dask, with an answer for every host."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path

import pytest
from click.testing import CliRunner
from client_doors import World, world

import hostler
from hostler.api.common.v1 import audit_pb2, host_pb2
from hostler.channel import rpc
from hostler.cli.main import cli
from hostler.config import ConfigError
from hostler.sharding import Shards, processes

GET_HOST = rpc(host_pb2, "HostService", "GetHost").at("netns")
LIST = rpc(audit_pb2, "AuditService", "ListAuditRecords").at("netns")
NAMES = [f"h{index}" for index in range(7)]


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[World]:
    with world(tmp_path) as made:
        for name in NAMES[:5]:
            made.start(name)
        made.dead(NAMES[5])
        made.start(NAMES[6])
        yield made


@pytest.fixture
def client(fleet: World) -> hostler.Client:
    return hostler.connect(config=fleet.config, timeout_s=60.0)


def ask_all(client: hostler.Client, executor: Executor, count: int) -> None:
    """Every host has its own answer, in the fleet's order; the dead one its own error."""
    results = Shards(client, executor, count).call(GET_HOST, host_pb2.GetHostRequest(), "all")
    assert [result.host for result in results] == NAMES
    assert [result.host for result in results if not result.ok] == [NAMES[5]]
    for result in results:
        if result.ok:
            assert result.value().host.hostname == result.host
    assert results[5].error is not None and results[5].error.code == "UNAVAILABLE"


def pid(pause_s: float) -> int:
    """The process that works, for so long that another one takes the next."""
    time.sleep(pause_s)
    return os.getpid()


def test_processes(client: hostler.Client) -> None:
    with processes(2) as executor:
        ask_all(client, executor, 3)
        workers = set(executor.map(pid, [0.1] * 8))
        assert os.getpid() not in workers
        pages = Shards(client, executor, 2).list_all(
            LIST, audit_pb2.ListAuditRecordsRequest(), "h0"
        )
        assert [record.seq for record in pages[0].value().records] == [1, 2, 3]


def test_two_workers_of_dask(client: hostler.Client, tmp_path: Path) -> None:
    import dask
    from distributed import Client, LocalCluster

    quiet = {
        "distributed.worker.daemon": True,
        "distributed.scheduler.active-memory-manager.start": False,
        "temporary-directory": str(tmp_path / "dask"),
    }
    with (
        dask.config.set(quiet),
        LocalCluster(
            n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address=None
        ) as cluster,
        Client(cluster) as dask_client,
        dask_client.get_executor(pure=False) as executor,
    ):
        ask_all(client, executor, 4)
        assert len(set(executor.map(pid, [0.2] * 8))) == 2


def test_a_worker_that_dies_costs_its_shard_alone(client: hostler.Client) -> None:
    class OneDies(ThreadPoolExecutor):
        """Has each shard in a process of its own, and the second killed."""

        def submit(self, work, /, *args, **kwargs):  # type: ignore[no-untyped-def]
            executor = processes(1)
            future = executor.submit(os.getpid)
            if not hasattr(self, "killed") and hasattr(self, "first"):
                self.killed = future.result()
                os.kill(self.killed, signal.SIGKILL)
            self.first = True
            try:
                return executor.submit(work, *args, **kwargs)
            finally:
                executor.shutdown(wait=False)

    with OneDies() as executor:
        results = Shards(client, executor, 3).call(GET_HOST, host_pb2.GetHostRequest(), "all")
    reasons = {result.host: result.error.reason for result in results if result.error}
    assert [host for host, reason in reasons.items() if reason == "SHARD_LOST"] == ["h1", "h4"]
    assert set(reasons) == {"h1", "h4", NAMES[5]}


def test_a_command_that_reads(fleet: World) -> None:
    words = ["--processes", "2", "-H", "all", "-o", "json", "netns", "list"]
    done = subprocess.run(
        [str(Path(sys.executable).parent / "hostler"), *words],
        env={**os.environ, "HOSTLER_CONFIG": str(fleet.config)},
        capture_output=True, text=True, timeout=100,
    )  # fmt: skip
    answers = json.loads(done.stdout)
    assert [answer["host"] for answer in answers] == NAMES, done.stderr
    assert [answer["host"] for answer in answers if not answer["ok"]] == [NAMES[5]]
    assert done.returncode == 1
    env = {"HOSTLER_CONFIG": str(fleet.config)}
    refused = CliRunner().invoke(cli, ["--max-failures", "1", *words], env=env)
    assert refused.exit_code == 2


def test_what_no_shard_can_do_is_raised(client: hostler.Client, fleet: World) -> None:
    (fleet.folder / "pki" / "users" / "admin.key").unlink()
    with processes(1) as executor, pytest.raises(ConfigError, match="key"):
        Shards(client, executor, 2).call(GET_HOST, host_pb2.GetHostRequest(), "all")
    with pytest.raises(ValueError, match="at least one"):
        Shards(client, ThreadPoolExecutor(1), 0)
