"""The gRPC edge of the shadow: rulesets that are tried on real packets and decide nothing."""

from __future__ import annotations

import time
from typing import Any

import grpc.aio

from hostler.api.firewall.v1 import explain_pb2 as pb
from hostlerd.firewall.kernel import Kernel
from hostlerd.firewall.model.document import parse_all
from hostlerd.firewall.plan import change
from hostlerd.firewall.service.convert import from_proto, sums
from hostlerd.runtime.changes import Changes
from hostlerd.runtime.domain import Runtime
from hostlerd.runtime.errors import InvalidRequest, Violation
from hostlerd.runtime.steps import Plan

_DURATION_S = 600
_LONGEST_S = 7 * 24 * 3600

Context = grpc.aio.ServicerContext[Any, Any]


class ShadowMethods:
    """The methods of PreviewService that are about the shadow."""

    def __init__(self, runtime: Runtime, kernel: Kernel, changes: Changes) -> None:
        self.runtime = runtime
        self.kernel = kernel
        self.changes = changes

    async def StartShadow(
        self, request: pb.StartShadowRequest, context: Context
    ) -> pb.StartShadowResponse:
        """Have rulesets count and log what they would have dropped."""
        until = int(time.time()) + _seconds(request)

        def make_plan() -> Plan:
            wanted = parse_all([from_proto(r) for r in request.rulesets], request.delete_names)
            plan = change.start_shadow(wanted, request.delete_names, until, self.kernel.observe())
            self.kernel.check_shadow(plan.result.text)
            return plan

        done = await self.changes.carry_out(request.change, make_plan)
        answer = pb.StartShadowResponse(change=done.change)
        answer.expire_time.FromSeconds(done.plan.result.expire_time)
        return answer

    async def GetShadow(
        self, request: pb.GetShadowRequest, context: Context
    ) -> pb.GetShadowResponse:
        """Answer what the shadow has counted."""
        answer: pb.GetShadowResponse = await self.runtime.blocking(self._read)
        return answer

    async def StopShadow(
        self, request: pb.StopShadowRequest, context: Context
    ) -> pb.StopShadowResponse:
        """End the shadow."""

        def make_plan() -> Plan:
            return change.stop_shadow(self.kernel.observe())

        done = await self.changes.carry_out(request.change, make_plan)
        return pb.StopShadowResponse(change=done.change)

    def _read(self) -> pb.GetShadowResponse:
        shadow = self.kernel.observe().shadow
        if shadow is None:
            return pb.GetShadowResponse()
        answer = pb.GetShadowResponse(running=shadow.expire_time > time.time())
        answer.expire_time.FromSeconds(shadow.expire_time)
        answer.counters.extend(sums(self.kernel.shadow_counters()))
        return answer


def _seconds(request: pb.StartShadowRequest) -> int:
    if not request.HasField("duration"):
        return _DURATION_S
    if not 1 <= request.duration.seconds <= _LONGEST_S:
        raise InvalidRequest.of([Violation("duration", f"must be from 1 s to {_LONGEST_S} s")])
    return int(request.duration.seconds)
