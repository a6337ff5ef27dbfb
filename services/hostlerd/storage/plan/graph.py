"""Makes one graph of what was observed."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace

from hostlerd.storage.model.graph import Edge, Graph, Kind, Need, Node
from hostlerd.storage.model.observed import Device, MdMember, Observed, Signature
from hostlerd.storage.plan.lvm import groups, needs_of_volumes, seen_through
from hostlerd.storage.plan.redundancy import of_btrfs, of_md


def build(seen: Observed) -> Graph:
    """Make the graph. Each device is a node, and what is on it another."""
    seen = seen_through(seen)
    ids = _ids(seen.devices)
    needs = needs_of_volumes(seen, ids)
    nodes = [_device_node(one, ids[one.name], _needs(one, ids, needs)) for one in seen.devices]
    edges = [edge for device in seen.devices for edge in _below(device, ids)]
    group_nodes, group_edges = groups(seen, ids)
    more_nodes, more_edges = _contents(seen, ids)
    told = [_enciphered(node, seen) for node in nodes]
    return _ordered([*told, *group_nodes, *more_nodes], [*edges, *group_edges, *more_edges])


def _enciphered(node: Node, seen: Observed) -> Node:
    """The same; of what has LUKS on it with whether it is open."""
    if not any(one.type == "crypto_LUKS" for one in node.signatures):
        return node
    uppers = (one for one in seen.devices if one.dm_uuid.startswith("CRYPT-"))
    is_open = any(node.name in one.lower for one in uppers)
    return replace(node, facts={**node.facts, "luks": "open" if is_open else "closed"})


def _needs(
    device: Device, ids: dict[str, str], of_volumes: dict[str, tuple[Need, ...]]
) -> tuple[Need, ...]:
    if device.md is not None:
        return of_md(device.md, ids)
    if device.dm_uuid.startswith("mpath-"):
        paths = tuple((ids[name],) for name in device.lower if name in ids)
        return (Need(paths, 1),) if paths else ()
    return of_volumes.get(device.name, ())


def _ids(devices: Iterable[Device]) -> dict[str, str]:
    """A lasting name for each device; of two that claim the same one, both get the kernel's too."""
    wanted = {device.name: _lasting(device) for device in devices}
    for device in devices:
        if device.partition is not None and not wanted[device.name]:
            parent = wanted.get(device.partition.of, "")
            if parent:
                wanted[device.name] = f"{parent}-part{device.partition.number}"
    taken: dict[str, list[str]] = {}
    for name, lasting in wanted.items():
        taken.setdefault(lasting, []).append(name)
    return {
        name: f"name-{name}"
        if not lasting
        else lasting
        if len(taken[lasting]) == 1
        else f"{lasting}@{name}"
        for name, lasting in wanted.items()
    }


def _lasting(device: Device) -> str:
    if device.partition is not None:
        return ""
    if device.md is not None:
        return f"md-{device.md.uuid}" if device.md.uuid else ""
    if device.dm_uuid:
        return f"dm-{device.dm_uuid}"
    if device.wwn:
        return f"wwn-{device.wwn}"
    if device.serial:
        return f"serial-{'_'.join(filter(None, (device.model, device.serial)))}".replace(" ", "_")
    return ""


def _kind(device: Device) -> Kind:
    name = device.name
    if device.partition is not None:
        return Kind.PARTITION
    if device.md is not None:
        return Kind.MD
    for beginning, kind in (
        ("LVM-", Kind.LVM),
        ("CRYPT-", Kind.CRYPT),
        ("mpath-", Kind.MULTIPATH),
    ):
        if device.dm_uuid.startswith(beginning):
            return kind
    if device.dm_name or name.startswith("dm-"):
        return Kind.DM
    for pattern, kind in (
        (r"loop\d+", Kind.LOOP),
        (r"(zram|ram|pmem)\d+", Kind.MEMORY),
        (r"(nbd|rbd|drbd)\d+", Kind.NETWORK),
        (r"sr\d+", Kind.OPTICAL),
    ):
        if re.fullmatch(pattern, name):
            return kind
    return Kind.NETWORK if device.transport == "iscsi" else Kind.DISK


def _device_node(device: Device, node_id: str, needs: tuple[Need, ...]) -> Node:
    inside = _main_signature(device.signatures)
    return Node(
        id=node_id,
        kind=_kind(device),
        name=device.name,
        number=device.number,
        size_bytes=device.size_bytes,
        logical_sector_bytes=device.logical_sector_bytes,
        physical_sector_bytes=device.physical_sector_bytes,
        is_read_only=device.is_read_only,
        is_removable=device.is_removable,
        is_rotational=device.is_rotational,
        transport=device.transport,
        model=device.model,
        serial=device.serial,
        wwn=device.wwn,
        slot=device.slot,
        controller=f"pci-{device.controller}" if device.controller else "",
        remote_host=device.iscsi.portal if device.iscsi is not None else "",
        disk_sequence=device.disk_sequence,
        uuid=inside.uuid if inside else "",
        label=inside.label if inside else "",
        state=_state(device),
        facts=_facts(device),
        signatures=device.signatures,
        links=device.links,
        needs=needs,
    )


def _main_signature(signatures: Iterable[Signature]) -> Signature | None:
    return next((one for one in signatures if one.usage != "partition-table"), None)


def _state(device: Device) -> str:
    if device.md is not None:
        return "degraded" if device.md.degraded else device.md.array_state
    return device.state


def _facts(device: Device) -> dict[str, str]:
    facts: dict[str, str] = {}
    if device.partition is not None:
        facts["number"] = str(device.partition.number)
        facts["start_bytes"] = str(device.partition.start_sector * 512)
    if device.backing_file:
        facts["backing_file"] = device.backing_file
    if device.partition is not None and device.partition.uuid:
        facts["partition_uuid"] = device.partition.uuid
    if device.bay:
        facts["enclosure"] = device.enclosure
        facts["bay"] = device.bay
    if device.exported:
        facts["exported_as"] = device.exported
    if device.dm_name:
        facts["dm_name"] = device.dm_name
    if device.iscsi is not None:
        facts["iscsi_target"] = device.iscsi.target
        facts["iscsi_portal"] = device.iscsi.portal
        facts["iscsi_state"] = device.iscsi.state
    if device.md is not None:
        facts["level"] = device.md.level
        facts["raid_disks"] = str(device.md.raid_disks)
        facts["degraded"] = str(device.md.degraded)
        facts["sync_action"] = device.md.sync_action
        facts["mismatch_count"] = str(device.md.mismatch_count)
        if device.md.sync_total_sectors:
            done = device.md.sync_done_sectors / device.md.sync_total_sectors
            facts["sync_percent"] = f"{100 * done:.1f}"
    return facts


def _below(device: Device, ids: dict[str, str]) -> Iterable[Edge]:
    """The edges from what a device is built on."""
    upper = ids[device.name]
    if device.partition is not None and device.partition.of in ids:
        yield Edge(ids[device.partition.of], upper, "partition of")
    members = {one.device: one for one in device.md.members} if device.md is not None else {}
    for name in device.lower:
        if name in ids:
            yield Edge(ids[name], upper, _role(members.get(name)))


def _role(member: MdMember | None) -> str:
    if member is None:
        return ""
    words = member.state.split(",")
    if "faulty" in words:
        return "faulty leg"
    if "spare" in words:
        return "spare" if member.slot is None else "rebuilding leg"
    return "active leg"


def _contents(seen: Observed, ids: dict[str, str]) -> tuple[list[Node], list[Edge]]:
    """Filesystems and swap areas on devices, and where they are mounted."""
    nodes: dict[str, Node] = {}
    edges: list[Edge] = []
    by_number = {device.number: device for device in seen.devices}
    on_device: dict[str, str] = {}
    for pool in seen.btrfs:
        node_id = f"filesystem-{pool.uuid}"
        missing = any(device.is_missing for device in pool.devices)
        nodes[node_id] = Node(
            id=node_id,
            kind=Kind.FILESYSTEM,
            name="btrfs",
            size_bytes=0,
            uuid=pool.uuid,
            label=pool.label,
            state="degraded" if missing else "active",
            facts={"type": "btrfs", "devices": str(len(pool.devices))},
            needs=of_btrfs(pool, ids),
        )
        for part in pool.devices:
            if part.name in ids:
                edges.append(Edge(ids[part.name], node_id, f"device {part.device_id}"))
                on_device[part.name] = node_id
    for device in seen.devices:
        if device.name in on_device:
            continue
        for one in device.signatures:
            if one.usage != "filesystem" and one.type != "swap":
                continue
            kind = Kind.SWAP if one.type == "swap" else Kind.FILESYSTEM
            word = "swap" if kind is Kind.SWAP else "filesystem"
            node_id = f"{word}-{one.uuid}" if one.uuid else f"{word}-on-{ids[device.name]}"
            if node_id in nodes and one.type != "btrfs":
                node_id = f"{node_id}@{device.name}"
            in_use = device.name in seen.swaps if kind is Kind.SWAP else False
            nodes[node_id] = Node(
                id=node_id,
                kind=kind,
                name=one.type,
                size_bytes=device.size_bytes,
                uuid=one.uuid,
                label=one.label,
                state="active" if in_use else "",
                facts={"type": one.type},
            )
            edges.append(Edge(ids[device.name], node_id))
            on_device[device.name] = node_id
    _mounts(seen, by_number, ids, on_device, nodes, edges)
    return list(nodes.values()), edges


def _mounts(
    seen: Observed,
    by_number: dict[str, Device],
    ids: dict[str, str],
    on_device: dict[str, str],
    nodes: dict[str, Node],
    edges: list[Edge],
) -> None:
    by_path = {f"/dev/{device.name}": device for device in seen.devices}
    by_link = {link: device for device in seen.devices for link in device.links}
    for mount in seen.mounts:
        device = (
            by_number.get(mount.number) or by_path.get(mount.source) or by_link.get(mount.source)
        )
        if device is None:
            continue
        lower = on_device.get(device.name)
        if lower is None:
            # Mounted, though no signature was read: the kernel knows what it is.
            lower = f"filesystem-on-{ids[device.name]}"
            nodes[lower] = Node(
                id=lower,
                kind=Kind.FILESYSTEM,
                name=mount.type,
                size_bytes=device.size_bytes,
                facts={"type": mount.type},
            )
            edges.append(Edge(ids[device.name], lower))
            on_device[device.name] = lower
        node_id = f"mount-{mount.path}"
        while node_id in nodes:
            node_id += "'"
        nodes[node_id] = Node(
            id=node_id,
            kind=Kind.MOUNT,
            name=mount.path,
            is_read_only=mount.is_read_only,
            facts={"type": mount.type, "root": mount.root},
        )
        edges.append(Edge(lower, node_id))


def _ordered(nodes: list[Node], edges: list[Edge]) -> Graph:
    """Put what carries before what is carried; a loop, which no host should have, ends as it is."""
    waits = {node.id: 0 for node in nodes}
    uppers: dict[str, list[str]] = {}
    for edge in edges:
        waits[edge.upper] += 1
        uppers.setdefault(edge.lower, []).append(edge.upper)
    by_id = {node.id: node for node in nodes}
    ready = [node.id for node in nodes if waits[node.id] == 0]
    ordered: list[Node] = []
    while ready:
        node_id = ready.pop(0)
        ordered.append(by_id.pop(node_id))
        for upper in uppers.get(node_id, ()):
            waits[upper] -= 1
            if waits[upper] == 0:
                ready.append(upper)
    return Graph((*ordered, *by_id.values()), tuple(edges))
