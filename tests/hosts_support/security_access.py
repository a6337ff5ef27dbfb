"""Who may call what: the expected answers, kept by hand, for every method that there is.

A column is a sort of caller, a letter the answer: T ends in the TLS handshake, U is
UNAUTHENTICATED, D is PERMISSION_DENIED, + is let through (whatever the method then says).
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
REMOTE = ("none", "other-ca", "expired", "revoked", "stranger", "viewer", "operator", "admin")
LOCAL = ("local-group", "local-root")
CALLERS = (*REMOTE, *LOCAL)
THIRD_PARTY = (
    health_pb2.DESCRIPTOR.services_by_name["Health"],
    reflection_pb2.DESCRIPTOR.services_by_name["ServerReflection"],
)

# none, other-ca, expired, revoked | stranger | viewer, operator, admin | local-group, local-root
_GRID = """
hostler.api.common.v1.HostService/GetHost                   TTTU + +++ ++
hostler.api.common.v1.AuditService/ListAuditRecords         TTTU D +++ ++
hostler.api.common.v1.BundleService/GetBundle               TTTU D +++ ++
hostler.api.common.v1.BundleService/PushBundle              TTTU D D++ D+
hostler.api.netns.v1.NamespaceService/CreateNamespace       TTTU D D++ D+
hostler.api.netns.v1.NamespaceService/GetNamespace          TTTU D +++ ++
hostler.api.netns.v1.NamespaceService/ListNamespaces        TTTU D +++ ++
hostler.api.netns.v1.NamespaceService/DeleteNamespace       TTTU D D++ D+
hostler.api.netns.v1.NamespaceService/ApplyNamespaces       TTTU D D++ D+
hostler.api.netns.v1.ProcessService/RunProcess              TTTU D DD+ D+
hostler.api.netns.v1.ProcessService/StartProcess            TTTU D DD+ D+
hostler.api.netns.v1.ProcessService/StopProcess             TTTU D D++ D+
hostler.api.netns.v1.ProcessService/ListProcesses           TTTU D +++ ++
hostler.api.netns.v1.ProcessService/ListTasks               TTTU D +++ ++
hostler.api.netns.v1.ProcessService/SignalProcess           TTTU D D++ D+
hostler.api.netns.v1.ProcessService/StreamLogs              TTTU D +++ ++
hostler.api.netns.v1.CounterService/GetCounters             TTTU D +++ ++
hostler.api.netns.v1.CounterService/WatchCounters           TTTU D +++ ++
hostler.api.firewall.v1.RulesetService/GetRuleset           TTTU D +++ ++
hostler.api.firewall.v1.RulesetService/ListRulesets         TTTU D +++ ++
hostler.api.firewall.v1.RulesetService/ApplyRuleset         TTTU D D++ D+
hostler.api.firewall.v1.RulesetService/DeleteRuleset        TTTU D D++ D+
hostler.api.firewall.v1.RulesetService/GetTable             TTTU D +++ ++
grpc.health.v1.Health/Check                                 TTTU D +++ ++
grpc.health.v1.Health/Watch                                 TTTU D +++ ++
grpc.health.v1.Health/List                                  TTTU D +++ ++
grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo TTTU D +++ ++
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
