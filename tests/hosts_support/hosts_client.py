"""The command line and the SDK, as a user of the lab has them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from hostler import sync
from hostler.api.firewall.v1 import ruleset_pb2
from hostler.api.netns.v1 import counter_pb2, namespace_pb2, process_pb2
from hostler.channel import Rpc, rpc
from hostler.lab.host import Host
from hostler.lab.lab import Lab
from hostler.results import CallFailed, HostError

HOSTLER = str(Path(sys.executable).parent / "hostler")
CREATE = rpc(namespace_pb2, "NamespaceService", "CreateNamespace")
APPLY = rpc(namespace_pb2, "NamespaceService", "ApplyNamespaces")
DELETE = rpc(namespace_pb2, "NamespaceService", "DeleteNamespace")
GET = rpc(namespace_pb2, "NamespaceService", "GetNamespace")
LIST = rpc(namespace_pb2, "NamespaceService", "ListNamespaces")
START = rpc(process_pb2, "ProcessService", "StartProcess")
COUNTERS = rpc(counter_pb2, "CounterService", "GetCounters")
WATCH = rpc(counter_pb2, "CounterService", "WatchCounters")
APPLY_RULESET = rpc(ruleset_pb2, "RulesetService", "ApplyRuleset")
DELETE_RULESET = rpc(ruleset_pb2, "RulesetService", "DeleteRuleset")

Done = subprocess.CompletedProcess[str]


def environment(lab: Lab) -> dict[str, str]:
    """The environment in which `hostler` drives the lab."""
    return {**os.environ, "HOSTLER_CONFIG": str(lab.config)}


def cli(lab: Lab, *args: str, status: int | None = 0, stdin: str = "") -> Done:
    """Run the command as a user would, and hold it to its exit status."""
    argv = [HOSTLER, *args]
    done = subprocess.run(
        argv, env=environment(lab), input=stdin, capture_output=True, text=True, timeout=120
    )
    if status is not None:
        assert done.returncode == status, f"{args}: {done.returncode}: {done.stdout}{done.stderr}"
    return done


def answers(lab: Lab, *args: str, status: int | None = 0) -> dict[str, dict[str, Any]]:
    """Run it with -o json; answer its results by host."""
    return {a["host"]: a for a in json.loads(cli(lab, "-o", "json", *args, status=status).stdout)}


def ask(lab: Lab, method: Rpc, request: Any, *, host: str = "h1", timeout_s: float = 60) -> Any:
    """Call a method of one host through the SDK. Raises CallFailed."""
    client = sync.connect(config=lab.config, timeout_s=timeout_s)
    (chosen,) = client.select(host)
    with client.session(chosen) as session:
        return session.call(method, request)


def refusal(lab: Lab, method: Rpc, request: Any, *, host: str = "h1") -> HostError:
    """Call a method that must fail; answer how it did."""
    try:
        answer = ask(lab, method, request, host=host)
    except CallFailed as failed:
        return failed.error
    raise AssertionError(f"it was done: {answer}")


def fields(error: HostError) -> set[str]:
    """The paths that an error names."""
    return {v.get("field") or v.get("subject") or "" for v in error.violations}


def create_request(name: str, **more: Any) -> Any:
    """A request to create a namespace."""
    return namespace_pb2.CreateNamespaceRequest(
        namespace=namespace_pb2.Namespace(name=name, **more)
    )


def apply_request(namespaces: Iterable[Any], *, delete_unlisted: bool = False) -> Any:
    """A request to apply namespaces."""
    return namespace_pb2.ApplyNamespacesRequest(
        namespaces=namespaces, delete_unlisted=delete_unlisted
    )


def delete_request(name: str) -> Any:
    """A request to delete a namespace and what is in it."""
    return namespace_pb2.DeleteNamespaceRequest(name=name, stop_processes=True)


def pooled(name: str, **more: Any) -> Any:
    """A namespace with addresses from the host's pool and the default route by the host."""
    link = namespace_pb2.Interface(
        veth=namespace_pb2.Veth(), ipv4_pool="default", ipv6_pool="default", default_route=True
    )
    return namespace_pb2.Namespace(name=name, interfaces=[link], **more)


def remove(lab: Lab, *names: str, hosts: str = "all") -> None:
    """Remove isolations, whatever became of them."""
    for name in names:
        cli(lab, "-H", hosts, "--yes", "isolate", name, "--remove")


def fetch(url: str, host: Host | None = None) -> str:
    """What curl gets on a host, or on the machine if none is given."""
    argv = ["/usr/bin/curl", "-gsS", "--max-time", "5", url]
    if host is not None:
        done = host.run(argv, check=False)
    else:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=10)
    return done.stdout + done.stderr
