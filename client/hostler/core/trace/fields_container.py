"""The fields of an event's container: container.*. Pure.

As in sysdig, what runs in no container runs in one called `host`.
"""

from __future__ import annotations

import re
from functools import partial

from hostler.core.trace.events import Events
from hostler.core.trace.field import Field, Kind, single
from hostler.core.trace.values import Words, by_process

# Docker, podman, containerd and CRI-O name the cgroup by an id of 64 digits; 12 are usual.
_ID = re.compile(rb"(?<![0-9a-f])([0-9a-f]{12})[0-9a-f]{52}(?![0-9a-f])")


HOST = b"host"
"""What the container is called that is none."""


def container_id(events: Events) -> Words:
    """The containers' ids: of those without one, the name; `host` outside of any."""
    return by_process(events, partial(_id, events))


def _id(events: Events, row: int) -> bytes:
    found = _ID.search(events.texts[events.processes["cgroup"][row]])
    return found[1] if found else _name(events, row)


def _name(events: Events, row: int) -> bytes:
    return events.texts[events.processes["container"][row]] or HOST


FIELDS: tuple[Field, ...] = (
    single("container.id", Kind.TEXT, "12 digits of its id, else its name, or host", container_id),
    single(
        "container.name",
        Kind.TEXT,
        "its name, else its id, or host",
        lambda events: by_process(events, partial(_name, events)),
    ),
)
