"""A clock that has lost its time: 1970, or what systemd makes of it at a boot."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest
from hosts_witness import eventually
from vm_guest import Guest
from vm_suite import Suite

pytestmark = [pytest.mark.vm, pytest.mark.timeout(900)]

LONG_AGO = datetime(1970, 1, 2, tzinfo=UTC)
ASK = ("-o", "json", "netns", "list")


def local_answers(guest: Guest) -> bool:
    """Whether local root's door answers, and lets root make and delete a namespace."""
    (answer,) = json.loads(guest.hostler(*ASK, check=False).stdout)
    if not answer["ok"]:
        return False
    guest.hostler("--yes", "netns", "create", "proof")
    made = guest.run(["ip", "netns", "list"]).stdout.split()
    guest.hostler("--yes", "netns", "delete", "proof")
    return "proof" in made and "proof" not in guest.run(["ip", "netns", "list"]).stdout.split()


def remote(guests: Suite) -> dict[str, str]:
    """How a caller with a certificate is answered; empty if it is let in."""
    done = guests.cli("-H", "vm1", *ASK, check=False)
    (answer,) = json.loads(done.stdout)
    return {} if answer["ok"] else answer["error"]


def test_a_clock_that_jumps_to_1970_under_a_daemon(guests: Suite) -> None:
    (vm1,) = guests.take("vm1")
    vm1.wake("netns")
    assert remote(guests) == {}
    vm1.set_clock(LONG_AGO)
    assert vm1.clock() - LONG_AGO < timedelta(minutes=5)
    assert local_answers(vm1)
    error = remote(guests)
    print(f"with a certificate: {error}")
    assert error, "let in by a certificate that is not valid yet by the host's clock"
    assert vm1.clock().year == 1970
    vm1.set_clock(datetime.now(UTC))
    assert remote(guests) == {}


def test_a_daemon_that_starts_in_1970(guests: Suite) -> None:
    """It has no certificate that is valid yet: local root is served, others wait for the time."""
    (vm1,) = guests.take("vm1")
    vm1.put("/etc/hostler/hostler.toml", "idle_s = 30\n")
    vm1.set_clock(LONG_AGO)
    vm1.wake("netns")
    assert local_answers(vm1)
    assert remote(guests)
    assert vm1.clock().year == 1970
    # The right time is all it needs: it idles out, and whoever knocks wakes one with TLS.
    vm1.set_clock(datetime.now(UTC))
    eventually(lambda: remote(guests) == {}, 240)


def test_a_boot_without_a_clock(guests: Suite) -> None:
    (vm1,) = guests.take("vm1")
    vm1.shutdown()
    guests.boot(vm1, rtc=LONG_AGO)
    now = vm1.clock()
    print(f"systemd starts the clock at {now}")
    assert now < datetime.now(UTC) - timedelta(hours=12)
    vm1.wake("netns")
    assert local_answers(vm1)
    assert remote(guests)
