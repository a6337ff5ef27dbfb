"""What was saved before it was overwritten: told, and put back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from hostlerd.privileged.grammar import text
from hostlerd.storage.model.saved import ID
from hostlerd.storage.model.target import Target, signature_words
from hostlerd.storage.worker import identity, saved, tools
from hostlerd.storage.worker.grammar import target
from hostlerd.storage.worker.operation import Operation, Request
from hostlerd.storage.worker.refused import Refused
from hostlerd.storage.worker.tools import Tools


def told(request: Request, _: Tools) -> dict[str, Any]:
    """All that is kept, the newest first."""
    return {"items": [asdict(one) for one in request.store.all()]}


def restore(request: Request, _: Tools) -> dict[str, Any]:
    """Write what was saved of a device back to it, and see what it holds then."""
    device = request.device("device")
    about, pieces = request.store.load(str(request["saved"]))
    _refuse_another(about.target, device.target)
    request.erase(device)
    with request.exclusive(device) as fd:
        saved.write(fd, about.regions, pieces)
        identity.read_partitions_again(fd, device)
    return {"signatures": signature_words(tools.signatures(device.path))}


def _refuse_another(kept: Target, now: Target) -> None:
    """Raise Refused unless it is the device of which it was saved, whatever it is called now."""
    known = (kept.size_bytes, kept.serial, kept.wwn)
    same = known == (now.size_bytes, now.serial, now.wwn)
    if same and not (kept.serial or kept.wwn):
        same = kept.id == now.id
    if not same:
        raise Refused(
            "SAVED_OF_ANOTHER_DEVICE",
            f"that was saved of {kept.describe()}, and not of {now.id}",
            device=now.id,
        )


OPERATIONS: Mapping[str, Operation] = {
    "ListSaved": Operation({}, told, only_reads=True),
    "RestoreSaved": Operation(
        {"device": target, "saved": text(ID)}, restore, overwrites=("device",)
    ),
}
