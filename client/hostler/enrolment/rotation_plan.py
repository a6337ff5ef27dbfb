"""Which step of a rotation of the CA may be next, and which hosts it is missing at: pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from enum import StrEnum

from hostler.ca_rotation import Stage
from hostler.config import HostlerError


class Step(StrEnum):
    """The steps, in order."""

    TRUST = "trust"
    REISSUE = "reissue"
    DROP = "drop"


class RotationRefused(HostlerError):
    """A step is not next, or is not allowed yet. `reason` is a stable word."""

    exit_code = 1

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(f"{message} [{reason}]")
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Place:
    """A host, as it was seen by ssh and at each of its doors.

    `trusted` are the fingerprints of the CAs that all of it trusts, `trusting` of those that any
    part does; `issuers` of the CAs of the certificates that it has and serves, empty for one that
    is unknown. `problem` says why it could not be seen.
    """

    name: str
    trusted: frozenset[str] = frozenset()
    trusting: frozenset[str] = frozenset()
    issuers: frozenset[str] = frozenset()
    problem: str = ""


def missing(step: Step, place: Place, old: str, new: str) -> str:
    """What a step is missing at a host, for people; empty if nothing is."""
    if place.problem:
        return place.problem
    if step is Step.TRUST:
        return "" if {old, new} <= place.trusted else "does not trust both CAs"
    if new not in place.trusted:
        return "does not trust the new CA"
    if old in place.issuers:
        return "serves a certificate of the old CA"
    if place.issuers != {new}:
        return "serves a certificate of another CA"
    return "trusts the old CA" if step is Step.DROP and old in place.trusting else ""


def next_step(stage: Stage, places: Sequence[Place], old: str, new: str) -> Step:
    """The first step that is missing anywhere."""
    if stage is Stage.NONE:
        return Step.TRUST
    before, after = (
        (Step.TRUST, Step.REISSUE) if stage is Stage.TRUST else (Step.REISSUE, Step.DROP)
    )
    return before if any(missing(before, place, old, new) for place in places) else after


def check(
    step: Step, stage: Stage, places: Sequence[Place], old: str, new: str, without: Set[str]
) -> None:
    """Refuse a step that is not to be done now. Raises RotationRefused.

    A step is repeated as long as the next one has not begun. The next one begins once none of the
    hosts but those of `without` lacks the one before.
    """
    if step is Step.TRUST and stage in (Stage.NONE, Stage.TRUST):
        return
    if stage is Stage.NONE:
        raise RotationRefused(
            "NOT_BEGUN", "no rotation of the CA has begun: the first step is trust"
        )
    if step is Step.TRUST:
        raise RotationRefused(
            "NOT_NEXT", "the new CA signs already: what is left to do is reissue, then drop"
        )
    if step is Step.DROP and stage is Stage.TRUST:
        raise RotationRefused("NOT_NEXT", "the old CA still signs: before drop comes reissue")
    if step is Step.REISSUE and stage is Stage.REISSUE:
        return
    before = Step.TRUST if step is Step.REISSUE else Step.REISSUE
    lacking = lacks(before, places, old, new, without)
    if not lacking:
        return
    words = "; ".join(f"{name}: {why}" for name, why in lacking.items())
    serving = any(old in place.issuers for place in places if place.name in lacking)
    reason = "OLD_CERTIFICATE_SERVED" if step is Step.DROP and serving else "HOSTS_MISSING"
    raise RotationRefused(
        reason,
        f"{before} is not done on all hosts: {words}\nRepeat it (hostler ca rotate {before}), or "
        f"leave hosts behind by name: --without HOST",
    )


def lacks(
    step: Step, places: Sequence[Place], old: str, new: str, without: Set[str]
) -> Mapping[str, str]:
    """What a step is missing, by host, but for those that are left behind."""
    found = {
        place.name: missing(step, place, old, new) for place in places if place.name not in without
    }
    return {name: why for name, why in found.items() if why}
