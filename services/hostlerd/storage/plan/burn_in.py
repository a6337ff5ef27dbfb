"""Plans that write all of a disk and read it back."""

from __future__ import annotations

from hostlerd.runtime.errors import InvalidRequest, Violation
from hostlerd.runtime.steps import Plan, canonical, fingerprint
from hostlerd.storage.model.disk_steps import StartBurnIn
from hostlerd.storage.model.graph import Graph, Kind
from hostlerd.storage.plan.choose import choose_node, target_of
from hostlerd.storage.plan.filesystem import contents_lost
from hostlerd.storage.plan.in_use import refuse_if_used


def burn_in(words: str, graph: Graph) -> Plan:
    """Write a disk as a whole, once more if it was before. Raises DeviceBusy."""
    node = choose_node(graph, words, "disk")
    if node.kind is Kind.PARTITION:
        said = f"{node.id} is a partition: name the disk that it is of"
        raise InvalidRequest.of([Violation("disk", said)])
    refuse_if_used(graph, node)
    step = StartBurnIn(target_of(node))
    return Plan(
        (step,),
        etag=fingerprint([step.disk]),
        notices=tuple(contents_lost(node, graph)),
        bindings={"disk": canonical(step.disk)},
    )
