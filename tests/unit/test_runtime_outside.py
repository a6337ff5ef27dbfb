"""Who is on another host, and who only says so."""

import json
import subprocess

import pytest

from hostlerd.runtime.access import Method
from hostlerd.runtime.call import Call, Caller
from hostlerd.runtime.outside import is_outside, own_addresses


def from_peer(peer, outside=True):
    return Call(Method("/a.S/M", "CHANGE"), Caller("x", peer, local=False), outside=outside)


def test_they_are_those_that_ip_shows():
    told = subprocess.run(["ip", "-json", "addr"], capture_output=True, check=True).stdout
    links = json.loads(told)
    shown = {a["local"] for link in links for a in link["addr_info"]}
    # 127.0.0.1 is there wherever `lo` is up; the kernel has a route to it and to no other of /8.
    assert own_addresses() == shown


@pytest.mark.parametrize("peer", ["192.0.2.7:4711", "[2001:db8::7]:4711"])
def test_another_address_is_outside(peer):
    assert is_outside(from_peer(peer))
    assert not is_outside(from_peer(peer, outside=False))


def test_an_address_of_this_host_is_not():
    for address in own_addresses():
        peer = f"[{address}]:4711" if ":" in address else f"{address}:4711"
        assert not is_outside(from_peer(peer)), peer
