"""Processes on a real host: systemd, the sandboxed daemon and the launcher, over mTLS."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from hostler.api.netns.v1 import (
    namespace_pb2,
    namespace_pb2_grpc,
    process_pb2,
    process_pb2_grpc,
)
from hostler.lab.host import Host
from hostler.lab.lab import Lab

pytestmark = [pytest.mark.hosts, pytest.mark.timeout(600)]

Process = process_pb2.Process
In = process_pb2.RunProcessRequest
RUNNING, FAILED, EXITED = (
    process_pb2.PROCESS_STATE_RUNNING,
    process_pb2.PROCESS_STATE_FAILED,
    process_pb2.PROCESS_STATE_EXITED,
)


class Door:
    """The netns daemon of one host, by stubs alone."""

    def __init__(self, lab: Lab, host: Host) -> None:
        user = lab.pki / "users" / "admin"
        credentials = grpc.ssl_channel_credentials(
            (lab.pki / "ca.pem").read_bytes(),
            user.with_suffix(".key").read_bytes(),
            user.with_suffix(".pem").read_bytes(),
        )
        self.channel = grpc.secure_channel(
            f"{host.ipv4}:7441", credentials, [("grpc.ssl_target_name_override", host.name)]
        )
        self.namespaces = namespace_pb2_grpc.NamespaceServiceStub(self.channel)
        self.processes = process_pb2_grpc.ProcessServiceStub(self.channel)
        self.host = host

    def create(self, name: str, **more: Any) -> None:
        namespace = namespace_pb2.Namespace(name=name, **more)
        request = namespace_pb2.CreateNamespaceRequest(namespace=namespace)
        self.namespaces.CreateNamespace(request, timeout=60)

    def delete(self, name: str) -> None:
        request = namespace_pb2.DeleteNamespaceRequest(name=name, stop_processes=True)
        self.namespaces.DeleteNamespace(request, timeout=60)

    def start(self, **process: Any) -> Any:
        request = process_pb2.StartProcessRequest(process=Process(**process))
        return self.processes.StartProcess(request, timeout=60)

    def stop(self, namespace: str, name: str) -> Any:
        request = process_pb2.StopProcessRequest(namespace=namespace, name=name)
        return self.processes.StopProcess(request, timeout=60)

    def status(self, namespace: str, name: str) -> Any:
        request = process_pb2.ListProcessesRequest(namespace=namespace)
        listed = self.processes.ListProcesses(request, timeout=60).processes
        return next((p for p in listed if p.process.name == name), None)

    def run(self, *inputs: Any, **process: Any) -> tuple[str, str, Any]:
        """Run to the end: standard output, standard error, and how it ended."""
        requests = [In(start=Process(**process)), *inputs, In(stdin_end=True)]
        out = {"stdout": b"", "stderr": b""}
        last = None
        for i, message in enumerate(self.processes.RunProcess(iter(requests), timeout=60)):
            assert message.seq == i + 1
            last = message.WhichOneof("output")
            assert (last == "started") == (i == 0)
            if last in out:
                out[last] += getattr(message, last)
        assert last == "exited"
        return out["stdout"].decode(), out["stderr"].decode(), message.exited

    def wait(self, namespace: str, name: str, state: int) -> Any:
        deadline = time.monotonic() + 20
        while True:
            status = self.status(namespace, name)
            if status is not None and status.state == state:
                return status
            assert time.monotonic() < deadline, status
            time.sleep(0.1)


@pytest.fixture
def door(lab: Lab, h1: Host) -> Iterator[Door]:
    one = Door(lab, h1)
    yield one
    one.channel.close()


@pytest.fixture
def ns(door: Door) -> Iterator[str]:
    """A namespace of the test's own; afterwards no unit, handle or file of it is left."""
    name = f"t{secrets.token_hex(3)}"
    door.create(name)
    yield name
    door.delete(name)
    assert name not in door.host.run(["ip", "netns", "list"]).stdout.split()
    assert units(door.host, name) == []
    left = door.host.run(["find", "/run/hostler-launcher", "-name", f"{name}*"]).stdout
    assert left == ""


def units(host: Host, namespace: str) -> list[str]:
    listed = ["systemctl", "list-units", "--all", "--plain", "--no-legend"]
    shown = host.run([*listed, f"hostler-run-{namespace}.*"]).stdout
    return [line.split()[0] for line in shown.splitlines()]


def details(error: grpc.RpcError) -> tuple[grpc.StatusCode, str]:
    return error.code(), error.details()


def test_run_streams_both_ways_and_tells_the_end(door: Door, ns: str) -> None:
    script = "cat; echo to-err >/dev/stderr; id -un; exit 5"
    done = door.run(In(stdin=b"hello "), namespace=ns, argv=["sh", "-c", script], user="www-data")
    assert done[:2] == ("hello www-data\n", "to-err\n")
    assert (done[2].exit_code, done[2].exit_signal) == (5, "")
    killed = door.run(namespace=ns, argv=["sh", "-c", "kill -9 $$"])[2]
    assert (killed.exit_code, killed.exit_signal) == (137, "SIGKILL")


def test_much_output_arrives_whole_and_in_order(door: Door, ns: str) -> None:
    out, _, end = door.run(namespace=ns, argv=["seq", "300000"])
    assert out == "".join(f"{i}\n" for i in range(1, 300_001))
    assert end.exit_code == 0


def test_a_signal_and_a_cut_end_a_run(door: Door, ns: str) -> None:
    ended = door.run(In(signal="SIGTERM"), namespace=ns, argv=["sleep", "300"], private_pid=True)
    assert (ended[2].exit_code, ended[2].exit_signal) == (143, "SIGTERM")

    def requests() -> Iterator[Any]:
        yield In(start=Process(namespace=ns, argv=["sleep", "301"], name="cut"))
        time.sleep(60)

    call = door.processes.RunProcess(requests())
    assert next(call).started.unit == f"hostler-run-{ns}.cut.service"
    assert door.host.run(["pgrep", "-fx", "sleep 301"]).stdout
    call.cancel()
    deadline = time.monotonic() + 20
    while units(door.host, ns):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert door.host.run(["pgrep", "-fx", "sleep 301"], check=False).returncode == 1


def test_what_a_process_finds_around_it(door: Door, ns: str) -> None:
    script = (
        "hostname; id -u; readlink /proc/self/ns/net; echo $$; ls /proc | grep -c '^[0-9]*$';"
        "findmnt -rno OPTIONS /tmp; findmnt -rno OPTIONS /var/tmp; ls -A /tmp | wc -l;"
        "cp /bin/true /tmp/t && /tmp/t; echo $?; echo $SECRET"
    )
    out, _, _ = door.run(
        namespace=ns,
        argv=["sh", "-c", script],
        user="www-data",
        environment={"SECRET": "hunter2 $HOME %n"},
        private_tmp=True,
        private_uts=True,
        private_ipc=True,
        private_pid=True,
    )
    lines = out.splitlines()
    net = door.host.run(["ip", "netns", "exec", ns, "readlink", "/proc/self/ns/net"]).stdout.strip()
    # PIDs inside: the init, the shell, and ls with grep.
    assert lines[:4] == [ns, "33", net, "2"]
    assert int(lines[4]) <= 4
    for options in lines[5:7]:
        assert {"noexec", "nosuid", "nodev"} <= set(options.split(","))
    assert lines[7:] == ["0", "126", "hunter2 $HOME %n"]


def test_names_are_resolved_by_the_namespaces_own_server(door: Door) -> None:
    name = f"t{secrets.token_hex(3)}"
    link = {"veth": {"host_addresses": ["10.211.0.1/30"]}, "addresses": ["10.211.0.2/30"]}
    door.create(name, interfaces=[link], dns={"servers": ["10.211.0.1"], "search": ["x.test"]})
    program = (
        "import socket; s=socket.socket(socket.AF_INET, socket.SOCK_DGRAM);"
        "s.bind(('10.211.0.1', 53)); s.settimeout(20); print('up', flush=True);"
        "d, peer = s.recvfrom(512); print(peer[0], d[12:].split(bytes(1))[0].decode())"
    )
    server = door.host.popen(["python3", "-c", program], stdout=-1)
    try:
        assert server.stdout is not None
        assert server.stdout.readline() == "up\n"
        script = "cat /etc/resolv.conf /etc/nsswitch.conf; timeout 3 getent ahostsv4 leak.test"
        out, _, _ = door.run(namespace=name, argv=["sh", "-c", script], user="www-data")
        assert "nameserver 10.211.0.1" in out
        assert "resolve" not in [w for line in out.splitlines() if line.startswith("hosts:")
                                 for w in line.split()]  # fmt: skip
        peer, asked = server.stdout.readline().split(" ", 1)
        assert peer == "10.211.0.2"
        assert "leak" in asked
    finally:
        server.kill()
        server.wait()
        door.delete(name)


def test_start_list_log_signal_stop(door: Door, ns: str) -> None:
    lines = "for i in 1 2 3; do echo line $i; done; while :; do sleep 0.1; done"
    script = f"trap 'echo got-hup' HUP; {lines}"
    shape = {"namespace": ns, "name": "srv", "argv": ["sh", "-c", script], "private_pid": True}
    shape |= {"environment": {"TOKEN": "hunter2"}, "limits": {"memory_max_bytes": 64 << 20}}
    first = door.start(**shape)
    assert first.change.changed
    assert first.status.state == RUNNING
    assert "hunter2" not in str(first)
    assert not door.start(**shape).change.changed
    with pytest.raises(grpc.RpcError) as differs:
        door.start(**{**shape, "user": "www-data"})
    assert differs.value.code() is grpc.StatusCode.ALREADY_EXISTS

    status = door.status(ns, "srv")
    request = process_pb2.ListTasksRequest(namespace=ns, with_argv=True)
    tasks = {t.pid_outside: t for t in door.processes.ListTasks(request, timeout=30).tasks}
    main = tasks[status.main_pid]
    assert (main.pid_inside, main.process, main.network_namespace) == (2, f"{ns}/srv", ns)
    assert list(main.argv) == ["sh", "-c", script]
    told = door.host.run(["readlink", f"/proc/{status.main_pid}/ns/pid"]).stdout.strip()
    assert told == f"pid:[{main.namespaces['pid']}]"
    shown = door.host.run(["systemctl", "show", status.unit]).stdout
    assert "hunter2" not in shown
    assert "MemoryMax=67108864" in shown

    signal = process_pb2.SignalProcessRequest(namespace=ns, name="srv", signal="SIGHUP")
    door.processes.SignalProcess(signal, timeout=30)
    lines, cursor = logs(door, ns, "srv", until="got-hup")
    assert lines == ["line 1", "line 2", "line 3", "got-hup"]
    again = process_pb2.StreamLogsRequest(namespace=ns, name="srv", after_cursor=cursor)
    after = [x.message for b in door.processes.StreamLogs(again, timeout=30) for x in b.lines]
    assert after == ["line 2", "line 3", "got-hup"]

    assert door.stop(ns, "srv").change.changed
    assert not door.stop(ns, "srv").change.changed
    assert door.status(ns, "srv") is None


def logs(door: Door, ns: str, name: str, until: str) -> tuple[list[str], str]:
    """Follow the log up to a line; answers the lines, and the cursor of the first."""
    request = process_pb2.StreamLogsRequest(namespace=ns, name=name, follow=True)
    call = door.processes.StreamLogs(request, timeout=30)
    lines: list[Any] = []
    for batch in call:
        lines += batch.lines
        if lines and lines[-1].message == until:
            call.cancel()
            break
    return [line.message for line in lines], lines[0].cursor


def test_a_failed_start_says_why_and_leaves_nothing(door: Door, ns: str) -> None:
    door.host.put("/usr/local/bin/no-program", "no program", 0o755)
    for more, code, words in (
        ({"argv": ["/usr/local/bin/no-program"]}, "FAILED_PRECONDITION", "Exec format error"),
        ({"user": "www-data", "working_directory": "/root"}, "FAILED_PRECONDITION", "Permission"),
        ({"user": "no-such"}, "INVALID_ARGUMENT", "process.user"),
        ({"group": "no-such"}, "INVALID_ARGUMENT", "process.group"),
        ({"argv": ["no-such-command"]}, "INVALID_ARGUMENT", "process.argv[0]"),
        ({"limits": {"memory_max_bytes": 4096}}, "INVALID_ARGUMENT", "memory_max_bytes"),
        ({"namespace": "no-such"}, "NOT_FOUND", "no-such"),
        ({"persistent": True}, "FAILED_PRECONDITION", "not persistent"),
    ):
        with pytest.raises(grpc.RpcError) as caught:
            door.start(**{"namespace": ns, "name": "bad", "argv": ["sleep", "9"], **more})
        found = details(caught.value)
        assert found[0].name == code, found
        assert words in found[1], found
        assert door.status(ns, "bad") is None
    assert units(door.host, ns) == []


def test_an_ended_process_is_listed_with_its_end_and_started_again(door: Door, ns: str) -> None:
    shape = {"namespace": ns, "name": "once", "argv": ["sh", "-c", "sleep 0.2; exit 4"]}
    door.start(**shape)
    failed = door.wait(ns, "once", FAILED)
    assert (failed.exit_code, failed.main_pid) == (4, 0)
    assert door.start(**shape).change.changed
    door.start(**{**shape, "name": "clean", "argv": ["true"]})
    clean = door.wait(ns, "clean", EXITED)
    assert clean.HasField("exit_code")
    assert clean.exit_code == 0


def test_what_fails_is_started_again_as_asked(door: Door, ns: str) -> None:
    restart = process_pb2.Restart(
        policy=process_pb2.Restart.POLICY_ON_FAILURE, delay=Duration(nanos=200_000_000)
    )
    door.start(namespace=ns, name="again", argv=["sh", "-c", "sleep 0.2; exit 1"], restart=restart)
    deadline = time.monotonic() + 20
    while door.status(ns, "again").restart_count < 2:
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_the_namespace_goes_with_its_last_process_and_its_children(door: Door) -> None:
    name = f"t{secrets.token_hex(3)}"
    door.create(name, remove_with_processes=True)
    door.start(namespace=name, name="a", argv=["sh", "-c", "sleep 3 & sleep 0.2"])
    door.start(namespace=name, name="b", argv=["sleep", "1"])
    time.sleep(1.5)
    assert name in door.host.run(["ip", "netns", "list"]).stdout.split()
    deadline = time.monotonic() + 20
    while name in door.host.run(["ip", "netns", "list"]).stdout.split():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    left = door.host.run(["find", "/run/hostler-netns", "-name", f"{name}*"]).stdout.split()
    assert [p for p in left if "/processes/" not in p] == []
    door.delete(name)


def test_persistent_processes_alone_are_back_after_a_power_cut(lab: Lab, h1: Host) -> None:
    door = Door(lab, h1)
    door.create("lasting", persistent=True)
    door.start(
        namespace="lasting", name="kept", argv=["sleep", "700"], user="www-data", persistent=True
    )
    door.start(namespace="lasting", name="gone", argv=["sleep", "701"])
    door.channel.close()
    time.sleep(1)
    lab.kill("h1")
    lab.boot("h1")
    door = Door(lab, lab.host("h1"))
    try:
        kept = door.wait("lasting", "kept", RUNNING)
        shown = door.host.run(["ps", "-o", "user=,args=", "-p", str(kept.main_pid)]).stdout
        assert shown.split() == ["www-data", "sleep", "700"]
        assert door.status("lasting", "gone") is None
        assert units(door.host, "lasting") == ["hostler-run-lasting.kept.service"]
    finally:
        door.delete("lasting")
        door.channel.close()


def test_environment_is_in_no_audit_record_and_no_journal(door: Door, ns: str) -> None:
    secret = f"hunter{secrets.token_hex(8)}"
    door.start(namespace=ns, name="quiet", argv=["sleep", "9"], environment={"T": secret})
    door.run(namespace=ns, argv=["true"], environment={"T": secret})
    audit = door.host.run(["cat", "/var/log/hostler/netns/audit.jsonl"]).stdout
    assert json.loads(audit.splitlines()[-1])
    assert ns in audit
    assert secret not in audit
    assert secret not in door.host.run(["journalctl", "--no-pager", "-o", "export"]).stdout


def test_a_slow_reader_of_a_log_is_told_what_it_missed(door: Door, ns: str) -> None:
    door.start(namespace=ns, name="chatty", argv=["sh", "-c", "sleep 1; seq 9000; sleep 300"])
    request = process_pb2.StreamLogsRequest(namespace=ns, name="chatty", follow=True)
    call = door.processes.StreamLogs(request, timeout=60)
    time.sleep(4)
    told, last = 0, ""
    for seq, batch in enumerate(call, 1):
        assert batch.seq == seq
        told += len(batch.lines) + batch.dropped
        last = batch.lines[-1].message if batch.lines else last
        if last == "9000":
            call.cancel()
            break
    assert told == 9000


def test_a_run_is_listed_while_it_runs(door: Door, ns: str) -> None:
    def requests() -> Iterator[Any]:
        yield In(start=Process(namespace=ns, argv=["sleep", "302"], user="www-data"))
        time.sleep(60)

    call = door.processes.RunProcess(requests())
    started = next(call).started
    request = process_pb2.ListProcessesRequest(namespace=ns)
    (listed,) = door.processes.ListProcesses(request, timeout=30).processes
    assert (listed.unit, listed.main_pid) == (started.unit, started.pid)
    assert (list(listed.process.argv), listed.process.user) == (["sleep", "302"], "www-data")
    call.cancel()
    deadline = time.monotonic() + 20
    while units(door.host, ns):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_a_killed_daemon_takes_its_runs_along(door: Door, ns: str) -> None:
    def requests() -> Iterator[Any]:
        yield In(start=Process(namespace=ns, argv=["sleep", "303"]))
        time.sleep(60)

    call = door.processes.RunProcess(requests())
    assert next(call).started.pid
    door.host.run(["systemctl", "kill", "-s", "KILL", "hostler-netns.service"])
    with pytest.raises(grpc.RpcError):
        next(call)
    deadline = time.monotonic() + 20
    while units(door.host, ns):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_many_processes_are_listed_in_pages(door: Door, ns: str) -> None:
    for i in range(30):
        door.start(namespace=ns, name=f"p{i:02}", argv=["sh", "-c", "sleep 300", "x" * 4000])
    seen: list[str] = []
    token = ""
    while True:
        request = process_pb2.ListProcessesRequest(namespace=ns, page_size=7, page_token=token)
        page = door.processes.ListProcesses(request, timeout=30)
        seen += [p.process.name for p in page.processes]
        token = page.next_page_token
        if not token:
            break
    assert seen == [f"p{i:02}" for i in range(30)]


def test_the_shortest_processes_have_run_every_time(door: Door, ns: str) -> None:
    for i in range(10):
        assert door.run(namespace=ns, argv=["true"])[2].exit_code == 0
        assert door.run(namespace=ns, argv=["false"], private_pid=True)[2].exit_code == 1
        assert door.start(namespace=ns, name=f"f{i}", argv=["false"]).change.changed
        assert door.wait(ns, f"f{i}", FAILED).exit_code == 1
        assert door.start(namespace=ns, name=f"t{i}", argv=["true"]).change.changed
        assert door.wait(ns, f"t{i}", EXITED).exit_code == 0
