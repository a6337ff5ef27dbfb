"""The gRPC edge of diagnosis: what is stuck, and why."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import grpc.aio

from hostler.api.tracing.v1 import diagnosis_pb2 as pb
from hostlerd.runtime.domain import Runtime
from hostlerd.runtime.errors import InvalidRequest, Violation
from hostlerd.tracing.errors import ProcessNotFound
from hostlerd.tracing.kernel import Kernel
from hostlerd.tracing.model.finding import Finding, Unseen
from hostlerd.tracing.model.task import Sample
from hostlerd.tracing.plan import stuck
from hostlerd.tracing.service import convert

_SHORTEST_S, _LONGEST_S, _DEFAULT_S = 0.01, 30.0, 0.2
_MOST_PID, _MOST_NAME = 1 << 22, 15
_MOST_FINDINGS = 1000

Context = grpc.aio.ServicerContext[Any, Any]


@dataclass(frozen=True, slots=True)
class Answer:
    """What was found, and what could not be seen."""

    findings: tuple[Finding, ...]
    left_out: int
    unseen: tuple[Unseen, ...]


class DiagnosisService:
    """Serves hostler.api.tracing.v1.DiagnosisService."""

    def __init__(self, runtime: Runtime, kernel: Kernel) -> None:
        self._runtime = runtime
        self._kernel = kernel

    async def DiagnoseStuck(
        self, request: pb.DiagnoseStuckRequest, context: Context
    ) -> pb.DiagnoseStuckResponse:
        """Look twice, and say what is stuck."""
        interval_s = _interval_s(request)
        began_s = time.monotonic()
        first: Sample = await self._runtime.blocking(self._kernel.look)
        asked = _asked(request, first)
        looked_s = time.monotonic()
        await asyncio.sleep(interval_s)
        again_s = time.monotonic()
        answer: Answer = await self._runtime.blocking(self._judge, first, asked)
        took_s = time.monotonic() - again_s + looked_s - began_s
        return pb.DiagnoseStuckResponse(
            findings=[convert.finding(each) for each in answer.findings],
            pressure=[convert.pressure(each) for each in self._kernel.pressure()],
            tasks=len(first.tasks),
            left_out=answer.left_out,
            took=convert.duration(took_s),
            warnings=[convert.warning(each) for each in answer.unseen],
        )

    def _judge(self, first: Sample, asked: Collection[int] | None) -> Answer:
        """Look again at what may be stuck, or at what was asked for. `asked` None means all."""
        wanted = {task.tid for task in stuck.suspects(first)}
        wanted |= {task.tid for task in stuck.of_process(first, asked or ())}
        second = self._kernel.look_again(first, wanted)
        still = stuck.waiting(first, second)
        looked_at = second.tasks.values() if asked is not None else still
        evidence, unseen = self._kernel.evidence(looked_at)
        # Of whoever went on meanwhile the evidence is of some other time.
        third = self._kernel.look_again(second, [task.tid for task in still])
        still = stuck.waiting(second, third)
        waits = stuck.stuck(first, still, evidence)
        kinds = {wait.task.tid: wait.kind for wait in waits}
        if asked is not None:
            waits = stuck.as_asked(first, second, evidence, asked)
        told = stuck.grouped(waits, evidence)
        details = self._kernel.details([wait.task for wait, _ in told[:_MOST_FINDINGS]])
        seen = stuck.Seen(first, second, evidence, kinds, details)
        if first.unreadable:
            words = f"{first.unreadable} threads do not show the system call that they are in"
            unseen += (Unseen("CALLS_HIDDEN", words),)
        findings = stuck.findings(told[:_MOST_FINDINGS], seen)
        return Answer(findings, max(0, len(told) - _MOST_FINDINGS), unseen)


def _asked(request: pb.DiagnoseStuckRequest, first: Sample) -> Collection[int] | None:
    if request.pid:
        if not any(task.pid == request.pid for task in first.tasks.values()):
            raise ProcessNotFound(f"there is no process {request.pid}", pid=request.pid)
        return frozenset((request.pid,))
    if request.name:
        found = stuck.named(first, request.name)
        if not found:
            raise ProcessNotFound(f"there is no process of the name {request.name}")
        return found
    return None


def _interval_s(request: pb.DiagnoseStuckRequest) -> float:
    faults = []
    interval_s = _DEFAULT_S
    if request.HasField("interval"):
        interval_s = request.interval.seconds + request.interval.nanos / 1e9
        if not _SHORTEST_S <= interval_s <= _LONGEST_S:
            faults.append(Violation("interval", "must be from 10 ms to 30 s"))
    if not 0 <= request.pid <= _MOST_PID:
        faults.append(Violation("pid", f"must be from 1 to {_MOST_PID}, or 0 for all"))
    if request.pid and request.name:
        faults.append(Violation("name", "cannot be given together with a pid"))
    if len(request.name.encode()) > _MOST_NAME:
        faults.append(Violation("name", f"must have at most {_MOST_NAME} bytes"))
    if faults:
        raise InvalidRequest.of(faults)
    return interval_s
