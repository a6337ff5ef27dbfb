"""The fields of who an event's process runs as: user.*, group.*. Pure.

Names are those that the traced host has for the numbers.
"""

from __future__ import annotations

import numpy as np

from hostler.core.trace.events import NO_ID, Events
from hostler.core.trace.field import Field, Kind, single
from hostler.core.trace.values import Numbers, process_texts


def _id(events: Events, column: str) -> Numbers:
    ids = events.of_process(column)
    return Numbers(ids, (events["process"] > 0) & (ids != NO_ID))


def _loginuid(events: Events) -> Numbers:
    # sysdig says -1 if nobody has logged in.
    ids = events.of_process("loginuid").astype(np.int64)
    return Numbers(np.where(ids == NO_ID, -1, ids), events["process"] > 0)


FIELDS: tuple[Field, ...] = (
    single("user.uid", Kind.INTEGER, "the effective uid", lambda events: _id(events, "uid")),
    single("user.name", Kind.TEXT, "its name", lambda events: process_texts(events, "user")),
    single(
        "user.loginuid",
        Kind.INTEGER,
        "the uid of who logged in (auid), -1 if nobody has",
        _loginuid,
    ),
    single(
        "user.loginname",
        Kind.TEXT,
        "the name of who logged in",
        lambda events: process_texts(events, "loginuser"),
    ),
    single("group.gid", Kind.INTEGER, "the effective gid", lambda events: _id(events, "gid")),
    single("group.name", Kind.TEXT, "its name", lambda events: process_texts(events, "group")),
)
