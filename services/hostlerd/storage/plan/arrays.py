"""Arrays that are not as they should be, and members of a RAID that nothing has put together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from hostlerd.storage.model.graph import Graph, Kind, Node
from hostlerd.storage.model.observed import Device, MdFacts, Observed
from hostlerd.storage.model.reason import Level, Reason
from hostlerd.storage.plan.resolve import devices_of

RAID_TYPES = frozenset(
    {
        *("linux_raid_member", "ddf_raid_member", "isw_raid_member", "lsi_mega_raid_member"),
        *("via_raid_member", "silicon_medley_raid_member", "nvidia_raid_member"),
        *("promise_fasttrack_raid_member", "highpoint_raid_member", "adaptec_raid_member"),
        *("jmicron_raid_member", "hpt37x_raid_member", "hpt45x_raid_member"),
    }
)


def of_arrays(seen: Observed, graph: Graph) -> Iterator[Reason]:
    """What is wrong with the arrays that are there."""
    ids = {node.name: node.id for node in graph.nodes if node.number}
    for device in seen.devices:
        md, node_id = device.md, ids[device.name]
        if md is None:
            continue
        if md.array_state in ("inactive", "clear"):
            words = f"{device.name} is {md.array_state}: it has too few of its devices to start"
            yield Reason("MD_INACTIVE", Level.CRITICAL, node_id, words)
        elif md.degraded:
            words = f"{device.name} ({md.level}) lacks {md.degraded} of {md.raid_disks} devices"
            if md.sync_action == "recover":
                words += ", and is rebuilding one"
            yield Reason("MD_DEGRADED", Level.CRITICAL, node_id, words)
        yield from _members(device, md, node_id, ids)
        if md.mismatch_count and md.sync_action == "idle":
            words = f"the last check of {device.name} found {md.mismatch_count} sectors that differ"
            yield Reason("MD_MISMATCH", Level.WARNING, node_id, words)


def _members(device: Device, md: MdFacts, node_id: str, ids: Mapping[str, str]) -> Iterator[Reason]:
    for member in md.members:
        # md itself notices only when it next reads or writes there.
        if member.device not in ids:
            words = f"{member.device} of {device.name} is unplugged: replace it"
            yield Reason("MD_UNPLUGGED", Level.CRITICAL, node_id, words)
        elif "faulty" in member.state.split(","):
            words = f"{device.name} has failed {member.device}: replace it"
            yield Reason("MD_FAULTY", Level.CRITICAL, node_id, words)
        elif member.errors:
            words = f"{member.device} in {device.name} had {member.errors} read errors"
            yield Reason("MD_READ_ERRORS", Level.WARNING, node_id, words)


def without_array(seen: Observed, graph: Graph) -> Iterator[Reason]:
    """Members that no array lies on: the RAID did not come up, or went on without them."""
    for node, kind, array in _idle(seen, graph):
        if array is not None:
            words = (
                f"{node.name} has a superblock of {array.name} and is not in it: what it "
                "holds is old; add it again, or clear it with mdadm --zero-superblock"
            )
            yield Reason("STALE_SUPERBLOCK", Level.WARNING, node.id, words)
        else:
            words = (
                f"{node.name} is a member of a RAID ({kind}) that is not active: "
                "what is mounted may be one half of it"
            )
            yield Reason("RAID_NOT_ACTIVE", Level.CRITICAL, node.id, words)


def mounted_halves(seen: Observed, graph: Graph) -> Iterator[Reason]:
    """Members of a RAID that are mounted as if they were whole, or partitions of them."""
    idle = {node.name: kind for node, kind, _ in _idle(seen, graph)}
    for mount in seen.mounts:
        for device in devices_of(seen, mount):
            whole = device.partition.of if device.partition is not None else ""
            if kind := idle.get(device.name) or idle.get(whole):
                words = (
                    f"{mount.path} is mounted from {device.name}, which is one part of a RAID "
                    f"({kind}): what is written here is not on the others"
                )
                yield Reason("RAID_HALF_MOUNTED", Level.CRITICAL, f"mount-{mount.path}", words)


def _idle(seen: Observed, graph: Graph) -> Iterator[tuple[Node, str, Device | None]]:
    """Members that no array lies on, their type, and the array of their UUID if it runs."""
    arrays = {node.id for node in graph.nodes if node.kind in (Kind.MD, Kind.DM)}
    carries = {edge.lower for edge in graph.edges if edge.upper in arrays}
    running = {_digits(one.md.uuid): one for one in seen.devices if one.md and one.md.uuid}
    in_array = {one.uuid for node in graph.nodes if node.id in carries for one in node.signatures}
    partitioned = {one.partition.of for one in seen.devices if one.partition is not None}
    for node in graph.nodes:
        for one in node.signatures if node.id not in carries else ():
            # The superblock at the end of the last partition is at the end of the disk too.
            is_echo = node.name in partitioned and one.uuid in in_array
            if one.type in RAID_TYPES and not is_echo:
                yield node, one.type, running.get(_digits(one.uuid)) if one.uuid else None


def configured(seen: Observed, graph: Graph) -> Iterator[Reason]:
    """Arrays of mdadm.conf(5) that are missing, and arrays that came from elsewhere."""
    ids = {node.name: node.id for node in graph.nodes if node.number}
    wanted = {_digits(one.uuid) for one in seen.configured_arrays}
    there = {_digits(one.md.uuid) for one in seen.devices if one.md is not None}
    for one in seen.configured_arrays:
        if _digits(one.uuid) not in there:
            words = f"{one.name or one.uuid} of mdadm.conf line {one.line} is not there"
            yield Reason("MD_MISSING", Level.CRITICAL, f"md-{one.uuid}", words)
    for device in seen.devices:
        if device.md is None or _digits(device.md.uuid) in wanted:
            continue
        home = _home(seen, device)
        if home and seen.hostname and home != seen.hostname.partition(".")[0]:
            words = (
                f"{device.name} was made on {home}, and mdadm.conf does not name it: "
                "is it here on purpose?"
            )
            yield Reason("MD_FOREIGN", Level.WARNING, ids[device.name], words)


def _home(seen: Observed, array: Device) -> str:
    """The host that made an array: what its members' label has before the colon."""
    for device in seen.devices:
        if device.name in array.lower:
            for one in device.signatures:
                if one.type == "linux_raid_member" and ":" in one.label:
                    home = one.label.partition(":")[0]
                    return "" if home == "any" else home
    return ""


def _digits(uuid: str) -> str:
    """A UUID however it is written: mdadm, the kernel and libblkid differ in the marks."""
    return "".join(char for char in uuid.lower() if char in "0123456789abcdef")
