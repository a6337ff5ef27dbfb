"""What `lvm fullreport` says, read: the worker asks for it, and checks and the daemon plan by it.

Source: lvmreport(7), lvm-fullreport(8).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from hostlerd.storage.model.lvm import Group, PhysicalVolume, Volume

Rows = Sequence[Mapping[str, Any]]
FIELDS: Mapping[str, str] = {
    "vg": "vg_name,vg_uuid,vg_seqno,vg_extent_size,vg_exported,vg_lock_type,vg_clustered",
    "pv": "pv_uuid,pv_name,pv_major,pv_minor,pv_pe_count,pv_pe_alloc_count,pv_missing,"
    "pv_allocatable",
    "lv": "lv_uuid,lv_name,lv_parent,lv_layout,lv_role,lv_size,origin,pool_lv,lv_active,"
    "lv_device_open,lv_health_status,sync_percent,data_percent,metadata_percent,lv_merging,"
    "lv_kernel_major,lv_kernel_minor,move_pv",
    "seg": "lv_uuid,segtype,devices,stripes",
    # A report cannot be left out, but for its rows.
    "pvseg": "pv_uuid",
}
WORDS: tuple[str, ...] = (
    *("--reportformat", "json", "--units", "b", "--nosuffix", "--binary", "--all"),
    *(word for kind, names in FIELDS.items() for word in ("--configreport", kind, "-o", names)),
)
_DEVICE = re.compile(r"(?P<path>.+)\(\d+\)")


def read(reports: Iterable[Mapping[str, Rows]]) -> tuple[Group, ...]:
    """The groups of a report, by their names. Raises KeyError, ValueError.

    A group that another host owns by its system id is in no report.
    """
    groups = []
    for one in reports:
        for row in one.get("vg", ()):
            if row["vg_uuid"]:
                groups.append(_group(row, one))
    return tuple(sorted(groups, key=lambda group: (group.name, group.uuid)))


def _group(row: Mapping[str, Any], report: Mapping[str, Rows]) -> Group:
    locked = row["vg_lock_type"] not in ("", "none") or _flag(row["vg_clustered"])
    carriers = {pv["pv_name"]: pv["pv_uuid"] for pv in report.get("pv", ())}
    return Group(
        uuid=row["vg_uuid"],
        name=row["vg_name"],
        seqno=int(row["vg_seqno"]),
        extent_bytes=int(row["vg_extent_size"]),
        physical=tuple(_physical(pv) for pv in report.get("pv", ())),
        volumes=_volumes(report.get("lv", ()), report.get("seg", ()), carriers),
        is_foreign=locked or _flag(row["vg_exported"]),
    )


def _physical(row: Mapping[str, Any]) -> PhysicalVolume:
    is_there = not _flag(row["pv_missing"]) and int(row["pv_major"]) >= 0
    return PhysicalVolume(
        uuid=row["pv_uuid"],
        number=f"{row['pv_major']}:{row['pv_minor']}" if is_there else "",
        extents=int(row["pv_pe_count"]),
        used_extents=int(row["pv_pe_alloc_count"]),
        is_allocatable=_flag(row["pv_allocatable"]),
    )


def _volumes(rows: Rows, segments: Rows, carriers: Mapping[str, str]) -> tuple[Volume, ...]:
    of: dict[str, list[Mapping[str, Any]]] = {}
    for segment in segments:
        of.setdefault(segment["lv_uuid"], []).append(segment)
    uuids = {row["lv_name"].strip("[]"): row["lv_uuid"] for row in rows}
    direct = {uuid: _lies_on(each) for uuid, each in of.items()}

    def carried(uuid: str, depth: int = 8) -> set[str]:
        """The physical volumes below a volume: what is no path is another volume's name."""
        found: set[str] = set()
        for path in direct.get(uuid, ()):
            if path in carriers:
                found.add(carriers[path])
            elif path.strip("[]") in uuids and depth:
                found |= carried(uuids[path.strip("[]")], depth - 1)
        return found

    made: dict[str, Volume] = {}
    for row in rows:
        uuid = row["lv_uuid"]
        # A volume that is stacked in another way has two rows, which tell the same.
        made.setdefault(uuid, _volume(row, of.get(uuid, ()), tuple(sorted(carried(uuid)))))
    return tuple(made.values())


def _lies_on(segments: Rows) -> list[str]:
    paths = []
    for segment in segments:
        for word in segment["devices"].split(","):
            if (found := _DEVICE.fullmatch(word)) is not None:
                paths.append(found["path"])
    return paths


def _volume(row: Mapping[str, Any], segments: Rows, carriers: tuple[str, ...]) -> Volume:
    merging = _flag(row["lv_merging"])
    major, minor = int(row["lv_kernel_major"]), int(row["lv_kernel_minor"])
    return Volume(
        uuid=row["lv_uuid"],
        # A snapshot that is being merged is hidden by LVM, and known by its name to whoever asked.
        name=row["lv_name"].strip("[]") if merging else row["lv_name"],
        size_bytes=int(row["lv_size"]),
        kind=str(segments[0]["segtype"]) if segments else "",
        layout=_words(row["lv_layout"]),
        role=_words(row["lv_role"]),
        origin=row["origin"].strip("[]"),
        pool=row["pool_lv"].strip("[]"),
        parent=row["lv_parent"].strip("[]"),
        is_active=row["lv_active"] == "active",
        is_open=_flag(row["lv_device_open"]),
        number=f"{major}:{minor}" if major >= 0 else "",
        health=row["lv_health_status"],
        sync_percent=_percent(row["sync_percent"]),
        data_percent=_percent(row["data_percent"]),
        metadata_percent=_percent(row["metadata_percent"]),
        is_merging=merging,
        moves=row["move_pv"],
        carriers=carriers,
        legs=int(segments[0]["stripes"]) if segments else 1,
    )


def _words(said: str) -> tuple[str, ...]:
    return tuple(word for word in said.split(",") if word)


def _flag(said: str) -> bool:
    # With --binary: 0, 1, and -1 for what is not known.
    return str(said) not in ("", "0", "-1")


def _percent(said: str) -> float | None:
    return float(said) if said else None
