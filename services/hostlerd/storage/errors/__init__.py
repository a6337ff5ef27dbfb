"""What the storage domain refuses, and why."""

from __future__ import annotations

from hostlerd.runtime.errors import Code, DomainError, Unsettled


class ToolFailed(DomainError):
    """A tool could not be run, took too long, or said no."""

    code, reason = Code.FAILED_PRECONDITION, "TOOL_FAILED"


class KernelUnreadable(DomainError):
    """The kernel does not tell what was asked; the message has its words."""

    code, reason = Code.FAILED_PRECONDITION, "KERNEL_UNREADABLE"


class DeviceNotFound(DomainError):
    """No device of this host is called that."""

    code, reason = Code.NOT_FOUND, "DEVICE_NOT_FOUND"


class DeviceAmbiguous(DomainError):
    """Several devices are called that, as a disk and its clone; the metadata tells their ids."""

    code, reason = Code.FAILED_PRECONDITION, "DEVICE_AMBIGUOUS"


class DeviceNameNotLasting(DomainError):
    """The kernel gives that name to another device after a boot; the metadata tells the id."""

    code, reason = Code.INVALID_ARGUMENT, "DEVICE_NAME_NOT_LASTING"


class DeviceGone(DomainError):
    """The device has vanished since the plan was made."""

    code, reason = Code.ABORTED, "DEVICE_GONE"


class DeviceChanged(DomainError):
    """What is at the device's place is another one by now. Nothing was done."""

    code, reason = Code.ABORTED, "DEVICE_CHANGED"


class SignaturesChanged(DomainError):
    """Something else lies on the device than when the plan was made. Nothing was done."""

    code, reason = Code.ABORTED, "SIGNATURES_CHANGED"


class DeviceBusy(DomainError):
    """Somebody uses the device; the metadata tells who. Nothing was done."""

    code, reason = Code.FAILED_PRECONDITION, "DEVICE_BUSY"


class DeviceLocked(DomainError):
    """Another program holds the lock of the disk. Nothing was done."""

    code, reason = Code.FAILED_PRECONDITION, "DEVICE_LOCKED"


class DeviceReadOnly(DomainError):
    """The device cannot be written."""

    code, reason = Code.FAILED_PRECONDITION, "DEVICE_READ_ONLY"


class DeviceTooSmall(DomainError):
    """The device has too little room for that."""

    code, reason = Code.FAILED_PRECONDITION, "DEVICE_TOO_SMALL"


class TableHybrid(DomainError):
    """A hybrid table, of MBR and GPT, cannot be changed or copied by its partitions."""

    code, reason = Code.FAILED_PRECONDITION, "TABLE_HYBRID"


class TableDoesNotFit(DomainError):
    """A partition table is not for this device: it is too small, or has other sectors."""

    code, reason = Code.FAILED_PRECONDITION, "TABLE_DOES_NOT_FIT"


class DiskHoldsContents(DomainError):
    """A disk that is to be partitioned is, as a whole, a filesystem or a member of an array."""

    code, reason = Code.FAILED_PRECONDITION, "DISK_HOLDS_CONTENTS"


class ReplacementRefused(DomainError):
    """The new disk cannot take the place of the old one; the message says all that is found."""

    code, reason = Code.FAILED_PRECONDITION, "REPLACEMENT_REFUSED"


class BurnInFailed(DomainError):
    """The disk does not keep what is written to it; the message says where."""

    code, reason = Code.DATA_LOSS, "BURN_IN_FAILED"


class BurnInLost(DomainError):
    """It was cut off with the worker that did it; the disk may be begun with anew."""

    code, reason = Code.ABORTED, "BURN_IN_LOST"


class NotInEnclosure(DomainError):
    """The disk is in no enclosure that could blink at it."""

    code, reason = Code.FAILED_PRECONDITION, "NOT_IN_ENCLOSURE"


class ReplacementIncomplete(DomainError):
    """Something did not come back on the new disk; asked for again, it is tried again."""

    code, reason = Code.ABORTED, "REPLACEMENT_INCOMPLETE"


class FilesystemNotFound(DomainError):
    """No filesystem of a kind that can do that is on the device."""

    code, reason = Code.FAILED_PRECONDITION, "FILESYSTEM_NOT_FOUND"


class NotMounted(DomainError):
    """This filesystem can do that only while it is mounted."""

    code, reason = Code.FAILED_PRECONDITION, "NOT_MOUNTED"


class ToolMissing(DomainError):
    """The tool for that is not installed on this host."""

    code, reason = Code.FAILED_PRECONDITION, "TOOL_MISSING"


class SavedNotFound(DomainError):
    """Nothing is kept under that name."""

    code, reason = Code.NOT_FOUND, "SAVED_NOT_FOUND"


class SavedOfAnotherDevice(DomainError):
    """That was saved of another device than the one it is to be put back on."""

    code, reason = Code.FAILED_PRECONDITION, "SAVED_OF_ANOTHER_DEVICE"


class SavedDamaged(DomainError):
    """What is kept under that name is not what was saved."""

    code, reason = Code.DATA_LOSS, "SAVED_DAMAGED"


class PutBackFailed(DomainError):
    """What a change had erased could not be put back when it failed; the metadata has its name."""

    code, reason = Code.DATA_LOSS, "ROLLBACK_FAILED"


class WorkerRefused(DomainError):
    """The worker that changes disks did not do what it was asked; the message has its words."""

    code, reason = Code.FAILED_PRECONDITION, "WORKER_REFUSED"


class WorkerUnavailable(DomainError):
    """The worker that changes disks does not answer.

    Not UNAVAILABLE: clients would try again by themselves, and a destroy token is good once.
    """

    code, reason = Code.FAILED_PRECONDITION, "WORKER_UNAVAILABLE"


class WorkerLost(Unsettled):
    """The worker had a request, and its answer did not come: it was done or not, or is still."""

    code, reason = Code.ABORTED, "WORKER_LOST"


class WorkerGoesOn(DomainError):
    """What a daemon that has ended had asked the worker for takes its time: wait for that first."""

    code, reason = Code.FAILED_PRECONDITION, "ORPHAN_GOES_ON"


class ArrayNotFound(DomainError):
    """No array of this host is called that."""

    code, reason = Code.NOT_FOUND, "ARRAY_NOT_FOUND"


class ArrayAmbiguous(DomainError):
    """Several arrays are called that."""

    code, reason = Code.FAILED_PRECONDITION, "ARRAY_AMBIGUOUS"


class ArrayExists(DomainError):
    """There is an array of that name, made in another way or of other devices."""

    code, reason = Code.ALREADY_EXISTS, "ARRAY_EXISTS"


class ArrayBusy(DomainError):
    """md does something to the array that has to be over before; the metadata says what."""

    code, reason = Code.FAILED_PRECONDITION, "ARRAY_BUSY"


class ArrayLevel(DomainError):
    """The level of the array cannot do that."""

    code, reason = Code.FAILED_PRECONDITION, "ARRAY_LEVEL"


class MemberNotFound(DomainError):
    """The device is no member of the array."""

    code, reason = Code.NOT_FOUND, "MEMBER_NOT_FOUND"


class MemberInUse(DomainError):
    """The array uses the device; another change has to come before."""

    code, reason = Code.FAILED_PRECONDITION, "MEMBER_IN_USE"


class LastCopy(DomainError):
    """Nothing else has what is on the device, or may have it. Nothing was done."""

    code, reason = Code.FAILED_PRECONDITION, "LAST_COPY"


class BtrfsNotFound(DomainError):
    """No btrfs that is mounted on this host is called that."""

    code, reason = Code.NOT_FOUND, "BTRFS_NOT_FOUND"


class BtrfsAmbiguous(DomainError):
    """Several filesystems have that label."""

    code, reason = Code.FAILED_PRECONDITION, "BTRFS_AMBIGUOUS"


class BtrfsBusy(DomainError):
    """Something goes on in the filesystem that excludes it; the message says what."""

    code, reason = Code.FAILED_PRECONDITION, "BTRFS_BUSY"


class BtrfsRefused(DomainError):
    """The kernel does not do that to the filesystem; the message has its words."""

    code, reason = Code.FAILED_PRECONDITION, "BTRFS_REFUSED"


class BtrfsWorkLost(DomainError):
    """What went on was cut off with the worker that did it."""

    code, reason = Code.ABORTED, "BTRFS_WORK_LOST"


class TooFewDevices(DomainError):
    """The profiles of the filesystem need more devices than would be left."""

    code, reason = Code.FAILED_PRECONDITION, "TOO_FEW_DEVICES"


class LessRedundancy(DomainError):
    """The filesystem would survive the loss of fewer devices; the request may say so on purpose."""

    code, reason = Code.FAILED_PRECONDITION, "LESS_REDUNDANCY"


class SubvolumeNotFound(DomainError):
    """The filesystem has no subvolume of that path."""

    code, reason = Code.NOT_FOUND, "SUBVOLUME_NOT_FOUND"


class SubvolumeExists(DomainError):
    """Something else is at that path."""

    code, reason = Code.ALREADY_EXISTS, "SUBVOLUME_EXISTS"


class SubvolumeBusy(DomainError):
    """The subvolume is mounted, or another one is in it. Nothing was done."""

    code, reason = Code.FAILED_PRECONDITION, "SUBVOLUME_BUSY"


class SubvolumeChanged(DomainError):
    """What is at the path is not as the plan saw it. Nothing was done."""

    code, reason = Code.ABORTED, "SUBVOLUME_CHANGED"


class SecretUnusable(DomainError):
    """A file of secrets is not there, is not root's alone, or holds something else."""

    code, reason = Code.FAILED_PRECONDITION, "SECRET_UNUSABLE"


class TargetUnusable(DomainError):
    """The place is not empty, not root's alone, or not apart from what is backed up."""

    code, reason = Code.FAILED_PRECONDITION, "TARGET_UNUSABLE"


class NoSpace(DomainError):
    """The place has too little room for what is to be restored."""

    code, reason = Code.FAILED_PRECONDITION, "NO_SPACE"


class RunLost(DomainError):
    """The program that did it has ended in the middle."""

    code, reason = Code.ABORTED, "RUN_NOT_FOUND"


class RunStopped(DomainError):
    """It was told to stop."""

    code, reason = Code.ABORTED, "STOPPED"


class UnitNotOurs(DomainError):
    """Something else declares that, or it was done by hand; the metadata says what."""

    code, reason = Code.FAILED_PRECONDITION, "UNIT_NOT_OURS"


class UnitChanged(DomainError):
    """The unit is another one than when the plan was made. Nothing was done."""

    code, reason = Code.ABORTED, "UNIT_CHANGED"


class MountExists(DomainError):
    """Another device has that mount."""

    code, reason = Code.ALREADY_EXISTS, "MOUNT_EXISTS"


class MountBusy(DomainError):
    """Somebody uses what is mounted; the metadata tells who. It stays mounted."""

    code, reason = Code.FAILED_PRECONDITION, "MOUNT_BUSY"


class MountFailed(DomainError):
    """The unit did not come up, or brought up something else. All is as it was before."""

    code, reason = Code.FAILED_PRECONDITION, "MOUNT_FAILED"


class MountPointStrange(DomainError):
    """The mount point is no folder, or a link leads there."""

    code, reason = Code.FAILED_PRECONDITION, "MOUNT_POINT_STRANGE"


class LinkMissing(DomainError):
    """The lasting name of the device does not lead to it."""

    code, reason = Code.FAILED_PRECONDITION, "LINK_MISSING"


class SwapNeeded(DomainError):
    """Memory and the other areas would not hold what is swapped to this one."""

    code, reason = Code.FAILED_PRECONDITION, "SWAP_NEEDED"
