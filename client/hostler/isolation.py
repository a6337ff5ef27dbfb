"""What `isolate` makes on a host, as values: namespace, ruleset and process, and their plan.

Pure: says what to ask for; `hostler.isolate` asks.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from ipaddress import IPv4Interface, IPv6Interface, ip_address, ip_interface
from typing import Any

from hostler.api.firewall.v1 import ruleset_pb2
from hostler.api.netns.v1 import namespace_pb2, process_pb2
from hostler.config import HostlerError
from hostler.plans import Planned, PlannedStep

PROCESS = "main"
_PUBLISH = re.compile(
    r"(?:(?:\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<v4>\d+(?:\.\d+){3})):)?"
    r"(?P<port>\d{1,5})(?::(?P<target>\d{1,5}))?(?:/(?P<protocol>tcp|udp))?"
)


@dataclass(frozen=True, slots=True)
class Publish:
    """A port of the host that leads to a port of the namespace, on all addresses or on one."""

    port: int
    target_port: int
    protocol: str = "tcp"
    address: str = ""

    @classmethod
    def parse(cls, text: str) -> Publish:
        """Read "8080:8000", "8080:8000/udp", "10.0.0.1:8080:8000" or "[fd00::1]:8080:8000".

        Raises ValueError.
        """
        found = _PUBLISH.fullmatch(text)
        if found is None:
            raise ValueError(f"{text!r} is not [ADDRESS:]PORT[:PORT][/tcp|udp]")
        port = int(found["port"])
        target = int(found["target"] or port)
        for number in (port, target):
            if not 1 <= number <= 65535:
                raise ValueError(f"{text!r}: port {number} is not from 1 to 65535")
        address = found["v6"] or found["v4"] or ""
        if address:
            ip_address(address)
        return cls(port, target, found["protocol"] or "tcp", address)


@dataclass(frozen=True, slots=True)
class Isolation:
    """A process in a network namespace of its own, with published ports.

    `ipv4_pool` and `ipv6_pool` name pools in the hosts' configuration; an empty one leaves that
    family out. `dns` are the namespace's own resolvers; none means that no name is resolved but by
    its hosts file. `uplink` is the link that traffic leaves by; empty means any.
    """

    name: str
    argv: tuple[str, ...]
    publish: tuple[Publish, ...] = ()
    ipv4_pool: str = "default"
    ipv6_pool: str = "default"
    dns: tuple[str, ...] = ()
    user: str = ""
    private_tmp: bool = False
    private_pid: bool = False
    private_uts: bool = False
    environment: tuple[tuple[str, str], ...] = ()
    memory_max_bytes: int | None = None
    cpu_max_millicpus: int | None = None
    tasks_max: int | None = None
    restart: str = "never"
    unprivileged_port_start: int | None = None
    uplink: str = ""
    persistent: bool = False

    def to_record(self) -> dict[str, Any]:
        """As JSON has it; `from_record` makes it again."""
        return asdict(self)

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Isolation:
        """Make it again. Raises TypeError or KeyError if the record is of another version."""
        kept = dict(record)
        kept["publish"] = tuple(Publish(**each) for each in kept["publish"])
        kept["environment"] = tuple((key, value) for key, value in kept["environment"])
        for name in ("argv", "dns"):
            kept[name] = tuple(kept[name])
        return cls(**kept)

    def namespace(self) -> namespace_pb2.Namespace:
        """The namespace to ask for; its addresses come from the pools."""
        wanted = namespace_pb2.Namespace(
            name=self.name,
            interfaces=[
                namespace_pb2.Interface(
                    veth=namespace_pb2.Veth(),
                    ipv4_pool=self.ipv4_pool,
                    ipv6_pool=self.ipv6_pool,
                    default_route=True,
                )
            ],
            persistent=self.persistent,
        )
        if self.dns:
            wanted.dns.servers.extend(self.dns)
        if self.unprivileged_port_start is not None:
            wanted.unprivileged_port_start = self.unprivileged_port_start
        return wanted

    def ruleset(self, namespace: Any) -> ruleset_pb2.Ruleset:
        """The ruleset for a namespace as it is, or will be. Raises HostlerError if none fits."""
        inside = _addresses(namespace)
        networks = [str(each.network) for each in inside]
        wanted = ruleset_pb2.Ruleset(
            name=self.name,
            masquerades=[
                ruleset_pb2.Masquerade(source=network, uplink=self.uplink) for network in networks
            ],
            isolated_networks=networks,
            persistent=self.persistent,
        )
        for published in self.publish:
            forwards = [_forward(published, each) for each in inside if _fits(published, each)]
            if not forwards:
                raise HostlerError(
                    f"{self.name}: nothing in the namespace can take what is published on "
                    f"{published.address or 'any address'}: it has {', '.join(networks) or 'none'}"
                )
            wanted.forwards.extend(forwards)
        return wanted

    def process(self) -> process_pb2.Process:
        """The process to ask for."""
        wanted = process_pb2.Process(
            name=PROCESS,
            namespace=self.name,
            argv=self.argv,
            user=self.user,
            private_tmp=self.private_tmp,
            private_uts=self.private_uts,
            private_pid=self.private_pid,
            environment=dict(self.environment),
            persistent=self.persistent,
        )
        for name in ("memory_max_bytes", "cpu_max_millicpus", "tasks_max"):
            value = getattr(self, name)
            if value is not None:
                setattr(wanted.limits, name, value)
        if self.restart != "never":
            policy = "POLICY_" + self.restart.upper().replace("-", "_")
            wanted.restart.MergeFrom(process_pb2.Restart(policy=policy))
        return wanted


def _addresses(namespace: Any) -> list[IPv4Interface | IPv6Interface]:
    return [ip_interface(address) for each in namespace.interfaces for address in each.addresses]


def _fits(published: Publish, inside: IPv4Interface | IPv6Interface) -> bool:
    return not published.address or ip_address(published.address).version == inside.version


def _forward(published: Publish, inside: IPv4Interface | IPv6Interface) -> Any:
    return ruleset_pb2.Forward(
        protocol=f"PROTOCOL_{published.protocol.upper()}",
        port=published.port,
        addresses=[published.address] if published.address else [],
        target_address=str(inside.ip),
        target_port=published.target_port,
    )


def composed(process: Any) -> Planned:
    """The plan of a process whose namespace is not there yet.

    The daemon cannot plan it: StartProcess for a missing namespace is an error, even with
    validate_only. So it is put together here from the request, environment left out of the words,
    and its hash is the client's own.
    """
    words = f"start {process.namespace}/{process.name}: {' '.join(process.argv)}"
    extras = [
        f"as {process.user}" if process.user else "",
        *(
            flag.replace("_", " ")
            for flag in ("private_tmp", "private_pid", "private_uts")
            if getattr(process, flag)
        ),
    ]
    said = ", ".join(filter(None, extras))
    digest = hashlib.sha256(process.SerializeToString(deterministic=True)).hexdigest()
    step = PlannedStep("StartProcess", f"{words} ({said})" if said else words)
    return Planned(hash=digest, steps=(step,))


@dataclass(frozen=True, slots=True)
class Part:
    """One part of the composite: what it is called, its plan, and the request it came from.

    `before` is what was there already: undoing puts it back, or leaves it, and never removes it.
    """

    name: str
    planned: Planned
    request: Any
    before: Any = None
    hash_is_the_hosts: bool = True


def combine(parts: Iterable[Part]) -> Planned:
    """One plan of several parts, in order; its hash is over theirs."""
    kept = tuple(parts)
    text = json.dumps([[part.name, part.planned.hash] for part in kept])
    return Planned(
        hash=hashlib.sha256(text.encode()).hexdigest(),
        steps=tuple(step for part in kept for step in part.planned.steps),
        warnings=tuple(warning for part in kept for warning in part.planned.warnings),
        response=kept,
    )


@dataclass(slots=True)
class Isolated:
    """What came of it: the answers of the parts that were carried out, by name."""

    planned: Planned
    answers: dict[str, Any] = field(default_factory=dict)

    @property
    def changed(self) -> bool:
        """Whether any part had anything to do."""
        return any(answer.change.changed for answer in self.answers.values())

    def as_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        from hostler.results import plain

        return {
            "changed": self.changed,
            **self.planned.as_dict(),
            **{name: plain(answer) for name, answer in self.answers.items()},
        }
