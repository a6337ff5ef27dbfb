"""A host whose doors are knocked at with things that are no calls, while honest calls go on.

Whatever is thrown at it, `Siege.unharmed` says what must hold: the daemons are the ones that they
were, they told of no fault of their own, and an honest caller was answered all the time.
"""

from __future__ import annotations

import errno
import json
import socket
import ssl
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import security_lab as support

from hostler.api.common.v1 import host_pb2, host_pb2_grpc
from hostler.lab import tool
from hostler.lab.host import Host
from hostler.lab.lab import Lab

# Addresses of the lab's network that no host has, for callers from elsewhere.
ADDRESSES = range(200, 220)
_HONEST_S, _PATIENCE_S = 0.2, 30.0
_LOOK = """
import json, os, subprocess, sys
def told(pid):
    lines = open(f"/proc/{pid}/status").read().splitlines()
    kib = {l.split(":")[0]: int(l.split()[1]) for l in lines if l.startswith(("VmRSS", "VmHWM"))}
    return {"rss_kib": kib["VmRSS"], "most_kib": kib["VmHWM"],
            "fds": len(os.listdir(f"/proc/{pid}/fd")),
            "threads": len(os.listdir(f"/proc/{pid}/task"))}
def unit(name):
    argv = ["systemctl", "show", name, "--property=MainPID,NRestarts,ActiveState,Result"]
    shown = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    found = dict(line.split("=", 1) for line in shown.splitlines())
    pid = int(found["MainPID"])
    return {"pid": pid, "restarts": int(found["NRestarts"]), "state": found["ActiveState"],
            "result": found["Result"], **(told(pid) if pid else {})}
failed = ["systemctl", "list-units", "--failed", "--plain", "--no-legend", "hostler*"]
failed = subprocess.run(failed, capture_output=True, text=True, check=True).stdout
print(json.dumps([failed, {name: unit(name) for name in sys.argv[1:]}]))
"""
# What a daemon, or gRPC below it, writes when something of its own went wrong.
FAULTS = ("internal error", "Traceback (most recent call last)", "raised by servicer method")


@dataclass(frozen=True)
class Figures:
    """What a daemon's process is like at one moment."""

    pid: int
    restarts: int
    state: str
    result: str
    rss_kib: int = 0
    most_kib: int = 0
    fds: int = 0
    threads: int = 0


class Honest(threading.Thread):
    """Asks one door what host it is, again and again, from the machine's own address."""

    def __init__(self, lab: Lab, host: Host, domain: str) -> None:
        super().__init__(name=f"honest caller of {domain}", daemon=True)
        self.domain, self.answers, self.slowest_s = domain, 0, 0.0
        self.errors: list[str] = []
        self.over = threading.Event()
        self._channel = channel_of(lab, host, domain, "admin")

    def run(self) -> None:
        stub = host_pb2_grpc.HostServiceStub(self._channel)
        while not self.over.wait(_HONEST_S):
            begun = time.monotonic()
            try:
                stub.GetHost(host_pb2.GetHostRequest(), timeout=_PATIENCE_S, wait_for_ready=True)
                self.answers += 1
            except grpc.RpcError as e:
                self.errors.append(f"{self.domain}: {e}")
            self.slowest_s = max(self.slowest_s, time.monotonic() - begun)
        self._channel.close()


def channel_of(lab: Lab, host: Host, domain: str, who: str) -> grpc.Channel:
    """A channel as honest callers have it: gRPC tries again what the daemon has not seen."""
    pair = support.Pair.of(lab.pki, who)
    credentials = grpc.ssl_channel_credentials(
        (lab.pki / "ca.pem").read_bytes(), pair.key.read_bytes(), pair.certificate.read_bytes()
    )
    options = [
        ("grpc.ssl_target_name_override", host.name),
        ("grpc.use_local_subchannel_pool", 1),
        # What a daemon says of the faults of a request may be more than a client usually takes.
        ("grpc.max_metadata_size", 64 << 10),
        ("grpc.absolute_max_metadata_size", 1 << 20),
    ]
    return grpc.secure_channel(f"{host.ipv4}:{support.PORTS[domain]}", credentials, options)


@dataclass
class Siege:
    """One host under attack; `told` counts what was thrown at it, and what it answered."""

    lab: Lab
    host: Host
    told: dict[str, Counter[str]] = field(default_factory=dict)
    honest: dict[str, Honest] = field(default_factory=dict)
    before: dict[str, Figures] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.journal = support.Journal(self.host)
        self._answers: Counter[str] = Counter()

    def count(self, kind: str, outcome: str, times: int = 1) -> None:
        """Note what became of something that was sent."""
        self.told.setdefault(kind, Counter())[outcome] += times

    def figures(self) -> dict[str, Figures]:
        """What the daemons' processes are like now."""
        units = [f"hostler-{domain}.service" for domain in support.DOMAINS]
        failed, shown = json.loads(self.host.run(["python3", "-Ic", _LOOK, *units]).stdout)
        assert failed == "", failed
        return {d: Figures(**shown[u]) for d, u in zip(support.DOMAINS, units, strict=True)}

    @contextmanager
    def begun(self) -> Iterator[Siege]:
        """Have honest callers at every door, and addresses to attack from."""
        bridge = self.lab.bridge
        with _addresses([bridge.ipv4(n) for n in ADDRESSES], bridge.ifname):
            self.honest = {d: Honest(self.lab, self.host, d) for d in support.DOMAINS}
            for caller in self.honest.values():
                caller.start()
            try:
                self._all_answered()
                self.before = self.figures()
                yield self
            finally:
                for caller in self.honest.values():
                    caller.over.set()
                for caller in self.honest.values():
                    caller.join(2 * _PATIENCE_S)

    def _all_answered(self) -> None:
        """Wait until every honest caller was answered once more than the last time."""
        end = time.monotonic() + 2 * _PATIENCE_S
        for domain, caller in self.honest.items():
            while caller.answers <= self._answers[domain] and not caller.errors:
                assert time.monotonic() < end, f"{domain}: nobody is answered any more"
                time.sleep(0.02)
            self._answers[domain] = caller.answers

    def unharmed(self) -> None:
        """Fail unless the daemons are those that they were, and everybody else was answered."""
        # Two in a row: one may have been on its way before.
        self._all_answered()
        self._all_answered()
        assert [error for caller in self.honest.values() for error in caller.errors] == []
        for domain, now in self.figures().items():
            was = self.before[domain]
            assert (now.pid, now.restarts) == (was.pid, was.restarts), (domain, was, now)
        written = self.journal.text_of_all("hostler")
        found = [line for line in written.splitlines() if any(f in line for f in FAULTS)]
        assert found == [], found[:5]

    def tcp(self, domain: str, source: int = ADDRESSES[0]) -> socket.socket:
        """A connection from one of the other addresses."""
        address = (self.lab.bridge.ipv4(source), 0)
        port = support.PORTS[domain]
        return socket.create_connection((self.host.ipv4, port), 20, source_address=address)

    def tls(self, domain: str, who: str = "viewer", source: int = ADDRESSES[0]) -> ssl.SSLSocket:
        """A connection with a good certificate, its handshake done."""
        pair = support.Pair.of(self.lab.pki, who)
        context = ssl.create_default_context(cafile=self.lab.pki / "ca.pem")
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.set_alpn_protocols(["h2"])
        context.load_cert_chain(pair.certificate, pair.key)
        plain = self.tcp(domain, source)
        return context.wrap_socket(plain, server_hostname=self.host.name)

    def local(self, name: str) -> socket.socket:
        """A connection to a socket in the host's /run/hostler, as root."""
        path = f"/proc/{self.host.leader()}/root/run/hostler/{name}"
        for kind in (socket.SOCK_STREAM, socket.SOCK_SEQPACKET):
            sock = socket.socket(socket.AF_UNIX, kind)
            sock.settimeout(20)
            try:
                sock.connect(path)
            except OSError as e:
                sock.close()
                if e.errno != errno.EPROTOTYPE:
                    raise
            else:
                return sock
        raise AssertionError(f"{name} is of no kind that is known here")

    def sockets(self) -> list[str]:
        """The unix sockets of the daemons and of what works for them."""
        found = self.host.run(["find", "/run/hostler", "-maxdepth", "1", "-type", "s"]).stdout
        return sorted(Path(path).name for path in found.split())


@contextmanager
def _addresses(addresses: list[str], link: str) -> Iterator[None]:
    def change(verb: str) -> None:
        lines = [f"address {verb} {address}/32 dev {link}\n" for address in addresses]
        tool.run(["/usr/sbin/ip", "-force", "-batch", "-"], stdin="".join(lines))

    change("replace")
    try:
        yield
    finally:
        change("delete")


def heard(sock: Any, patience_s: float) -> tuple[bytes, bool]:
    """What the other side says until it closes or is quiet so long, and whether it has closed."""
    said = b""
    sock.settimeout(patience_s)
    while True:
        try:
            more = sock.recv(1 << 16)
        except TimeoutError:
            return said, False
        except OSError:
            return said, True
        if not more:
            return said, True
        said += more
