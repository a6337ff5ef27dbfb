"""What may be traced, and at what cost. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import fields, replace
from typing import Any

from hostlerd.tracing.model.trace import DEFAULT, MOST, Budget, Keep, Payload, Spec

PIDS_MOST = 1000
PID_LARGEST = 1 << 22
FILTER_BYTES_MOST = 16 * 1024
DATA_BYTES_MOST = 65535
START_AHEAD_MOST_S = 60.0
CAPTURE_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,62}")
FILES_MOST = 1000
ENGINES = ("", "bpf", "strace", "tracefs")
_SMALLEST_RING_BYTES = 1 << 16
_SMALLEST_FILE_BYTES = 1 << 16
_CGROUP = re.compile(r"(/[^/\x00-\x1f\x7f]{1,255}){1,32}")

Fault = tuple[str, str]
"""A field's path below the request, and what is wrong with it."""


def faults(spec: Spec, payload: Payload, now_unix_ns: int) -> tuple[Fault, ...]:
    """Answer all that is wrong with what is asked for, its filter aside."""
    found: list[Fault] = []
    if len(spec.filter.encode(errors="replace")) > FILTER_BYTES_MOST:
        found.append(("spec.filter", f"must have at most {FILTER_BYTES_MOST} bytes"))
    if len(spec.pids) > PIDS_MOST:
        found.append(("spec.pids", f"must be at most {PIDS_MOST}"))
    found += [
        (f"spec.pids[{i}]", f"must be from 1 to {PID_LARGEST}")
        for i, pid in enumerate(spec.pids[:PIDS_MOST])
        if not 1 <= pid <= PID_LARGEST
    ]
    if spec.cgroup and (not _CGROUP.fullmatch(spec.cgroup) or "/../" in spec.cgroup + "/"):
        found.append(("spec.cgroup", "must be a path such as /system.slice/ssh.service"))
    if spec.start_unix_ns - now_unix_ns > START_AHEAD_MOST_S * 1e9:
        found.append(("spec.start_time", f"must be at most {START_AHEAD_MOST_S:.0f} s ahead"))
    if payload.data_bytes > DATA_BYTES_MOST:
        found.append(("payload.data_bytes", f"must be at most {DATA_BYTES_MOST}"))
    if spec.engine not in ENGINES:
        found.append(
            ("spec.engine", f"must be one of {', '.join(filter(None, ENGINES))}, or empty")
        )
    if spec.engine == "strace" and not spec.pids:
        found.append(("spec.pids", "must name processes: strace does not trace whole hosts"))
    if spec.keep is not None:
        found += _keep_faults(spec.keep)
    return (*found, *_budget_faults(spec.budget))


def _keep_faults(asked: Keep) -> Iterator[Fault]:
    if asked.name and not CAPTURE_NAME.fullmatch(asked.name):
        yield "spec.store.name", "must be of a-z, 0-9, -, _ and ., at most 63, as in nightly-1"
    limits = {
        "rotate_size_bytes": asked.size_bytes,
        "rotate_duration": asked.seconds,
        "rotate_events": asked.events,
    }
    for name, limit in limits.items():
        if limit < 0:
            yield f"spec.store.{name}", "must not be negative"
    if 0 < asked.size_bytes < _SMALLEST_FILE_BYTES:
        yield "spec.store.rotate_size_bytes", f"must be {_SMALLEST_FILE_BYTES} or more"
    if not 0 <= asked.files <= FILES_MOST:
        yield "spec.store.keep_files", f"must be from 0 to {FILES_MOST}"
    if asked.files and not asked.rotates:
        yield "spec.store.keep_files", "is about a rotation, and there is none"


def _budget_faults(asked: Budget) -> list[Fault]:
    found: list[Fault] = [
        (f"spec.budget.{_FIELDS[each.name]}", "must not be negative, nor infinite")
        for each in fields(asked)
        if not 0 <= getattr(asked, each.name) < float("inf")
    ]
    ring = asked.ring_bytes
    if ring and (ring < _SMALLEST_RING_BYTES or ring & (ring - 1)):
        found.append(
            ("spec.budget.ring_bytes", f"must be a power of two from {_SMALLEST_RING_BYTES}")
        )
    return found


def withheld(needs: Collection[str], payload: Payload) -> tuple[Fault, ...]:
    """Answer what a filter looks at and the trace does not carry.

    Otherwise a filter could ask for what its caller is not allowed to see, letter by letter.
    """
    carried = {
        "data": payload.data_bytes > 0,
        "cmdline": payload.command_lines,
        "environ": payload.environments,
    }
    return tuple(
        ("spec.filter", f"looks at {_WORDS[need]}, which this trace does not carry")
        for need in sorted(needs)
        if not carried[need]
    )


def allowed(asked: Budget, most: Budget = MOST) -> tuple[Budget, tuple[str, ...]]:
    """Fill in what is not asked for, and cut down what is too much; answers what was cut."""
    cut: list[str] = []
    values: dict[str, Any] = {}
    for each in fields(asked):
        value = getattr(asked, each.name) or getattr(DEFAULT, each.name)
        limit = getattr(most, each.name)
        if value > limit:
            cut.append(f"{_FIELDS[each.name]} is {limit:g}, the most that this host allows")
        values[each.name] = min(value, limit)
    return replace(asked, **values), tuple(cut)


_FIELDS = {
    "duration_s": "duration",
    "events": "events",
    "size_bytes": "size_bytes",
    "ring_bytes": "ring_bytes",
    "cpu_share": "cpu_share",
}
_WORDS = {"data": "payloads", "cmdline": "command lines", "environ": "environments"}
