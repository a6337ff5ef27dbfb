"""Pools: what is read from the configuration, and what is carved out of them."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostlerd.netns.errors import PoolExhausted
from hostlerd.netns.model.namespace import Network
from hostlerd.netns.plan.pool import Pool, Taken, carve, read_pools

SMALL = Pool("small", IPv4Network("10.0.0.0/26"), IPv6Network("fd00::/122"))


def networks() -> st.SearchStrategy[Network]:
    return st.builds(
        lambda start, prefixlen: ip_network((0x0A000000 + start, prefixlen), strict=False),
        st.integers(0, 127),
        st.integers(25, 32),
    )


def test_the_built_in_pool() -> None:
    (pool,) = read_pools({}).values()
    host, inside = carve(pool, 4, Taken())
    assert (str(host), str(inside)) == ("10.213.0.1/30", "10.213.0.2/30")
    host, inside = carve(pool, 6, Taken())
    assert (str(host), str(inside)) == ("fd48:6f73:746c::1/64", "fd48:6f73:746c::2/64")


def test_a_small_ipv6_pool_gives_small_networks() -> None:
    assert str(carve(SMALL, 6, Taken())[1]) == "fd00::2/126"


@given(st.lists(networks(), max_size=12), st.integers(1, 20))
def test_carved_networks_are_the_lowest_free(taken: list[Network], count: int) -> None:
    every = list(IPv4Network("10.0.0.0/26").subnets(new_prefix=30))
    free = [n for n in every if not any(n.overlaps(t) for t in taken)]
    used = Taken(taken)
    for expected in free[:count]:
        host, inside = carve(SMALL, 4, used)
        assert host.network == inside.network == expected
        assert [host.ip, inside.ip] == list(expected.hosts())
    if count > len(free):
        with pytest.raises(PoolExhausted) as caught:
            carve(SMALL, 4, used)
        assert caught.value.metadata == {"pool": "small", "range": "10.0.0.0/26"}


@given(st.lists(networks(), max_size=12), networks())
def test_taken_knows_every_overlap(taken: list[Network], asked: Network) -> None:
    hit = [t for t in taken if t.overlaps(asked)]
    end = Taken(taken).end_of_overlap(asked)
    assert (end is not None) == bool(hit)
    if end is not None:
        assert end >= max(int(asked.network_address), min(int(t[0]) for t in hit))


def test_a_pool_without_the_family_is_exhausted() -> None:
    with pytest.raises(PoolExhausted):
        carve(Pool("four", IPv4Network("10.0.0.0/24")), 6, Taken())


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"pools": 3}, "netns.pools must be a table"),
        ({"pools": {"a": {}}}, "netns.pools.a must be"),
        ({"pools": {"a": {"ipv5": "x"}}}, "netns.pools.a must be"),
        ({"pools": {"a": {"ipv4": "x"}}}, "netns.pools.a.ipv4"),
        ({"pools": {"a": {"ipv4": "10.0.0.1/24"}}}, "host bits"),
        ({"pools": {"a": {"ipv4": "fd00::/64"}}}, "other family"),
        ({"pools": {"a": {"ipv4": "10.0.0.0/31"}}}, "no room"),
        ({"pools": {"a": {"ipv6": "fd00::/127"}}}, "no room"),
    ],
)
def test_bad_configuration_is_named(config: dict[str, object], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        read_pools(config)


def test_networks_that_touch_are_passed_over_in_one_step() -> None:
    pool, used = Pool("wide", IPv4Network("10.0.0.0/16")), Taken()
    for _ in range(100):
        carve(pool, 4, used)
    assert used.end_of_overlap(IPv4Network("10.0.0.0/30")) == 0x0A000000 + 100 * 4 - 1
