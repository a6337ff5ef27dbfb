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
