"""Carrying out one request: the grammar, the devices, the locks, the use, the saving, the tool."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any

from hostlerd.privileged import refused
from hostlerd.privileged.grammar import record
from hostlerd.privileged.refused import Fault
from hostlerd.storage.model.target import Target, signature_words
from hostlerd.storage.worker import identity, slices, tools, use
from hostlerd.storage.worker.grammar import read_target
from hostlerd.storage.worker.identity import Device
from hostlerd.storage.worker.operation import Operation, Request
from hostlerd.storage.worker.refused import Refused
from hostlerd.storage.worker.saved import Store
from hostlerd.storage.worker.tools import Tools


def check(asked: Any, table: Mapping[str, Operation]) -> tuple[str, dict[str, Any]]:
    """Answer a request's operation and fields if they are in the grammar. Raises Refused."""
    name = asked.get("op") if isinstance(asked, dict) else None
    if not isinstance(name, str) or name not in table:
        raise Refused("MALFORMED", "the request names no operation that there is")
    operation = table[name]
    fields = {key: value for key, value in asked.items() if key != "op"}
    faults: list[Fault] = []
    required = tuple(key for key in operation.fields if key not in operation.optional)
    record(operation.fields, required)(fields, "", faults)
    if faults:
        told = "; ".join(f"{where}: {what}" for where, what in faults[:5])
        raise Refused("INVALID", told, faults[:100])
    return name, fields


def carry_out(
    asked: Any,
    table: Mapping[str, Operation],
    store: Store,
    turn: Callable[[], AbstractContextManager[None]],
) -> dict[str, Any]:
    """Carry out one request, in full or not at all; in its `turn` if it may change something.

    Raises Refused, OSError.
    """
    name, fields = check(asked, table)
    operation = table[name]
    mine = nullcontext() if operation.only_reads else turn()
    with mine, _held(operation, fields) as devices:
        flat = [device for each in devices.values() for device in each]
        overwritten = [d for key in operation.overwrites for d in devices[key]]
        for device in overwritten:
            refuse_unless_free(device)
        saved = {device.target.id: store.save(device, name) for device in overwritten}
        ready = Tools(lambda: _check_all(flat))
        request = Request(name, fields, devices, store, saved, ready)
        ready.check()
        try:
            answer = operation.run(request, ready)
        except (refused.Refused, OSError) as cause:
            _undo(request, cause)
            raise
        ready.check()
    return {**answer, "saved": saved} if overwritten else answer


@contextmanager
def _held(
    operation: Operation, fields: Mapping[str, Any]
) -> Iterator[dict[str, tuple[Device, ...]]]:
    """Open, compare and lock all devices of a request. Raises Refused, OSError."""
    with ExitStack() as stack:
        devices = {
            key: tuple(stack.enter_context(identity.opened(one)) for one in _targets(fields, key))
            for key in (*operation.overwrites, *operation.uses)
        }
        flat = [device for each in devices.values() for device in each]
        numbers = [device.target.number for device in flat]
        if len(set(numbers)) < len(numbers):
            raise Refused("INVALID", "one device is named twice")
        stack.enter_context(identity.locked(flat))
        # Before the lock was had, somebody else may have been at work.
        _check_all(flat)
        yield devices


def _targets(fields: Mapping[str, Any], key: str) -> list[Target]:
    value = fields.get(key)
    if value is None:
        return []
    given = value if isinstance(value, list) else [value]
    return [slices.settled(read_target(one)) for one in given]


def _check_all(devices: list[Device]) -> None:
    for device in devices:
        device.check()


def refuse_unless_free(device: Device) -> None:
    """Raise Refused unless a device may be overwritten. Its lock is held."""
    target = device.target
    if identity.is_read_only(device.fd):
        raise Refused(
            "DEVICE_READ_ONLY", f"{target.id} ({target.name}) is read-only", device=target.id
        )
    use.refuse_if_used(device, tools.probe)
    found = signature_words(tools.signatures(device.path))
    if found != target.signatures:
        told, planned = (", ".join(words) or "nothing" for words in (found, target.signatures))
        raise Refused(
            "SIGNATURES_CHANGED",
            f"{target.id} ({target.name}) holds {told}, where the plan saw {planned}",
            device=target.id,
        )


def _undo(request: Request, cause: refused.Refused | OSError) -> None:
    """Put back what was erased; raise Refused if that fails too, with both reasons."""
    try:
        request.put_back()
    except (refused.Refused, OSError) as e:
        kept = ", ".join(request.saved.values())
        raise Refused(
            "ROLLBACK_FAILED",
            f"{cause}; then what was erased could not be put back: {e}; it is kept as {kept}",
            saved=kept,
        ) from e
