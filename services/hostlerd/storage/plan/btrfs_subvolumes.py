"""Plans that make and delete subvolumes and snapshots."""

from __future__ import annotations

from collections.abc import Sequence

from hostlerd.runtime.errors import InvalidRequest, Violation
from hostlerd.runtime.steps import Notice, Plan, Step, fingerprint
from hostlerd.storage.errors import SubvolumeBusy, SubvolumeExists, SubvolumeNotFound
from hostlerd.storage.model.btrfs import Subvolume, path_fault
from hostlerd.storage.model.btrfs_steps import CreateSnapshot, CreateSubvolume, DeleteSubvolume
from hostlerd.storage.model.observed import Btrfs, Observed
from hostlerd.storage.plan.btrfs import node_id


def create(path: str, pool: Btrfs, there: Sequence[Subvolume]) -> Plan:
    """Make a subvolume; nothing if there is one that is no snapshot."""
    _check({"path": path})
    found = _at(there, path)
    if found is not None and not found.source_uuid:
        return _plan(pool, there, ())
    if found is not None:
        raise SubvolumeExists(f"{path} is a snapshot already", filesystem=pool.uuid)
    return _plan(pool, there, (CreateSubvolume(pool.uuid, path),))


def snapshot(
    source: str, path: str, read_only: bool, pool: Btrfs, there: Sequence[Subvolume]
) -> Plan:
    """Make a snapshot; nothing if there is one of that subvolume, as it is asked for."""
    _check({"source": source, "path": path} if source else {"path": path})
    of = _at(there, source)
    if of is None:
        raise _not_found(pool, source)
    found = _at(there, path)
    if found is not None:
        if (found.source_uuid, found.is_read_only) == (of.uuid, read_only):
            return _plan(pool, there, ())
        raise SubvolumeExists(f"{path} is another subvolume already", filesystem=pool.uuid)
    step = CreateSnapshot(pool.uuid, source, of.id, of.uuid, path, read_only)
    return _plan(pool, there, (step,))


def delete(path: str, pool: Btrfs, there: Sequence[Subvolume], seen: Observed) -> Plan:
    """Delete a subvolume; nothing if there is none. Raises SubvolumeBusy."""
    _check({"path": path})
    found = _at(there, path)
    if found is None:
        return _plan(pool, there, ())
    inside = [one.path for one in there if one.parent_id == found.id]
    if inside:
        words = f"{path} has {', '.join(inside[:8])} in it: delete that before"
        raise SubvolumeBusy(words, filesystem=pool.uuid)
    names = {one.name for one in pool.devices}
    for mount in seen.mounts:
        root = mount.root.strip("/")
        is_of_it = mount.source.rpartition("/")[2] in names
        if mount.type == "btrfs" and is_of_it and f"{root}/".startswith(f"{path}/"):
            raise SubvolumeBusy(f"{path} is mounted on {mount.path}", filesystem=pool.uuid)
    step = DeleteSubvolume(pool.uuid, path, found.id, found.uuid, found.generation)
    kept = [one.path for one in there if found.uuid and one.source_uuid == found.uuid]
    words = f"{path} is lost, but for what is in {', '.join(kept[:8]) or 'no snapshot of it'}"
    plan = _plan(pool, there, (step,))
    return Plan(
        plan.steps,
        etag=plan.etag,
        notices=(Notice("CONTENT_LOST", words, node_id(pool)),),
        bindings={"subvolume": [pool.uuid, found.id, found.uuid, found.generation]},
    )


def _check(paths: dict[str, str]) -> None:
    faults = [Violation(field, why) for field, path in paths.items() if (why := path_fault(path))]
    if faults:
        raise InvalidRequest.of(faults)


def _at(there: Sequence[Subvolume], path: str) -> Subvolume | None:
    return next((one for one in there if one.path == path), None)


def _not_found(pool: Btrfs, path: str) -> SubvolumeNotFound:
    words = f"{node_id(pool)} has no subvolume {path!r}"
    return SubvolumeNotFound(words, filesystem=pool.uuid)


def _plan(pool: Btrfs, there: Sequence[Subvolume], steps: tuple[Step, ...]) -> Plan:
    return Plan(steps, etag=fingerprint([pool.uuid, [(one.id, one.path) for one in there]]))
