"""The gRPC edge of chains."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import grpc.aio

from hostler.api.ssl.v1 import chain_pb2 as pb
from hostlerd.runtime.changes import Changes
from hostlerd.runtime.domain import Runtime
from hostlerd.runtime.errors import InvalidRequest, Violation
from hostlerd.runtime.steps import Plan
from hostlerd.ssl.errors import ReaderUnavailable
from hostlerd.ssl.kernel import chains
from hostlerd.ssl.kernel.deployments import Deployments
from hostlerd.ssl.model.chain import Built, Query, check
from hostlerd.ssl.model.deployment import Known, Listener, check_name
from hostlerd.ssl.model.inventory import Inventory
from hostlerd.ssl.model.library import Unseen
from hostlerd.ssl.plan import chain as plan
from hostlerd.ssl.service import chain_convert, convert
from hostlerd.ssl.service.deployment_convert import served
from hostlerd.ssl.service.observing import Observer

# Each may wait for others for half a minute, in a thread of the daemon's pool.
_AT_ONCE = 4
# Of what the reader could not see, what chains may lack for it.
_CUT_SHORT = "TIME_OVER"

Context = grpc.aio.ServicerContext[Any, Any]


class ChainService:
    """Serves hostler.api.ssl.v1.ChainService."""

    def __init__(
        self,
        runtime: Runtime,
        observer: Observer,
        kernel: Deployments,
        changes: Changes,
        *,
        may_fetch: bool,
    ) -> None:
        self._runtime = runtime
        self._observer = observer
        self._kernel = kernel
        self._changes = changes
        self._may_fetch = may_fetch
        self._turns = asyncio.Semaphore(_AT_ONCE)

    async def BuildChain(
        self, request: pb.BuildChainRequest, context: Context
    ) -> pb.BuildChainResponse:
        """Answer all that is to be said of a chain."""
        query = chain_convert.from_message(request.query)
        check(query)
        async with self._turns:
            answer: pb.BuildChainResponse = await self._runtime.blocking(self._built, query)
            return answer

    async def WriteChain(
        self, request: pb.WriteChainRequest, context: Context
    ) -> pb.WriteChainResponse:
        """Write the chain that is to be served, and see that it is."""
        answer = pb.WriteChainResponse()

        def make_plan() -> Plan:
            query = chain_convert.from_message(request.query)
            check(query)
            if request.target.startswith("/"):
                return self._to_file(request.target, query, answer)
            return self._to_deployment(request.target, query, answer)

        done = await self._changes.carry_out(request.change, make_plan)
        if done.plan.steps and not request.target.startswith("/"):
            listeners: tuple[Listener, ...] = self._kernel.last_served(request.target)
            answer.served.extend(served(listeners))
        answer.change.CopyFrom(done.change)
        return answer

    def _built(self, query: Query) -> pb.BuildChainResponse:
        inventory, unseen = self._inventory(needed=bool(query.path))
        if query.pem:
            found = chains.of_pem(query.pem, "query.pem", inventory)
        elif query.path:
            found = chains.of_file(query.path, inventory)
        elif query.deployment:
            check_name(query.deployment, "query.deployment")
            found = _placed(self._kernel.known(query.deployment), inventory)
        else:
            raise InvalidRequest.of([Violation("query", "must name what the chain is of")])
        if hint := self._not_fetched(query):
            unseen = [*unseen, Unseen("NOT_FETCHED", hint, "fetch")]
        told = chains.build(query, found, may_fetch=self._may_fetch)
        return pb.BuildChainResponse(
            report=chain_convert.report(told, found.unreadable),
            warnings=[convert.warning(each) for each in unseen],
        )

    def _to_deployment(self, name: str, query: Query, answer: pb.WriteChainResponse) -> Plan:
        check_name(name, "target")
        if query.pem or query.path or query.deployment not in ("", name):
            words = "must be left out: the chain is that of the deployment's own certificate"
            raise InvalidRequest.of([Violation("query", words)])
        known = self._kernel.known(name, handshake=True)
        inventory, _ = self._inventory(needed=False)
        built = self._build(query, _placed(known, inventory), answer)
        return plan.complete(known, built)

    def _to_file(self, path: str, query: Query, answer: pb.WriteChainResponse) -> Plan:
        before = self._kernel.installer.read_chain(path)
        inventory, _ = self._inventory(needed=bool(query.path))
        there = chains.of_placed(before, path, "", inventory) if before else None
        if query.pem:
            found = chains.of_pem(query.pem, "query.pem", inventory)
        elif query.path:
            found = chains.of_file(query.path, inventory)
        elif query.deployment:
            check_name(query.deployment, "query.deployment")
            found = _placed(self._kernel.known(query.deployment), inventory)
        else:
            found = there or chains.of_placed((), path, "", inventory)
        built = self._build(query, found, answer)
        named = chains.named(there.certificates) if there else ()
        readers = (
            f"{site.server} ({reference.path}:{reference.line})"
            for site, _, _ in inventory.sites
            for reference in site.references
            if reference.file == path
        )
        known = self._kernel.records.load()
        return plan.write(path, replace(built, before=named), known, readers)

    def _build(self, query: Query, found: chains.Served, answer: pb.WriteChainResponse) -> Built:
        told = chains.build(query, found, may_fetch=self._may_fetch)
        answer.report.CopyFrom(chain_convert.report(told, found.unreadable))
        return chains.to_write(told, self._not_fetched(query))

    def _inventory(self, *, needed: bool) -> tuple[Inventory, list[Unseen]]:
        """What lies on the host. Without it a chain can be built of what was brought.

        Raises ReaderUnavailable if it is needed.
        """
        try:
            made, unseen = self._observer.inventory(again=False)
        except ReaderUnavailable as e:
            if needed:
                raise
            return Inventory(), [Unseen(e.reason, e.message, "inventory")]
        return made, [each for each in unseen if each.code == _CUT_SHORT]

    def _not_fetched(self, query: Query) -> str:
        """Why nothing is fetched that was asked for; empty if it is."""
        if not query.fetch or self._may_fetch:
            return ""
        return "hostler.toml does not let this host fetch issuers ([ssl] fetch_issuers)"


def _placed(known: Known, inventory: Inventory) -> chains.Served:
    placed = known.placed
    return chains.of_placed(
        placed.certificates, known.deployment.name, placed.spki_sha256, inventory
    )
