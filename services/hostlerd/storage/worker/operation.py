"""What an operation is, and what it is given when it runs."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from hostlerd.privileged.grammar import Check
from hostlerd.storage.worker import identity, saved, use
from hostlerd.storage.worker.identity import Device
from hostlerd.storage.worker.tools import Tools


@dataclass(frozen=True, slots=True)
class Request:
    """A request that has passed its grammar, with its devices open, locked and proven."""

    operation: str
    fields: Mapping[str, Any]
    devices: Mapping[str, tuple[Device, ...]]
    """By field; a field that may hold several has as many."""
    store: saved.Store
    saved: Mapping[str, str]
    """By the id of each device that is overwritten, under which name it was saved."""
    tools: Tools
    erased: list[Device] = field(default_factory=list)

    def __getitem__(self, name: str) -> Any:
        """A field's value; an optional one that is not there is None."""
        return self.fields.get(name)

    def device(self, name: str) -> Device:
        """The one device of a field."""
        (device,) = self.devices[name]
        return device

    def erase(self, device: Device) -> None:
        """Zero the places that were saved, so that nothing takes the device for what it was.

        A failure of the operation puts them back.
        """
        about, _ = self.store.load(self.saved[device.target.id])
        with self.exclusive(device) as fd:
            self.erased.append(device)
            saved.write(fd, about.regions, (bytes(region.length) for region in about.regions))
            identity.read_partitions_again(fd, device)

    def put_back(self) -> None:
        """Write what was erased back to where it was. Raises Refused, OSError."""
        for device in self.erased:
            about, pieces = self.store.load(self.saved[device.target.id])
            with self.exclusive(device) as fd:
                saved.write(fd, about.regions, pieces)
                identity.read_partitions_again(fd, device)

    @contextmanager
    def exclusive(self, device: Device) -> Iterator[int]:
        """Claim a device for writing: nobody can mount it meanwhile. Raises Refused, OSError."""
        self.tools.check()
        fd = use.claimed(device, os.O_RDWR)
        try:
            if identity.disk_sequence(fd) != device.target.disk_sequence:
                raise identity.changed(device.target, "its disk sequence")
            yield fd
        finally:
            os.close(fd)
        self.tools.check()


@dataclass(frozen=True, slots=True)
class Operation:
    """One thing the worker does.

    `fields` is the closed grammar of its step: each field and how it is checked. `run` is called
    after all checks of the devices, with their locks held, and answers what the caller is told.
    """

    fields: Mapping[str, Check]
    run: Callable[[Request, Tools], dict[str, Any]]
    overwrites: tuple[str, ...] = ()
    """Fields of devices whose contents are lost: nobody may use them, and what they hold must be
    what the plan saw."""
    uses: tuple[str, ...] = ()
    """Fields of devices that must be the same still, and may be in use."""
    optional: tuple[str, ...] = ()
    """Fields that a step need not have."""
    only_reads: bool = False
