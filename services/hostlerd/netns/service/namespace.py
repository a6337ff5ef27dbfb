"""Serves hostler.api.netns.v1.NamespaceService."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import cache
from typing import Any, Protocol

import grpc.aio

from hostler.api.netns.v1 import namespace_pb2 as pb
from hostler.api.netns.v1 import namespace_pb2_grpc
from hostlerd.netns.errors import NamespaceNotFound
from hostlerd.netns.kernel import Kernel
from hostlerd.netns.model.namespace import Namespace
from hostlerd.netns.model.parse import namespace_name_fault
from hostlerd.netns.model.seen import State
from hostlerd.netns.plan import namespace as plan
from hostlerd.netns.plan.pool import Pool
from hostlerd.netns.plan.show import Shown, show, show_nameless, show_planned
from hostlerd.netns.service.convert import from_proto, to_proto
from hostlerd.runtime.changes import Changes
from hostlerd.runtime.domain import Runtime
from hostlerd.runtime.errors import InvalidRequest, Violation
from hostlerd.runtime.steps import Plan, Step

_PAGE_MOST = 1000
# A page ends before it is larger than what gRPC's clients take by default.
_PAGE_BYTES = 3 << 20

Context = grpc.aio.ServicerContext[Any, Any]


class Stopping(Protocol):
    """Ends processes in namespaces."""

    def steps(self, namespace: str, inode: int) -> tuple[Step, ...]:
        """Answer the steps that end all that is in a namespace, and forget what Hostler started.

        `inode` is the namespace's; 0 if there is no more than what is on record.
        """
        ...


class NamespaceService(namespace_pb2_grpc.NamespaceServiceServicer):  # type: ignore[misc]
    """Manages network namespaces. `stopping` knows how their processes are ended."""

    def __init__(
        self,
        runtime: Runtime,
        kernel: Kernel,
        changes: Changes,
        pools: Mapping[str, Pool],
        stopping: Stopping,
    ) -> None:
        self.runtime = runtime
        self.kernel = kernel
        self.changes = changes
        self.pools = pools
        self.stopping = stopping

    async def CreateNamespace(
        self, request: pb.CreateNamespaceRequest, context: Context
    ) -> pb.CreateNamespaceResponse:
        """Create a namespace."""
        asked = from_proto(request.namespace)

        def make_plan() -> Plan:
            return plan.create(asked, self.kernel.observe([asked.name]), self.pools)

        done = await self.changes.carry_out(request.change, make_plan)
        (shown,) = await self._outcome(done.plan.result, request.change.validate_only)
        return pb.CreateNamespaceResponse(namespace=to_proto(shown), change=done.change)

    async def ApplyNamespaces(
        self, request: pb.ApplyNamespacesRequest, context: Context
    ) -> pb.ApplyNamespacesResponse:
        """Make namespaces be as asked."""
        asked = [from_proto(n) for n in request.namespaces]

        def make_plan() -> Plan:
            names = None if request.delete_unlisted else {a.name for a in asked}
            state = self.kernel.observe(names)
            # One walk through all processes, however many namespaces go; none if none does.
            look = cache(self.kernel.processes_of_many)
            return plan.apply(
                asked,
                state,
                self.pools,
                delete_unlisted=request.delete_unlisted,
                processes=lambda name: look()(state.namespaces[name].inode),
            )

        done = await self.changes.carry_out(request.change, make_plan)
        shown = await self._outcome(done.plan.result, request.change.validate_only)
        return pb.ApplyNamespacesResponse(namespaces=map(to_proto, shown), change=done.change)

    async def DeleteNamespace(
        self, request: pb.DeleteNamespaceRequest, context: Context
    ) -> pb.DeleteNamespaceResponse:
        """Delete a namespace."""
        name = request.name
        _check_name(name)

        def make_plan() -> Plan:
            state = self.kernel.observe([name])
            seen = state.namespaces.get(name)
            inode = seen.inode if seen and seen.managed else 0
            pids = self.kernel.processes(inode) if inode and not request.stop_processes else ()
            return plan.delete(name, state, pids=pids, stop=self.stopping.steps(name, inode))

        done = await self.changes.carry_out(request.change, make_plan)
        return pb.DeleteNamespaceResponse(change=done.change)

    async def GetNamespace(
        self, request: pb.GetNamespaceRequest, context: Context
    ) -> pb.GetNamespaceResponse:
        """Get a namespace by its name as in the list."""
        shown: Shown = await self.runtime.blocking(self._get, request.name)
        return pb.GetNamespaceResponse(namespace=to_proto(shown))

    async def ListNamespaces(
        self, request: pb.ListNamespacesRequest, context: Context
    ) -> pb.ListNamespacesResponse:
        """List namespaces by name; a page token is the name before the page."""
        if request.page_size < 0:
            raise InvalidRequest.of([Violation("page_size", "must not be negative")])
        most = min(request.page_size or _PAGE_MOST, _PAGE_MOST)
        shown, more = await self.runtime.blocking(
            self._page, request.page_token, most, request.managed_only
        )
        return _answer_page(shown, more)

    async def _outcome(self, want: Sequence[Namespace], validate_only: bool) -> Sequence[Shown]:
        if validate_only:
            seen = await self.runtime.blocking(self.kernel.observe, ())
            return [show_planned(w, seen.namespaces.get(w.name)) for w in want]
        shown: Sequence[Shown] = await self.runtime.blocking(self._show, [w.name for w in want])
        return shown

    def _get(self, name: str) -> Shown:
        if not name:
            raise InvalidRequest.of([Violation("name", "must be given")])
        state = self.kernel.observe([name])
        if name in _listed(state, managed_only=False):
            seen = state.namespaces[name]
            return show(seen, state.host, self.kernel.processes(seen.inode))
        nameless = self._nameless(state)
        if name in nameless:
            return nameless[name]
        raise NamespaceNotFound(f"there is no network namespace {name}", name=name)

    def _page(self, after: str, most: int, managed_only: bool) -> tuple[list[Shown], bool]:
        state = self.kernel.observe(())
        nameless = {} if managed_only else self._nameless(state)
        names = sorted({*_listed(state, managed_only=managed_only), *nameless})
        following = [name for name in names if name > after]
        page = following[:most]
        named = {s.name: s for s in self._show([n for n in page if n not in nameless])}
        # One that went while it was looked at is left out.
        shown = [s for name in page if (s := nameless.get(name) or named.get(name))]
        return shown, len(following) > len(page)

    def _show(self, names: Collection[str]) -> list[Shown]:
        state = self.kernel.observe(names)
        processes = self.kernel.processes_by_inode()
        return [
            show(seen, state.host, processes.get(seen.inode, ()))
            for name in names
            if (seen := state.namespaces.get(name))
        ]

    def _nameless(self, state: State) -> dict[str, Shown]:
        known = {seen.inode for seen in state.namespaces.values()} | {self.kernel.host_inode()}
        shown = (
            show_nameless(inode, pids)
            for inode, pids in self.kernel.processes_by_inode().items()
            if inode not in known
        )
        return {s.name: s for s in shown}


def _check_name(name: str) -> None:
    if fault := namespace_name_fault(name):
        raise InvalidRequest.of([Violation("name", fault)])


def _listed(state: State, *, managed_only: bool) -> Iterable[str]:
    """Name what counts as a namespace: not what is only left of one that was to go by itself."""
    return [
        seen.name
        for seen in state.namespaces.values()
        if (seen.managed or not managed_only)
        and (seen.inode or seen.managed)
        and not plan.expired(seen)
    ]


def _answer_page(shown: Sequence[Shown], more: bool) -> pb.ListNamespacesResponse:
    answer, size = pb.ListNamespacesResponse(), 0
    for one in shown:
        message = to_proto(one)
        size += message.ByteSize()
        if answer.namespaces and size > _PAGE_BYTES:
            more = True
            break
        answer.namespaces.append(message)
    if more and answer.namespaces:
        answer.next_page_token = answer.namespaces[-1].name
    return answer
