"""Replicated volumes: how legs become mirrors and a stripe, and what is refused."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostler.fleet import Host
from hostler.recordable import from_record
from hostler.replicated import Leg, Volume, VolumeInvalid, mirror_of

PORTALS = {"h2": "10.0.0.12:3260", "h3": "10.0.0.13:3260"}
THREE = (Leg("h1", "A"), Leg("h2", "B"), Leg("h3", "C"))
NAMES = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,17}[a-z0-9])?", fullmatch=True)


@st.composite
def volumes(draw: st.DrawFn) -> Volume:
    hosts = [f"h{at}" for at in range(1, draw(st.integers(2, 8)) + 1)]
    mirrors = draw(st.integers(1, 16))
    legs = [Leg(host, f"disk {at} of {host}") for host in hosts for at in range(mirrors)]
    on = draw(st.sampled_from([*hosts, "elsewhere"]))
    portals = {host: f"10.0.0.{at}:3260" for at, host in enumerate(hosts, 1) if host != on}
    legs = draw(st.permutations(legs))
    return Volume.of(draw(NAMES), tuple(legs), on, "/srv/x", portals)


@given(volumes())
def test_each_mirror_has_one_leg_of_every_host_and_each_leg_is_in_one(volume: Volume) -> None:
    for mirror in volume.mirrors:
        assert [leg.host for leg in mirror] == list(volume.hosts)
    of_mirrors = [leg for mirror in volume.mirrors for leg in mirror]
    assert sorted(of_mirrors, key=str) == sorted(volume.legs, key=str)
    assert len({(leg.host, leg.device) for leg in of_mirrors}) == len(of_mirrors)
    assert {leg.host for leg in volume.remote} == set(volume.hosts) - {volume.on}


@given(volumes())
def test_names_are_those_that_exports_and_arrays_take_and_lead_back(volume: Volume) -> None:
    names = [volume.leg_name(leg) for leg in volume.legs]
    assert len(set(names)) == len(names)
    for leg, name in zip(volume.legs, names, strict=True):
        # Kept by hand: those of the daemon's own grammar.
        assert re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?", name)
        assert mirror_of(volume.name, name) == leg.mirror
        assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,23}", volume.array_name(leg.mirror))
    arrays = {volume.array_name(at) for at in range(1, len(volume.mirrors) + 1)}
    assert len(arrays) == len(volume.mirrors)
    assert (volume.name in arrays) == (len(volume.mirrors) == 1)


@given(volumes())
def test_a_record_makes_the_same_volume(volume: Volume) -> None:
    assert Volume.from_record(volume.to_record()) == volume


@given(NAMES, NAMES, NAMES)
def test_legs_of_another_volume_are_not_this_ones(one: str, other: str, word: str) -> None:
    volume = Volume.of(other, THREE, "h1", "/x", PORTALS)
    names = [volume.leg_name(leg) for leg in volume.legs]
    assert all((mirror_of(one, name) > 0) == (one == other) for name in names)
    assert mirror_of(one, word) == 0 or word.startswith(f"{one}-")


def test_a_volume_of_two_hosts_says_what_it_does_not_survive() -> None:
    assert Volume.of("data", THREE, "h1", "/x", PORTALS).warnings == ()
    (words,) = Volume.of("data", THREE[:2], "h1", "/x", {"h2": PORTALS["h2"]}).warnings
    assert words.startswith("TWO_HOSTS") and "h1 and h2" in words


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"name": "Data"}, "a volume's name"),
        ({"name": "x" * 20}, "a volume's name"),
        ({"legs": THREE[:1]}, "from 2 to 8 hosts"),
        ({"legs": (*THREE, Leg("h1", "D"))}, "2 of h1"),
        ({"legs": (*THREE, *THREE)}, "named twice"),
        ({"portals": {"h2": "10.0.0.12:3260"}}, "h3 has no portal"),
        ({"portals": {**PORTALS, "h1": "10.0.0.11:3260"}}, "h1 has a portal"),
        ({"portals": {**PORTALS, "h9": "10.0.0.19:3260"}}, "h9 has a portal"),
        ({"type": "swap"}, "the filesystem is one of"),
    ],
)
def test_what_cannot_be_made_is_refused_before_any_host_is_asked(
    wrong: dict[str, object], words: str
) -> None:
    asked = {"name": "data", "legs": THREE, "on": "h1", "mount": "/x", "portals": PORTALS}
    with pytest.raises(VolumeInvalid, match=re.escape(words)):
        Volume.of(**{**asked, **wrong})  # type: ignore[arg-type]


@pytest.mark.parametrize("words", ["h1", "h1:", ":A", ""])
def test_a_leg_is_a_host_and_a_device(words: str) -> None:
    with pytest.raises(ValueError, match="HOST:DEVICE"):
        Leg.parse(words)
    assert Leg.parse("h1:uuid:x") == Leg("h1", "uuid:x")


def test_the_filesystem_of_an_array_is_the_same_each_time() -> None:
    one = Volume.of("data", THREE, "h1", "/x", PORTALS)
    assert one.filesystem_uuid("a") == one.filesystem_uuid("a") != one.filesystem_uuid("b")


def test_changes_are_made_again_from_their_records() -> None:
    volume = Volume.of("data", THREE, "h1", "/x", PORTALS)
    hosts = [Host("h1", "127.0.0.1", {}, {"storage": 7442}, ("storage",)).to_record()]
    record = {"volume": volume.to_record(), "hosts": hosts}
    for kind, kept in (("replicate", record), ("replicate-repair", {"name": "d", "wait_s": 1.0})):
        change = from_record(kind, kept)
        assert change.kind == kind and change.to_record(None) == kept  # type: ignore[attr-defined]
