"""Every change that there is, and how it is disturbed: kept by hand, held against the protos.

A row says where a method's changes are killed, and brings what to ask for. A method without a row
fails a test.
"""

from __future__ import annotations

import base64
import importlib
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.descriptor import MethodDescriptor
from google.rpc import error_details_pb2, status_pb2
from journal_stage import Place

from hostler.api.common.v1 import access_pb2, bundle_pb2, change_pb2
from hostler.api.firewall.v1 import address_set_pb2, connection_pb2, explain_pb2, ruleset_pb2
from hostler.api.netns.v1 import namespace_pb2
from hostler.api.tracing.v1 import capture_pb2
from hostler.core.trace.blocks import encode
from hostler.core.trace.events import Events
from hostlerd.tracing.kernel.store import Store
from hostlerd.tracing.model.stored import Bounds
from hostlerd.tracing.model.trace import End, Keep, Payload, Spec, Standing
from hostlerd.tracing.plan.stored import making_room

PROTOS = Path(__file__).parents[2] / "protos"
COMMON, NETNS, FIREWALL, TRACING = (
    f"hostler.api.{d}.v1" for d in ("common", "netns", "firewall", "tracing")
)

_CONNTRACK = "/usr/sbin/conntrack"

#: Methods whose changes are killed on hosts of the lab, which have what a stage lacks: systemd,
#: other hosts, the watcher of pending groups. See tests/hosts/test_journal_hosts.py.
ON_HOSTS = {
    f"{NETNS}.ProcessService/StartProcess",
    f"{NETNS}.ProcessService/StopProcess",
    f"{NETNS}.ProcessService/SignalProcess",
    f"{NETNS}.ProcessService/RunProcess",
    f"{COMMON}.ConfirmService/ConfirmPending",
    f"{COMMON}.ConfirmService/RevertPending",
}
#: Methods whose changes are on record with the authority's signer, and done once more by their id.
#: See tests/hosts/test_ssl_authority_hosts.py.
OF_THE_SIGNER = {
    f"hostler.api.ssl.v1.CertificateAuthorityService/{method}"
    for method in (
        *("InitAuthority", "CompleteAuthority", "IssueCertificate", "IssueIdentity"),
        "RevokeCertificate",
    )
}
#: Methods that change records of the runtime alone: they have no steps, and are killed at every
#: write to disk. See tests/kernel/test_journal_records.py.
RECORDS = {
    f"{COMMON}.ApprovalService/ApproveChange",
    f"{COMMON}.ApprovalService/WithdrawApproval",
    f"{COMMON}.JobService/CancelJob",
}
#: Methods that are more than reading and change nothing: what they start ends with the daemon. See
#: tests/kernel/test_tracing_traces.py.
TRACES = {
    "hostler.api.tracing.v1.TraceService/StartPayloadTrace",
    "hostler.api.tracing.v1.TraceService/StreamPayloadTrace",
    "hostler.api.tracing.v1.CaptureService/QueryPayloadCapture",
}
#: Methods whose changes are records of deployments, and the installer's, a process with a record of
#: its own. See test_ssl_cut_off.py and test_ssl_install.py in tests/kernel.
DEPLOYMENTS = {
    f"hostler.api.ssl.v1.DeploymentService/{name}"
    for name in (
        *("ApplyDeployment", "DeleteDeployment", "CreateSigningRequest", "InstallCertificate"),
        *("InstallCertificates", "RenewDeployment", "RevokeDeployedCertificate"),
    )
} | {"hostler.api.ssl.v1.ChainService/WriteChain"}
#: Methods whose changes no test can kill, each with the reason.
NEVER_CARRIED_OUT = {
    "hostler.api.storage.v1.DiskService/LocateDisk": "no enclosure (SES) is emulated by anything "
    "here: without one it is refused; its one step is one write to sysfs, in full or not at all",
}
#: Methods whose changes are carried out by the program that copies, which goes on without the
#: daemon and is killed in tests of its own: test_storage_{copies,copy_between}.py in tests/kernel.
OF_THE_COPIER = {
    f"hostler.api.storage.v1.CopyService/{name}"
    for name in ("CopyFiles", "VerifyFiles", "ReadFiles", "WriteFiles", "BurnIn")
}


@dataclass(frozen=True)
class Row:
    """One change: `before` brings the host to where it begins, `request` asks for it."""

    name: str
    domain: str
    method: str
    request: Callable[[Place], Any]
    before: Callable[[Place], None]
    witness: Callable[[Place], Any]
    # Whether what it does is there after a boot, and so what its answer must outlive.
    lasts: bool = False
    # How many points it must have at least; fewer means that some are not seen any more.
    points: int = 20
    user: str = field(default="")
    # Whether a step of it is one of which nobody can tell afterwards whether it was done, and what
    # brings back what was there before, if anything does.
    unrepeatable: bool = False
    mend: Callable[[Place], None] | None = None


def change_methods() -> Iterator[str]:
    """Every method of protos/ that may change something, as `package.Service/Method`."""
    extension: Any = access_pb2.access
    for path in sorted(PROTOS.rglob("*.proto")):
        name = ".".join(path.relative_to(PROTOS).with_suffix("").parts) + "_pb2"
        for service in importlib.import_module(name).DESCRIPTOR.services_by_name.values():
            for method in service.methods:
                access: Any = method.GetOptions().Extensions[extension]
                if getattr(access, "class") != access_pb2.ACCESS_CLASS_READ:
                    yield _name(method)


def _name(method: MethodDescriptor) -> str:
    return f"{method.containing_service.full_name}/{method.name}"


def ask(place: Place, method: str, request: Any, user: str = "", timeout_s: float = 60) -> Any:
    """Call a method on a channel of its own. Raises grpc.RpcError."""
    with place.channel(user) as channel:
        return begin(place, channel, method, request, timeout_s).result(timeout_s)


def refusal(call: Callable[[], Any]) -> dict[str, str]:
    """Make a call that must fail; answer its reason with the metadata of the case."""
    try:
        answer = call()
    except grpc.RpcError as e:
        info = _info(e)
        return {"reason": info.reason, **info.metadata}
    raise AssertionError(f"it was done: {answer}")


def reason_of(error: Any) -> str:
    """The reason in the details of an error; empty if it has none."""
    return str(_info(error).reason)


def _info(error: Any) -> error_details_pb2.ErrorInfo:
    status, info = status_pb2.Status(), error_details_pb2.ErrorInfo()
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            status.ParseFromString(value)
    for detail in status.details:
        if detail.Is(info.DESCRIPTOR):
            detail.Unpack(info)
    return info


def begin(place: Place, channel: Any, method: str, request: Any, timeout_s: float = 60) -> Any:
    """Begin a call; answers its future."""
    found = _method(method)
    output = importlib.import_module(_module(found.output_type.file.name))
    kind = getattr(output, found.output_type.name)
    call = channel.unary_unary(
        f"/{method}", lambda message: message.SerializeToString(), kind.FromString
    )
    return call.future(request, timeout=timeout_s, wait_for_ready=True)


def _method(name: str) -> MethodDescriptor:
    service, _, method = name.partition("/")
    package, _, short = service.rpartition(".")
    for path in (PROTOS / package.replace(".", "/")).glob("*.proto"):
        module = importlib.import_module(f"{package}.{path.stem}_pb2")
        if short in module.DESCRIPTOR.services_by_name:
            found = module.DESCRIPTOR.services_by_name[short].methods_by_name[method]
            return found
    raise KeyError(name)


def _module(file: str) -> str:
    return file.removesuffix(".proto").replace("/", ".") + "_pb2"


def space(name: str, number: int, **more: Any) -> Any:
    """A namespace with a link of its own; what it has follows from the number, below 4000."""
    high, low = divmod(4 * number, 256)
    link = namespace_pb2.Interface(
        veth=namespace_pb2.Veth(
            host_addresses=[
                f"10.{96 + high // 256}.{high % 256}.{low + 1}/30",
                f"fd95:{number}::1/64",
            ]
        ),
        addresses=[f"10.{96 + high // 256}.{high % 256}.{low + 2}/30", f"fd95:{number}::2/64"],
        default_route=True,
    )
    return namespace_pb2.Namespace(name=name, interfaces=[link], **more)


def _apply(place: Place, *spaces: Any) -> None:
    request = namespace_pb2.ApplyNamespacesRequest(namespaces=spaces, delete_unlisted=True)
    ask(place, f"{NETNS}.NamespaceService/ApplyNamespaces", request)


def _nothing(place: Place) -> None:
    _apply(place)


def _one(place: Place) -> None:
    _apply(place, space("web", 1, persistent=True))


def _some(place: Place) -> None:
    _apply(place, space("web", 1), space("old", 2, persistent=True))


def _network(place: Place) -> Any:
    return place.stage.network(), place.stage.files(f"{place.folder}/state", place.run)


def rules(port: int, *, persistent: bool = False, name: str = "web") -> Any:
    """A ruleset that accepts a port, and for port 80 needs forwarding."""
    rule = ruleset_pb2.Rule(
        hook=ruleset_pb2.HOOK_INPUT,
        action=ruleset_pb2.ACTION_ACCEPT,
        protocol=ruleset_pb2.PROTOCOL_TCP,
        destination_ports=[ruleset_pb2.PortRange(first=port, last=port)],
    )
    masquerade = ruleset_pb2.Masquerade(source="10.96.0.0/24", uplink="lo")
    return ruleset_pb2.Ruleset(
        name=name,
        rules=[rule],
        persistent=persistent,
        masquerades=[masquerade] if port == 80 else [],
    )


def _apply_rules(place: Place, ruleset: Any) -> None:
    request = ruleset_pb2.ApplyRulesetRequest(ruleset=ruleset)
    ask(place, f"{FIREWALL}.RulesetService/ApplyRuleset", request)


def _shadow(place: Place) -> None:
    request = explain_pb2.StartShadowRequest(rulesets=[rules(81)], duration={"seconds": 600})
    ask(place, f"{FIREWALL}.PreviewService/StartShadow", request)


def _no_shadow(place: Place) -> None:
    ask(place, f"{FIREWALL}.PreviewService/StopShadow", explain_pb2.StopShadowRequest())
    _apply_rules(place, rules(80))


def _no_rules(place: Place) -> None:
    request = ruleset_pb2.DeleteRulesetRequest(name="web")
    ask(place, f"{FIREWALL}.RulesetService/DeleteRuleset", request)


def _apply_set(place: Place) -> None:
    """A dynamic set that holds two elements."""
    block = ruleset_pb2.AddressSet(name="block", dynamic=True)
    _apply_rules(place, ruleset_pb2.Ruleset(name="web", address_sets=[block], persistent=True))
    request = address_set_pb2.ReplaceElementsRequest(
        name="block", elements=_elements("10.96.0.1", "10.97.0.0/16")
    )
    ask(place, f"{FIREWALL}.AddressSetService/ReplaceElements", request)


def _elements(*addresses: str) -> list[address_set_pb2.Element]:
    return [address_set_pb2.Element(address=address) for address in addresses]


def _firewall(place: Place) -> Any:
    return place.stage.firewall(), place.stage.files(f"{place.folder}/state", place.run)


def _tracked(place: Place) -> None:
    """Have the kernel track some connections, as if they were: of these, those to port 80 go."""
    _no_rules(place)
    place.stage.tool(_CONNTRACK, "-F")
    for number in range(40):
        ends = ("-s", "10.96.0.1", "-d", f"10.96.1.{number}", "--sport", "1000")
        ports = ("--dport", "80" if number % 2 else "443", "--state", "ESTABLISHED", "-t", "9000")
        place.stage.tool(_CONNTRACK, "-I", "-p", "tcp", *ends, *ports)


def _connections(place: Place) -> Any:
    """The destinations of those that are left, as conntrack(8) lists them."""
    listed = place.stage.tool(_CONNTRACK, "-L", "-p", "tcp", "-s", "10.96.0.1")
    return sorted(word for word in listed.split() if word.startswith("dst=10.96.1."))


def _shadowed(place: Place) -> str:
    """The same without the second in which the shadow ends, which each start has anew."""
    seconds = r"\b1\d{9}\b|\b\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\b"
    return re.sub(seconds, "then", repr(_firewall(place)))


def _captured(place: Place) -> None:
    """Two captures on disk, as the daemon would have left them."""
    listed = ask(place, f"{TRACING}.CaptureService/ListCaptures", capture_pb2.ListCapturesRequest())
    store = Store(place.folder / "state/captures", Bounds(), making_room)
    there = {capture.name for capture in listed.captures}
    for name in {"web", "other"} - there:
        keeping = store.begin(name, Spec(keep=Keep(name)), Payload(), "user/alice")
        keeping.put(encode(Events.empty()))
        keeping.close(Standing(end=End.STOPPED))


def _captures(place: Place) -> Any:
    """Which are there, with all that is in them, as find(1) has it."""
    found = place.stage.tool("/usr/bin/find", f"{place.folder}/state/captures", "-printf", "%P\n")
    return sorted(found.split())


def _bundle_version(place: Place) -> Any:
    """The version of the newest bundle there is: the daemon's rule, read from the files alone."""
    files = (place.folder / "etc/bundle.json", place.folder / "state/bundle.json")
    return max(_version(path) for path in files if path.exists())


def _version(path: Path) -> int:
    envelope = json.loads(path.read_bytes())
    return int(json.loads(base64.b64decode(envelope["payload"]))["version"])


def _next_bundle(place: Place) -> Any:
    return bundle_pb2.PushBundleRequest(
        signed_bundle=place.authority.bundle_path.read_bytes(), change=change_pb2.ChangeOptions()
    )


ROWS = (
    Row(
        "create",
        "netns",
        f"{NETNS}.NamespaceService/CreateNamespace",
        lambda _: namespace_pb2.CreateNamespaceRequest(namespace=space("web", 1)),
        _nothing,
        _network,
        points=60,
    ),
    Row(
        "create-persistent",
        "netns",
        f"{NETNS}.NamespaceService/CreateNamespace",
        lambda _: namespace_pb2.CreateNamespaceRequest(namespace=space("web", 1, persistent=True)),
        _nothing,
        _network,
        lasts=True,
        points=60,
    ),
    Row(
        "apply",
        "netns",
        f"{NETNS}.NamespaceService/ApplyNamespaces",
        lambda _: namespace_pb2.ApplyNamespacesRequest(
            namespaces=[space("web", 3, hostname="other"), space("new", 4)]
        ),
        _some,
        _network,
        points=80,
    ),
    Row(
        "apply-and-delete",
        "netns",
        f"{NETNS}.NamespaceService/ApplyNamespaces",
        lambda _: namespace_pb2.ApplyNamespacesRequest(
            namespaces=[space("web", 3), space("new", 4)], delete_unlisted=True
        ),
        _some,
        _network,
        lasts=True,
        points=80,
    ),
    Row(
        "delete",
        "netns",
        f"{NETNS}.NamespaceService/DeleteNamespace",
        lambda _: namespace_pb2.DeleteNamespaceRequest(name="web"),
        _one,
        _network,
        lasts=True,
    ),
    Row(
        "rules",
        "firewall",
        f"{FIREWALL}.RulesetService/ApplyRuleset",
        lambda _: ruleset_pb2.ApplyRulesetRequest(ruleset=rules(80, persistent=True)),
        _no_rules,
        _firewall,
        lasts=True,
    ),
    Row(
        "other-rules",
        "firewall",
        f"{FIREWALL}.RulesetService/ApplyRuleset",
        lambda _: ruleset_pb2.ApplyRulesetRequest(ruleset=rules(81)),
        lambda place: _apply_rules(place, rules(80)),
        _firewall,
    ),
    Row(
        "several-rules",
        "firewall",
        f"{FIREWALL}.RulesetService/ApplyRulesets",
        lambda _: ruleset_pb2.ApplyRulesetsRequest(
            rulesets=[rules(81, name="new", persistent=True), rules(82, name="more")],
            delete_names=["web"],
        ),
        lambda place: _apply_rules(place, rules(80)),
        _firewall,
        lasts=True,
    ),
    Row(
        "shadow",
        "firewall",
        f"{FIREWALL}.PreviewService/StartShadow",
        lambda _: explain_pb2.StartShadowRequest(rulesets=[rules(81)], duration={"seconds": 600}),
        _no_shadow,
        _shadowed,
        points=14,
    ),
    Row(
        "no-shadow",
        "firewall",
        f"{FIREWALL}.PreviewService/StopShadow",
        lambda _: explain_pb2.StopShadowRequest(),
        _shadow,
        _shadowed,
        points=14,
    ),
    Row(
        "no-rules",
        "firewall",
        f"{FIREWALL}.RulesetService/DeleteRuleset",
        lambda _: ruleset_pb2.DeleteRulesetRequest(name="web"),
        lambda place: _apply_rules(place, rules(80, persistent=True)),
        _firewall,
        lasts=True,
    ),
    Row(
        "flush",
        "firewall",
        f"{FIREWALL}.ConnectionService/FlushConnections",
        lambda _: connection_pb2.FlushConnectionsRequest(
            filter=connection_pb2.ConnectionFilter(
                destination_ports=[ruleset_pb2.PortRange(first=80)]
            )
        ),
        _tracked,
        _connections,
        points=6,
    ),
    Row(
        "elements",
        "firewall",
        f"{FIREWALL}.AddressSetService/AddElements",
        lambda _: address_set_pb2.AddElementsRequest(
            name="block", elements=_elements("10.96.0.2", "10.96.0.0/15", "fd95::/64")
        ),
        _apply_set,
        _firewall,
        lasts=True,
    ),
    Row(
        "fewer-elements",
        "firewall",
        f"{FIREWALL}.AddressSetService/RemoveElements",
        lambda _: address_set_pb2.RemoveElementsRequest(name="block", addresses=["10.96.0.1"]),
        _apply_set,
        _firewall,
        lasts=True,
    ),
    Row(
        "other-elements",
        "firewall",
        f"{FIREWALL}.AddressSetService/ReplaceElements",
        lambda _: address_set_pb2.ReplaceElementsRequest(
            name="block", elements=_elements("10.97.0.0/16", "fd96::1")
        ),
        _apply_set,
        _firewall,
        lasts=True,
    ),
    Row(
        "capture",
        "tracing",
        f"{TRACING}.CaptureService/DeleteCapture",
        lambda _: capture_pb2.DeleteCaptureRequest(name="web"),
        _captured,
        _captures,
        lasts=True,
        points=10,
    ),
)
BUNDLE = Row(
    "bundle",
    "netns",
    f"{COMMON}.BundleService/PushBundle",
    _next_bundle,
    lambda place: None,
    _bundle_version,
    lasts=True,
    points=10,
)
