"""A group of changes that shuts every door of a host, and what the host says of it afterwards."""

from __future__ import annotations

import json
import socket
import time
import uuid
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

from hosts_client import APPLY_RULESET, CREATE, ask, create_request, pooled
from hosts_witness import Snapshot, eventually, network

from hostler.api.common.v1 import change_pb2, confirm_pb2
from hostler.api.firewall.v1 import ruleset_pb2
from hostler.api.netns.v1 import namespace_pb2
from hostler.channel import rpc
from hostler.lab.host import Host
from hostler.lab.lab import Lab
from hostler.results import CallFailed, HostError

GET_PENDING = rpc(confirm_pb2, "ConfirmService", "GetPending")
CONFIRM = rpc(confirm_pb2, "ConfirmService", "ConfirmPending")
REVERT = rpc(confirm_pb2, "ConfirmService", "RevertPending")
DOORS = {"netns": 7441, "firewall": 7443, "tracing": 7444, "ssl": 7445, "storage": 7442}
TOML = "/etc/hostler/hostler.toml"

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Opened:
    """A group on a host: its name, and when it was asked for, by time.monotonic()."""

    group: str
    asked_at: float


def managed_elsewhere(toml: str) -> str:
    """The configuration of a host that nobody of the lab is to manage."""
    changed = toml.replace(
        "[firewall]\n", '[firewall]\nmanagement_networks = ["192.0.2.0/24"]\n', 1
    )
    assert changed != toml
    return changed


def confirm_options(group: str, within_s: float = 0.0) -> change_pb2.ChangeOptions:
    """What a change takes that is to be confirmed."""
    options = change_pb2.ChangeOptions(request_id=str(uuid.uuid4()))
    options.confirm.group = group
    if within_s:
        options.confirm.within.FromMilliseconds(int(within_s * 1000))
    return options


def shutting(**more: Any) -> Any:
    """A request to drop what is not established; management is somewhere else."""
    ruleset = ruleset_pb2.Ruleset(
        name="shut", input_policy=ruleset_pb2.ACTION_DROP, persistent=True, **more
    )
    return ruleset_pb2.ApplyRulesetRequest(ruleset=ruleset, force=True)


def shut(lab: Lab, host: Host, within_s: float, *, name: str = "waits") -> Opened:
    """Make a namespace and shut every door of the host, as one group."""
    opened = Opened(str(uuid.uuid4()), time.monotonic())
    made = namespace_pb2.CreateNamespaceRequest(namespace=pooled(name, persistent=True))
    made.change.CopyFrom(confirm_options(opened.group, within_s))
    answer = ask(lab, CREATE, made, host=host.name)
    assert answer.change.outcome == change_pb2.OUTCOME_PENDING_CONFIRM
    assert set(answer.change.pending.doors) == set(DOORS)
    ruled = shutting()
    ruled.change.CopyFrom(confirm_options(opened.group))
    answer = ask(lab, APPLY_RULESET, ruled, host=host.name)
    assert answer.change.outcome == change_pb2.OUTCOME_PENDING_CONFIRM
    return opened


def keep(lab: Lab, host: Host, name: str = "earlier") -> None:
    """Make a namespace and a ruleset as a group, and confirm them at every door."""
    group = str(uuid.uuid4())
    made = create_request(name)
    made.change.CopyFrom(confirm_options(group, 30))
    ask(lab, CREATE, made, host=host.name)
    ruled = ruleset_pb2.ApplyRulesetRequest(
        ruleset=ruleset_pb2.Ruleset(
            name=name,
            forwards=[
                ruleset_pb2.Forward(
                    protocol=ruleset_pb2.PROTOCOL_TCP,
                    port=9999,
                    target_address="10.99.99.2",
                    target_port=80,
                )
            ],
        )
    )
    ruled.change.CopyFrom(confirm_options(group))
    ask(lab, APPLY_RULESET, ruled, host=host.name)
    for door in DOORS:
        confirm(lab, host, door, group)
    assert ended(lab, host)[0].outcome == change_pb2.OUTCOME_APPLIED


def confirm(lab: Lab, host: Host, door: str, group: str) -> Any:
    """Confirm a group at a door, on a connection of its own."""
    request = confirm_pb2.ConfirmPendingRequest(group=group)
    request.change.request_id = str(uuid.uuid4())
    return ask(lab, CONFIRM.at(door), request, host=host.name)


def pending(lab: Lab, host: Host, door: str = "netns") -> Any:
    """What a door says is pending."""
    return ask(lab, GET_PENDING.at(door), confirm_pb2.GetPendingRequest(), host=host.name)


def ended(lab: Lab, host: Host, door: str = "netns") -> list[Any]:
    """How the last groups ended, newest first."""
    return list(pending(lab, host, door).ended)


def open_doors(host: Host) -> set[str]:
    """The doors that answer to a TCP connection now."""
    return {door for door, port in DOORS.items() if _connects(host, port)}


def _connects(host: Host, port: int) -> bool:
    try:
        socket.create_connection((host.ipv4, port), timeout=0.7).close()
    except OSError:
        return False
    return True


def back_after(host: Host, opened: Opened, timeout_s: float = 60.0) -> float:
    """Wait until every door answers; seconds since the group was asked for."""
    eventually(lambda: open_doors(host) == set(DOORS), timeout_s)
    return time.monotonic() - opened.asked_at


def each(hosts: Iterable[Host], work: Callable[[Host], T]) -> list[T]:
    """Do the same with every host at once."""
    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(work, hosts))


def reverts(host: Host, group: str) -> list[tuple[str, str, str]]:
    """The audit records of a group's way back, oldest first: time, domain, method."""
    script = (
        "import glob,json\n"
        "for p in glob.glob('/var/log/hostler/*/audit*.jsonl'):\n"
        "  for l in open(p):\n"
        "    try: r=json.loads(l)\n"
        "    except ValueError: continue\n"
        "    print(json.dumps([p.split('/')[4], r]))\n"
    )
    lines = host.run(["python3", "-c", script]).stdout.splitlines()
    found = [json.loads(line) for line in lines]
    return sorted(
        (record["time"], domain, record["method"])
        for domain, record in found
        if record.get("kind") == "revert" and record.get("group") == group
    )


def refused(work: Callable[[], Any]) -> HostError:
    """Do what must fail; answer how it did."""
    try:
        answer = work()
    except CallFailed as failed:
        return failed.error
    raise AssertionError(f"it was done: {answer}")


def settled(host: Host) -> Snapshot:
    """What ip and nft say of a host, with nothing waiting any more."""
    waits = ["sh", "-c", "ls /var/lib/hostler/pending/*.json /var/lib/hostler/pending/*/*.json"]
    eventually(
        lambda: (
            host.run(waits, check=False).stdout.split()
            in ([], ["/var/lib/hostler/pending/ended.json"])
        )
    )
    return network(host)
