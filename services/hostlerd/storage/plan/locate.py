"""Plans that have an enclosure blink at a disk."""

from __future__ import annotations

from hostlerd.runtime.errors import InvalidRequest, Violation
from hostlerd.runtime.steps import Plan, canonical, fingerprint
from hostlerd.storage.errors import NotInEnclosure
from hostlerd.storage.model.disk_steps import SetLocator
from hostlerd.storage.model.graph import Graph, Kind
from hostlerd.storage.plan.choose import choose_node, target_of


def locate(words: str, is_on: bool, graph: Graph) -> Plan:
    """Blink, or cease: whether it does is not asked before. Raises NotInEnclosure."""
    node = choose_node(graph, words, "disk")
    if node.kind is Kind.PARTITION:
        said = f"{node.id} is a partition: name the disk that it is of"
        raise InvalidRequest.of([Violation("disk", said)])
    if not node.facts.get("bay"):
        said = f"{node.id} is in no enclosure that the kernel knows of"
        raise NotInEnclosure(said, device=node.id)
    step = SetLocator(target_of(node), is_on)
    etag = fingerprint([node.id, node.facts["enclosure"], node.facts["bay"]])
    return Plan((step,), etag=etag, bindings={"disk": canonical(step.disk)})
