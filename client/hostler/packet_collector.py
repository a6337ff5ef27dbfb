"""The collector: follows the packet logs of many hosts into one store, for as long as it runs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from hostler.fanout import fan_out
from hostler.packet_writer import Batch, PacketWriter
from hostler.packets import follow
from hostler.results import CallFailed, HostResult

if TYPE_CHECKING:
    from hostler.aio import Client
    from hostler.fleet import Host
    from hostler.session import Session

# Asking again would be answered the same.
_FINAL = frozenset({"INVALID_ARGUMENT", "UNIMPLEMENTED"})
_PAUSE_S = 10.0
_FULL_S = 0.02


class WriterEnded(Exception):
    """The writer has ended, so nothing can be collected."""


async def collect(
    client: Client,
    hosts: Sequence[Host],
    writer: PacketWriter,
    positions: dict[str, tuple[str, int]],
    where: str = "",
    say: Callable[[str], None] = print,
) -> list[HostResult[None]]:
    """Follow every host from its position (reader, seq) on, into a writer that has been started.

    Ends when no host is left that may be asked again, or the writer ends: then raises WriterEnded.
    """

    async def one(host: Host) -> None:
        async with client.session(host) as session:
            await _one(session, writer, positions.get(host.name, ("", 0)), where, say)

    # All at once: nobody who waited for another one's end would ever begin.
    work = asyncio.ensure_future(
        fan_out(hosts, lambda host: host.name, one, window=max(1, len(hosts)))
    )
    try:
        while not work.done():
            await asyncio.wait({work}, timeout=0.5)
            if not writer.is_alive():
                raise WriterEnded
        return work.result()
    finally:
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)


async def _one(
    session: Session,
    writer: PacketWriter,
    position: tuple[str, int],
    where: str,
    say: Callable[[str], None],
) -> None:
    name, told = session.host.name, ""
    reader, seq = position
    while True:
        try:
            async for answer in follow(session, where, reader, seq):
                if told:
                    say(f"{name}: goes on")
                    told = ""
                reader, seq = answer.reader, answer.seq
                while not writer.has_room:
                    # Not read on: the daemon keeps what comes for as long as it can.
                    await asyncio.sleep(_FULL_S)
                writer.offer(Batch(name, answer))
        except CallFailed as failed:
            if failed.error.code in _FINAL:
                raise
            if told != str(failed.error):
                told = str(failed.error)
                say(f"{name}: {told}; asking again every {_PAUSE_S:g} s")
        await asyncio.sleep(_PAUSE_S)
