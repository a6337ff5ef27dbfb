"""Daemons of hosts that are killed under load: what clients and witnesses need to know of them."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import grpc
import security_lab as support
from hosts_witness import ip_json, names_of_netns
from journal_rows import COMMON, ask

from hostler.api.common.v1 import host_pb2
from hostler.lab.host import Host
from hostler.lab.lab import Lab


@dataclass(frozen=True)
class Killed:
    """One daemon of one host; the journal's clients call it as they call those on the stage."""

    lab: Lab
    host: Host
    domain: str

    def channel(self, user: str = "") -> grpc.Channel:
        """A new channel by TLS; it does not try again by itself."""
        pair = support.Pair.of(self.lab.pki, user or "admin")
        return support.channel(self.lab, self.host, self.domain, pair)

    def kill(self) -> None:
        """End its process by SIGKILL; systemd starts another, or the next caller does."""
        unit = f"hostler-{self.domain}.service"
        self.host.run(["systemctl", "kill", "--kill-whom=main", "--signal=KILL", unit], check=False)

    def wait_until_it_serves(self) -> None:
        """Return when it answers, or has been killed meanwhile."""
        with suppress(grpc.RpcError):
            ask(self, f"{COMMON}.HostService/GetHost", host_pb2.GetHostRequest())  # type: ignore[arg-type]

    def state(self) -> str:
        """What systemd says of it: `active`, `failed` and so on."""
        shown = ["systemctl", "is-active", f"hostler-{self.domain}.service"]
        return self.host.run(shown, check=False).stdout.strip()

    def audit(self) -> list[dict[str, Any]]:
        """The records of the audit log, as they lie on disk."""
        path = f"/var/log/hostler/{self.domain}/audit.jsonl"
        return [json.loads(line) for line in self.host.run(["cat", path]).stdout.splitlines()]

    def journals(self) -> list[str]:
        """What is left of changes that are neither over nor waiting."""
        folders = [f"/var/lib/hostler/{self.domain}/journal"]
        folders += [f"/run/hostler-{self.domain}/journal"]
        found = self.host.run(["find", *folders, "-type", "f"], check=False).stdout.split()
        return [path for path in found if not path.endswith(".kept")]


def spaces_of(host: Host) -> dict[str, list[str]]:
    """The namespaces that clients made, with the addresses of their links, by the word of ip(8)."""
    found = {}
    for name in names_of_netns(host):
        if name.startswith("c") and name[1:2].isdigit():
            links = json.loads(
                host.run(["ip", "-netns", name, "-json", "address", "show", "eth0"]).stdout
            )
            found[name] = sorted(
                f"{each['local']}/{each['prefixlen']}"
                for each in links[0]["addr_info"]
                if each["scope"] == "global"
            )
    return found


def links_of(host: Host) -> set[str]:
    """The host's ends of the links into such namespaces."""
    links = {link["ifname"] for link in ip_json(host, "link")}
    return {name for name in links if name.startswith("v-c") and name[3:4].isdigit()}


def ports_of(host: Host) -> set[int]:
    """Which of the clients' ports Hostler's table lets in, by the word of nft(8)."""
    table = host.run(["nft", "--json", "list", "ruleset"]).stdout
    return {port for port in (80, 81, 82) if f'"right": {port}' in table}
