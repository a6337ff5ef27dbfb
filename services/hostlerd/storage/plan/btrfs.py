"""Which btrfs is meant; plans that scrub, balance and reset its counters."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from hostlerd.runtime.errors import InvalidRequest, Violation
from hostlerd.runtime.steps import Notice, Plan, Step, fingerprint
from hostlerd.storage.errors import (
    BtrfsAmbiguous,
    BtrfsBusy,
    BtrfsNotFound,
    DeviceTooSmall,
    LessRedundancy,
    TooFewDevices,
)
from hostlerd.storage.model.btrfs import PROFILES
from hostlerd.storage.model.btrfs_steps import ResetErrorCounters, StartBalance, StartScrub
from hostlerd.storage.model.graph import Graph
from hostlerd.storage.model.observed import Btrfs, BtrfsDevice, Observed
from hostlerd.storage.plan.choose import choose_node

_PREFIX = "filesystem-"
_KINDS = ("data", "metadata")
# What the kernel takes of a device for one chunk, at most. Source: Linux fs/btrfs/volumes.c,
# calc_one_stripe_size, init_alloc_chunk_ctl.
_CHUNK_BYTES_MOST, _CHUNK_PART, _SYSTEM_CHUNK_BYTES = 1 << 30, 10, 32 << 20


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a balance is asked for; an empty profile is the one that is there."""

    data: str = ""
    metadata: str = ""
    usage_percent: int = 0
    less_redundancy: bool = False


def find(seen: Observed, words: str) -> Btrfs:
    """The mounted filesystem of this UUID, label or id. Raises BtrfsNotFound, BtrfsAmbiguous."""
    if not words:
        raise InvalidRequest.of([Violation("filesystem", "must name a filesystem")])
    uuid = words.removeprefix(_PREFIX).lower()
    found = [one for one in seen.btrfs if uuid == one.uuid or words == one.label]
    if not found:
        called = words[:200]
        raise BtrfsNotFound(f"no btrfs that is mounted is called {called!r}", filesystem=called)
    if len(found) > 1:
        told = ", ".join(one.uuid for one in found)
        raise BtrfsAmbiguous(f"{words!r} may be any of {told}: say which", filesystem=words[:200])
    return found[0]


def node_id(pool: Btrfs) -> str:
    """The id of a filesystem in the graph."""
    return f"{_PREFIX}{pool.uuid}"


def plan_of(pool: Btrfs, steps: tuple[Step, ...], notices: Iterable[Notice] = ()) -> Plan:
    """A plan for a filesystem, whose etag is what its devices and profiles are."""
    devices = [(one.device_id, one.name, one.is_missing) for one in pool.devices]
    profiles = sorted({(one.kind, one.profile) for one in pool.allocations})
    return Plan(steps, etag=fingerprint([pool.uuid, devices, profiles]), notices=tuple(notices))


def refuse_unless_idle(pool: Btrfs) -> None:
    """Raise BtrfsBusy if the kernel does something that excludes other such things."""
    if pool.exclusive_operation not in ("", "none"):
        words = f"{node_id(pool)} is busy with {pool.exclusive_operation}"
        raise BtrfsBusy(words, filesystem=pool.uuid)


def scrub(words: str, read_only: bool, seen: Observed) -> Plan:
    """Scrub a filesystem."""
    pool = find(seen, words)
    if pool.exclusive_operation.startswith("device replace"):
        refuse_unless_idle(pool)
    return plan_of(pool, (StartScrub(pool.uuid, read_only),))


def balance(words: str, wanted: Wanted, seen: Observed) -> Plan:
    """Balance a filesystem; nothing if it is to be converted to what it is."""
    pool = find(seen, words)
    asked = {"data": wanted.data, "metadata": wanted.metadata}
    faults = [
        Violation(kind, f"must be one of {', '.join(PROFILES)}")
        for kind, profile in asked.items()
        if profile and profile not in PROFILES
    ]
    if not 0 <= wanted.usage_percent <= 100:
        faults.append(Violation("usage_percent", "must be 0 to 100"))
    if faults:
        raise InvalidRequest.of(faults)
    converted = {
        kind: profile
        for kind, profile in asked.items()
        if profile and _profiles(pool, kind) != {profile}
    }
    if any(asked.values()) and not converted:
        return plan_of(pool, ())
    refuse_unless_idle(pool)
    notices = _check_conversion(pool, converted, wanted.less_redundancy)
    step = StartBalance(
        pool.uuid,
        converted.get("data", ""),
        converted.get("metadata", ""),
        wanted.usage_percent,
        tuple(converted) or _KINDS,
        bool(notices),
    )
    return plan_of(pool, (step,), notices)


def _check_conversion(pool: Btrfs, converted: dict[str, str], is_meant: bool) -> list[Notice]:
    """What of a conversion takes redundancy away. Raises TooFewDevices, LessRedundancy."""
    _refuse_without_room(pool, converted)
    notices = []
    for kind, profile in converted.items():
        before = max(PROFILES[one].losses for one in _profiles(pool, kind))
        after = PROFILES[profile].losses
        # Two copies on one device are more than one, though neither survives its loss.
        if after > before or (after == before and "dup" not in _profiles(pool, kind)):
            continue
        words = f"{kind} of {node_id(pool)} survived the loss of {before} devices: of {after} then"
        if after == before:
            words = f"{kind} of {node_id(pool)} has two copies on one device: one in {profile}"
        if not is_meant:
            raise LessRedundancy(f"{words}; say less_redundancy if it is meant")
        notices.append(Notice("LESS_REDUNDANCY", words, node_id(pool)))
    return notices


def _refuse_without_room(pool: Btrfs, converted: dict[str, str]) -> None:
    """Raise TooFewDevices or DeviceTooSmall unless the first chunks of profiles can be made.

    The kernel would find out in the middle, and turn the filesystem read-only.
    """
    devices = [one for one in pool.devices if not one.is_missing]
    profile, least = max(
        ((one, PROFILES[one].least_devices) for one in converted.values()),
        key=lambda one: one[1],
        default=("", 0),
    )
    if len(devices) < least:
        words = f"{profile} needs {least} devices: there are {len(devices)}"
        raise TooFewDevices(words, filesystem=pool.uuid)
    chunk = min(_CHUNK_BYTES_MOST, sum(one.size_bytes for one in devices) // _CHUNK_PART)
    room = chunk * len(converted) + _SYSTEM_CHUNK_BYTES
    fit = [one for one in devices if one.size_bytes - one.allocated_bytes >= room]
    if converted and len(fit) < least:
        raise DeviceTooSmall(
            f"{profile} needs {room} bytes that are not allocated on {least} devices of "
            f"{node_id(pool)}: {len(fit)} have them",
            filesystem=pool.uuid,
            least_bytes=room,
        )


def _profiles(pool: Btrfs, kind: str) -> set[str]:
    return {one.profile for one in pool.allocations if one.kind == kind}


def reset_errors(words: str, device: str, seen: Observed, graph: Graph) -> Plan:
    """Set error counters to zero, of a device or all; nothing if they are. Says what they were."""
    pool = find(seen, words)
    devices = pool.devices if not device else (member(pool, device, graph),)
    counted = [one for one in devices if any(one.errors.values())]
    notices = [
        Notice("ERRORS_FORGOTTEN", f"{one.name or one.device_id} had {told(one)}", node_id(pool))
        for one in counted
    ]
    ids = tuple(one.device_id for one in counted)
    steps = (ResetErrorCounters(pool.uuid, ids),) if ids else ()
    return plan_of(pool, steps, notices)


def member(pool: Btrfs, device: str, graph: Graph, field: str = "device") -> BtrfsDevice:
    """The device of a filesystem that is called so. Raises InvalidRequest, DeviceNotFound."""
    node = choose_node(graph, device, field)
    for one in pool.devices:
        if one.name == node.name:
            return one
    raise InvalidRequest.of([Violation(field, f"{node.id} is no device of {node_id(pool)}")])


def told(device: BtrfsDevice) -> str:
    """The counters that are not zero, in words."""
    counts = sorted((key, count) for key, count in device.errors.items() if count)
    return ", ".join(f"{key} {count}" for key, count in counts)
