"""Serves hostler.api.netns.v1.ProcessService."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace
from typing import Any

import grpc.aio

from hostler.api.netns.v1 import process_pb2 as pb
from hostler.api.netns.v1 import process_pb2_grpc
from hostlerd.netns.kernel import logs
from hostlerd.netns.kernel.process import Processes
from hostlerd.netns.kernel.running import Running, ready
from hostlerd.netns.kernel.task import list_tasks
from hostlerd.netns.model.process import Process, Status, check, check_name, check_run
from hostlerd.netns.model.task import Task
from hostlerd.netns.plan import process as plan
from hostlerd.netns.service.process_convert import (
    batch_to_proto,
    process_from_proto,
    status_to_proto,
    task_to_proto,
)
from hostlerd.netns.service.run import messages
from hostlerd.runtime.changes import Changes
from hostlerd.runtime.domain import Runtime
from hostlerd.runtime.errors import InvalidRequest, Violation
from hostlerd.runtime.steps import Plan

_PAGE_MOST = 1000
_PAGE_BYTES = 3 << 20
_TAIL = 100
# Everything that anybody writes to the journal wakes whoever follows it.
_BREATH_S = 0.1
_LOOK_S = 5.0

Context = grpc.aio.ServicerContext[Any, Any]


class ProcessService(process_pb2_grpc.ProcessServiceServicer):  # type: ignore[misc]
    """Runs processes in network namespaces, and shows which processes are in which."""

    def __init__(self, runtime: Runtime, processes: Processes, changes: Changes) -> None:
        self.runtime = runtime
        self.processes = processes
        self.changes = changes

    async def RunProcess(
        self, requests: AsyncIterator[pb.RunProcessRequest], context: Context
    ) -> AsyncIterator[pb.RunProcessResponse]:
        """Run a process and stay with it."""
        process = _named(await _first(requests))
        if found := check_run(process):
            raise InvalidRequest.of(found)
        running = await self._open(process)
        try:
            async for message in messages(process, running, requests, self._signal):
                yield message
        finally:
            running.close()

    async def StartProcess(
        self, request: pb.StartProcessRequest, context: Context
    ) -> pb.StartProcessResponse:
        """Start a process that goes on without the caller."""
        want = process_from_proto(request.process)

        def make_plan() -> Plan:
            return plan.start(want, self.processes.view(want.namespace, want.name))

        # Before all else: names become patterns of units and files.
        if found := check(want):
            raise InvalidRequest.of(found)
        done = await self.changes.carry_out(request.change, make_plan)
        status: Status = done.plan.result
        if not request.change.validate_only:
            view = await self.runtime.blocking(self.processes.view, *want.key)
            # One that was to go with its process may be gone by now.
            status = view.statuses.get(want.key, status)
        return pb.StartProcessResponse(status=status_to_proto(status), change=done.change)

    async def StopProcess(
        self, request: pb.StopProcessRequest, context: Context
    ) -> pb.StopProcessResponse:
        """End a process with its children."""
        namespace, name = _checked(request.namespace, request.name)

        def make_plan() -> Plan:
            return plan.stop(namespace, name, self.processes.view(namespace, name))

        done = await self.changes.carry_out(request.change, make_plan)
        return pb.StopProcessResponse(change=done.change)

    async def SignalProcess(
        self, request: pb.SignalProcessRequest, context: Context
    ) -> pb.SignalProcessResponse:
        """Send a signal to a process."""
        namespace, name = _checked(request.namespace, request.name)

        def make_plan() -> Plan:
            view = self.processes.view(namespace, name)
            return plan.send_signal(namespace, name, request.signal, view)

        done = await self.changes.carry_out(request.change, make_plan)
        return pb.SignalProcessResponse(change=done.change)

    async def ListProcesses(
        self, request: pb.ListProcessesRequest, context: Context
    ) -> pb.ListProcessesResponse:
        """List what was started by name; a page token is NAMESPACE/NAME before the page."""
        found = check_name(request.namespace, "namespace") if request.namespace else []
        most = _page_size(request.page_size, found)
        view = await self.runtime.blocking(self.processes.view, request.namespace)
        following = [
            status
            for (namespace, name), status in sorted(view.statuses.items())
            if f"{namespace}/{name}" > request.page_token
        ]
        answer, size = pb.ListProcessesResponse(), 0
        for status in following[:most]:
            message = status_to_proto(status)
            size += message.ByteSize()
            if answer.processes and size > _PAGE_BYTES:
                break
            answer.processes.append(message)
        if len(answer.processes) < len(following):
            last = following[len(answer.processes) - 1].process
            answer.next_page_token = f"{last.namespace}/{last.name}"
        return answer

    async def ListTasks(
        self, request: pb.ListTasksRequest, context: Context
    ) -> pb.ListTasksResponse:
        """List the tasks of the kernel; a page token is the PID before the page."""
        found = []
        if request.page_token and not request.page_token.isdecimal():
            found.append(Violation("page_token", "not one of this service's"))
        if "/" in request.namespace or request.namespace in {".", ".."}:
            found.append(Violation("namespace", 'must be a name or "net:[INODE]"'))
        most = _page_size(request.page_size, found)
        after = int(request.page_token or 0)
        following = await self.runtime.blocking(
            self._tasks_after, request.namespace, request.with_argv, after
        )
        answer, size = pb.ListTasksResponse(), 0
        for task in following[:most]:
            message = task_to_proto(task)
            size += message.ByteSize()
            if answer.tasks and size > _PAGE_BYTES:
                break
            answer.tasks.append(message)
        if len(answer.tasks) < len(following):
            answer.next_page_token = str(answer.tasks[-1].pid_outside)
        return answer

    async def StreamLogs(
        self, request: pb.StreamLogsRequest, context: Context
    ) -> AsyncIterator[pb.StreamLogsResponse]:
        """Stream what a process has written."""
        namespace, name = _checked(request.namespace, request.name)
        _check_logs(request)
        view = await self.runtime.blocking(self.processes.view, namespace, name)
        if (namespace, name) not in view.statuses:
            raise plan.not_found(namespace, name)
        log: logs.Log = await self.runtime.blocking(
            logs.open_log, namespace, name, request.tail or _TAIL, request.after_cursor
        )
        try:
            seq = request.after_seq
            while True:
                batches: list[logs.Batch] = await self.runtime.blocking(log.read, request.follow)
                for batch in batches:
                    seq += 1
                    yield batch_to_proto(batch, seq)
                if request.follow:
                    await _wait(log)
                elif not batches:
                    return
        finally:
            log.close()

    async def _open(self, process: Process) -> Running:
        """Start a run; one whose caller has left meanwhile is not left alone."""
        opening = asyncio.ensure_future(self.runtime.blocking(self.processes.run, process))
        try:
            return await asyncio.shield(opening)
        except asyncio.CancelledError:
            opening.add_done_callback(_close_late)
            raise

    async def _signal(self, process: Process, word: str) -> None:
        await self.runtime.blocking(
            self.processes.launcher.signal, process.namespace, process.name, word
        )

    def _tasks_after(self, namespace: str, with_argv: bool, after: int) -> list[Task]:
        tasks = list_tasks(self.processes.launcher, namespace, with_argv=with_argv)
        return sorted((t for t in tasks if t.pid_outside > after), key=lambda t: t.pid_outside)


async def _first(requests: AsyncIterator[pb.RunProcessRequest]) -> pb.Process:
    async for request in requests:
        if request.WhichOneof("input") == "start":
            start: pb.Process = request.start
            return start
        break
    raise InvalidRequest.of([Violation("start", "must come first")])


def _named(message: pb.Process) -> Process:
    process = process_from_proto(message)
    return process if process.name else replace(process, name=f"run-{secrets.token_hex(6)}")


def _close_late(opening: asyncio.Future[Running]) -> None:
    if not opening.cancelled() and opening.exception() is None:
        opening.result().close()


def _checked(namespace: str, name: str) -> tuple[str, str]:
    if found := check_name(namespace, "namespace") + check_name(name, "name"):
        raise InvalidRequest.of(found)
    return namespace, name


def _page_size(size: int, found: list[Violation]) -> int:
    """The size of a page; raises all that was found, its own fault included."""
    if size < 0:
        found = [*found, Violation("page_size", "must not be negative")]
    if found:
        raise InvalidRequest.of(found)
    return min(size or _PAGE_MOST, _PAGE_MOST)


def _check_logs(request: pb.StreamLogsRequest) -> None:
    found = []
    if not 0 <= request.tail <= logs.MAX_TAIL:
        found.append(Violation("tail", f"must be from 0 to {logs.MAX_TAIL}"))
    if request.after_seq < 0:
        found.append(Violation("after_seq", "must not be negative"))
    if found:
        raise InvalidRequest.of(found)


async def _wait(log: logs.Log) -> None:
    await asyncio.sleep(_BREATH_S)
    with suppress(TimeoutError):
        async with asyncio.timeout(_LOOK_S):
            await ready(log.fileno())
