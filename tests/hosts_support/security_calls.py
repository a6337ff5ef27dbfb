"""Calls any method there is with an empty request, and says how it was answered.

As a module it is used on the machine. As a program it runs on a host, under any uid, with what
the daemons' packages bring: `python3 -IS -c SOURCE TREE SOCKET`, method names on standard input,
answers as JSON on standard output.
"""

from __future__ import annotations

import json
import sys
from typing import Any

LET_THROUGH = "+"
_LETTERS = {"UNAUTHENTICATED": "U", "PERMISSION_DENIED": "D"}
_TIMEOUT_S = 15.0
_FIREWALL = ("address_set", "connection", "counter", "explain", "packet_log", "ruleset")
_TRACING = ("capture", "diagnosis", "io", "memory", "network", "socket", "trace")
_SSL = ("authority", "certificate", "chain", "deployment", "endpoint", "library", "scan")
_STORAGE = (
    *("array", "backup", "btrfs", "copy", "disk", "export", "filesystem", "graph"),
    *("luks", "lvm", "mount", "partition"),
)
_COMMON = ("host", "audit", "bundle", "confirm", "job", "approval")


def empty(method: Any) -> Any:
    """The emptiest request of a method; a change is only planned, whatever its defaults are."""
    from google.protobuf import message_factory

    request: Any = message_factory.GetMessageClass(method.input_type)()
    change = method.input_type.fields_by_name.get("change")
    if change is not None:
        request.change.validate_only = True
    return request


def call(channel: Any, method: Any) -> Any:
    """Call a method of any shape; answer the first response, None if there is none.

    Raises grpc.RpcError.
    """
    from google.protobuf import message_factory

    response = message_factory.GetMessageClass(method.output_type)
    kind = "stream_" if method.client_streaming else "unary_"
    kind += "stream" if method.server_streaming else "unary"
    made = getattr(channel, kind)(
        f"/{method.containing_service.full_name}/{method.name}",
        lambda request: request.SerializeToString(),
        response.FromString,
    )
    request = empty(method)
    answer = made(iter([request]) if method.client_streaming else request, timeout=_TIMEOUT_S)
    if not method.server_streaming:
        return answer
    first = next(answer, None)
    answer.cancel()
    return first


def letter(channel: Any, method: Any) -> str:
    """How a method was answered: T, U, D or +; see security_access."""
    import grpc

    try:
        call(channel, method)
    except grpc.RpcError as e:
        error: Any = e
        code, details = error.code().name, error.details() or ""
        faults = {"UNIMPLEMENTED", "INTERNAL", "UNKNOWN", "DEADLINE_EXCEEDED"}
        assert code not in faults, (method.full_name, code, details)
        if code != "UNAVAILABLE":
            return _LETTERS.get(code, LET_THROUGH)
        # No word of the daemon's: the connection itself was not to be had, or was ended.
        assert not any("status-details" in key for key, _ in error.trailing_metadata() or ())
        return "T"
    return LET_THROUGH


def descriptor(name: str) -> Any:
    """Find a method by its path, among the stubs of a host."""
    import importlib

    from google.protobuf import descriptor_pool

    service, _, method = name.strip("/").partition("/")
    for module in (
        *(f"hostler.api.common.v1.{n}_pb2" for n in _COMMON),
        *(f"hostler.api.netns.v1.{n}_pb2" for n in ("namespace", "process", "counter")),
        *(f"hostler.api.firewall.v1.{n}_pb2" for n in _FIREWALL),
        *(f"hostler.api.tracing.v1.{n}_pb2" for n in _TRACING),
        *(f"hostler.api.ssl.v1.{n}_pb2" for n in _SSL),
        *(f"hostler.api.storage.v1.{n}_pb2" for n in _STORAGE),
        "grpc_health.v1.health_pb2",
        "grpc_reflection.v1alpha.reflection_pb2",
    ):
        importlib.import_module(module)
    found = descriptor_pool.Default().FindServiceByName(service)
    return found.methods_by_name[method]


def main(tree: str, path: str) -> None:
    sys.path.insert(0, tree)
    import grpc

    with grpc.insecure_channel(f"unix:{path}") as channel:
        names = [line.strip() for line in sys.stdin]
        print(json.dumps({name: letter(channel, descriptor(name)) for name in names}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
