"""What became of a change on one host, in one word that is the same everywhere."""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from typing import Any

from hostler.results import CallFailed, HostError


class Outcome(StrEnum):
    """What became of a change on one host."""

    APPLIED = "applied"
    """Done and there to stay."""
    UNCHANGED = "unchanged"
    """There was nothing to do."""
    PENDING_CONFIRM = "pending_confirm"
    """Done, and taken back by the host unless it is confirmed in time."""
    STARTED = "started"
    """Goes on as a job of the host."""
    FAILED = "failed"
    """The host, or the way to it, refused or failed: it is as it was before."""
    NOT_STARTED = "not_started"
    """Never asked to, since the rollout had stopped before."""
    UNKNOWN = "unknown"
    """Asked to, and nobody could say what came of it."""
    ROLLED_BACK = "rolled_back"
    """Done and taken back."""
    INTERRUPTED = "interrupted"
    """Cut off in the middle; the start of the daemon has finished or undone it, or will."""


MISSING = frozenset(
    {
        Outcome.FAILED,
        Outcome.NOT_STARTED,
        Outcome.UNKNOWN,
        Outcome.ROLLED_BACK,
        Outcome.INTERRUPTED,
        Outcome.PENDING_CONFIRM,
    }
)
"""Those after which a host does not have the change for certain, and a resumed run sees to it."""

_FAILURES = (Outcome.INTERRUPTED, Outcome.ROLLED_BACK, Outcome.UNKNOWN)
_WORDS = {
    Outcome.INTERRUPTED: "cut off in the middle; the daemon has undone or finished it at its start",
    Outcome.ROLLED_BACK: "done and taken back",
    Outcome.UNKNOWN: "the host cannot tell what came of it",
}


def changes_of(answer: Any) -> Iterator[Any]:
    """The Change messages in an answer: of one method, or of the parts of a composite."""
    if hasattr(answer, "change"):
        yield answer.change
    for part in getattr(answer, "answers", {}).values():
        yield from changes_of(part)


def settled(answer: Any) -> Any:
    """Answer the answer. Raises CallFailed if it says that the change is not in force.

    The code is ABORTED, the reason INTERRUPTED, ROLLED_BACK or UNKNOWN.
    """
    outcome = of_answer(answer)
    if outcome not in _FAILURES:
        return answer
    uncertain = outcome is Outcome.UNKNOWN
    error = HostError("ABORTED", outcome.name, _WORDS[outcome], uncertain=uncertain)
    raise CallFailed(error, answer)


def of_answer(answer: Any) -> Outcome:
    """The outcome that an answer tells; of several changes, the one that matters most."""
    found: set[Outcome] = set()
    changed = False
    for change in changes_of(answer):
        found.add(_of_change(change))
        changed |= change.changed
    for outcome in (*_FAILURES, Outcome.PENDING_CONFIRM, Outcome.STARTED):
        if outcome in found:
            return outcome
    return Outcome.APPLIED if changed else Outcome.UNCHANGED


def _of_change(change: Any) -> Outcome:
    names = type(change).DESCRIPTOR.fields_by_name["outcome"].enum_type.values_by_number
    # A newer daemon may know outcomes that this client does not.
    name = names[change.outcome].name if change.outcome in names else "OUTCOME_UNKNOWN"
    word = name.removeprefix("OUTCOME_").lower()
    return Outcome(word) if word in set(Outcome) else Outcome.APPLIED


def anchors_of(answer: Any, domain: str = "") -> Iterator[tuple[str, int, str]]:
    """Domain, sequence number and head of each place in an audit log that an answer names.

    `domain` is whose door was asked, for messages that every daemon has.
    """
    if hasattr(answer, "change") and answer.change.HasField("audit"):
        package = type(answer).DESCRIPTOR.full_name.split(".")[2]
        audit = answer.change.audit
        yield (domain if package == "common" else package), audit.seq, audit.head
    for name, part in getattr(answer, "answers", {}).items():
        yield from anchors_of(part, name)


def jobs_of(answer: Any) -> tuple[str, ...]:
    """The names of the jobs that an answer has started."""
    return tuple(change.job for change in changes_of(answer) if change.job)


def of_error(error: HostError) -> Outcome:
    """The outcome that an error tells."""
    if error.uncertain:
        return Outcome.UNKNOWN
    # Where whoever carried it out was lost, the error tells what the host has made of it.
    told = error.metadata.get("outcome", "").removeprefix("OUTCOME_")
    for word in (error.reason, told):
        if error.code == "ABORTED" and word in Outcome.__members__:
            return Outcome[word]
    return Outcome.FAILED
