"""Plans for chains: what is missing is added, and the second plan is empty."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hostlerd.runtime.errors import InvalidRequest
from hostlerd.ssl.errors import NoChainFile
from hostlerd.ssl.model.chain import Built
from hostlerd.ssl.model.deployment import Brought, Deployment, Known, Listener, Placed, file
from hostlerd.ssl.plan import chain as plan

KEY, FULL = file("key", "/t/key.pem", "", "", 0), file("full_chain", "/t/full.pem", "", "", 0)
WEB = Deployment("web", ("a.test",), key=KEY, full_chain=FULL)
NAMES = st.lists(st.sampled_from("abcdef"), min_size=1, max_size=4, unique=True)


def built(names: list[str], before: list[str]) -> Built:
    def told(of: list[str]) -> tuple[tuple[str, str], ...]:
        return tuple((name * 64, f"CN={name}") for name in of)

    return Built("".join(names), told(names), told(before))


def known(names: list[str], *, current: bool = True, deployment: Deployment = WEB) -> Known:
    now = datetime.now(UTC)
    brought = tuple(Brought(name * 64, name, now, now) for name in names)
    return Known(deployment, Placed(brought=brought, served=(Listener("x", current=current),)))


# A machine that is busy is slow at drawing, too.
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(NAMES, NAMES)
def test_the_second_plan_is_empty(want: list[str], have: list[str]) -> None:
    for first, second in (
        (
            plan.complete(known(have), built(want, have)),
            plan.complete(known(want), built(want, want)),
        ),
        (plan.write("/t/x", built(want, have), {}), plan.write("/t/x", built(want, want), {})),
    ):
        assert bool(first.steps) is (want != have)
        assert second.steps == () and second.notices == ()
        if first.steps:
            (notice,) = first.notices
            for name in set(want) ^ set(have):
                assert f"{'adds' if name in want else 'leaves out'} CN={name}" in notice.message
            assert first.etag_after == second.etag
    assert plan.complete(known(want, current=False), built(want, want)).steps


def test_files_that_servers_have_to_be_seen_serving_are_deployments() -> None:
    with pytest.raises(InvalidRequest, match="deployment web"):
        plan.write("/t/full.pem", built(["a"], []), {"web": WEB})
    made = plan.write("/t/x", built(["a", "b"], ["b", "a"]), {"web": WEB}, ["nginx (n:3)"] * 2)
    assert [notice.code for notice in made.notices] == ["CHAIN", "NOT_RELOADED"]
    assert "order" in made.notices[0].message
    assert made.steps[0].describe() == "write the chain CN=a < CN=b to /t/x"
    assert made.steps[0].inverse() is None
    bare = replace(WEB, full_chain=None, certificate=FULL)
    with pytest.raises(NoChainFile):
        plan.complete(known(["a"], deployment=bare), built(["a", "b"], ["a"]))
