"""What the storage domain refuses to do with LVM, and why."""

from __future__ import annotations

from hostlerd.runtime.errors import Code, DomainError


class GroupNotFound(DomainError):
    """No volume group of this host is called that."""

    code, reason = Code.NOT_FOUND, "GROUP_NOT_FOUND"


class GroupAmbiguous(DomainError):
    """Several groups are called that; the metadata tells their UUIDs."""

    code, reason = Code.FAILED_PRECONDITION, "GROUP_AMBIGUOUS"


class GroupExists(DomainError):
    """There is a group of that name, of other devices."""

    code, reason = Code.ALREADY_EXISTS, "GROUP_EXISTS"


class GroupChanged(DomainError):
    """The group is not as the plan saw it. Nothing was done."""

    code, reason = Code.ABORTED, "GROUP_CHANGED"


class GroupIncomplete(DomainError):
    """Devices of the group are missing: LVM changes nothing but what mends that."""

    code, reason = Code.FAILED_PRECONDITION, "GROUP_INCOMPLETE"


class GroupForeign(DomainError):
    """The group is exported, or a cluster's."""

    code, reason = Code.FAILED_PRECONDITION, "GROUP_FOREIGN"


class GroupBusy(DomainError):
    """LVM does something to the group that has to be over before; the message says what."""

    code, reason = Code.FAILED_PRECONDITION, "GROUP_BUSY"


class GroupFull(DomainError):
    """The group, or the devices that were named, have too few free extents."""

    code, reason = Code.FAILED_PRECONDITION, "GROUP_FULL"


class GroupNotEmpty(DomainError):
    """The group has volumes: each is deleted by itself."""

    code, reason = Code.FAILED_PRECONDITION, "GROUP_NOT_EMPTY"


class PhysicalVolumeNotFound(DomainError):
    """The device is not in the group."""

    code, reason = Code.NOT_FOUND, "PHYSICAL_VOLUME_NOT_FOUND"


class PhysicalVolumeInUse(DomainError):
    """Something lies on the device: it is moved first."""

    code, reason = Code.FAILED_PRECONDITION, "PHYSICAL_VOLUME_IN_USE"


class PhysicalVolumeCloned(DomainError):
    """Two devices say that they are the same physical volume; the metadata tells their ids."""

    code, reason = Code.FAILED_PRECONDITION, "PHYSICAL_VOLUME_CLONED"


class VolumeNotFound(DomainError):
    """No logical volume of this host is called that."""

    code, reason = Code.NOT_FOUND, "VOLUME_NOT_FOUND"


class VolumeAmbiguous(DomainError):
    """Several volumes are called that; the metadata tells their ids."""

    code, reason = Code.FAILED_PRECONDITION, "VOLUME_AMBIGUOUS"


class VolumeExists(DomainError):
    """There is a volume of that name, which is another one."""

    code, reason = Code.ALREADY_EXISTS, "VOLUME_EXISTS"


class VolumeBusy(DomainError):
    """Somebody uses the volume; the metadata tells who."""

    code, reason = Code.FAILED_PRECONDITION, "VOLUME_BUSY"


class VolumeNeeded(DomainError):
    """Other volumes need it: snapshots of it, or thin volumes in it."""

    code, reason = Code.FAILED_PRECONDITION, "VOLUME_NEEDED"


class VolumeKind(DomainError):
    """A volume of that kind cannot do that."""

    code, reason = Code.FAILED_PRECONDITION, "VOLUME_KIND"


class VolumeLacksData(DomainError):
    """What the volume has lost has no other copy."""

    code, reason = Code.DATA_LOSS, "VOLUME_LACKS_DATA"


class NotASystem(DomainError):
    """What a template holds is no root file system of a host."""

    code, reason = Code.FAILED_PRECONDITION, "NOT_A_SYSTEM"


class LuksNotFound(DomainError):
    """No LUKS is on the device."""

    code, reason = Code.FAILED_PRECONDITION, "LUKS_NOT_FOUND"


class LuksOpen(DomainError):
    """It is open under another name."""

    code, reason = Code.FAILED_PRECONDITION, "LUKS_OPEN"


class LuksNameTaken(DomainError):
    """Another device of the device mapper has that name."""

    code, reason = Code.ALREADY_EXISTS, "LUKS_NAME_TAKEN"


class LuksKeyWrong(DomainError):
    """The key opens none of the keyslots."""

    code, reason = Code.FAILED_PRECONDITION, "LUKS_KEY_WRONG"


class LuksHeaderDamaged(DomainError):
    """The header cannot be read."""

    code, reason = Code.DATA_LOSS, "LUKS_HEADER_DAMAGED"
