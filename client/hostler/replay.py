"""A run as it happened: who did what where, with which answer, told by the hosts' own logs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from hostler.api.common.v1 import audit_pb2, host_pb2
from hostler.channel import rpc
from hostler.doors import doors_of
from hostler.fanout import fan_out
from hostler.fleet import Host
from hostler.results import HostResult, plain
from hostler.session import Session

if TYPE_CHECKING:
    from hostler.aio import Client

_LIST = rpc(audit_pb2, "AuditService", "ListAuditRecords")
_GET_HOST = rpc(host_pb2, "HostService", "GetHost")
_PAGE = 1000


@dataclass(frozen=True, slots=True)
class Event:
    """A record of a run. `time` is by this machine's clock, as far as the host's is known."""

    time: datetime
    host: str
    domain: str
    record: Any

    def as_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "time": self.time.isoformat(),
            "host": self.host,
            "domain": self.domain,
            "record": plain(self.record),
        }


@dataclass(frozen=True, slots=True)
class Told:
    """What one door tells of a run. `ahead_s` is how far the host's clock is before this one's."""

    events: tuple[Event, ...]
    ahead_s: float

    def as_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        events = [event.as_dict() for event in self.events]
        return {"clock_ahead_s": round(self.ahead_s, 3), "events": events}


async def replay(
    client: Client,
    run: str,
    hosts: Sequence[Host],
    doors: Sequence[str],
    request_ids: Sequence[str] = (),
    groups: Sequence[str] = (),
) -> list[HostResult[Told]]:
    """Ask doors, or all that a host has, for the records of a run; one result per door.

    With `request_ids` and pending `groups` also what hosts have written of these on their own,
    such as a recovery after a crash or a revert at the deadline, which no call belongs to.
    """
    told: list[dict[str, Any]] = [{"run": run}]
    told += [{"request_id": each} for each in dict.fromkeys(request_ids)]
    told += [{"group": each} for each in dict.fromkeys(groups)]
    wanted = [audit_pb2.ListAuditRecordsRequest(page_size=_PAGE, **each) for each in told]
    places = [(host, door) for host in hosts for door in doors_of(host, doors)]

    async def one(place: tuple[Host, str]) -> Told:
        host, door = place
        async with client.session(host) as session:
            return await _ask(session, door, wanted)

    results = await fan_out(places, lambda place: place[0].name, one, window=client.window)
    return [
        HostResult(result.host, result.result, result.error, door)
        for result, (_, door) in zip(results, places, strict=True)
    ]


async def _ask(session: Session, door: str, wanted: Sequence[Any]) -> Told:
    ahead_s = await _clock(session, door)
    found = await asyncio.gather(*(session.list_all(_LIST.at(door), ask) for ask in wanted))
    records = {record.seq: record for answer in found for record in answer.records}
    shift = timedelta(seconds=ahead_s)
    events = (
        Event(records[seq].time.ToDatetime(UTC) - shift, session.host.name, door, records[seq])
        for seq in sorted(records)
    )
    return Told(tuple(events), ahead_s)


async def _clock(session: Session, door: str) -> float:
    """How many seconds the host's clock is ahead, give or take half a round trip."""
    request = host_pb2.GetHostRequest()
    # The first call may have to start the daemon.
    await session.call(_GET_HOST.at(door), request)
    asked = time.time()
    answer = await session.call(_GET_HOST.at(door), request)
    middle = (asked + time.time()) / 2
    now: datetime = answer.host.now.ToDatetime(UTC)
    return now.timestamp() - middle


def in_order(results: Sequence[HostResult[Told]]) -> list[Event]:
    """The events of all doors as they followed each other; each log keeps its own order."""
    events: list[Event] = []
    for result in results:
        latest = datetime.min.replace(tzinfo=UTC)
        for event in result.result.events if result.result is not None else ():
            # A clock that was set back in between must not turn a log around.
            latest = max(latest, event.time)
            events.append(Event(latest, event.host, event.domain, event.record))
    return sorted(events, key=lambda event: event.time)
