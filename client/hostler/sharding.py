"""A large fleet asked by several processes, or machines: shards of it, carried by any Executor.

    with hostler.connect() as client, processes(4) as executor:
        shards = Shards(client, executor, 4)
        for answer in shards.call(GET_HOST.at("netns"), GetHostRequest(), "all"):
            print(answer.host, answer.result if answer.ok else answer.error)

One process is enough for a thousand hosts; encoding and TLS then fill one CPU. With the executor of
Dask (`distributed.Client(…).get_executor()`) or Ray the shards run on other machines: what they
need there is this package, and the context's certificate and key at the same paths, for no key is
ever sent. Changes go through one process, whose brake counts the failures of the whole fleet.
"""

from __future__ import annotations

import asyncio
import multiprocessing
from collections.abc import Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from dataclasses import dataclass
from typing import Any

from hostler import aio
from hostler.channel import Rpc
from hostler.config import Context, HostlerError
from hostler.fleet import Fleet, Host
from hostler.results import HostError, HostResult
from hostler.session import Retry
from hostler.sync import Client


def processes(count: int) -> ProcessPoolExecutor:
    """Make an executor of so many fresh processes; gRPC does not outlive a fork."""
    return ProcessPoolExecutor(count, mp_context=multiprocessing.get_context("spawn"))


@dataclass(frozen=True, slots=True)
class _Shard:
    """Everything that asking some of the hosts takes, in a form that can be sent elsewhere."""

    context: Context | None
    hosts: tuple[Host, ...]
    rpc: Rpc
    request: Any
    pages: bool
    timeout_s: float
    window: int
    retry: Retry | None


class Shards:
    """Asks hosts in `count` shards, each by one call of the executor.

    A shard has every `count`-th host, so that one rack that is down slows all of them a little
    rather than one by much.
    """

    def __init__(self, client: Client, executor: Executor, count: int) -> None:
        if count < 1:
            raise ValueError(f"{count} shards: at least one is needed")
        self._client = client
        self._executor = executor
        self._count = count

    def call(
        self, rpc: Rpc, request: Any, *selectors: str, hosts: Sequence[Host] | None = None
    ) -> list[HostResult[Any]]:
        """Call a method that changes nothing on hosts, by selectors or as given; in their order.

        The hosts of a shard that was lost, with its process or its machine, have the error
        SHARD_LOST; the others have their answers.
        """
        chosen = self._client.select(*selectors) if hosts is None else hosts
        return self._ask(rpc, request, chosen, pages=False)

    def list_all(
        self, rpc: Rpc, request: Any, *selectors: str, hosts: Sequence[Host] | None = None
    ) -> list[HostResult[Any]]:
        """Call a List method, following all pages; see `call`."""
        chosen = self._client.select(*selectors) if hosts is None else hosts
        return self._ask(rpc, request, chosen, pages=True)

    def _ask(
        self, rpc: Rpc, request: Any, hosts: Sequence[Host], *, pages: bool
    ) -> list[HostResult[Any]]:
        client = self._client.asynchronous
        asked: list[tuple[range, Future[list[HostResult[Any]]]]] = []
        for index in range(min(self._count, len(hosts))):
            places = range(index, len(hosts), self._count)
            shard = _Shard(
                client.context,
                tuple(hosts[place] for place in places),
                rpc,
                request,
                pages,
                client.timeout_s,
                max(1, client.window // self._count),
                client.retry,
            )
            asked.append((places, self._executor.submit(_work, shard)))
        found: dict[int, HostResult[Any]] = {}
        for places, future in asked:
            names = [hosts[place].name for place in places]
            found.update(zip(places, _answers(names, future), strict=True))
        return [found[place] for place in range(len(hosts))]


def _answers(
    names: Sequence[str], future: Future[list[HostResult[Any]]]
) -> Sequence[HostResult[Any]]:
    try:
        return future.result()
    except HostlerError:
        # Such as a key that is not there: so it is for all of them.
        raise
    except Exception as error:  # noqa: BLE001 # each executor has its own for a lost worker
        words = f"its shard was lost: {type(error).__name__}: {error}"
        lost = HostError("UNAVAILABLE", "SHARD_LOST", words, uncertain=True)
        return [HostResult(name, error=lost) for name in names]


def _work(shard: _Shard) -> list[HostResult[Any]]:
    """Ask the hosts of a shard, wherever this runs."""

    async def ask() -> list[HostResult[Any]]:
        client = aio.Client(
            shard.context,
            Fleet(shard.hosts),
            timeout_s=shard.timeout_s,
            window=shard.window,
            retry=shard.retry,
            record=False,
        )
        call = client.list_all if shard.pages else client.call
        return await call(shard.rpc, shard.request, hosts=shard.hosts)

    return asyncio.run(ask())
