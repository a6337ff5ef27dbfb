"""What a daemon wants of its collector, as it comes by the pipe; what of it the engine does."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hostler.core.trace.filter import Filter
from hostler.core.trace.pushdown import push_down
from hostler.core.trace.syscalls import by_number, name_of
from hostlerd.tracing.model import capture as engine
from hostlerd.tracing.model.trace import Budget, Payload, Spec

_CGROUPS = "/sys/fs/cgroup"


@dataclass(frozen=True, slots=True)
class Wanted:
    """A trace, and the processes that are never traced."""

    spec: Spec
    payload: Payload
    ignored_pids: tuple[int, ...]

    def capture(self, wanted: Filter) -> engine.Capture:
        """What the engine has to keep: never less than what the filter passes.

        When the trace begins and ends, and how much it may tell, is not for the engine to say: it
        is loaded before, and knows nothing of the filter.
        """
        bounds = push_down(wanted)
        budget = self.spec.budget
        pids = self.spec.pids or tuple({*(bounds.pids or ()), *(bounds.roots or ())})
        kept = engine.Filter(
            pids=pids,
            names=_comms(bounds.comms),
            cgroup=self.spec.cgroup and _CGROUPS + self.spec.cgroup,
            syscalls=_names(bounds.syscalls, bounds.syscalls_32),
            failed_only=bounds.failed_only,
            latency_ns=bounds.min_latency_ns,
        )
        return engine.Capture(
            filter=kept,
            budget=engine.Budget(
                seconds=math.inf,
                memory_bytes=budget.ring_bytes * 5 // 4,
                cpu_share=budget.cpu_share,
            ),
            payload_bytes=self.payload.data_bytes,
            cmdlines=self.payload.command_lines,
            environs=self.payload.environments,
            excluded=self.ignored_pids,
        )


def _comms(comms: frozenset[bytes] | None) -> tuple[bytes, ...]:
    """The names that processes may have; none for any, as when they are too many for the engine."""
    return tuple(comms) if comms and len(comms) <= engine.NAMES_MOST else ()


def _names(numbers: frozenset[int] | None, numbers_32: frozenset[int] | None) -> frozenset[str]:
    """The calls that either kind of program may make; none for any.

    A kernel may have calls that are not known by name: where these pass, the engine keeps all.
    """
    if numbers is None or numbers_32 is None:
        return frozenset()
    if numbers - by_number().keys() or numbers_32 - by_number(True).keys():
        return frozenset()
    return frozenset(map(name_of, numbers)) | {name_of(n, True) for n in numbers_32}


def wanted_from(said: Mapping[str, Any]) -> Wanted:
    """Read it. Raises TypeError, KeyError, ValueError."""
    rest = dict(said)
    payload = Payload(**rest.pop("payload"))
    ignored = tuple(map(int, rest.pop("ignored_pids")))
    budget = Budget(**rest.pop("budget"))
    rest["pids"] = tuple(map(int, rest["pids"]))
    return Wanted(Spec(**rest, budget=budget), payload, ignored)
