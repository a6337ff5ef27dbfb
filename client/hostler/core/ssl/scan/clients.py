"""Clients by their handshakes: what each would get from a server that has been scanned.

`simulate` answers from what the scan has found, without another connection; `replay` says the
client's own hello and sees. Source: RFC 5246 7.4.1, RFC 8446 4.1.1.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hostler.core.ssl.scan import words
from hostler.core.ssl.scan.answers import read_key_exchange
from hostler.core.ssl.scan.checks.suites import Suites
from hostler.core.ssl.scan.ciphers import suite
from hostler.core.ssl.scan.connect import Dialer
from hostler.core.ssl.scan.exchange import ask
from hostler.core.ssl.scan.hello import Hello

if TYPE_CHECKING:
    from hostler.core.ssl.scan.report import Report

_NUMBERS = {name: number for number, name in words.VERSIONS.items()}


@dataclass(frozen=True, slots=True)
class Client:
    """What a client offers. `is_modern` if forward secrecy is expected with it."""

    name: str
    versions: tuple[int, ...]
    suites: tuple[int, ...]
    groups: tuple[int, ...]
    signatures: tuple[int, ...]
    sends_name: bool
    is_modern: bool


@dataclass(frozen=True, slots=True)
class Simulated:
    """What a client gets: version and suite, or a refusal. `group` is None where none is used."""

    client: str
    version: int = 0
    suite: int = 0
    group: int | None = None
    refusal: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        if self.refusal:
            return {"client": self.client, "refusal": self.refusal}
        return {
            "client": self.client,
            "version": words.version_name(self.version),
            "suite": suite(self.suite).name,
            "group": None if self.group is None else words.group_name(self.group),
        }


@cache
def clients() -> tuple[Client, ...]:
    """All profiles."""
    text = Path(__file__).with_name("clients.toml").read_text()
    return tuple(_client(each) for each in tomllib.loads(text)["client"])


def _client(found: dict[str, Any]) -> Client:
    return Client(
        found["name"],
        tuple(_NUMBERS[each] for each in found["versions"]),
        tuple(int(each, 16) for each in found["suites"].split()),
        tuple(int(each) for each in found["groups"].split()),
        tuple(int(each, 16) for each in found["signatures"].split()),
        found["sni"],
        found.get("modern", False),
    )


def simulate(client: Client, report: Report) -> Simulated:
    """What the client would get."""
    supported = report.supported()
    common = [version for version in client.versions if version in supported]
    if not common:
        return Simulated(client.name, refusal="no version in common")
    version = max(common)
    accepted = supported[version]
    has_group = _has_group(client, report, version)
    offered = [number for number in client.suites if has_group or not _needs_group(number)]
    chosen = _chosen(offered, accepted)
    if chosen is None:
        return Simulated(client.name, version, refusal="no cipher suite in common")
    return Simulated(client.name, version, chosen, _group(client, report, version, chosen))


def _needs_group(number: int) -> bool:
    return suite(number).kx in ("ECDHE", "TLS13")


def _has_group(client: Client, report: Report, version: int) -> bool:
    """Whether server and client have a group in common, or nothing is known of the server's."""
    if report.groups is None:
        return True
    found = report.groups.tls13 if version == words.TLS13 else report.groups.ecdhe
    return not found or any(group in found for group in client.groups)


def _chosen(offered: Sequence[int], accepted: Suites) -> int | None:
    first, second = (
        (accepted.suites, offered) if accepted.order == "server" else (offered, accepted.suites)
    )
    return next((number for number in first if number in second), None)


def _group(client: Client, report: Report, version: int, chosen: int) -> int | None:
    if report.groups is None or not _needs_group(chosen):
        return None
    found = report.groups.tls13 if version == words.TLS13 else report.groups.ecdhe
    return next((group for group in client.groups if group in found), None)


async def replay(dialer: Dialer, client: Client) -> Simulated:
    """Say the client's hello. Raises ScanError."""
    newest = max(client.versions)
    hello = Hello(
        newest,
        client.suites,
        name=dialer.endpoint.name if client.sends_name else "",
        groups=client.groups,
        signatures=client.signatures,
        versions=sorted(client.versions, reverse=True) if newest == words.TLS13 else (),
    )
    answer = await ask(dialer, hello, whole=True)
    if answer.hello is None:
        refused = "closed" if answer.alert is None else words.alert_name(answer.alert)
        return Simulated(client.name, refusal=refused)
    if answer.hello.version not in client.versions:
        return Simulated(client.name, refusal="no version in common")
    group = answer.hello.group
    if answer.key_exchange:
        group = read_key_exchange(answer.key_exchange, suite(answer.hello.suite).kx).group
    return Simulated(client.name, answer.hello.version, answer.hello.suite, group)


def simulate_all(report: Report, among: Iterable[Client] | None = None) -> tuple[Simulated, ...]:
    """What each client would get, in the order of the profiles."""
    return tuple(simulate(client, report) for client in among or clients())
