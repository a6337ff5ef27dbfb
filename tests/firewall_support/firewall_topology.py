"""Hosts made of network namespaces: a client, a router, and servers behind it.

client 198.51.100.2 -- eth0 198.51.100.1 [router] br0 10.213.0.1 -- web 10.213.0.2
       2001:db8:1::2        2001:db8:1::1             fd13::1    -- two 10.213.0.3
                                         v3 10.214.0.1 / fd14::1 -- far 10.214.0.2
"""

from __future__ import annotations

import ctypes
import json
import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TypeVar

from hostlerd.firewall.kernel import Kernel
from hostlerd.firewall.model.document import parse
from hostlerd.firewall.model.steps import ReplaceTable
from hostlerd.firewall.plan import change
from hostlerd.runtime.steps import Plan

T = TypeVar("T")

_CLONE_NEWNET = 0x40000000
_LIBC = ctypes.CDLL(None, use_errno=True)
QUIET_S = 0.7


class Host:
    """A network namespace with a name."""

    def __init__(self, name: str) -> None:
        self.name = name

    def run(self, work: Callable[..., T], *args: object) -> T:
        """Do something in the namespace, in a thread that ends with it; answer what it answers."""
        result: list[T] = []
        failure: list[BaseException] = []

        def enter() -> None:
            try:
                fd = os.open(f"/run/netns/{self.name}", os.O_RDONLY)
                if _LIBC.setns(fd, _CLONE_NEWNET) != 0:
                    raise OSError(ctypes.get_errno(), "setns")
                os.close(fd)
                result.append(work(*args))
            except BaseException as e:  # noqa: BLE001 - raised again in the caller's thread
                failure.append(e)

        thread = threading.Thread(target=enter)
        thread.start()
        thread.join()
        if failure:
            raise failure[0]
        return result[0]

    def ip(self, *args: str) -> str:
        """Run ip(8) in it."""
        return tool("/usr/sbin/ip", "-n", self.name, *args)

    def exec(self, *argv: str) -> str:
        """Run a command in it."""
        return tool("/usr/sbin/ip", "netns", "exec", self.name, *argv)

    def sysctl(self, name: str, value: str | None = None) -> str:
        """Read a sysctl, or set it."""
        setting = name if value is None else f"{name}={value}"
        return self.exec("/usr/sbin/sysctl", "-n", setting).strip()

    def nft_rules(self) -> list[dict[str, Any]]:
        """Answer the rules of our table, as nft lists them; none if there is no table."""
        entries = json.loads(self.exec("/usr/sbin/nft", "-j", "list", "ruleset"))["nftables"]
        rules = [e["rule"] for e in entries if "rule" in e]
        return [r for r in rules if (r["family"], r["table"]) == ("inet", "hostler")]

    def labels(self) -> list[str]:
        """Answer the labels of the rules of our table."""
        return [r["comment"].split(" ")[0] for r in self.nft_rules() if "comment" in r]

    @contextmanager
    def serving(
        self, port: int, banner: str, kind: int = socket.SOCK_STREAM, family: int = socket.AF_INET6
    ) -> Iterator[None]:
        """Answer everybody on the port with the banner and the address they came from."""
        with self.run(_bound, family, kind, port) as server:
            serve = _serve_tcp if kind == socket.SOCK_STREAM else _serve_udp
            thread = threading.Thread(target=serve, args=(server, banner))
            thread.start()
            try:
                yield
            finally:
                if kind == socket.SOCK_STREAM:
                    server.shutdown(socket.SHUT_RDWR)
                else:
                    server.settimeout(0.01)
                thread.join(5)

    def fetch(self, address: str, port: int, kind: int = socket.SOCK_STREAM) -> str:
        """Answer what the server there says; "" for no answer, "refused" if it is refused."""
        return self.run(_fetch, address, port, kind)


def tool(*argv: str) -> str:
    """Run a tool that has to succeed; answer its output."""
    return subprocess.run(argv, check=True, capture_output=True, text=True, timeout=30).stdout


class Router(Host):
    """A host with our firewall on it."""

    def install(self, state_dir: Path, run_dir: Path, **config: object) -> None:
        """Give it the folders of a daemon."""
        self.kernel = Kernel(config, state_dir, run_dir)

    def apply(self, **document: Any) -> Plan:
        """Apply a ruleset the way the service does."""
        return self.run(self._apply, document)

    def delete(self, name: str) -> Plan:
        """Delete a ruleset the way the service does."""
        return self.run(lambda: self._carry_out(change.delete(name, self.kernel.observe())))

    def _apply(self, document: dict[str, Any]) -> Plan:
        return self._carry_out(change.apply(parse(document), self.kernel.observe()))

    def _carry_out(self, plan: Plan) -> Plan:
        for step in plan.steps:
            if isinstance(step, ReplaceTable):
                self.kernel.check(step.text)
        with self.kernel.applying() as apply:
            for step in plan.steps:
                apply(step)
        return plan


@contextmanager
def hosts(*names: str) -> Iterator[list[str]]:
    """Make namespaces, and take them away again whatever happens."""
    tag = f"hfw{os.getpid()}"
    with ExitStack() as stack:
        made = []
        for name in names:
            full = f"{tag}-{name}"
            tool("/usr/sbin/ip", "netns", "add", full)
            stack.callback(tool, "/usr/sbin/ip", "netns", "del", full)
            tool("/usr/sbin/ip", "-n", full, "link", "set", "lo", "up")
            Host(full).sysctl("net.ipv6.conf.default.dad_transmits", "0")
            made.append(full)
        yield made


def join(one: Host, link: str, other: Host, peer: str) -> None:
    """Join two hosts by a veth pair."""
    tool(
        *("/usr/sbin/ip", "link", "add", link, "netns", one.name),
        *("type", "veth", "peer", "name", peer, "netns", other.name),
    )
    one.ip("link", "set", link, "up")
    other.ip("link", "set", peer, "up")


def address(host: Host, link: str, *addresses: str) -> None:
    """Give a link addresses that count at once."""
    for a in addresses:
        host.ip("addr", "add", a, "dev", link, *(["nodad"] if ":" in a else []))


class Network:
    """The hosts of the picture above."""

    def __init__(self, names: list[str], tmp_path: Path) -> None:
        self.client, self.web, self.two, self.far = (Host(n) for n in names[1:])
        self.router = router = Router(names[0])
        router.install(tmp_path / "state", tmp_path / "run")
        join(router, "eth0", self.client, "eth0")
        address(router, "eth0", "198.51.100.1/24", "2001:db8:1::1/64")
        address(self.client, "eth0", "198.51.100.2/24", "2001:db8:1::2/64")
        router.ip("link", "add", "br0", "type", "bridge", "mcast_snooping", "0")
        router.ip("link", "set", "br0", "up")
        address(router, "br0", "10.213.0.1/24", "fd13::1/64")
        for number, host in ((2, self.web), (3, self.two)):
            join(router, f"p{number}", host, "eth0")
            router.ip("link", "set", f"p{number}", "master", "br0")
            address(host, "eth0", f"10.213.0.{number}/24", f"fd13::{number}/64")
            _default(host, "10.213.0.1", "fd13::1")
        join(router, "v3", self.far, "eth0")
        address(router, "v3", "10.214.0.1/24", "fd14::1/64")
        address(self.far, "eth0", "10.214.0.2/24", "fd14::2/64")
        _default(self.far, "10.214.0.1", "fd14::1")
        # An attacker on the uplink knows the way in.
        for inside in ("10.213.0.0/24", "10.214.0.0/24"):
            self.client.ip("route", "add", inside, "via", "198.51.100.1")
        for inside in ("fd13::/64", "fd14::/64"):
            self.client.ip("route", "add", inside, "via", "2001:db8:1::1")
        # Until a link has its link-local address, it answers no neighbour.
        for host in (router, self.client, self.web, self.two, self.far):
            _settle(host)


def _settle(host: Host, timeout_s: float = 10) -> None:
    end = time.monotonic() + timeout_s
    while host.ip("-6", "addr", "show", "tentative").strip():
        assert time.monotonic() < end, "duplicate address detection does not end"
        time.sleep(0.05)


def _default(host: Host, *gateways: str) -> None:
    for gateway in gateways:
        host.ip("route", "add", "default", "via", gateway)


def _bound(family: int, kind: int, port: int) -> socket.socket:
    server = socket.socket(family, kind)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    # A dual-stack socket: it sees IPv4 as ::ffff:a.b.c.d.
    server.bind(("::" if family == socket.AF_INET6 else "0.0.0.0", port))  # noqa: S104 - in a namespace
    if kind == socket.SOCK_STREAM:
        server.listen(64)
    return server


def _serve_tcp(server: socket.socket, banner: str) -> None:
    while True:
        try:
            peer, came = server.accept()
        except OSError:
            return
        with peer:
            peer.sendall(f"{banner} saw {came[0].removeprefix('::ffff:')}".encode())


def _serve_udp(server: socket.socket, banner: str) -> None:
    server.settimeout(0.1)
    while True:
        try:
            _, came = server.recvfrom(100)
            server.sendto(f"{banner} saw {came[0].removeprefix('::ffff:')}".encode(), came)
        except TimeoutError:
            if server.gettimeout() == 0.01:
                return
        except OSError:
            return


def _fetch(at: str, port: int, kind: int) -> str:
    family = socket.AF_INET6 if ":" in at else socket.AF_INET
    with socket.socket(family, kind) as s:
        s.settimeout(QUIET_S)
        try:
            s.connect((at, port))
            if kind == socket.SOCK_DGRAM:
                s.send(b"?")
            return s.recv(100).decode()
        except ConnectionRefusedError:
            return "refused"
        except TimeoutError:
            return ""
        except OSError as e:
            return f"error {e.errno}"
