"""Who may call what: the expected answers, kept by hand, for every method that there is.

A column is a sort of caller, a letter the answer: T ends before there is a call, in the TLS
handshake or at the socket's mode, U is UNAUTHENTICATED, D is PERMISSION_DENIED, + is let through
(whatever the method then says). `stranger` is a user in no group, `host` another host's
certificate, `local-user` an account outside of the group `hostler`.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

PROTOS = Path(__file__).parents[2] / "protos"
REMOTE = (
    *("none", "other-ca", "expired", "revoked", "stranger", "host", "viewer", "operator", "admin"),
)
LOCAL = ("local-user", "local-group", "local-root")
CALLERS = (*REMOTE, *LOCAL)
THIRD_PARTY = (
    health_pb2.DESCRIPTOR.services_by_name["Health"],
    reflection_pb2.DESCRIPTOR.services_by_name["ServerReflection"],
)

# none, other-ca, expired, revoked | stranger, host | viewer, operator, admin | local: user, group,
# root
_GRID = """
hostler.api.common.v1.HostService/GetHost                     TTTU ++ +++ T++
hostler.api.common.v1.AuditService/ListAuditRecords           TTTU DD +++ T++
hostler.api.common.v1.AuditService/FollowAuditRecords         TTTU DD +++ T++
hostler.api.common.v1.AuditService/ReadAuditLog               TTTU DD +++ T++
hostler.api.common.v1.AuditService/GetAuditState              TTTU DD +++ T++
hostler.api.common.v1.BundleService/GetBundle                 TTTU DD +++ T++
hostler.api.common.v1.BundleService/PushBundle                TTTU DD D++ TD+
hostler.api.common.v1.ConfirmService/GetPending               TTTU DD +++ T++
hostler.api.common.v1.ConfirmService/ConfirmPending           TTTU DD D++ TD+
hostler.api.common.v1.ConfirmService/RevertPending            TTTU DD D++ TD+
hostler.api.common.v1.JobService/ListJobs                     TTTU DD +++ T++
hostler.api.common.v1.JobService/GetJob                       TTTU DD +++ T++
hostler.api.common.v1.JobService/WatchJob                     TTTU DD +++ T++
hostler.api.common.v1.JobService/CancelJob                    TTTU DD D++ TD+
hostler.api.common.v1.ApprovalService/ListApprovals           TTTU DD +++ T++
hostler.api.common.v1.ApprovalService/GetApproval             TTTU DD +++ T++
hostler.api.common.v1.ApprovalService/ApproveChange           TTTU DD D++ TD+
hostler.api.common.v1.ApprovalService/WithdrawApproval        TTTU DD D++ TD+
hostler.api.netns.v1.NamespaceService/CreateNamespace         TTTU DD D++ TD+
hostler.api.netns.v1.NamespaceService/GetNamespace            TTTU DD +++ T++
hostler.api.netns.v1.NamespaceService/ListNamespaces          TTTU DD +++ T++
hostler.api.netns.v1.NamespaceService/DeleteNamespace         TTTU DD D++ TD+
hostler.api.netns.v1.NamespaceService/ApplyNamespaces         TTTU DD D++ TD+
hostler.api.netns.v1.ProcessService/RunProcess                TTTU DD DD+ TD+
hostler.api.netns.v1.ProcessService/StartProcess              TTTU DD DD+ TD+
hostler.api.netns.v1.ProcessService/StopProcess               TTTU DD D++ TD+
hostler.api.netns.v1.ProcessService/ListProcesses             TTTU DD +++ T++
hostler.api.netns.v1.ProcessService/ListTasks                 TTTU DD +++ T++
hostler.api.netns.v1.ProcessService/SignalProcess             TTTU DD D++ TD+
hostler.api.netns.v1.ProcessService/StreamLogs                TTTU DD +++ T++
hostler.api.netns.v1.CounterService/GetCounters               TTTU DD +++ T++
hostler.api.netns.v1.CounterService/WatchCounters             TTTU DD +++ T++
hostler.api.firewall.v1.RulesetService/GetRuleset             TTTU DD +++ T++
hostler.api.firewall.v1.RulesetService/ListRulesets           TTTU DD +++ T++
hostler.api.firewall.v1.RulesetService/ApplyRuleset           TTTU DD D++ TD+
hostler.api.firewall.v1.RulesetService/ApplyRulesets          TTTU DD D++ TD+
hostler.api.firewall.v1.RulesetService/DeleteRuleset          TTTU DD D++ TD+
hostler.api.firewall.v1.RulesetService/GetTable               TTTU DD +++ T++
hostler.api.firewall.v1.ConnectionService/ListConnections     TTTU DD +++ T++
hostler.api.firewall.v1.ConnectionService/CountConnections    TTTU DD +++ T++
hostler.api.firewall.v1.ConnectionService/FlushConnections    TTTU DD D++ TD+
hostler.api.firewall.v1.RuleCounterService/ListRuleCounters   TTTU DD +++ T++
hostler.api.firewall.v1.RuleCounterService/WatchRuleCounters  TTTU DD +++ T++
hostler.api.firewall.v1.PacketLogService/FollowPacketLog      TTTU DD +++ T++
hostler.api.firewall.v1.PacketLogService/GetPacketLogState    TTTU DD +++ T++
hostler.api.firewall.v1.AddressSetService/ListAddressSets     TTTU DD +++ T++
hostler.api.firewall.v1.AddressSetService/ListElements        TTTU DD +++ T++
hostler.api.firewall.v1.AddressSetService/AddElements         TTTU DD D++ TD+
hostler.api.firewall.v1.AddressSetService/RemoveElements      TTTU DD D++ TD+
hostler.api.firewall.v1.AddressSetService/ReplaceElements     TTTU DD D++ TD+
hostler.api.firewall.v1.PreviewService/ExplainPacket          TTTU DD +++ T++
hostler.api.firewall.v1.PreviewService/StartShadow            TTTU DD D++ TD+
hostler.api.firewall.v1.PreviewService/GetShadow              TTTU DD +++ T++
hostler.api.firewall.v1.PreviewService/StopShadow             TTTU DD D++ TD+
hostler.api.firewall.v1.PreviewService/StartShadow            TTTU DD D++ TD+
hostler.api.firewall.v1.PreviewService/GetShadow              TTTU DD +++ T++
hostler.api.firewall.v1.PreviewService/StopShadow             TTTU DD D++ TD+
hostler.api.tracing.v1.DiagnosisService/DiagnoseStuck         TTTU DD +++ T++
hostler.api.tracing.v1.TraceService/StartTrace                TTTU DD +++ T++
hostler.api.tracing.v1.TraceService/StartPayloadTrace         TTTU DD DD+ TD+
hostler.api.tracing.v1.TraceService/StreamTrace               TTTU DD +++ T++
hostler.api.tracing.v1.TraceService/StreamPayloadTrace        TTTU DD DD+ TD+
hostler.api.tracing.v1.TraceService/StopTrace                 TTTU DD +++ T++
hostler.api.tracing.v1.TraceService/ListTraces                TTTU DD +++ T++
hostler.api.tracing.v1.CaptureService/ListCaptures            TTTU DD +++ T++
hostler.api.tracing.v1.CaptureService/QueryCapture            TTTU DD +++ T++
hostler.api.tracing.v1.CaptureService/QueryPayloadCapture     TTTU DD DD+ TD+
hostler.api.tracing.v1.CaptureService/DeleteCapture           TTTU DD D++ TD+
hostler.api.tracing.v1.IoService/WatchIo                      TTTU DD +++ T++
hostler.api.tracing.v1.MemoryService/GetMemory                TTTU DD +++ T++
hostler.api.tracing.v1.NetworkService/WatchLinks              TTTU DD +++ T++
hostler.api.tracing.v1.NetworkService/WatchConnections        TTTU DD +++ T++
hostler.api.tracing.v1.SocketService/ListSockets              TTTU DD +++ T++
hostler.api.ssl.v1.CertificateService/ListCertificates        TTTU DD +++ T++
hostler.api.ssl.v1.CertificateService/GetCertificate          TTTU DD +++ T++
hostler.api.ssl.v1.CertificateService/ListKeys                TTTU DD +++ T++
hostler.api.ssl.v1.ChainService/BuildChain                    TTTU DD +++ T++
hostler.api.ssl.v1.ChainService/WriteChain                    TTTU DD D++ TD+
hostler.api.ssl.v1.DeploymentService/ListDeployments          TTTU DD +++ T++
hostler.api.ssl.v1.DeploymentService/ApplyDeployment          TTTU DD D++ TD+
hostler.api.ssl.v1.DeploymentService/DeleteDeployment         TTTU DD D++ TD+
hostler.api.ssl.v1.DeploymentService/CreateSigningRequest     TTTU DD D++ TD+
hostler.api.ssl.v1.DeploymentService/InstallCertificate       TTTU DD D++ TD+
hostler.api.ssl.v1.DeploymentService/InstallCertificates      TTTU DD D++ TD+
hostler.api.ssl.v1.DeploymentService/RenewDeployment          TTTU DD D++ TD+
hostler.api.ssl.v1.DeploymentService/RevokeDeployedCertificate TTTU DD D++ TD+
hostler.api.ssl.v1.EndpointService/ListEndpoints              TTTU DD +++ T++
hostler.api.ssl.v1.LibraryService/ListLibraryUsers            TTTU DD +++ T++
hostler.api.ssl.v1.ScanService/ScanEndpoints                  TTTU DD +++ T++
hostler.api.storage.v1.GraphService/GetGraph                  TTTU DD +++ T++
hostler.api.storage.v1.GraphService/GetSpace                  TTTU DD +++ T++
hostler.api.storage.v1.GraphService/GetHealth                 TTTU DD +++ T++
hostler.api.storage.v1.GraphService/GetSurvival               TTTU DD +++ T++
hostler.api.storage.v1.FilesystemService/MakeFilesystem       TTTU DD DD+ TD+
hostler.api.storage.v1.FilesystemService/WipeSignatures       TTTU DD DD+ TD+
hostler.api.storage.v1.FilesystemService/SetLabel             TTTU DD D++ TD+
hostler.api.storage.v1.FilesystemService/GrowFilesystem       TTTU DD D++ TD+
hostler.api.storage.v1.FilesystemService/CheckFilesystem      TTTU DD +++ T++
hostler.api.storage.v1.FilesystemService/ListSaved            TTTU DD +++ T++
hostler.api.storage.v1.FilesystemService/RestoreSaved         TTTU DD DD+ TD+
hostler.api.storage.v1.MountService/ListMounts                TTTU DD +++ T++
hostler.api.storage.v1.MountService/ApplyMount                TTTU DD DD+ TD+
hostler.api.storage.v1.MountService/DeleteMount               TTTU DD D++ TD+
hostler.api.storage.v1.MountService/ListSwaps                 TTTU DD +++ T++
hostler.api.storage.v1.MountService/ApplySwap                 TTTU DD D++ TD+
hostler.api.storage.v1.MountService/DeleteSwap                TTTU DD D++ TD+
hostler.api.storage.v1.ArrayService/ListArrays                TTTU DD +++ T++
hostler.api.storage.v1.ArrayService/GetArray                  TTTU DD +++ T++
hostler.api.storage.v1.ArrayService/CreateArray               TTTU DD DD+ TD+
hostler.api.storage.v1.ArrayService/AddMember                 TTTU DD DD+ TD+
hostler.api.storage.v1.ArrayService/FailMember                TTTU DD D++ TD+
hostler.api.storage.v1.ArrayService/RemoveMember              TTTU DD D++ TD+
hostler.api.storage.v1.ArrayService/ReplaceMember             TTTU DD DD+ TD+
hostler.api.storage.v1.ArrayService/GrowArray                 TTTU DD DD+ TD+
hostler.api.storage.v1.ArrayService/CheckArray                TTTU DD D++ TD+
hostler.api.storage.v1.ArrayService/RepairArray               TTTU DD D++ TD+
hostler.api.storage.v1.ArrayService/SetSyncSpeed              TTTU DD D++ TD+
hostler.api.storage.v1.ArrayService/StopArray                 TTTU DD D++ TD+
hostler.api.storage.v1.ArrayService/AssembleArray             TTTU DD D++ TD+
hostler.api.storage.v1.ArrayService/DeleteArray               TTTU DD DD+ TD+
hostler.api.storage.v1.DiskService/PlanReplacement            TTTU DD +++ T++
hostler.api.storage.v1.DiskService/ReplaceDisk                TTTU DD DD+ TD+
hostler.api.storage.v1.DiskService/BurnInDisk                 TTTU DD DD+ TD+
hostler.api.storage.v1.DiskService/LocateDisk                 TTTU DD D++ TD+
hostler.api.storage.v1.BtrfsService/ListBtrfs                 TTTU DD +++ T++
hostler.api.storage.v1.BtrfsService/GetBtrfs                  TTTU DD +++ T++
hostler.api.storage.v1.BtrfsService/ListSubvolumes            TTTU DD +++ T++
hostler.api.storage.v1.BtrfsService/ScrubBtrfs                TTTU DD D++ TD+
hostler.api.storage.v1.BtrfsService/ResetErrorCounters        TTTU DD D++ TD+
hostler.api.storage.v1.BtrfsService/AddDevice                 TTTU DD DD+ TD+
hostler.api.storage.v1.BtrfsService/RemoveDevice              TTTU DD D++ TD+
hostler.api.storage.v1.BtrfsService/ReplaceDevice             TTTU DD DD+ TD+
hostler.api.storage.v1.BtrfsService/BalanceBtrfs              TTTU DD D++ TD+
hostler.api.storage.v1.BtrfsService/CreateSubvolume           TTTU DD D++ TD+
hostler.api.storage.v1.BtrfsService/CreateSnapshot            TTTU DD D++ TD+
hostler.api.storage.v1.BtrfsService/DeleteSubvolume           TTTU DD DD+ TD+
hostler.api.storage.v1.LuksService/ListLuks                   TTTU DD +++ T++
hostler.api.storage.v1.LuksService/OpenLuks                   TTTU DD D++ TD+
hostler.api.storage.v1.LuksService/CloseLuks                  TTTU DD D++ TD+
hostler.api.storage.v1.LuksService/BackupLuksHeader           TTTU DD D++ TD+
hostler.api.storage.v1.LvmService/ListVolumeGroups            TTTU DD +++ T++
hostler.api.storage.v1.LvmService/GetVolumeGroup              TTTU DD +++ T++
hostler.api.storage.v1.LvmService/CreateVolumeGroup           TTTU DD DD+ TD+
hostler.api.storage.v1.LvmService/ExtendVolumeGroup           TTTU DD DD+ TD+
hostler.api.storage.v1.LvmService/ReduceVolumeGroup           TTTU DD D++ TD+
hostler.api.storage.v1.LvmService/MovePhysicalVolume          TTTU DD D++ TD+
hostler.api.storage.v1.LvmService/DeleteVolumeGroup           TTTU DD DD+ TD+
hostler.api.storage.v1.LvmService/CreateVolume                TTTU DD D++ TD+
hostler.api.storage.v1.LvmService/GrowVolume                  TTTU DD D++ TD+
hostler.api.storage.v1.LvmService/RenameVolume                TTTU DD D++ TD+
hostler.api.storage.v1.LvmService/ActivateVolume              TTTU DD D++ TD+
hostler.api.storage.v1.LvmService/DeactivateVolume            TTTU DD D++ TD+
hostler.api.storage.v1.LvmService/CreateVolumeSnapshot        TTTU DD D++ TD+
hostler.api.storage.v1.LvmService/CloneVolume                 TTTU DD D++ TD+
hostler.api.storage.v1.LvmService/MergeVolumeSnapshot         TTTU DD DD+ TD+
hostler.api.storage.v1.LvmService/DeleteVolume                TTTU DD DD+ TD+
hostler.api.storage.v1.LvmService/ReplaceVolumeDevice         TTTU DD DD+ TD+
hostler.api.storage.v1.LvmService/ListGroupBackups            TTTU DD +++ T++
hostler.api.storage.v1.LvmService/RestoreGroup                TTTU DD DD+ TD+
hostler.api.storage.v1.BackupService/ListBackups              TTTU DD +++ T++
hostler.api.storage.v1.BackupService/GetBackup                TTTU DD +++ T++
hostler.api.storage.v1.BackupService/ApplyBackup              TTTU DD DD+ TD+
hostler.api.storage.v1.BackupService/DeleteBackup             TTTU DD D++ TD+
hostler.api.storage.v1.BackupService/RunBackup                TTTU DD D++ TD+
hostler.api.storage.v1.BackupService/ListSnapshots            TTTU DD +++ T++
hostler.api.storage.v1.BackupService/RestoreBackup            TTTU DD DD+ TD+
hostler.api.storage.v1.BackupService/DrillBackup              TTTU DD D++ TD+
hostler.api.storage.v1.BackupService/ForgetSnapshots          TTTU DD DD+ TD+
hostler.api.storage.v1.CopyService/CopyFiles                  TTTU DD D++ TD+
hostler.api.storage.v1.CopyService/VerifyFiles                TTTU DD D++ TD+
hostler.api.storage.v1.CopyService/BurnIn                     TTTU DD D++ TD+
hostler.api.storage.v1.CopyService/ReadFiles                  TTTU DD DD+ TD+
hostler.api.storage.v1.CopyService/WriteFiles                 TTTU DD DD+ TD+
hostler.api.storage.v1.ExportService/ListExports              TTTU DD +++ T++
hostler.api.storage.v1.ExportService/ApplyExport              TTTU DD DD+ TD+
hostler.api.storage.v1.ExportService/DeleteExport             TTTU DD D++ TD+
hostler.api.storage.v1.AttachmentService/ListAttachments      TTTU DD +++ T++
hostler.api.storage.v1.AttachmentService/ApplyAttachment      TTTU DD D++ TD+
hostler.api.storage.v1.AttachmentService/DeleteAttachment     TTTU DD D++ TD+
hostler.api.storage.v1.PartitionService/GetTable              TTTU DD +++ T++
hostler.api.storage.v1.PartitionService/BackupTable           TTTU DD +++ T++
hostler.api.storage.v1.PartitionService/ApplyTable            TTTU DD DD+ TD+
hostler.api.storage.v1.PartitionService/RestoreTable          TTTU DD DD+ TD+
hostler.api.storage.v1.PartitionService/CopyTable             TTTU DD DD+ TD+
hostler.api.ssl.v1.CertificateAuthorityService/GetAuthority   TTTU DD +++ T++
hostler.api.ssl.v1.CertificateAuthorityService/InitAuthority  TTTU DD D++ TD+
hostler.api.ssl.v1.CertificateAuthorityService/CompleteAuthority TTTU DD D++ TD+
hostler.api.ssl.v1.CertificateAuthorityService/IssueCertificate TTTU DD D++ TD+
hostler.api.ssl.v1.CertificateAuthorityService/IssueIdentity  TTTU DD DD+ TD+
hostler.api.ssl.v1.CertificateAuthorityService/RevokeCertificate TTTU DD D++ TD+
hostler.api.ssl.v1.CertificateAuthorityService/GetIssuedCertificate TTTU DD +++ T++
hostler.api.ssl.v1.CertificateAuthorityService/ListIssuedCertificates TTTU DD +++ T++
hostler.api.ssl.v1.CertificateAuthorityService/GetRevocationList TTTU DD +++ T++
grpc.health.v1.Health/Check                                   TTTU DD +++ T++
grpc.health.v1.Health/Watch                                   TTTU DD +++ T++
grpc.health.v1.Health/List                                    TTTU DD +++ T++
grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo TTTU DD +++ T++
"""


def expected() -> dict[str, dict[str, str]]:
    """The answers by method and caller."""
    answers = {}
    for line in _GRID.split("\n"):
        if line:
            name, *letters = line.split()
            answers[f"/{name}"] = dict(zip(CALLERS, "".join(letters), strict=True))
    return answers


def services() -> Iterator[ServiceDescriptor]:
    """Every service of protos/, and those of others that every daemon serves."""
    for path in sorted(PROTOS.rglob("*.proto")):
        name = ".".join(path.relative_to(PROTOS).with_suffix("").parts) + "_pb2"
        module: Any = importlib.import_module(name)
        yield from module.DESCRIPTOR.services_by_name.values()
    yield from THIRD_PARTY


def full_name(method: MethodDescriptor) -> str:
    """The method's name as gRPC has it in the path."""
    return f"/{method.containing_service.full_name}/{method.name}"


def methods_of(domain: str) -> dict[str, MethodDescriptor]:
    """The methods that the door of a domain serves, by name."""
    found = {}
    for service in services():
        owner = service.full_name.removeprefix("hostler.api.").split(".")[0]
        if owner in (domain, "common", "grpc"):
            found.update({full_name(method): method for method in service.methods})
    return found
