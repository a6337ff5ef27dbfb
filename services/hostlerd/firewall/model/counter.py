"""What rules have counted, by label, and how fast they count."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hostlerd.firewall.model.state import Counter, RuleKey


@dataclass(frozen=True, slots=True)
class Reading:
    """What all rules had counted at a time: `at_s` by a clock that only goes on, `time_unix_s`."""

    at_s: float
    time_unix_s: float
    counters: Mapping[str, Counter]


@dataclass(frozen=True, slots=True)
class Rate:
    """How fast a rule was hit since the reading before; zero if there is none."""

    label: str
    counter: Counter
    packets_per_second: float = 0.0
    bits_per_second: float = 0.0


def summed(counters: Mapping[RuleKey, Counter]) -> dict[str, Counter]:
    """Add up what one label counted in several places, in the order in which they are asked."""
    sums: dict[str, Counter] = {}
    for key, counter in counters.items():
        so_far = sums.get(key.label)
        if so_far is not None:
            counter = Counter(so_far.packets + counter.packets, so_far.bytes + counter.bytes)
        sums[key.label] = counter
    return sums


def rates(before: Reading | None, now: Reading, top: int = 0) -> list[Rate]:
    """Answer the rates of rules, the busiest first, of which `top` are wanted; 0 means all.

    A rule that was not there before has grown by all it shows. So has a counter that went back: its
    rule was made anew.
    """
    elapsed_s = now.at_s - before.at_s if before is not None else 0.0
    found = [_rate(label, counter, before, elapsed_s) for label, counter in now.counters.items()]
    found.sort(key=lambda r: (r.packets_per_second, r.counter.packets), reverse=True)
    return found[:top] if top else found


def _rate(label: str, counter: Counter, before: Reading | None, elapsed_s: float) -> Rate:
    if before is None or elapsed_s <= 0:
        return Rate(label, counter)
    was = before.counters.get(label, Counter(0, 0))
    if counter.packets < was.packets or counter.bytes < was.bytes:
        was = Counter(0, 0)
    return Rate(
        label,
        counter,
        (counter.packets - was.packets) / elapsed_s,
        8 * (counter.bytes - was.bytes) / elapsed_s,
    )
