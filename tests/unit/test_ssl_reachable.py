"""What may be scanned from a host: targets as they are written, addresses that are permitted."""

from __future__ import annotations

import ipaddress
import json
import subprocess

import pytest

from hostlerd.ssl.kernel import addresses
from hostlerd.ssl.model.reachable import forbidden, parse_target, read_networks

OWN = frozenset(map(ipaddress.ip_address, ("192.0.2.1", "2001:db8::1")))
NETWORKS = read_networks(["198.51.100.0/24", "2001:db8:1::/48"])


@pytest.mark.parametrize(
    ("asked", "host", "port"),
    [
        ("www.example.net:443", "www.example.net", 443),
        ("192.0.2.1:8443", "192.0.2.1", 8443),
        ("[2001:db8::1]:443", "2001:db8::1", 443),
    ],
)
def test_targets(asked: str, host: str, port: int) -> None:
    assert (parse_target(asked).host, parse_target(asked).port) == (host, port)


@pytest.mark.parametrize(
    "asked",
    [
        *("", "host", ":443", "host:", "host:0", "host:65536", "host:\u0664", "2001:db8::1:443"),
        *("[x]:1", "a\nb:1", "\u00e9:1", "a" * 254 + ":1"),
    ],
)
def test_what_is_no_target(asked: str) -> None:
    with pytest.raises(ValueError, match="must"):
        parse_target(asked)


@pytest.mark.parametrize(
    ("addresses_", "refused"),
    [
        (["127.0.0.1", "127.9.9.9", "::1"], ""),
        (["192.0.2.1", "2001:db8::1", "::ffff:192.0.2.1"], ""),
        (["198.51.100.7", "2001:db8:1::7"], ""),
        (["192.0.2.1", "192.0.2.2"], "192.0.2.2"),
        (["::ffff:203.0.113.1"], "::ffff:203.0.113.1"),
        (["fe80::1%eth0"], "fe80::1%eth0"),
    ],
)
def test_addresses_that_may_be_scanned(addresses_: list[str], refused: str) -> None:
    assert forbidden(addresses_, OWN, NETWORKS) == refused


def test_a_configuration_that_is_none() -> None:
    for wrong in ("192.0.2.0/24", [1], ["192.0.2.1/24"], ["x"]):
        with pytest.raises(ValueError, match=r"."):
            read_networks(wrong)


def test_the_addresses_of_this_machine_are_those_that_ip_shows() -> None:
    told = json.loads(subprocess.check_output(["/usr/sbin/ip", "-json", "address"], text=True))
    shown = {ipaddress.ip_address(one["local"]) for link in told for one in link["addr_info"]}
    assert shown <= addresses.own()
    assert all(each in shown or each.is_loopback for each in addresses.own())
