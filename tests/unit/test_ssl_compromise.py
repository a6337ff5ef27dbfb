"""Plans for keys that others may know: complete, nothing else in them, cost beside risk."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostler.cli import ssl_compromise_output
from hostler.core.ssl.compromise import (
    Decision,
    DecisionInvalid,
    Found,
    Inventory,
    Key,
    Use,
    Way,
    plan,
)

NOW = datetime(2026, 6, 1, tzinfo=UTC)
DAY = timedelta(days=1)
HOSTS = ("h1", "h2", "h3")


def found(host: str = "h1", number: int = 1, spki: str = "k1", **more: object) -> Found:
    values = {
        "host": host,
        "fingerprint": f"f{number}",
        "spki": spki,
        "serial": f"{number:x}",
        "issuer": "CN=CA",
        "names": (f"n{number}.example.net",),
        "not_before": NOW - DAY,
        "not_after": NOW + 30 * DAY,
        "key_here": True,
        "uses": (Use(host, "nginx", ("*:443",)),),
        **more,
    }
    return Found(**values)  # type: ignore[arg-type]


def test_a_key_shared_by_certificates_and_hosts_touches_all_of_them() -> None:
    shared = Inventory(
        (found("h1", 1), found("h2", 1), found("h2", 2), found("h3", 3, "k2")),
        (Key("h1", "k1", ("/a",)), Key("h2", "k1", ("/b",)), Key("h3", "k2", ("/c",))),
    )
    made = plan(shared, NOW, keys=["k1"])
    assert made.complete
    assert made.key_hosts == {"k1": ("h1", "h2")}
    assert {t.fingerprint: t.hosts for t in made.touched} == {"f1": ("h1", "h2"), "f2": ("h2",)}
    of_host = plan(shared, NOW, hosts=["h2"])
    # The key of h2 is that of h1 as well: what h1 serves by it is touched.
    assert [t.hosts for t in of_host.touched if t.fingerprint == "f1"] == [("h1", "h2")]
    assert plan(shared, NOW, hosts=["h3"]).keys == ("k2",)


def test_a_host_that_only_has_the_certificate_has_not_lost_its_key() -> None:
    inventory = Inventory((found("h1", key_here=False),), ())
    assert plan(inventory, NOW, hosts=["h1"]).touched == ()
    assert plan(inventory, NOW, keys=["k1"]).touched[0].hosts == ("h1",)


def test_three_ways_stand_side_by_side_with_cost_and_risk() -> None:
    uses = (Use("h1", "nginx", ("*:443",)), Use("h1", "nginx", ("*:8443",)), Use("h1", "postfix"))
    (one,) = plan(Inventory((found(uses=uses), found("h2")), ()), NOW, keys=["k1"]).touched
    ways = {option.way: option for option in one.options}
    assert list(ways) == [Way.REVOKE, Way.REISSUE, Way.KEEP]
    # nginx and postfix on h1, nginx on h2: each is reloaded once.
    assert [ways[w].reloads for w in ways] == [3, 3, 0]
    assert [ways[w].installs for w in ways] == [2, 2, 0]
    assert "revoke 1 at CN=CA" in ways[Way.REVOKE].steps
    assert not any("revoke" in step for step in ways[Way.REISSUE].steps)
    assert ways[Way.REVOKE].exposed_until is None
    assert ways[Way.REISSUE].exposed_until == ways[Way.KEEP].exposed_until == NOW + 30 * DAY
    assert "pose as n1.example.net for 30 more days" in ways[Way.REISSUE].risks[0]
    assert any("shared by 2 hosts" in risk for risk in ways[Way.KEEP].risks)
    assert any("not known to be forward secret" in risk for risk in ways[Way.REVOKE].risks)
    assert one.recommended is Way.REVOKE


@pytest.mark.parametrize(
    ("secret", "told"),
    [(True, None), (False, "is not forward secret"), (None, "is not known to be forward secret")],
)
def test_what_was_recorded_is_a_risk_whatever_is_done(
    secret: bool | None, told: str | None
) -> None:
    (one,) = plan(Inventory((found(forward_secret=secret),), ()), NOW, keys=["k1"]).touched
    for option in one.options:
        assert any("what was recorded can be read" in risk for risk in option.risks) == bool(told)
        assert told is None or any(told in risk for risk in option.risks)


def test_what_has_ended_and_is_not_served_may_stay() -> None:
    ended = found(not_after=NOW - DAY, uses=())
    assert plan(Inventory((ended,), ()), NOW, keys=["k1"]).touched[0].recommended is Way.KEEP
    served = found(not_after=NOW - DAY)
    assert plan(Inventory((served,), ()), NOW, keys=["k1"]).touched[0].recommended is Way.REISSUE


def test_the_key_of_an_authority_touches_all_that_it_has_issued() -> None:
    (one,) = plan(Inventory((found(authority=True),), ()), NOW, keys=["k1"]).touched
    assert all(any("all that it has issued" in r for r in o.risks) for o in one.options)


def test_what_is_not_known_makes_a_plan_incomplete_and_is_named() -> None:
    silent = Inventory((), (), silent={"h2": "UNAVAILABLE"})
    assert not plan(silent, NOW, keys=["k"]).complete
    unread = Inventory((), (), unread=(("h1", "/etc/x.key"),))
    made = plan(unread, NOW, keys=["k"])
    assert (made.complete, made.unread) == (False, (("h1", "/etc/x.key"),))
    assert made.key_hosts == {"k": ()}


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({}, "say the reason"),
        ({"reason": "lab"}, "say the owner"),
        ({"reason": " ", "owner": "ann", "review": NOW + DAY}, "say the reason"),
        ({"reason": "lab", "owner": "ann"}, "date of review"),
        ({"reason": "lab", "owner": "ann", "review": NOW}, "date of review"),
        ({"reason": "lab", "owner": "ann", "review": NOW + 400 * DAY}, "date of review"),
        ({"reason": "x" * 2000, "owner": "ann", "review": NOW + DAY}, "longer than"),
    ],
)
def test_who_keeps_says_why_who_and_until_when(more: dict, why: str) -> None:
    with pytest.raises(DecisionInvalid, match=why):
        Decision("f1", Way.KEEP, **more).check(NOW)
    Decision("f1", Way.REVOKE, **more).check(NOW)
    Decision("f1", Way.KEEP, "in the lab alone", "ann", NOW + 30 * DAY).check(NOW)


@st.composite
def inventories(draw: st.DrawFn) -> Inventory:
    certificates = []
    for _ in range(draw(st.integers(0, 12))):
        number = draw(st.integers(0, 9))
        host, here = draw(st.sampled_from(HOSTS)), draw(st.booleans())
        certificates.append(found(host, number, f"k{number % 4}", key_here=here))
    pairs = draw(st.sets(st.tuples(st.sampled_from(HOSTS), st.integers(0, 5))))
    return Inventory(tuple(certificates), tuple(Key(h, f"k{k}", ("/p",)) for h, k in pairs))


@given(inventory=inventories(), key=st.integers(0, 5), host=st.sampled_from(HOSTS))
def test_a_plan_has_all_that_the_keys_touch_and_nothing_else(
    inventory: Inventory, key: int, host: str
) -> None:
    made = plan(inventory, NOW, keys=[f"k{key}"], hosts=[host])
    lost = {f"k{key}"} | {k.spki for k in inventory.keys if k.host == host}
    lost |= {c.spki for c in inventory.certificates if c.host == host and c.key_here}
    assert set(made.keys) == lost
    assert {(t.fingerprint, h) for t in made.touched for h in t.hosts} == {
        (c.fingerprint, c.host) for c in inventory.certificates if c.spki in lost
    }
    for one in made.touched:
        assert [o.way for o in one.options] == list(Way)
        assert {u.host for u in one.uses} <= set(one.hosts)
        assert all(o.installs == len(one.hosts) for o in one.options if o.way is not Way.KEEP)


def test_a_table_has_the_three_ways_and_drives_no_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    inventory = Inventory(
        (found(names=("a.net\x1b[2J",)),), (Key("h1", "k1", ("/p",)),), {"h2": "UNAVAILABLE"}
    )
    ssl_compromise_output.show(plan(inventory, NOW, keys=["k1"]), {})
    told = capsys.readouterr()
    lines = told.out.splitlines()
    assert lines[:4] == [
        "key k1 lies on h1",
        "",
        "a.net\\x1b[2J: ends 2026-07-01, by CN=CA",
        "  served by nginx on h1 at *:443",
    ]
    assert [line.split("  ")[0] for line in lines[5:8]] == [
        "revoke and reissue (recommended)",
        "reissue only",
        "keep",
    ]
    assert "\x1b" not in told.out
    assert "h2 did not answer, there may be more" in told.err
