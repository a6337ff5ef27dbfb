"""The state of a fleet as metrics, and in Prometheus' text format. Pure.

What could not be asked has no sample, so that an alert on absence is right.
Source: https://prometheus.io/docs/instrumenting/exposition_formats/ (0.0.4).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from hostler.board.status import HostStatus, Level

Sample = tuple[Mapping[str, str], float]

_FAMILIES: Mapping[str, tuple[str, str]] = {
    "hostler_door_up": ("gauge", "Whether the door of a domain answers: 1 or 0."),
    "hostler_host_level": ("gauge", "How a host is, in one word: 1 for the word that it is."),
    "hostler_host_asked_timestamp_seconds": ("gauge", "When the host was asked."),
    "hostler_pending_remaining_seconds": (
        "gauge",
        "How long until a pending change is taken back; no sample if none waits.",
    ),
    "hostler_jobs_active": ("gauge", "Jobs that go on."),
    "hostler_drift_findings": ("gauge", "How many things in the kernel are not as applied."),
    "hostler_storage_findings": ("gauge", "How many things speak against the disks' health."),
    "hostler_certificate_end_timestamp_seconds": (
        "gauge",
        "When certificates end, of those that end within 30 days.",
    ),
    "hostler_rule_lost_packets_total": (
        "counter",
        "Packets that a rule has dropped or rejected; the 20 that lost most.",
    ),
    "hostler_problems": ("gauge", "Bundles and audit logs that are not well, and conflicts."),
}


@dataclass(frozen=True, slots=True)
class Family:
    """A metric: its name, `gauge` or `counter`, what it says, and a sample for each labels."""

    name: str
    kind: str
    words: str
    samples: Sequence[Sample]


def families_of(statuses: Iterable[HostStatus]) -> Iterator[Family]:
    """All metrics that have samples."""
    known = [each for each in statuses if each.is_asked]
    for name, (kind, words) in _FAMILIES.items():
        samples = [sample for each in known for sample in _SAMPLES[name](each)]
        if samples:
            yield Family(name, kind, words, samples)


def text_of(statuses: Iterable[HostStatus]) -> str:
    """All samples, family by family, as Prometheus reads them."""
    lines = []
    for one in families_of(statuses):
        lines += [f"# HELP {one.name} {one.words}", f"# TYPE {one.name} {one.kind}"]
        lines += [_line(one.name, labels, value) for labels, value in one.samples]
    return "".join(f"{line}\n" for line in lines)


def _line(name: str, labels: Mapping[str, str], value: float) -> str:
    told = ",".join(f'{key}="{_escaped(words)}"' for key, words in labels.items())
    return f"{name}{{{told}}} {value:.17g}"


def _escaped(words: str) -> str:
    return words.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


def _doors(status: HostStatus) -> Iterator[Sample]:
    for domain, why in status.doors.items():
        yield {"host": status.host, "domain": domain}, float(not why)


def _levels(status: HostStatus) -> Iterator[Sample]:
    for level in Level:
        yield {"host": status.host, "level": str(level)}, float(level is status.level)


def _asked(status: HostStatus) -> Iterator[Sample]:
    yield {"host": status.host}, status.asked_unix_s


def _waiting(status: HostStatus) -> Iterator[Sample]:
    if status.waiting is not None:
        yield {"host": status.host}, status.waiting.remaining_s


def _count(status: HostStatus, found: Sequence[object] | None) -> Iterator[Sample]:
    if found is not None:
        yield {"host": status.host}, float(len(found))


def _ending(status: HostStatus) -> Iterator[Sample]:
    # Two of one subject at one place would be one sample twice, which nobody may tell.
    told = {(each.subject, each.place): each.end_unix_s for each in status.ending or ()}
    for (subject, place), end_unix_s in told.items():
        yield {"host": status.host, "subject": subject, "place": place}, float(end_unix_s)


def _drops(status: HostStatus) -> Iterator[Sample]:
    for each in status.drops or ():
        yield {"host": status.host, "rule": each.rule}, float(each.packets)


def _problems(status: HostStatus) -> Iterator[Sample]:
    # A door tells of them; of a host that is down nobody does.
    yield from _count(status, None if status.level is Level.DOWN else status.problems)


_SAMPLES = {
    "hostler_door_up": _doors,
    "hostler_host_level": _levels,
    "hostler_host_asked_timestamp_seconds": _asked,
    "hostler_pending_remaining_seconds": _waiting,
    "hostler_jobs_active": lambda status: _count(status, status.jobs),
    "hostler_drift_findings": lambda status: _count(status, status.drift),
    "hostler_storage_findings": lambda status: _count(status, status.health),
    "hostler_certificate_end_timestamp_seconds": _ending,
    "hostler_rule_lost_packets_total": _drops,
    "hostler_problems": _problems,
}
