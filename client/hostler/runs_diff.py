"""How the plans of two runs differ, host by host."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any

from hostler.limits import shortened
from hostler.runs_model import RunHost, RunPlan

Step = tuple[str, str]


@dataclass(frozen=True, slots=True)
class PlanDiff:
    """What hosts planned in one run and in another. None if the run had no plan of them."""

    hosts: tuple[str, ...]
    before: tuple[Step, ...] | None
    after: tuple[Step, ...] | None

    @property
    def same(self) -> bool:
        """Whether both are the same."""
        return self.before == self.after

    def lines(self) -> list[str]:
        """Steps in words: "- " only in the first run, "+ " only in the second, "  " in both."""
        one = [words for _, words in self.before or ()]
        two = [words for _, words in self.after or ()]
        lines: list[str] = []
        for kind, a, b, c, d in SequenceMatcher(None, one, two, autojunk=False).get_opcodes():
            if kind == "equal":
                lines += [f"  {words}" for words in one[a:b]]
            else:
                lines += [f"- {words}" for words in one[a:b]]
                lines += [f"+ {words}" for words in two[c:d]]
        return lines

    def __str__(self) -> str:
        count = len(self.hosts)
        return f"{count} host{'s' if count != 1 else ''}: {shortened(self.hosts)}"

    def as_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "hosts": list(self.hosts),
            "same": self.same,
            "before": _steps(self.before),
            "after": _steps(self.after),
        }


def compare(
    before: Sequence[RunHost],
    after: Sequence[RunHost],
    plans_before: Mapping[str, RunPlan],
    plans_after: Mapping[str, RunPlan],
) -> list[PlanDiff]:
    """Compare two runs; hosts with the same difference are together, in the order of the runs."""
    one = {host.host: plans_before.get(host.plan_hash) for host in before}
    two = {host.host: plans_after.get(host.plan_hash) for host in after}
    groups: dict[Any, list[str]] = {}
    for name in dict.fromkeys((*one, *two)):
        key = tuple(plan.steps if plan else None for plan in (one.get(name), two.get(name)))
        groups.setdefault(key, []).append(name)
    return [PlanDiff(tuple(hosts), *key) for key, hosts in groups.items()]


def _steps(steps: Sequence[Step] | None) -> list[dict[str, str]] | None:
    if steps is None:
        return None
    return [{"kind": kind, "description": words} for kind, words in steps]
