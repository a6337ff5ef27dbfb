"""The audit logs of real hosts: tampering, full disks, replay, and records sent elsewhere."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from audit_intruder import read, tamper
from confirm_lab import DOORS
from hosts_client import CREATE, DELETE, LIST, ask, cli, create_request, delete_request, refusal
from hosts_witness import eventually, names_of_netns
from log_disk import log_on_a_disk

from hostler.api.common.v1 import confirm_pb2, host_pb2
from hostler.api.netns.v1 import namespace_pb2
from hostler.channel import rpc
from hostler.lab.host import Host
from hostler.lab.lab import Lab

pytestmark = [
    pytest.mark.hosts,
    pytest.mark.timeout(300),
    pytest.mark.usefixtures("own_records"),
]

BUNDLE = "/etc/hostler/bundle.json"
LOGS = "/var/log/hostler/netns"
STOP = ["systemctl", "stop", "hostler-netns.service"]
TOML = "/etc/hostler/hostler.toml"
GET_HOST = rpc(host_pb2, "HostService", "GetHost").at("netns")
CONFIRM = rpc(confirm_pb2, "ConfirmService", "ConfirmPending")
PENDING = rpc(confirm_pb2, "ConfirmService", "GetPending").at("netns")
REVERT = rpc(confirm_pb2, "ConfirmService", "RevertPending").at("netns")


@pytest.fixture
def fresh(lab: Lab, h1: Host) -> Iterator[Host]:
    """A host whose netns log is a new one; the old one is put back."""
    h1.run(STOP)
    h1.run(["cp", "-a", LOGS, "/root/logs.before"])
    h1.run(["find", LOGS, "-type", "f", "-delete"])
    try:
        yield h1
    finally:
        # A caller may start it in the midst: then it goes on in the other log, and in this one.
        for _ in range(10):
            h1.run(STOP)
            h1.run(["find", LOGS, "-type", "f", "-delete"])
            h1.run(["cp", "-aT", "/root/logs.before", LOGS])
            h1.run(STOP)
            if h1.run(["diff", "-r", "/root/logs.before", LOGS], check=False).returncode == 0:
                break
        else:
            raise AssertionError("the log before could not be put back")
        h1.run(["rm", "-r", "/root/logs.before"])


def some_changes(lab: Lab, count: int = 3) -> None:
    """Recorded runs: their answers are the client's anchors."""
    for n in range(count):
        cli(lab, "-H", "h1", "--yes", "netns", "create", f"aud{n}")
        cli(lab, "-H", "h1", "--yes", "netns", "delete", f"aud{n}")


def verified(lab: Lab, *args: str, status: int) -> dict[str, Any]:
    """What `audit verify` says of h1's netns log."""
    words = ["-H", "h1", "-o", "json", "audit", "verify", "--domain", "netns", *args]
    (answer,) = json.loads(cli(lab, *words, status=status).stdout)
    assert answer["ok"], answer
    result: dict[str, Any] = answer["result"]
    return result


@pytest.mark.parametrize(
    ("how", "flaw"),
    [
        ("edit", "edited"),
        ("remove", "missing"),
        ("swap", "reordered"),
        ("cut", "cut"),
        ("rewrite", "rewritten"),
    ],
)
def test_tampering_is_found_and_named(lab: Lab, fresh: Host, how: str, flaw: str) -> None:
    some_changes(lab)
    whole = verified(lab, status=0)
    assert whole["verified"] and whole["anchors"] >= 6 and whole["findings"] == []
    (at, *_) = (r["seq"] for r in read(fresh, "netns") if r["kind"] == "outcome" and r.get("run"))
    fresh.run(["systemctl", "stop", "hostler-netns.service"])
    tamper(fresh, "netns", how, at)
    found = verified(lab, status=1)
    told = {each["flaw"]: each for each in found["findings"]}
    print("", *(each["message"] for each in found["findings"]), sep=f"\n{how}: ")
    assert not found["verified"] and flaw in told
    if how == "cut":
        # The daemon that answered has gone on writing where the log was cut.
        assert told[flaw]["to_seq"] == whole["end"]["seq"]
    elif how == "rewrite":
        assert told[flaw]["from_seq"] <= at <= told[flaw]["to_seq"]
    else:
        assert told[flaw]["from_seq"] == at and len(told) == 1
    again = cli(lab, "-H", "h1", "audit", "verify", "--domain", "netns", status=1)
    assert "TAMPERED" in again.stdout and f"h1 netns: {flaw}: " in again.stderr


def test_a_host_that_was_set_up_again_is_told_so_once(lab: Lab, fresh: Host) -> None:
    some_changes(lab, 1)
    verified(lab, status=0)
    fresh.run(["systemctl", "stop", "hostler-netns.service"])
    fresh.run(["find", LOGS, "-type", "f", "-delete"])
    some_changes(lab, 1)
    assert not verified(lab, status=1)["verified"]
    assert verified(lab, "--forget", status=0)["findings"] == []
    assert verified(lab, status=0)["anchors"] == 1


def test_a_run_is_replayed_as_it_happened(lab: Lab, hosts: tuple[Host, ...]) -> None:
    cli(lab, "-H", "all", "--yes", "netns", "create", "rep")
    try:
        told = cli(lab, "audit", "replay", "last", "--domain", "netns").stdout
        run = re.search(r"run ([0-9a-f-]{36}): ", told)
        assert run and "netns create rep" in told
        answers = json.loads(
            cli(lab, "-o", "json", "audit", "replay", "last", "--domain", "netns").stdout
        )
        for answer in answers:
            events = [e["record"] for e in answer["result"]["events"]]
            changes = [e for e in events if e["method"].endswith("/CreateNamespace")]
            assert [e["kind"] for e in changes if e["outcome"] != "OUTCOME_PLANNED"] == [
                "intent",
                "outcome",
            ]
            assert {e["run"] for e in changes} == {run[1]}
            assert changes[-1]["outcome"] == "OUTCOME_APPLIED" and changes[-1]["steps"]
            assert changes[-1]["resources"] == ["rep"]
            assert abs(answer["result"]["clock_ahead_s"]) < 2
        assert {a["host"] for a in answers} == {h.name for h in hosts}
        # Whoever has the id only, and other records, asks the hosts that he names.
        other = cli(lab, "-H", "h1", "audit", "query", "--run", run[1], "--domain", "netns").stdout
        assert "CreateNamespace" in other and "OK" in other
    finally:
        cli(lab, "-H", "all", "--yes", "netns", "delete", "rep")


def test_a_run_that_was_taken_back_is_replayed_to_its_end(
    lab: Lab, hosts: tuple[Host, ...]
) -> None:
    """Nobody confirms; the host's own revert belongs to the run, though no call did it."""
    request = confirmed_create("taken", 2)
    request.change.request_id = str(uuid.uuid4())
    ask(lab, CREATE, request)
    group = request.change.confirm.group

    def reverts() -> list[Any]:
        words = ["-H", "h1", "-o", "json", "audit", "query", "--group", group]
        (answer,) = json.loads(cli(lab, *words, "--domain", "netns").stdout)
        return [r for r in answer["result"]["records"] if r["kind"] == "revert"]

    (revert,) = eventually(reverts)
    assert (revert["outcome"], revert["method"][-16:]) == (
        "OUTCOME_ROLLED_BACK",
        "/CreateNamespace",
    )
    assert revert["group"] == group and revert["identity"].endswith("/user/admin")


@contextlib.contextmanager
def configured(host: Host, table: str) -> Iterator[None]:
    """Configure the table [audit] for a while."""
    before = host.run(["cat", TOML]).stdout
    host.put(TOML, re.sub(r"(?m)^\[audit\]$", f"[audit]\n{table}", before))
    host.run(["systemctl", "stop", "hostler-netns.service"])
    try:
        yield
    finally:
        host.put(TOML, before)
        host.run(["systemctl", "stop", "hostler-netns.service"])


@pytest.fixture
def reserve(small: Host) -> Iterator[Host]:
    """The same, with a reserve that fits."""
    with configured(small, "reserve_bytes = 262144"):
        yield small


@pytest.fixture
def small(lab: Lab, h1: Host) -> Iterator[Host]:
    """A host whose netns log has a disk of its own, of 8 MiB."""
    with log_on_a_disk(h1, "netns", "8m"):
        try:
            yield h1
        finally:
            h1.run(["rm", "-f", f"{LOGS}/hog"])
            for name in ("kept", "pend", "again"):
                ask(lab, DELETE, delete_request(name))


def problem(lab: Lab) -> str:
    """What the daemon says of its log."""
    text: str = ask(lab, GET_HOST, host_pb2.GetHostRequest()).host.audit_problem
    return text


def confirmed_create(name: str, within_s: int) -> Any:
    """A namespace under confirm."""
    request = create_request(name)
    request.change.confirm.within.FromSeconds(within_s)
    request.change.confirm.group = str(uuid.uuid4())
    return request


def fill(host: Host) -> None:
    """Leave no block of the log's disk free."""
    host.run(["dd", "if=/dev/zero", f"of={LOGS}/hog", "bs=4k"], check=False)
    left = host.run(["df", "--output=avail", LOGS]).stdout.split()[-1]
    assert left == "0"


def until_degraded(lab: Lab) -> None:
    """Use up what is laid aside beyond the reserve."""
    for _ in range(400):
        answer = ask(lab, DELETE, delete_request("not-there" + "x" * 20))
        if answer.change.warnings:
            return
    raise AssertionError("the disk is not full")


def test_a_full_disk_locks_nobody_out_and_heals(lab: Lab, reserve: Host) -> None:
    ask(lab, CREATE, create_request("kept"))
    opened = confirmed_create("pend", 120)
    group = ask(lab, CREATE, opened).change.pending.group
    assert problem(lab) == ""
    fill(reserve)
    until_degraded(lab)
    assert "full" in problem(lab)
    error = refusal(lab, CREATE, create_request("other"))
    assert (error.code, error.reason) == ("UNAVAILABLE", "AUDIT_UNAVAILABLE"), error
    for door in DOORS:
        ask(lab, CONFIRM.at(door), confirm_pb2.ConfirmPendingRequest(group=group))
    eventually(lambda: not ask(lab, PENDING, confirm_pb2.GetPendingRequest()).HasField("pending"))
    with broken_bundle(reserve):
        repaired(lab, reserve)
    reserve.run(["rm", f"{LOGS}/hog"])
    eventually(lambda: problem(lab) == "")
    assert not ask(lab, CREATE, create_request("again")).change.warnings
    ask(lab, DELETE, delete_request("again"))
    # The log of this mount is not the one of earlier tests.
    found = verified(lab, "--forget", status=0)
    assert found["verified"] and found["problem"] == ""
    kinds = [r["kind"] for r in read(reserve, "netns")]
    assert "degraded" in kinds and "recovered" in kinds


def repaired(lab: Lab, host: Host) -> None:
    """What puts a host right goes on, reads do, and nothing takes long."""
    start = time.monotonic()
    answer = ask(lab, DELETE, delete_request("kept"))
    assert [w.code for w in answer.change.warnings] == ["AUDIT_DEGRADED"]
    names = ask(lab, LIST, namespace_pb2.ListNamespacesRequest()).namespaces
    assert "pend" in {n.name for n in names} and "full" in problem(lab)
    cli(lab, "-H", "h1", "audit", "list", "--domain", "netns")
    # Daemons come and go.
    host.run(["systemctl", "kill", "-s", "KILL", "hostler-netns.service"])
    assert ask(lab, DELETE, delete_request("pend")).change.changed
    assert time.monotonic() - start < 30


@contextlib.contextmanager
def broken_bundle(host: Host) -> Iterator[None]:
    """A bundle that nobody has signed, in the place of the good one."""
    before = host.run(["cat", BUNDLE]).stdout
    host.put(BUNDLE, "{}")
    try:
        time.sleep(1.5)
        yield
    finally:
        host.put(BUNDLE, before)


def test_reverting_works_on_a_full_disk(lab: Lab, reserve: Host) -> None:
    group = ask(lab, CREATE, confirmed_create("pend", 120)).change.pending.group
    fill(reserve)
    until_degraded(lab)
    ask(lab, REVERT, confirm_pb2.RevertPendingRequest(group=group))
    eventually(lambda: "pend" not in names_of_netns(reserve))


def test_what_no_disk_takes_is_in_the_journal_and_named(lab: Lab, small: Host) -> None:
    with configured(small, "reserve_bytes = 4096"):
        ask(lab, CREATE, create_request("kept"))
        fill(small)
        for _ in range(60):
            answer = ask(lab, DELETE, delete_request("gone"))
        assert "journal" in problem(lab)
        anchor = answer.change.audit
        argv = ["journalctl", "-q", "-o", "json", f"HOSTLER_AUDIT_SEQ={anchor.seq}"]
        small.run(["journalctl", "--sync"])
        (entry,) = [json.loads(line) for line in small.run(argv).stdout.splitlines()]
        assert entry["HOSTLER_AUDIT_HASH"] == anchor.head
        assert json.loads(entry["HOSTLER_AUDIT_LINE"])["hash"] == anchor.head
        # Which process wrote it is journald's word, not the writer's.
        assert entry["_SYSTEMD_UNIT"] == "hostler-netns.service"
        found = verified(lab, "--forget", status=0)
        assert [f["flaw"] for f in found["findings"]] == ["in_journal"]
        small.run(["rm", f"{LOGS}/hog"])
        time.sleep(1.2)
        assert ask(lab, DELETE, delete_request("kept")).change.changed
        found = verified(lab, status=0)
        assert [f["flaw"] for f in found["findings"]] == ["in_journal"] and not found["problem"]


class Receiver:
    """A syslog server on the lab's bridge."""

    def __init__(self, address: str, port: int = 0) -> None:
        self.socket = socket.create_server((address, port))
        self.port = self.socket.getsockname()[1]
        self.data = b""
        self.connections: list[socket.socket] = []
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self.socket.accept()
                self.connections.append(connection)
                threading.Thread(target=self._read, args=[connection], daemon=True).start()

    def _read(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := connection.recv(1 << 16):
                self.data += data

    @property
    def seqs(self) -> set[int]:
        return {int(n) for n in re.findall(rb'\[hostler@32473 seq="(\d+)"', self.data)}

    def close(self) -> None:
        self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()
        for connection in self.connections:
            connection.close()


def as_that_process(host: Host, status: str, argv: list[str]) -> Any:
    """Run a command with the ids that /proc/PID/status tells, and no capability."""
    ids = {
        key: re.search(rf"^{key}:\t(.*)$", status, re.MULTILINE) for key in ("Uid", "Gid", "Groups")
    }
    uid, gid, groups = (found[1].split() if found else [] for found in ids.values())
    drop = ["--bounding-set=-all", "--inh-caps=-all", "--no-new-privs"]
    who = [f"--reuid={uid[0]}", f"--regid={gid[0]}", f"--groups={','.join(groups)}"]
    return host.run(["setpriv", *who, *drop, *argv], check=False)


def test_records_are_shipped_by_a_unit_that_may_do_nothing_else(lab: Lab, fresh: Host) -> None:
    unit = "hostler-ship@netns.service"
    address = lab.bridge.ipv4(1)
    server = Receiver(address)
    some_changes(lab, 1)
    try:
        with configured(fresh, f'ship = "syslog+tcp://{address}:{server.port}"'):
            fresh.run(["systemctl", "start", unit])
            eventually(lambda: server.seqs >= {r["seq"] for r in read(fresh, "netns")})
            pid = fresh.run(["systemctl", "show", "-P", "MainPID", unit]).stdout.strip()
            status = fresh.run(["cat", f"/proc/{pid}/status"]).stdout
            for kind in ("Prm", "Eff", "Bnd", "Amb"):
                assert re.search(rf"Cap{kind}:\t0{{16}}\n", status)
            assert "NoNewPrivs:\t1" in status and not re.search(r"^Uid:\t0\t", status, re.MULTILINE)
            for path in ("/var/lib/hostler/netns", "/run/hostler-netns", "/etc/hostler/pki"):
                done = as_that_process(fresh, status, ["ls", path])
                assert "Permission denied" in done.stderr, (path, done)
            seen = as_that_process(fresh, status, ["head", "-c1", f"{LOGS}/audit.jsonl"])
            assert seen.stdout == "{"
            server.close()
            some_changes(lab, 1)
            time.sleep(2)
            again = Receiver(address, server.port)
            eventually(
                lambda: server.seqs | again.seqs >= {r["seq"] for r in read(fresh, "netns")}, 60
            )
            again.close()
            score = fresh.run(["systemd-analyze", "security", unit], check=False).stdout
            print("\n" + score.splitlines()[-1])
    finally:
        fresh.run(["systemctl", "stop", unit], check=False)
        fresh.run(["rm", "-rf", "/var/lib/private/hostler-ship", "/var/lib/hostler-ship"])
