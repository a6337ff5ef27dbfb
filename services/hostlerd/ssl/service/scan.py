"""The gRPC edge of scans."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Sequence
from typing import Any

import grpc.aio

from hostler.api.ssl.v1 import scan_pb2 as pb
from hostler.core.ssl.scan.connect import Endpoint
from hostler.core.ssl.scan.report import Problem, Report
from hostler.core.ssl.scan.scan import CHECKS, Wanted, scan_all
from hostler.core.ssl.scan.starttls import PROTOCOLS
from hostlerd.runtime.domain import Runtime
from hostlerd.runtime.errors import InvalidRequest, Violation
from hostlerd.ssl.errors import ScanNotPermitted
from hostlerd.ssl.kernel import addresses
from hostlerd.ssl.model.reachable import Network, Target, forbidden, parse_target
from hostlerd.ssl.service.scan_convert import result

_MOST_ADDRESSES, _NAME_CHARS_MOST, _AT_ONCE = 1000, 253, 16
_RESOLVE_S = 10.0

Context = grpc.aio.ServicerContext[Any, Any]


class ScanService:
    """Serves hostler.api.ssl.v1.ScanService."""

    def __init__(self, runtime: Runtime, networks: Sequence[Network]) -> None:
        self._runtime = runtime
        self._networks = networks

    async def ScanEndpoints(
        self, request: pb.ScanEndpointsRequest, context: Context
    ) -> AsyncIterator[pb.ScanEndpointsResponse]:
        """Scan endpoints, and answer each as it is done."""
        targets = _checked(request)
        found = await asyncio.gather(*(self._resolved(each) for each in targets))
        asked: dict[int, str] = {}
        endpoints, seq = [], 0
        for target, address in zip(targets, found, strict=True):
            name = request.name or ("" if address == target.host else target.host)
            endpoint = Endpoint(address or target.host, target.port, name, request.starttls)
            if not address:
                seq += 1
                unknown = Report(endpoint, failure=_unknown(target))
                yield pb.ScanEndpointsResponse(
                    seq=seq, address=target.asked, result=result(unknown)
                )
                continue
            asked[id(endpoint)] = target.asked
            endpoints.append(endpoint)
        wanted = Wanted(checks=tuple(request.checks) or CHECKS)
        async for report in scan_all(endpoints, wanted, at_once=_AT_ONCE):
            seq += 1
            yield pb.ScanEndpointsResponse(
                seq=seq, address=asked[id(report.endpoint)], result=result(report)
            )

    async def _resolved(self, target: Target) -> str:
        """The address that is scanned; empty if the name has none. Raises ScanNotPermitted.

        Every address of a name has to be permitted: which one is asked must not be chance.
        """
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(_RESOLVE_S):
                told = await loop.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
        except (OSError, TimeoutError, UnicodeError):
            return ""
        found = [str(each[4][0]) for each in told]
        own = await self._runtime.blocking(addresses.own)
        if refused := forbidden(found, own, self._networks):
            raise ScanNotPermitted(
                f"{target.asked}: this host may scan its own addresses and scan_networks, "
                f"and {refused} is none of them",
                address=refused,
            )
        return found[0]


def _unknown(target: Target) -> Problem:
    return Problem("connect", "UNREACHABLE", f"{target.host} has no address here")


def _checked(request: pb.ScanEndpointsRequest) -> list[Target]:
    faults, targets = [], []
    if not 0 < len(request.addresses) <= _MOST_ADDRESSES:
        faults.append(Violation("addresses", f"must be from 1 to {_MOST_ADDRESSES}"))
    for nth, each in enumerate(request.addresses[:_MOST_ADDRESSES]):
        try:
            targets.append(parse_target(each))
        except ValueError as e:
            faults.append(Violation(f"addresses[{nth}]", str(e)))
    if len(request.name) > _NAME_CHARS_MOST or not request.name.isascii():
        faults.append(Violation("name", f"must be ASCII, at most {_NAME_CHARS_MOST} characters"))
    if request.starttls and request.starttls not in PROTOCOLS:
        faults.append(Violation("starttls", f"is none of: {', '.join(sorted(PROTOCOLS))}"))
    for nth, check in enumerate(request.checks):
        if check not in CHECKS:
            faults.append(Violation(f"checks[{nth}]", f"is none of: {', '.join(CHECKS)}"))
            break
    if faults:
        raise InvalidRequest.of(faults)
    return targets
