"""A client of Hostler made of stubs of protos/ and public packages: no code of Hostler's.

Arguments: folder of the stubs, folder of public packages, address, name of the host, folder with
ca.pem, user.pem and user.key, name of the namespace. Tells on standard output, a JSON line each,
what it did; after each it waits for a line on standard input.
"""

import json
import sys
import uuid
from importlib.util import find_spec
from pathlib import Path

stubs, packages, address, host_name, pki, name = sys.argv[1:]
sys.path += [stubs, packages]

import grpc  # noqa: E402 - the path is set above
from google.protobuf.duration_pb2 import Duration  # noqa: E402
from google.rpc import error_details_pb2, status_pb2  # noqa: E402

from hostler.api.common.v1 import change_pb2, host_pb2, host_pb2_grpc  # noqa: E402
from hostler.api.netns.v1 import (  # noqa: E402
    counter_pb2,
    counter_pb2_grpc,
    namespace_pb2,
    namespace_pb2_grpc,
)


def tell(did, **what):
    print(json.dumps({"did": did, **what}), flush=True)
    sys.stdin.readline()


def create(stub, namespace, **options):
    change = change_pb2.ChangeOptions(request_id=str(uuid.uuid4()), **options)
    request = namespace_pb2.CreateNamespaceRequest(namespace=namespace, change=change)
    return stub.CreateNamespace(request, timeout=30).change


def decode(error):
    """Read the rich details of an error: the reason, and which fields are wrong."""
    trailers = dict(error.trailing_metadata())
    status = status_pb2.Status.FromString(trailers["grpc-status-details-bin"])
    info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    for detail in status.details:
        detail.Unpack(info) or detail.Unpack(bad)
    fields = [violation.field for violation in bad.field_violations]
    return {"code": error.code().name, "reason": info.reason, "domain": info.domain} | {
        "fields": fields
    }


def main():
    files = [Path(pki, file).read_bytes() for file in ("ca.pem", "user.key", "user.pem")]
    options = [("grpc.ssl_target_name_override", host_name)]
    channel = grpc.secure_channel(address, grpc.ssl_channel_credentials(*files), options)
    hosts = host_pb2_grpc.HostServiceStub(channel)
    namespaces = namespace_pb2_grpc.NamespaceServiceStub(channel)
    counters = counter_pb2_grpc.CounterServiceStub(channel)

    host = hosts.GetHost(host_pb2.GetHostRequest(), timeout=30).host
    tell("host", hostname=host.hostname, domain=host.domain, caller=host.caller)

    wanted = namespace_pb2.Namespace(name=name)
    planned = create(namespaces, wanted, validate_only=True)
    steps = [step.kind for step in planned.plan.steps]
    tell("plan", outcome=change_pb2.Outcome.Name(planned.outcome), steps=steps)
    done = create(namespaces, wanted, plan_hash=planned.plan.hash)
    tell("create", outcome=change_pb2.Outcome.Name(done.outcome), changed=done.changed)

    request = namespace_pb2.ListNamespacesRequest(managed_only=True)
    listed = namespaces.ListNamespaces(request, timeout=30).namespaces
    tell("list", names=[each.name for each in listed])

    watch = counter_pb2.WatchCountersRequest(
        namespace=name, interval=Duration(nanos=200_000_000), count=2
    )
    readings = [
        {"seq": reading.seq, "links": [link.counters.ifname for link in reading.links]}
        for reading in counters.WatchCounters(watch, timeout=30)
    ]
    tell("watch", readings=readings)

    try:
        create(namespaces, namespace_pb2.Namespace(name="not a name"))
    except grpc.RpcError as error:
        tell("error", **decode(error))

    delete = namespace_pb2.DeleteNamespaceRequest(name=name)
    tell("delete", changed=namespaces.DeleteNamespace(delete, timeout=30).change.changed)


# The stubs' package has Hostler's name; of Hostler itself nothing may be there.
assert find_spec("hostler.session") is None and find_spec("hostlerd") is None
main()
