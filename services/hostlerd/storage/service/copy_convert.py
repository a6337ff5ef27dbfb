"""Copies as messages."""

from __future__ import annotations

from hostler.api.storage.v1 import copy_pb2 as pb
from hostlerd.storage.model.copies import Outcome


def copied(one: Outcome | None) -> pb.CopyOutcome | None:
    """How a copy ended; None if it was only begun, or planned."""
    if one is None:
        return None
    message = pb.CopyOutcome(
        entries=one.entries,
        files=one.files,
        size_bytes=one.size_bytes,
        stored_bytes=one.stored_bytes,
        resumed_bytes=one.resumed_bytes,
        begun_anew=one.begun_anew,
        digest=one.digest,
    )
    message.duration.FromMilliseconds(round(one.seconds * 1000))
    return message


def burnt(one: Outcome | None) -> pb.BurnInOutcome | None:
    """What a filesystem was put to, and kept; None if that was only begun, or planned."""
    if one is None:
        return None
    message = pb.BurnInOutcome(
        rounds=one.rounds,
        files=one.files,
        written_bytes=one.written_bytes,
        read_bytes=one.read_bytes,
    )
    message.duration.FromMilliseconds(round(one.seconds * 1000))
    return message


def verified(one: Outcome | None) -> pb.VerifyOutcome | None:
    """How a look at a copy ended, which found all as it was; None if it was only begun."""
    if one is None:
        return None
    message = pb.VerifyOutcome(entries=one.entries, files=one.files, size_bytes=one.size_bytes)
    message.duration.FromMilliseconds(round(one.seconds * 1000))
    return message
