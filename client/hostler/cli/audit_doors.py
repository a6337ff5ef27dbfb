"""What the audit commands have in common: doors, times, words."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import click

from hostler.cli.context import State
from hostler.doors import doors_of
from hostler.fleet import Host
from hostler.results import HostResult
from hostler.session import Session


class Moment(click.ParamType[Any]):
    """A time, as ISO 8601 has it, or so long ago: 90s, 30m, 2h, 7d. In UTC unless it says where."""

    name = "TIME"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> datetime:
        """Read it; a usage error if it is none."""
        text = str(value)
        found = re.fullmatch(r"(\d{1,9})([smhd])", text)
        if found is not None:
            unit = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}[found[2]]
            try:
                return datetime.now(UTC) - timedelta(**{unit: int(found[1])})
            except OverflowError:
                self.fail(f"{text!r} is before the beginning of time", param, ctx)
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            self.fail(f"{text!r} is not a time such as 2h or 2026-11-01T12:00", param, ctx)
        return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


async def each_door(
    state: State,
    doors: Sequence[str],
    work: Callable[[Session, str], Awaitable[Any]],
    hosts: Sequence[Host] | None = None,
) -> list[HostResult[Any]]:
    """Do work at doors of the selected hosts, or at all; a session and a result for each."""
    from hostler.fanout import fan_out

    chosen = state.hosts if hosts is None else hosts
    places = [(host, door) for host in chosen for door in doors_of(host, doors)]

    async def one(place: tuple[Host, str]) -> Any:
        host, door = place
        async with state.client.session(host) as session:
            return await work(session, door)

    results = await fan_out(places, lambda p: p[0].name, one, window=max(1, state.parallel))
    return [
        HostResult(result.host, result.result, result.error, door)
        for result, (_, door) in zip(results, places, strict=True)
    ]


def words_of(record: Any) -> str:
    """What a record tells beside who, what and how it ended."""
    if record.kind == "summary":
        return f"{record.count} calls"
    return "; ".join(record.steps) or record.more_json
