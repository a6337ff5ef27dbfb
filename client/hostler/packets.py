"""Following the packet logs of hosts, and what a filter of records means."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

from hostler.api.firewall.v1 import packet_log_pb2
from hostler.channel import rpc
from hostler.config import HostlerError
from hostler.core.packet_filter import FilterInvalid, by_attribute, compile_filter
from hostler.session import Session

FOLLOW = rpc(packet_log_pb2, "PacketLogService", "FollowPacketLog")
STATE = rpc(packet_log_pb2, "PacketLogService", "GetPacketLogState")
FROM_NOW_ON = -1


class WhereInvalid(HostlerError):
    """A filter of records cannot be understood."""

    exit_code = 2


def compile_where(
    text: str, read: Callable[[str], Callable[[Any], Any]] = by_attribute
) -> Callable[[Any], bool]:
    """Answer what says whether a filter holds for a PacketRecord. Raises WhereInvalid."""
    try:
        return compile_filter(text, read)
    except FilterInvalid as error:
        raise WhereInvalid(f"filter {text!r}: {error}") from error


def resume(request: Any, response: Any) -> None:
    """Go on after what a response has told of: its reader, and the last record it looked at."""
    request.reader = response.reader
    request.after_seq = response.seq


async def follow(
    session: Session, where: str = "", reader: str = "", after_seq: int = FROM_NOW_ON
) -> AsyncIterator[Any]:
    """Follow a host's packet log: FollowPacketLogResponse, over cuts and restarts.

    Raises CallFailed.
    """
    request = packet_log_pb2.FollowPacketLogRequest(where=where, reader=reader, after_seq=after_seq)
    async for response in session.stream(FOLLOW, request, resume=resume):
        yield response
