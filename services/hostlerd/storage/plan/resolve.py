"""Which devices a word of fstab(5) or of the kernel's command line means."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from hostlerd.storage.model.observed import Device, Mount, Observed

_SAID: Mapping[str, Callable[[Device], Iterable[str]]] = {
    "UUID": lambda device: [one.uuid for one in device.signatures if one.usage != "raid"],
    "LABEL": lambda device: [one.label for one in device.signatures if one.usage != "raid"],
    "PARTUUID": lambda device: [device.partition.uuid] if device.partition is not None else [],
    # The name is in no superblock: udev's link leads to it.
    "PARTLABEL": lambda device: [],
}


def named(seen: Observed, word: str) -> tuple[Device, ...]:
    """The devices that `UUID=…`, `LABEL=…`, `PARTUUID=…` or a path of /dev means; clones are two.

    Empty if there is none, and for a word that names no device of this host.
    """
    kind, equals, value = word.partition("=")
    if not equals or kind not in _SAID:
        return tuple(device for device in seen.devices if word in paths(device))
    wanted = value.strip('"')
    link = f"/dev/disk/by-{kind.lower()}/{wanted}"
    return tuple(
        device
        for device in seen.devices
        if wanted.lower() in (each.lower() for each in _SAID[kind](device)) or link in device.links
    )


def paths(device: Device) -> frozenset[str]:
    """The paths that lead to a device, as far as they are known."""
    mapper = (f"/dev/mapper/{device.dm_name}",) if device.dm_name else ()
    return frozenset((f"/dev/{device.name}", *mapper, *device.links))


def device_of(seen: Observed, mount: Mount) -> Device | None:
    """The device that is mounted; of a btrfs one of them."""
    return next((each for each in seen.devices if each.number == mount.number), None) or next(
        (each for each in seen.devices if mount.source in paths(each)), None
    )


def devices_of(seen: Observed, mount: Mount) -> tuple[Device, ...]:
    """The devices that carry what is mounted: of a btrfs all of them."""
    device = device_of(seen, mount)
    if device is None:
        return ()
    by_name: Mapping[str, Device] = {each.name: each for each in seen.devices}
    for pool in seen.btrfs:
        names = [one.name for one in pool.devices]
        if device.name in names:
            return tuple(by_name[name] for name in names if name in by_name)
    return (device,)
