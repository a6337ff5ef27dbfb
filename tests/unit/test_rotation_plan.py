"""Which step of a rotation may be next: never while a host is missing, but for those by name."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostler.ca_rotation import Stage
from hostler.enrolment.rotation_plan import (
    Place,
    RotationRefused,
    Step,
    check,
    lacks,
    missing,
    next_step,
)

OLD, NEW, ELSE = "old", "new", "else"
BEFORE = Place("h1", frozenset({OLD}), frozenset({OLD}), frozenset({OLD}))
BOTH = Place("h1", frozenset({OLD, NEW}), frozenset({OLD, NEW}), frozenset({OLD}))
REISSUED = Place("h1", frozenset({OLD, NEW}), frozenset({OLD, NEW}), frozenset({NEW}))
DROPPED = Place("h1", frozenset({NEW}), frozenset({NEW}), frozenset({NEW}))
DOWN = Place("h1", problem="no way there")

cas = st.frozensets(st.sampled_from([OLD, NEW, ELSE]))
names = st.sampled_from(["h1", "h2", "h3"])


@st.composite
def places(draw: st.DrawFn) -> Place:
    trusting = draw(cas)
    trusted = frozenset(draw(st.sets(st.sampled_from(sorted(trusting))))) if trusting else trusting
    issuers = draw(st.frozensets(st.sampled_from([OLD, NEW, ""]), min_size=1))
    problem = draw(st.sampled_from(["", "", "", "no way there"]))
    return Place(draw(names), trusted, trusting, issuers, problem)


fleets = st.lists(places(), unique_by=lambda place: place.name)


@pytest.mark.parametrize(
    ("place", "done"),
    [
        (BEFORE, set()),
        (BOTH, {Step.TRUST}),
        (REISSUED, {Step.TRUST, Step.REISSUE}),
        (DROPPED, {Step.REISSUE, Step.DROP}),
        (DOWN, set()),
    ],
)
def test_what_a_host_is_missing(place: Place, done: set[Step]) -> None:
    assert {step for step in Step if not missing(step, place, OLD, NEW)} == done


def test_a_door_that_lags_behind_counts_for_its_host() -> None:
    lagging = Place("h1", frozenset({OLD}), frozenset({OLD, NEW}), frozenset({OLD, NEW}))
    assert missing(Step.TRUST, lagging, OLD, NEW)
    assert missing(Step.REISSUE, lagging, OLD, NEW)
    keeps = Place("h1", frozenset({NEW}), frozenset({OLD, NEW}), frozenset({NEW}))
    assert missing(Step.DROP, keeps, OLD, NEW) == "trusts the old CA"


@pytest.mark.parametrize(
    ("step", "stage", "place", "reason"),
    [
        (Step.REISSUE, Stage.NONE, BEFORE, "NOT_BEGUN"),
        (Step.DROP, Stage.NONE, BEFORE, "NOT_BEGUN"),
        (Step.DROP, Stage.TRUST, BOTH, "NOT_NEXT"),
        (Step.TRUST, Stage.REISSUE, BOTH, "NOT_NEXT"),
        (Step.REISSUE, Stage.TRUST, BEFORE, "HOSTS_MISSING"),
        (Step.REISSUE, Stage.TRUST, DOWN, "HOSTS_MISSING"),
        (Step.DROP, Stage.REISSUE, BOTH, "OLD_CERTIFICATE_SERVED"),
        (Step.DROP, Stage.REISSUE, DOWN, "HOSTS_MISSING"),
    ],
)
def test_what_is_not_next_is_refused(step: Step, stage: Stage, place: Place, reason: str) -> None:
    with pytest.raises(RotationRefused) as refused:
        check(step, stage, [place], OLD, NEW, frozenset())
    assert refused.value.reason == reason


def test_a_step_is_repeated_until_the_next_one() -> None:
    for stage in (Stage.NONE, Stage.TRUST):
        check(Step.TRUST, stage, [DOWN], OLD, NEW, frozenset())
    check(Step.REISSUE, Stage.REISSUE, [DOWN, BOTH], OLD, NEW, frozenset())
    check(Step.DROP, Stage.REISSUE, [DROPPED, REISSUED], OLD, NEW, frozenset())


@given(fleets, st.sampled_from(list(Stage)), st.frozensets(names), st.sampled_from(list(Step)))
def test_no_step_begins_while_the_one_before_is_missing(
    fleet: list[Place], stage: Stage, without: frozenset[str], step: Step
) -> None:
    try:
        check(step, stage, fleet, OLD, NEW, without)
    except RotationRefused as refused:
        if refused.reason in ("HOSTS_MISSING", "OLD_CERTIFICATE_SERVED"):
            before = Step.TRUST if step is Step.REISSUE else Step.REISSUE
            assert lacks(before, fleet, OLD, NEW, without)
        return
    asked = [place for place in fleet if place.name not in without]
    if step is Step.REISSUE and stage is Stage.TRUST:
        assert all({OLD, NEW} <= place.trusted and not place.problem for place in asked)
    if step is Step.DROP:
        assert stage is Stage.REISSUE
        assert all(place.issuers == {NEW} and not place.problem for place in asked)


@given(fleets, st.sampled_from(list(Stage)))
def test_what_is_told_to_be_next_is_allowed(fleet: list[Place], stage: Stage) -> None:
    check(next_step(stage, fleet, OLD, NEW), stage, fleet, OLD, NEW, frozenset())
