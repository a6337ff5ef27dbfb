"""Power: what a guest has again after it was cut, and what it has lost."""

from __future__ import annotations

import json

import pytest
from hosts_witness import eventually, names_of_netns
from vm_guest import Guest
from vm_suite import Suite

pytestmark = [pytest.mark.vm, pytest.mark.timeout(900)]


def boot_id(guest: Guest) -> str:
    return guest.read("/proc/sys/kernel/random/boot_id")


def pids(guest: Guest, namespace: str) -> list[int]:
    """The processes in a namespace, by ip(8)."""
    return [int(x) for x in guest.run(["ip", "netns", "pids", namespace]).stdout.split()]


def test_what_was_persistent_comes_back_after_a_power_cut(guests: Suite) -> None:
    (vm1,) = guests.take("vm1")
    vm1.wake("netns")
    change = ("-H", "vm1", "--yes", "netns")
    guests.cli(*change, "create", "stays", "--address", "10.44.0.2/30", "--persistent")
    guests.cli(*change, "create", "goes")
    for namespace, words in (("stays", ["--persistent"]), ("goes", [])):
        guests.cli(*change, "start", namespace, "main", *words, "--", "sleep", "86400")
    guests.cli(*change, "start", "stays", "passing", "--", "sleep", "86401")
    assert {n: len(pids(vm1, n)) for n in ("stays", "goes")} == {"stays": 2, "goes": 1}
    assert names_of_netns(vm1) == {"stays", "goes"}  # type: ignore[arg-type]
    before = boot_id(vm1)

    vm1.power_cut()
    guests.boot(vm1)
    assert boot_id(vm1) != before
    (pid,) = eventually(lambda: pids(vm1, "stays"), 60)
    assert vm1.read(f"/proc/{pid}/cmdline") == "sleep\x0086400\0"
    assert names_of_netns(vm1) == {"stays"}  # type: ignore[arg-type]
    argv = ["ip", "-json", "-n", "stays", "-4", "addr", "show", "scope", "global"]
    (link,) = json.loads(vm1.run(argv).stdout)
    assert [a["local"] for a in link["addr_info"]] == ["10.44.0.2"]
    assert vm1.run(["pgrep", "-fx", "sleep 8640[01]"]).stdout.split() == [str(pid)]
    # And Hostler says what is.
    vm1.wake("netns")
    answer = guests.cli("-o", "json", "-H", "vm1", "netns", "processes").stdout
    (told,) = json.loads(answer)[0]["result"]["processes"]
    assert (told["process"]["namespace"], told["process"]["name"]) == ("stays", "main")
    assert told["main_pid"] == pid


def test_a_power_cut_takes_what_was_not_flushed_and_nothing_else(guests: Suite) -> None:
    """What a power cut here is: other proofs build on it."""
    vm1, vm2 = guests.take("vm1", "vm2")
    disk = vm1.add_disk("data", 64 << 20)
    vm1.run(["mkfs.ext4", "-q", disk])
    vm1.run(["mount", disk, "/mnt"])
    vm1.put("/mnt/flushed", "kept")
    vm1.run(["tee", "/mnt/cached"], stdin="lost")
    vm1.power_cut()
    assert not vm1.is_on
    # Another guest lives on, and sees it come and go.
    ping = ["ping", "-c", "1", "-W", "5", "vm1"]
    assert vm2.run(ping, check=False).returncode == 1
    guests.boot(vm1)
    # The first answer may be what it remembers: that nobody is there.
    eventually(lambda: vm2.run(ping, check=False).returncode == 0, 60)
    vm1.run(["mount", vm1.disk("data"), "/mnt"])
    assert vm1.read("/mnt/flushed") == "kept"
    assert "lost" not in vm1.run(["cat", "/mnt/cached"], check=False).stdout
