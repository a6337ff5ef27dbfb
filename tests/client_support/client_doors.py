"""Real gRPC servers with mTLS on loopback, for tests of the client: what they answer is written
here, how they are reached is as on a real host. Nothing of a kernel is imitated but its answers."""

from __future__ import annotations

import hashlib
import socket
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import client_connections
import client_pending
import client_tracing
import grpc
from client_common import Common, Counters
from client_errors import refuse, rich
from client_firewall import add_firewall_to
from client_packets import PacketLog, PacketLogs
from client_pending import Pending

from hostler.api.common.v1 import audit_pb2_grpc, change_pb2, host_pb2_grpc
from hostler.api.firewall.v1 import (
    packet_log_pb2_grpc,
)
from hostler.api.netns.v1 import (
    counter_pb2_grpc,
    namespace_pb2,
    namespace_pb2_grpc,
    process_pb2,
    process_pb2_grpc,
)
from hostler.pki import Authority

TRUST_DOMAIN = "test.hostler"
# The doors of every host.
DOMAINS = ("netns", "storage", "firewall", "tracing", "ssl")


class Host:
    """What one host has, which calls it got, and which of them it is told to refuse."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.namespaces: dict[str, Any] = {}
        self.rulesets: dict[str, Any] = {}
        self.sets: dict[str, dict[str, Any]] = {}
        self.shadow: Any = None
        self.findings: list[Any] = []
        self.touches_caller = False
        self.pause_s = 0.0
        self.processes: dict[tuple[str, str], Any] = {}
        self.calls: list[tuple[str, Any]] = []
        self.runs: list[str] = []
        self.answers: dict[str, tuple[Any, Any]] = {}
        self.changes = 0
        self.refusals: dict[str, list[Any]] = {}
        self.network = "10.200.0"
        self.bundles: dict[str, bytes] = {}
        self.doors: dict[str, Door] = {}
        self.peers: list[tuple[str, str]] = []
        self.pending = Pending(self)
        self.jobs: dict[str, dict[str, list[Any]]] = {}
        self.gives_up = False
        self.packets = PacketLog()
        self.approvals: dict[str, dict[str, Any]] = {}

    def note(self, method: str, request: Any, context: grpc.ServicerContext) -> None:
        """Record a call; carry out the next refusal there is for the method."""
        self.calls.append((method, request))
        self.runs.append(dict(context.invocation_metadata()).get("hostler-run", ""))
        waiting = self.refusals.get(method)
        if waiting:
            what = waiting.pop(0)
            if callable(what):
                what(request, context)
            elif what is not None:
                refuse(context, what)

    def named(self, method: str) -> list[Any]:
        """The requests that a method got."""
        return [request for name, request in self.calls if name == method]

    def change(
        self, options: Any, steps: list[tuple[str, str]], context: grpc.ServicerContext
    ) -> change_pb2.Change:
        """The answer to a change; ABORTED if the caller saw another plan."""
        digest = hashlib.sha256(repr(steps).encode()).hexdigest()
        if options.plan_hash and options.plan_hash != digest:
            refuse(context, rich(grpc.StatusCode.ABORTED, "PLAN_CHANGED", "another plan by now"))
        pending = self.pending.join(options, steps, context)
        outcome = "OUTCOME_PLANNED" if options.validate_only else "OUTCOME_APPLIED"
        if pending is not None:
            outcome = "OUTCOME_PENDING_CONFIRM"
        plan = change_pb2.Plan(
            hash=digest, steps=[change_pb2.PlanStep(kind=k, description=d) for k, d in steps]
        )
        audit = None
        if not options.validate_only:
            self.changes += 1
            head = hashlib.sha256(f"{self.name} {self.changes}".encode()).hexdigest()
            audit = change_pb2.AuditAnchor(seq=self.changes, head=head)
        return change_pb2.Change(
            outcome=outcome, plan=plan, changed=bool(steps), pending=pending, audit=audit
        )

    def again(self, request: Any, context: grpc.ServicerContext) -> Any:
        """What a request with the same id was answered, None if there was none, as daemons do."""
        if request.change.request_id not in self.answers:
            return None
        before, answer = self.answers[request.change.request_id]
        if before != request:
            refuse(context, rich(grpc.StatusCode.INVALID_ARGUMENT, "REQUEST_ID_REUSED", "another"))
        return answer


class Namespaces(namespace_pb2_grpc.NamespaceServiceServicer):
    def __init__(self, host: Host) -> None:
        self.host = host

    def CreateNamespace(self, request: Any, context: Any) -> Any:
        self.host.note("CreateNamespace", request, context)
        if (answer := self.host.again(request, context)) is not None:
            return answer
        space = namespace_pb2.Namespace()
        space.CopyFrom(request.namespace)
        for index, link in enumerate(space.interfaces):
            link.name = link.name or f"eth{index}"
            if link.ipv4_pool:
                link.addresses.append(f"{self.host.network}.2/30")
            if link.ipv6_pool:
                link.addresses.append("fd00:200::2/64")
        steps = []
        if space.name not in self.host.namespaces:
            steps = [("CreateNamespace", f"create namespace {space.name}")]
            steps += [
                ("AddAddress", f"add {a} to {link.name}")
                for link in space.interfaces
                for a in link.addresses
            ]
        change = self.host.change(request.change, steps, context)
        answer = namespace_pb2.CreateNamespaceResponse(namespace=space, change=change)
        if not request.change.validate_only:
            self.host.namespaces[space.name] = space
            self.host.answers[request.change.request_id] = (request, answer)
        return answer

    def GetNamespace(self, request: Any, context: Any) -> Any:
        self.host.note("GetNamespace", request, context)
        if request.name not in self.host.namespaces:
            refuse(context, rich(grpc.StatusCode.NOT_FOUND, "NAMESPACE_NOT_FOUND", "not there"))
        return namespace_pb2.GetNamespaceResponse(namespace=self.host.namespaces[request.name])

    def ListNamespaces(self, request: Any, context: Any) -> Any:
        self.host.note("ListNamespaces", request, context)
        names = sorted(self.host.namespaces)
        first = int(request.page_token or 0)
        token = str(first + 2) if first + 2 < len(names) else ""
        return namespace_pb2.ListNamespacesResponse(
            namespaces=[self.host.namespaces[name] for name in names[first : first + 2]],
            next_page_token=token,
        )

    def DeleteNamespace(self, request: Any, context: Any) -> Any:
        self.host.note("DeleteNamespace", request, context)
        steps = [("Stop", f"stop {key}") for key in self.host.processes if key[0] == request.name]
        if request.name in self.host.namespaces:
            steps += [("DeleteNamespace", f"delete namespace {request.name}")]
        change = self.host.change(request.change, steps, context)
        if not request.change.validate_only:
            self.host.namespaces.pop(request.name, None)
            for key in [key for key in self.host.processes if key[0] == request.name]:
                del self.host.processes[key]
        return namespace_pb2.DeleteNamespaceResponse(change=change)

    def ApplyNamespaces(self, request: Any, context: Any) -> Any:
        self.host.note("ApplyNamespaces", request, context)
        new = [s for s in request.namespaces if self.host.namespaces.get(s.name) != s]
        steps = [("CreateNamespace", f"create namespace {space.name}") for space in new]
        change = self.host.change(request.change, steps, context)
        if not request.change.validate_only:
            self.host.namespaces |= {space.name: space for space in new}
        return namespace_pb2.ApplyNamespacesResponse(namespaces=request.namespaces, change=change)


class Processes(process_pb2_grpc.ProcessServiceServicer):
    def __init__(self, host: Host) -> None:
        self.host = host

    def StartProcess(self, request: Any, context: Any) -> Any:
        self.host.note("StartProcess", request, context)
        process = request.process
        if process.namespace not in self.host.namespaces:
            refuse(context, rich(grpc.StatusCode.NOT_FOUND, "NAMESPACE_NOT_FOUND", "not there"))
        key = (process.namespace, process.name)
        steps = [] if key in self.host.processes else [("StartProcess", f"start {key}")]
        change = self.host.change(request.change, steps, context)
        status = process_pb2.ProcessStatus(process=process, main_pid=4242)
        if not request.change.validate_only:
            self.host.processes[key] = status
        return process_pb2.StartProcessResponse(status=status, change=change)

    def StopProcess(self, request: Any, context: Any) -> Any:
        self.host.note("StopProcess", request, context)
        key = (request.namespace, request.name)
        steps = [("StopProcess", f"stop {key}")] if key in self.host.processes else []
        change = self.host.change(request.change, steps, context)
        if not request.change.validate_only:
            self.host.processes.pop(key, None)
        return process_pb2.StopProcessResponse(change=change)

    def ListProcesses(self, request: Any, context: Any) -> Any:
        self.host.note("ListProcesses", request, context)
        found = [s for k, s in self.host.processes.items() if request.namespace in ("", k[0])]
        return process_pb2.ListProcessesResponse(processes=found)

    def ListTasks(self, request: Any, context: Any) -> Any:
        self.host.note("ListTasks", request, context)
        task = process_pb2.Task(
            pid_outside=4242,
            pid_inside=1,
            comm="evil\x1b[31m",
            argv=["python3", "-m", "http.server"] if request.with_argv else [],
            namespaces={"net": 4026531840},
            network_namespace="web",
        )
        return process_pb2.ListTasksResponse(tasks=[task])

    def RunProcess(self, requests: Iterator[Any], context: Any) -> Iterator[Any]:
        """Says what it was asked for, echoes its input, exits with the number it was given."""
        process = next(requests).start
        self.host.note("RunProcess", process, context)
        answer = process_pb2.RunProcessResponse
        yield answer(seq=1, started=answer.Started(unit="x.service", pid=4242))
        yield answer(seq=2, stdout=f"on {self.host.name}\nhalf".encode())
        yield answer(seq=3, stderr=b"to stderr\n")
        for request in requests:
            if request.WhichOneof("input") == "stdin":
                yield answer(seq=4, stdout=request.stdin)
            elif request.stdin_end:
                break
            elif request.signal:
                yield answer(seq=5, exited=answer.Exited(exit_code=130, exit_signal="SIGINT"))
                return
        code = int(process.argv[-1]) if process.argv[-1].isdigit() else 0
        yield answer(seq=6, exited=answer.Exited(exit_code=code))

    def StreamLogs(self, request: Any, context: Any) -> Iterator[Any]:
        """Ten lines with cursors; cut after the third of a stream unless it is the last part."""
        self.host.note("StreamLogs", request, context)
        first = int(request.after_cursor or 0)
        for number in range(first + 1, 11):
            line = process_pb2.LogLine(message=f"line {number}", cursor=str(number), pid=1)
            yield process_pb2.StreamLogsResponse(seq=number - first, lines=[line])
            if request.follow and number == first + 3:
                context.abort(grpc.StatusCode.UNAVAILABLE, "going away")


def make_server(host: Host, domain: str, workers: int = 16) -> grpc.Server:
    """A server with the services of a domain and those that every daemon has."""
    server = grpc.server(ThreadPoolExecutor(workers))
    common = Common(host, domain)
    host_pb2_grpc.add_HostServiceServicer_to_server(common, server)
    audit_pb2_grpc.add_AuditServiceServicer_to_server(common, server)
    client_pending.add_to(server, host, domain)
    if domain == "netns":
        namespace_pb2_grpc.add_NamespaceServiceServicer_to_server(Namespaces(host), server)
        process_pb2_grpc.add_ProcessServiceServicer_to_server(Processes(host), server)
        counter_pb2_grpc.add_CounterServiceServicer_to_server(Counters(host), server)
    elif domain == "firewall":
        client_connections.add_to(server, host)
        add_firewall_to(server, host)
        packet_log_pb2_grpc.add_PacketLogServiceServicer_to_server(PacketLogs(host), server)
    elif domain == "tracing":
        client_tracing.add_to(server)
    return server


class Door:
    """A door of a host, which can be shut, and opened again at the same port."""

    def __init__(self, host: Host, domain: str, credentials: grpc.ServerCredentials) -> None:
        self._host, self._domain, self._credentials = host, domain, credentials
        self._server: grpc.Server | None = None
        self.port = 0
        self.open()

    def open(self) -> None:
        """Serve; no effect if it is open."""
        if self._server is not None:
            return
        self._server = make_server(self._host, self._domain)
        self.port = self._server.add_secure_port(f"127.0.0.1:{self.port}", self._credentials)
        self._server.start()

    def shut(self) -> None:
        """Take no connection, and cut those there are, calls in flight included."""
        server, self._server = self._server, None
        if server is not None:
            server.stop(None)

    def end(self) -> None:
        """Shut it and wait."""
        server, self._server = self._server, None
        if server is not None:
            server.stop(None).wait(5)


class World:
    """A folder with a CA, a configuration and a fleet, and the servers of its hosts."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.authority = Authority.create(folder / "pki", TRUST_DOMAIN)
        self.authority.issue_user("admin")
        self.config = folder / "config.toml"
        self.config.write_text(
            'current = "test"\n[contexts.test]\n'
            f'trust_domain = "{TRUST_DOMAIN}"\nca = "pki/ca.pem"\n'
            'certificate = "pki/users/admin.pem"\nkey = "pki/users/admin.key"\n'
            'fleet = "fleet.toml"\npki = "pki"\ndns = ["192.0.2.53"]\n'
        )
        self.fleet = folder / "fleet.toml"
        self.fleet.write_text("")
        self.hosts: dict[str, Host] = {}
        self._ends: list[Callable[[], Any]] = []

    def credentials(self, name: str, others: Sequence[str] = ()) -> grpc.ServerCredentials:
        """The server's side of mTLS for a host, whose certificate is issued."""
        self.authority.issue_host(name, [name, *others], ["127.0.0.1"])
        path = self.authority.certificate_path("host", name)
        pair = (path.with_suffix(".key").read_bytes(), path.read_bytes())
        return grpc.ssl_server_credentials([pair], self.authority.ca_pem, True)

    def start(self, name: str, labels: str = "") -> Host:
        """Start all doors of a host and add it to the fleet."""
        host = self.hosts[name] = Host(name)
        credentials = self.credentials(name)
        ports = {}
        for domain in DOMAINS:
            host.doors[domain] = Door(host, domain, credentials)
            ports[domain] = host.doors[domain].port
            self._ends.append(host.doors[domain].end)
        self.enter(name, ports, labels)
        return host

    def dead(self, name: str) -> None:
        """A host whose doors are closed."""
        with socket.create_server(("127.0.0.1", 0)) as closed:
            port = closed.getsockname()[1]
        self.enter(name, dict.fromkeys(DOMAINS, port))

    def silent(self, name: str) -> None:
        """A host that accepts connections and never says a word."""
        listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self._ends.append(listener.close)
        port = listener.getsockname()[1]
        self.enter(name, dict.fromkeys(DOMAINS, port))

    def enter(self, name: str, ports: dict[str, int], labels: str = "") -> None:
        """Add a host to the fleet."""
        words = ", ".join(f"{domain} = {port}" for domain, port in ports.items())
        with self.fleet.open("a") as file:
            file.write(f'[hosts.{name}]\naddress = "127.0.0.1"\nports = {{ {words} }}\n')
            if labels:
                file.write(f"labels = {{ {labels} }}\n")

    def close(self) -> None:
        """Stop every server."""
        for end in reversed(self._ends):
            end()


@contextmanager
def world(folder: Path) -> Iterator[World]:
    """A world that ends with the test."""
    made = World(folder)
    try:
        yield made
    finally:
        made.close()
