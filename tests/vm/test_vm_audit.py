"""A disk that is full, then a clock that has lost its time, then a bundle that nobody signed."""

from __future__ import annotations

import json
import uuid
from datetime import UTC, datetime
from typing import Any

import pytest
from hosts_client import create_request, delete_request
from hosts_witness import eventually
from vm_guest import Guest
from vm_suite import Suite

from hostler.api.netns.v1 import namespace_pb2
from hostler.channel import rpc
from hostler.results import CallFailed
from hostler.sync import Session

pytestmark = [pytest.mark.vm, pytest.mark.timeout(900)]

LOGS = "/var/log/hostler/netns"
BUNDLE = "/etc/hostler/bundle.json"
CREATE = rpc(namespace_pb2, "NamespaceService", "CreateNamespace")
DELETE = rpc(namespace_pb2, "NamespaceService", "DeleteNamespace")


def on_a_small_disk(guest: Guest) -> None:
    """Give the log of netns a real file system of its own, with little laid aside."""
    disk = guest.add_disk("logs", 16 << 20)
    guest.run(["systemctl", "stop", "hostler-netns.service"])
    guest.run(["mkfs.ext4", "-q", "-m", "0", disk])
    guest.run(["mount", disk, LOGS])
    guest.run(["chown", "hostler-netns:hostler-netns", LOGS])
    guest.run(["chmod", "0750", LOGS])
    guest.put("/etc/hostler/hostler.toml", "idle_s = 600\n[audit]\nreserve_bytes = 65536\n")
    guest.wake("netns")


def fill(guest: Guest, session: Session) -> None:
    """Leave no block free, and use up what the log has laid aside."""
    guest.run(["dd", "if=/dev/zero", f"of={LOGS}/hog", "bs=4k"], check=False)
    for _ in range(400):
        request = delete_request("not-there" + "x" * 20)
        if session.call(DELETE, request).change.warnings:
            return
    raise AssertionError("the disk is not full")


def names(guest: Guest) -> set[str]:
    """The namespaces that the guest's own tool shows."""
    return {n["name"] for n in json.loads(guest.run(["ip", "-json", "netns"]).stdout or "[]")}


def local(guest: Guest, *args: str) -> Any:
    """What local root is answered, which must be an answer."""
    (answer,) = json.loads(guest.hostler("-o", "json", *args).stdout)
    assert answer["ok"], answer
    return answer["result"]


def test_full_disk_then_1970_then_a_broken_bundle(guests: Suite) -> None:
    (vm1,) = guests.take("vm1")
    on_a_small_disk(vm1)
    client = guests.client()
    with client.session(client.select("vm1")[0]) as session:
        for name in ("one", "two"):
            session.call(CREATE, create_request(name))
        waiting = create_request("pend")
        waiting.change.confirm.within.FromSeconds(3000)
        waiting.change.confirm.group = str(uuid.uuid4())
        session.call(CREATE, waiting)
        assert names(vm1) == {"one", "two", "pend"}
        fill(vm1, session)
        with pytest.raises(CallFailed) as caught:
            session.call(CREATE, create_request("more"))
        assert caught.value.error.reason in ("AUDIT_UNAVAILABLE", "CONFIRM_PENDING")

    vm1.set_clock(datetime(1970, 1, 2, tzinfo=UTC))
    shown = local(vm1, "host", "get", "--domain", "netns")
    assert "full" in shown["host"]["audit_problem"]
    vm1.hostler("--yes", "pending", "revert")
    eventually(lambda: names(vm1) == {"one", "two"}, 60)
    repaired(vm1, "one")

    good = vm1.read(BUNDLE)
    vm1.put(BUNDLE, "{}")
    vm1.run(["systemctl", "kill", "-s", "KILL", "hostler-netns.service"])
    vm1.wake("netns")
    shown = local(vm1, "host", "get", "--domain", "netns")["host"]
    assert "bundle.json" in shown["bundle_problem"] and shown["bundle_version"] > 0
    repaired(vm1, "two")
    assert vm1.clock().year == 1970

    vm1.run(["rm", f"{LOGS}/hog"])
    vm1.put(BUNDLE, good)
    vm1.set_clock(datetime.now(UTC))
    vm1.run(["systemctl", "stop", "hostler-netns.service"])
    vm1.wake("netns")
    eventually(lambda: not local(vm1, "host", "get", "--domain", "netns")["host"]["audit_problem"])
    guests.cli("-H", "vm1", "--yes", "netns", "create", "after")
    assert names(vm1) == {"after"}
    verified = guests.cli("-H", "vm1", "-o", "json", "audit", "verify", "--domain", "netns")
    (told,) = json.loads(verified.stdout)
    assert told["ok"] and told["result"]["verified"], told


def repaired(guest: Guest, name: str) -> None:
    """Reading and deleting go on, and say that the record suffers."""
    listed = local(guest, "netns", "list")["namespaces"]
    assert name in {n["name"] for n in listed}
    answer = local(guest, "--yes", "netns", "delete", name)
    assert [w["code"] for w in answer["change"]["warnings"]] == ["AUDIT_DEGRADED"]
    assert name not in names(guest)
