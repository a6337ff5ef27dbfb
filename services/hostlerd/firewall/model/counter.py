"""What rules have counted, by label, and how fast they count."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hostlerd.firewall.model.state import Counter, RuleKey


@dataclass(frozen=True, slots=True)
class Reading:
    """What all rules had counted at a time: `at_s` by a clock that only goes on, `time_unix_s`.

    `used_by` are the labels of the rules that use an address set, by its name.
    """

    at_s: float
    time_unix_s: float
    counters: Mapping[str, Counter]
    used_by: Mapping[str, Sequence[str]]


@dataclass(frozen=True, slots=True)
class Rate:
    """How fast a rule or the rules of a set were hit since the reading before; else zero."""

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


def rates(before: Reading | None, now: Reading) -> list[Rate]:
    """Answer the rates of all rules, the busiest first.

    A rule that was not there before has grown by all it shows. So has a counter that went back: its
    rule was made anew.
    """
    elapsed_s = now.at_s - before.at_s if before is not None else 0.0
    found = [_rate(label, counter, before, elapsed_s) for label, counter in now.counters.items()]
    return sorted(found, key=_busy, reverse=True)


def set_rates(now: Reading, rules: Sequence[Rate]) -> list[Rate]:
    """Answer the rates of address sets, which are those of the rules that use each, likewise.

    `rules` are the rates of all rules. A set that no counted rule uses is left out.
    """
    by_label = {rate.label: rate for rate in rules}
    using = {
        name: [by_label[label] for label in labels if label in by_label]
        for name, labels in now.used_by.items()
    }
    return sorted(
        (_sum(name, each) for name, each in using.items() if each), key=_busy, reverse=True
    )


def _busy(rate: Rate) -> tuple[float, int]:
    return rate.packets_per_second, rate.counter.packets


def _sum(name: str, each: Sequence[Rate]) -> Rate:
    counted = Counter(sum(r.counter.packets for r in each), sum(r.counter.bytes for r in each))
    return Rate(
        name,
        counted,
        sum(r.packets_per_second for r in each),
        sum(r.bits_per_second for r in each),
    )


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
