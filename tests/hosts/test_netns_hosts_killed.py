"""Changes that are disturbed on a real host: by each other, by a kill of the daemon, by callers."""

from __future__ import annotations

import asyncio
import json
import random
import threading
import time
import uuid
from pathlib import Path
from typing import Any

import pytest
from foremost import foremost
from hosts_client import (
    APPLY,
    CREATE,
    DELETE,
    GET,
    apply_request,
    ask,
    create_request,
    delete_request,
    pooled,
)
from hosts_witness import eventually, ip_json, links, names_of_netns, untouched

from hostler import aio
from hostler.api.netns.v1 import namespace_pb2
from hostler.lab.host import Host
from hostler.lab.lab import Lab
from hostler.results import CallFailed

pytestmark = [pytest.mark.hosts, pytest.mark.timeout(300)]

CLIENTS, ROUNDS = 8, 20
SHAPES = (
    {"interfaces": [{"veth": {"host_addresses": ["10.95.0.1/30"]}, "addresses": ["10.95.0.2/30"]}]},
    {"interfaces": [{"veth": {"host_addresses": ["10.95.1.1/30"]}, "addresses": ["10.95.1.2/30"]}]},
)
FIFTY = [f"many{i}" for i in range(50)]


class Tally:
    """How often the name was made and deleted, as the answers say."""

    def __init__(self) -> None:
        self.made = self.deleted = self.refused = self.calls = 0

    async def create(self, session: aio.Session, shape: dict[str, Any]) -> None:
        request = create_request("same", **shape)
        request.change.request_id = str(uuid.uuid4())
        self.calls += 1
        try:
            answer = await session.call(CREATE, request)
            self.made += answer.change.changed
        except CallFailed as failed:
            assert failed.error.reason == "NAMESPACE_DIFFERS", failed.error
            self.refused += 1

    async def delete(self, session: aio.Session) -> None:
        request = delete_request("same")
        request.change.request_id = str(uuid.uuid4())
        self.calls += 1
        answer = await session.call(DELETE, request)
        self.deleted += answer.change.changed


async def test_creates_and_deletes_of_one_name_are_serial(lab: Lab, h1: Host) -> None:
    dice = random.Random(20)  # noqa: S311 - which calls are made is no secret
    with untouched(h1):
        before = links(h1)
        client = aio.connect(config=lab.config, timeout_s=60)
        (chosen,) = client.select("h1")
        sessions = [client.session(chosen) for _ in range(CLIENTS)]
        tally = Tally()
        try:
            for _ in range(ROUNDS):
                calls = []
                for session in sessions:
                    kind = dice.randrange(4)
                    calls.append(
                        tally.delete(session) if kind > 1 else tally.create(session, SHAPES[kind])
                    )
                await asyncio.gather(*calls)
                assert one_outcome(h1, before) == tally.made - tally.deleted
        finally:
            await Tally().delete(sessions[0])
            for session in sessions:
                await session.close()
        assert tally.calls == CLIENTS * ROUNDS
        assert min(tally.made, tally.deleted, tally.refused) > 3


def one_outcome(host: Host, before: set[str]) -> int:
    """Whether the name is there; fails if it is neither wholly there nor wholly away."""
    if "same" not in names_of_netns(host):
        # The kernel ends a namespace some time after its last user has gone.
        assert eventually(lambda: links(host) == before)
        return 0
    assert len(links(host) - before) == 1
    (link,) = [x for x in ip_json(host, "-n", "same", "addr") if x["ifname"] == "eth0"]
    (inside,) = [a["local"] for a in link["addr_info"] if a["scope"] == "global"]
    assert inside in {"10.95.0.2", "10.95.1.2"}
    (end,) = ip_json(host, "addr", "show", "dev", next(iter(links(host) - before)))
    (outside,) = [a["local"] for a in end["addr_info"] if a["scope"] == "global"]
    assert outside == inside[:-1] + "1"
    return 1


def spaces() -> list[namespace_pb2.Namespace]:
    return [pooled(name) for name in FIFTY]


def whole(host: Host) -> None:
    """All fifty are there with both addresses and a default route by an end of their own."""
    assert names_of_netns(host) == set(FIFTY)
    seen: set[str] = set()
    for name in FIFTY[::7]:
        (link,) = [x for x in ip_json(host, "-n", name, "addr") if x["ifname"] == "eth0"]
        assert "UP" in link["flags"]
        addresses = [a["local"] for a in link["addr_info"] if a["scope"] == "global"]
        assert len(addresses) == 2
        assert not seen & set(addresses)
        seen |= set(addresses)
        (default,) = [r for r in ip_json(host, "-n", name, "route") if r["dst"] == "default"]
        host.run(["ip", "netns", "exec", name, "ping", "-c1", "-W2", default["gateway"]])
    assert len(links(host) - {"lo", "host0"}) == len(FIFTY)


class Change(threading.Thread):
    """An Apply of fifty from one client that does not try again."""

    def __init__(self, lab: Lab) -> None:
        super().__init__()
        self.lab = lab
        self.error: CallFailed | None = None
        self.start()

    def run(self) -> None:
        async def work() -> None:
            client = aio.connect(config=self.lab.config, timeout_s=60, retry=aio.NO_RETRY)
            async with client.session(client.select("h1")[0]) as session:
                await session.call(APPLY, apply_request(spaces()))

        try:
            asyncio.run(work())
        except CallFailed as failed:
            self.error = failed


def remove_all(lab: Lab) -> None:
    ask(lab, APPLY, apply_request([], delete_unlisted=True))


def test_an_apply_and_its_removal(lab: Lab, h1: Host) -> None:
    with untouched(h1):
        try:
            assert ask(lab, APPLY, apply_request(spaces())).change.changed
            whole(h1)
            assert not ask(lab, APPLY, apply_request(spaces())).change.changed
        finally:
            remove_all(lab)


def until(host: Host, handles: int, change: Change) -> None:
    """Wait until so many namespaces have handles; seen from here, at once and cheaply."""
    seen = Path(f"/proc/{host.leader()}/root/run/netns")
    with foremost():
        while sum(1 for _ in seen.iterdir()) < handles and change.is_alive():
            time.sleep(0.002)


@pytest.mark.parametrize("then", ["apply", "delete"])
def test_a_daemon_killed_in_the_middle(lab: Lab, h1: Host, then: str) -> None:
    partly = 0
    with untouched(h1):
        for handles in (1, 10, 20, 30, 40):
            # A warm daemon.
            ask(lab, APPLY, apply_request([]))
            change = Change(lab)
            until(h1, handles, change)
            h1.run(["systemctl", "kill", "--signal=KILL", "hostler-netns.service"])
            change.join(30)
            partly += change.error is not None
            if then == "apply":
                ask(lab, APPLY, apply_request(spaces()))
                whole(h1)
                assert not ask(lab, APPLY, apply_request(spaces())).change.changed
                remove_all(lab)
            else:
                for name in FIFTY:
                    ask(lab, DELETE, delete_request(name))
            assert names_of_netns(h1) == set()
            assert eventually(lambda: links(h1) == {"lo", "host0"})
    assert partly >= 3


def audit(host: Host) -> list[dict[str, Any]]:
    """The audit's records of Apply, from the file."""
    lines = host.run(["cat", "/var/log/hostler/netns/audit.jsonl"]).stdout.splitlines()
    records = [json.loads(line) for line in lines]
    return [r for r in records if r.get("method", "").endswith("/ApplyNamespaces")]


def leave(lab: Lab, patience_s: float) -> bool:
    """Ask for fifty and go away; answers whether that was before the answer came."""

    async def work() -> None:
        client = aio.connect(config=lab.config, timeout_s=60, retry=aio.NO_RETRY)
        async with client.session(client.select("h1")[0]) as session:
            async with asyncio.timeout(patience_s):
                await session.call(APPLY, apply_request(spaces()))

    try:
        asyncio.run(work())
    except TimeoutError:
        return True
    return False


def outcome_after(host: Host, seq: int) -> dict[str, Any] | None:
    """The outcome of the Apply whose intent came after `seq`; None if none came."""
    records = audit(host)
    intents = [r["seq"] for r in records if r["kind"] == "intent" and r["seq"] > seq]
    ends = [r for r in records if r["kind"] == "outcome" and r["intent_seq"] in intents]
    assert len(intents) <= 1
    assert len(ends) == len(intents)
    return ends[0] if ends else None


def test_a_caller_that_leaves_in_the_middle(lab: Lab, h1: Host) -> None:
    carried_out = 0
    with untouched(h1):
        ask(lab, APPLY, apply_request([]))
        begin = time.monotonic()
        ask(lab, APPLY, apply_request(spaces()))
        whole_s = time.monotonic() - begin
        remove_all(lab)
        for share in (0.3, 0.5, 0.7):
            ask(lab, APPLY, apply_request([]))
            seq = audit(h1)[-1]["seq"]
            left = leave(lab, share * whole_s)
            try:
                # Long enough for what goes on without its caller.
                time.sleep(1.5 * whole_s + 0.5)
                end = outcome_after(h1, seq)
                if end is None:
                    assert left
                    assert names_of_netns(h1) == set()
                else:
                    carried_out += left
                    assert (end["status"], end["outcome"]) == ("OK", "OUTCOME_APPLIED")
                    whole(h1)
            finally:
                remove_all(lab)
    assert carried_out


def test_the_record_outlives_the_daemon(lab: Lab, h1: Host) -> None:
    with untouched(h1):
        ask(lab, CREATE, create_request("lasting", **SHAPES[0]))
        h1.run(["systemctl", "kill", "--signal=KILL", "hostler-netns.service"])
        try:
            got = ask(lab, GET, namespace_pb2.GetNamespaceRequest(name="lasting")).namespace
            assert got.managed
            assert list(got.drift) == []
            assert not ask(lab, CREATE, create_request("lasting", **SHAPES[0])).change.changed
        finally:
            ask(lab, DELETE, delete_request("lasting"))
