"""Two namespaces in a guest, traffic between them, and what the guest's own tools tell of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from hosts_witness import eventually
from vm_guest import Command, Guest
from vm_suite import Suite

PORT = 8000
# Sends back all it is sent, on both versions of IP.
_SERVER = """
import socket, sys, threading
server = socket.create_server(("::", int(sys.argv[1])), family=socket.AF_INET6, dualstack_ipv6=True)
def serve(peer):
    while data := peer.recv(65536):
        peer.sendall(data)
while True:
    threading.Thread(target=serve, args=(server.accept()[0],), daemon=True).start()
"""
# Has a kilobyte sent back again and again over one connection, and writes how often that was done.
_CLIENT = """
import pathlib, socket, sys, time
(host, port, file), rounds = sys.argv[1:4], int(sys.argv[4])
peer = socket.create_connection((host, int(port)), 5)
for done in range(1, rounds + 1):
    peer.sendall(bytes(1000))
    left = 1000
    while left:
        left -= len(peer.recv(left)) or sys.exit("closed")
    pathlib.Path(file).write_text(str(done))
    time.sleep(0.05)
"""
_ENDLESS = 1_000_000


class Network:
    """Namespaces a and b in a guest, each with an eth0 whose other end is `pa` or `pb` outside."""

    def __init__(self, guests: Suite, guest: Guest, folder: Path) -> None:
        self.guests, self.guest, self.folder = guests, guest, folder
        for name in "ab":
            guest.run(["ip", "netns", "add", name])
            self.join(name)
        guest.put("/root/server.py", _SERVER)
        guest.put("/root/client.py", _CLIENT)

    def join(self, name: str) -> None:
        """Give a namespace its link."""
        pair = f"link add p{name} type veth peer name eth0 netns {name}\nlink set p{name} up\n"
        self.guest.run(["ip", "-batch", "-"], stdin=pair)
        inside = "link set lo up\nlink set eth0 up\n"
        self.guest.run(["ip", "-n", name, "-batch", "-"], stdin=inside)

    def route(self, name: str, number: int) -> None:
        """Put a namespace on a network of its own, with the guest for its gateway."""
        self.guest.run(["sysctl", "-q", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1"])
        at4, at6 = f"10.90.{number}", f"fd90:{number}:"
        outside = f"addr add {at4}.1/24 dev p{name}\naddr add {at6}:1/64 dev p{name} nodad\n"
        self.guest.run(["ip", "-batch", "-"], stdin=outside)
        inside = f"addr add {at4}.2/24 dev eth0\naddr add {at6}:2/64 dev eth0 nodad\n"
        inside += f"route add default via {at4}.1\nroute add default via {at6}:1\n"
        self.guest.run(["ip", "-n", name, "-batch", "-"], stdin=inside)

    def bridge(self) -> None:
        """Put both on one bridge and one network: a is .1, b is .2."""
        made = "link add br0 type bridge mcast_snooping 0\nlink set br0 up\n"
        made += "link set pa master br0\nlink set pb master br0\n"
        self.guest.run(["ip", "-batch", "-"], stdin=made)
        for number, name in enumerate("ab", 1):
            inside = f"addr add 10.91.0.{number}/24 dev eth0\n"
            inside += f"addr add fd91::{number}/64 dev eth0 nodad\n"
            self.guest.run(["ip", "-n", name, "-batch", "-"], stdin=inside)

    # -- traffic

    def serve(self, name: str, port: int = PORT) -> None:
        """Have a namespace answer on a port, until the guest ends."""
        self._python(name, ["/root/server.py", str(port)], 3600)
        listening = ["ip", "netns", "exec", name, "ss", "-tlnH", f"sport = {port}"]
        eventually(lambda: self.guest.run(listening).stdout, 60)

    def keep_talking(self, address: str) -> str:
        """Have a talk to the address over one connection without end; answers its file."""
        file = f"/root/{address.replace(':', '-')}"
        self._python("a", ["/root/client.py", address, str(PORT), file, str(_ENDLESS)], 3600)
        eventually(lambda: self.talked(file) > 0, 60)
        return file

    def talked(self, file: str) -> int:
        """How often it was answered so far."""
        return int(self.guest.run(["cat", file], check=False).stdout or 0)

    def goes_on(self, file: str, timeout_s: float = 60) -> None:
        """Wait until it was answered ten times more."""
        before = self.talked(file)
        eventually(lambda: self.talked(file) >= before + 10, timeout_s)

    def reaches(self, name: str, address: str, port: int = PORT) -> bool:
        """Whether a namespace gets an answer there."""
        argv = ["/root/client.py", address, str(port), "/root/reached", "1"]
        return self._python(name, argv, 60).wait(check=False).returncode == 0

    def _python(self, name: str, argv: Sequence[str], timeout_s: float) -> Command:
        words = ["ip", "netns", "exec", name, "python3", "-IS", *argv]
        return self.guest.start(words, timeout_s=timeout_s)

    # -- Hostler, over mTLS

    def cli(self, *words: str) -> Any:
        """The command's answer of the guest, which must be one."""
        argv = ("-H", self.guest.name, "-o", "json", "--yes", *words)
        (told,) = json.loads(self.guests.cli(*argv).stdout)
        assert told["ok"], told
        return told["result"]

    def apply(self, text: str, *words: str) -> Any:
        """Apply a file; answers the change."""
        path = self.folder / "ruleset.toml"
        path.write_text(text)
        return self.cli("firewall", "apply", "--no-confirm", "-f", str(path), *words)["change"]

    def lacks(self) -> dict[str, str]:
        """What the daemon says that the kernel lacks, and why."""
        argv = ("-H", self.guest.name, "-o", "json", "host", "get", "--domain", "firewall")

        def ask() -> Any:
            # The first answer takes as long as all that is tried for it.
            (told,) = json.loads(self.guests.cli(*argv, check=False).stdout)
            return told["ok"] and told["result"]["host"]

        host = eventually(ask, 300)
        return {c["name"]: c["reason"] for c in host["capabilities"] if not c["available"]}

    def logged(self, records: int, talk: Callable[[], object]) -> list[dict[str, Any]]:
        """So many records of the packet log, of what is said meanwhile."""
        argv = ("-o", "ndjson", "firewall", "log", "--follow", "--limit", str(records))
        with ThreadPoolExecutor(1) as pool:
            answer = pool.submit(self.guests.cli, "-H", self.guest.name, *argv)
            # Readers stand there, and nobody else is one.
            eventually(lambda: self.guest.read("/proc/net/netfilter/nfnetlink_log"), 120)
            talk()
            return [json.loads(line) for line in answer.result().stdout.splitlines()]

    # -- what the guest's own tools say

    def nft(self, *words: str) -> list[Any]:
        """What nft lists."""
        listed = self.guest.run(["nft", "-j", "list", *words]).stdout
        return [e for e in json.loads(listed)["nftables"] if "metainfo" not in e]

    def flowtables(self) -> dict[str, list[str]]:
        """The flowtables and their links, by nft(8)."""
        found = [e["flowtable"] for e in self.nft("flowtables")]
        return {f["name"]: sorted([f["dev"]] if isinstance(f["dev"], str) else f["dev"])
                for f in found}  # fmt: skip

    def offloaded(self) -> set[str]:
        """To which addresses connections are that the kernel forwards past the rules."""
        lines = self.guest.read("/proc/net/nf_conntrack").splitlines()
        words = [line.split() for line in lines if "[OFFLOAD]" in line]
        return {next(w for w in each if w.startswith("dst="))[4:] for each in words}
