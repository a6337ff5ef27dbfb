"""The storage daemon."""

from __future__ import annotations

from functools import partial

from hostler.api.storage.v1 import (
    array_pb2,
    array_pb2_grpc,
    backup_pb2,
    backup_pb2_grpc,
    btrfs_pb2,
    btrfs_pb2_grpc,
    copy_pb2,
    copy_pb2_grpc,
    disk_pb2,
    disk_pb2_grpc,
    export_pb2,
    export_pb2_grpc,
    filesystem_pb2,
    filesystem_pb2_grpc,
    graph_pb2,
    graph_pb2_grpc,
    luks_pb2,
    luks_pb2_grpc,
    lvm_pb2,
    lvm_pb2_grpc,
    mount_pb2,
    mount_pb2_grpc,
    partition_pb2,
    partition_pb2_grpc,
)
from hostlerd.runtime.domain import Domain, Runtime, Service
from hostlerd.runtime.server import main
from hostlerd.storage.kernel import Kernel
from hostlerd.storage.kernel.changing import Changing
from hostlerd.storage.kernel.doors import doors
from hostlerd.storage.kernel.mount_units import MountUnits
from hostlerd.storage.kernel.probe import PROBES
from hostlerd.storage.kernel.worker_client import Worker
from hostlerd.storage.service.array import ArrayService
from hostlerd.storage.service.array_follow import Following
from hostlerd.storage.service.backup import BackupService
from hostlerd.storage.service.btrfs import BtrfsService
from hostlerd.storage.service.copy import CopyService
from hostlerd.storage.service.disk import DiskService
from hostlerd.storage.service.disk_follow import Following as DiskFollowing
from hostlerd.storage.service.export import AttachmentService, ExportService
from hostlerd.storage.service.filesystem import FilesystemService
from hostlerd.storage.service.graph import GraphService
from hostlerd.storage.service.luks import LuksService
from hostlerd.storage.service.lvm import LvmService
from hostlerd.storage.service.lvm_follow import carriers
from hostlerd.storage.service.mount import MountService
from hostlerd.storage.service.partition import PartitionService


def build(runtime: Runtime) -> Domain:
    """Put the domain together. It has nothing that a boot would have to bring back."""
    kernel = Kernel()
    changing = Changing(Worker(), doors())
    changes = runtime.changes(changing)
    return Domain(
        services=(
            Service(
                graph_pb2.DESCRIPTOR.services_by_name["GraphService"],
                graph_pb2_grpc.add_GraphServiceServicer_to_server,
                GraphService(runtime, kernel, changing),
            ),
            Service(
                filesystem_pb2.DESCRIPTOR.services_by_name["FilesystemService"],
                filesystem_pb2_grpc.add_FilesystemServiceServicer_to_server,
                FilesystemService(runtime, kernel, changing, changes),
            ),
            Service(
                mount_pb2.DESCRIPTOR.services_by_name["MountService"],
                mount_pb2_grpc.add_MountServiceServicer_to_server,
                MountService(runtime, kernel, MountUnits(), changes),
            ),
            Service(
                array_pb2.DESCRIPTOR.services_by_name["ArrayService"],
                array_pb2_grpc.add_ArrayServiceServicer_to_server,
                ArrayService(runtime, kernel, changes, Following(changing)),
            ),
            Service(
                btrfs_pb2.DESCRIPTOR.services_by_name["BtrfsService"],
                btrfs_pb2_grpc.add_BtrfsServiceServicer_to_server,
                BtrfsService(runtime, kernel, changing, changes),
            ),
            Service(
                disk_pb2.DESCRIPTOR.services_by_name["DiskService"],
                disk_pb2_grpc.add_DiskServiceServicer_to_server,
                DiskService(
                    *(runtime, kernel, MountUnits(), changes),
                    DiskFollowing(changing, partial(carriers, kernel)),
                ),
            ),
            Service(
                luks_pb2.DESCRIPTOR.services_by_name["LuksService"],
                luks_pb2_grpc.add_LuksServiceServicer_to_server,
                LuksService(runtime, kernel, changing, changes),
            ),
            Service(
                lvm_pb2.DESCRIPTOR.services_by_name["LvmService"],
                lvm_pb2_grpc.add_LvmServiceServicer_to_server,
                LvmService(runtime, kernel, changing, changes),
            ),
            Service(
                backup_pb2.DESCRIPTOR.services_by_name["BackupService"],
                backup_pb2_grpc.add_BackupServiceServicer_to_server,
                BackupService(runtime, changing, changes),
            ),
            Service(
                copy_pb2.DESCRIPTOR.services_by_name["CopyService"],
                copy_pb2_grpc.add_CopyServiceServicer_to_server,
                CopyService(runtime, changing, changes),
            ),
            Service(
                export_pb2.DESCRIPTOR.services_by_name["ExportService"],
                export_pb2_grpc.add_ExportServiceServicer_to_server,
                ExportService(runtime, kernel, changing, changes),
            ),
            Service(
                export_pb2.DESCRIPTOR.services_by_name["AttachmentService"],
                export_pb2_grpc.add_AttachmentServiceServicer_to_server,
                AttachmentService(runtime, kernel, changing, changes),
            ),
            Service(
                partition_pb2.DESCRIPTOR.services_by_name["PartitionService"],
                partition_pb2_grpc.add_PartitionServiceServicer_to_server,
                PartitionService(runtime, kernel, changing, changes),
            ),
        ),
        probes=PROBES,
    )


if __name__ == "__main__":
    main("storage", build)
