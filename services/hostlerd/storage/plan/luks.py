"""Plans that open and close what is enciphered, and keep its header."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from hostlerd.runtime.errors import InvalidRequest, Violation
from hostlerd.runtime.steps import Plan, fingerprint
from hostlerd.storage.errors import DeviceBusy
from hostlerd.storage.errors.volumes import LuksNameTaken, LuksNotFound, LuksOpen
from hostlerd.storage.model.graph import Graph, Kind, Node
from hostlerd.storage.model.luks import CREDENTIAL, NAME, PATH, SIGNATURE
from hostlerd.storage.model.luks_steps import BackupLuksHeader, CloseLuks, OpenLuks
from hostlerd.storage.plan.choose import choose_node, target_of
from hostlerd.storage.plan.in_use import users


@dataclass(frozen=True, slots=True)
class Found:
    """A device with LUKS on it. `opened` is the device that it is in the clear, if it is open."""

    node: Node
    uuid: str
    opened: Node | None

    @property
    def etag(self) -> str:
        """What changes when it is opened or closed, or made anew."""
        return fingerprint([target_of(self.node), self.opened.id if self.opened else ""])

    @property
    def name(self) -> str:
        """Under which name it is open; empty if it is not."""
        return self.opened.facts.get("dm_name", "") if self.opened is not None else ""


def all_of(graph: Graph) -> tuple[Found, ...]:
    """All that is enciphered."""
    return tuple(found for node in graph.nodes if (found := _of(node, graph)) is not None)


def _of(node: Node, graph: Graph) -> Found | None:
    uuid = next((one.uuid for one in node.signatures if one.type == SIGNATURE), None)
    if uuid is None or not node.number:
        return None
    uppers = {edge.upper for edge in graph.edges if edge.lower == node.id}
    opened = [one for one in graph.nodes if one.id in uppers and one.kind is Kind.CRYPT]
    return Found(node, uuid, opened[0] if opened else None)


def find(graph: Graph, words: str) -> Found:
    """The device that is called so, with LUKS on it. Raises LuksNotFound, what `choose` raises."""
    node = choose_node(graph, words)
    found = _of(node, graph)
    if found is None:
        held = ", ".join(one.type for one in node.signatures) or "no signature"
        raise LuksNotFound(f"{node.id} holds {held}, and no LUKS", device=node.id)
    return found


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be opened, under which name, with the key of which file or credential."""

    device: str
    name: str
    key_file: str = ""
    credential: str = ""
    is_read_only: bool = False


def open_(wanted: Wanted, graph: Graph) -> Plan:
    """Open it; nothing if it is open under that name."""
    if faults := [Violation(field, why) for field, why in _faults(wanted)]:
        raise InvalidRequest.of(faults)
    found = find(graph, wanted.device)
    if found.opened is not None:
        if found.name == wanted.name:
            return Plan(etag=found.etag, etag_after=found.etag)
        raise LuksOpen(f"{found.node.id} is open as {found.name}", device=found.node.id)
    if used := users(graph, found.node.id):
        raise DeviceBusy(
            f"{found.node.id} is in use: {', '.join(used[:8])}",
            device=found.node.id,
            used_by=", ".join(used[:64]),
        )
    for node in graph.nodes:
        if node.facts.get("dm_name") == wanted.name:
            raise LuksNameTaken(f"{node.id} is called {wanted.name}", device=node.id)
    step = OpenLuks(
        *(target_of(found.node), found.uuid, wanted.name),
        *(wanted.key_file, wanted.credential, wanted.is_read_only),
    )
    return Plan((step,), etag=found.etag)


def _faults(wanted: Wanted) -> Iterator[tuple[str, str]]:
    if not NAME.fullmatch(wanted.name) or ".." in wanted.name:
        yield "name", "must be 1 to 64 letters, digits and _ . + -, beginning with one of the first"
    if bool(wanted.key_file) == bool(wanted.credential):
        yield "key_file", "say a file or a credential, and not both"
    elif wanted.key_file and not PATH.fullmatch(wanted.key_file):
        yield "key_file", "must be an absolute path"
    elif wanted.credential and not CREDENTIAL.fullmatch(wanted.credential):
        yield "credential", "must be the name of a credential"


def close(words: str, graph: Graph) -> Plan:
    """Close it; nothing if it is not open. Raises DeviceBusy."""
    found = find(graph, words)
    if found.opened is None:
        return Plan(etag=found.etag, etag_after=found.etag)
    if used := users(graph, found.opened.id):
        raise DeviceBusy(
            f"{found.opened.id} ({found.name}) is in use: {', '.join(used[:8])}",
            device=found.opened.id,
            used_by=", ".join(used[:64]),
        )
    return Plan((CloseLuks(target_of(found.node), found.uuid, found.name),), etag=found.etag)


def backup(words: str, graph: Graph) -> Plan:
    """Keep the header."""
    found = find(graph, words)
    return Plan((BackupLuksHeader(target_of(found.node), found.uuid),), etag=found.etag)
