"""Asking a disk for SMART, by the worker."""

from __future__ import annotations

from hostlerd.runtime.errors import DomainError
from hostlerd.runtime.steps import canonical
from hostlerd.storage.kernel.worker_client import Worker
from hostlerd.storage.model.smart import Smart, parse
from hostlerd.storage.model.target import Target

_ANSWER_S = 90.0


def ask(worker: Worker, disk: Target) -> Smart:
    """What a disk says of itself; why nothing is known, if nothing is. Blocks."""
    try:
        told = worker.ask("LookSmart", {"disk": canonical(disk)}, _ANSWER_S)
    except DomainError as e:
        return Smart(None, e.message)
    return parse(str(told["said"]))
