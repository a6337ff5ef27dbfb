"""A release after this one, made of this tree: its protos with additions, its stubs, its code.

What a real next release may do to the API and no more (AIP-180): a method, a field in a request
that changes and in one that reads, a field of every change, a value of an enumeration. The daemon
of it is the firewall's own, which serves them.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
VERSION = "99.0.0"
QUIC = 900

_PROTO = "hostler/api/firewall/v1/ruleset.proto"
_COMMON = "hostler/api/common/v1/change.proto"
_ADDED = {
    _PROTO: (
        (
            "service RulesetService {\n",
            "  // Takes no more changes of a ruleset.\n"
            "  rpc FreezeRuleset(FreezeRulesetRequest) returns (FreezeRulesetResponse) {\n"
            "    option (hostler.api.common.v1.access) = {\n"
            '      class: ACCESS_CLASS_CHANGE resource_fields: "name"\n    };\n  }\n',
        ),
        ("enum Protocol {\n", f"  // New.\n  PROTOCOL_QUIC = {QUIC};\n"),
        ("message Rule {\n", "  // New.\n  string tarpit = 900;\n"),
        ("message ListRulesetsRequest {\n", "  // New.\n  bool with_age = 900;\n"),
        ("message ListRulesetsResponse {\n", "  // New.\n  string age = 900;\n"),
    ),
    _COMMON: (("message ChangeOptions {\n", "  // New.\n  bool only_at_night = 900;\n"),),
}
_APPENDED = """
message FreezeRulesetRequest {
  string name = 1;
  hostler.api.common.v1.ChangeOptions change = 2;
}
message FreezeRulesetResponse {
  hostler.api.common.v1.Change change = 1;
}
"""

#: The daemon of either release: that of the next one serves what came with it.
DAEMON = """
from hostler.api.firewall.v1 import ruleset_pb2 as pb
from hostlerd.firewall import __main__ as firewall
from hostlerd.runtime.server import main
from hostlerd.runtime.steps import Plan

class RulesetService(firewall.RulesetService):
    async def FreezeRuleset(self, request, context):
        done = await self.changes.carry_out(request.change, lambda: Plan())
        return pb.FreezeRulesetResponse(change=done.change)

    async def ListRulesets(self, request, context):
        answer = await super().ListRulesets(request, context)
        for each in answer.rulesets:
            each.forwards.add(port=443, protocol=pb.PROTOCOL_QUIC, target_address="10.0.0.9")
        if request.with_age:
            answer.age = "old"
        return answer

if "FreezeRuleset" in pb.DESCRIPTOR.services_by_name["RulesetService"].methods_by_name:
    firewall.RulesetService = RulesetService
main("firewall", firewall.build)
"""


def make(folder: Path) -> Path:
    """Make the next release; answers what goes before all else on its PYTHONPATH."""
    tree, protos = folder / "tree", folder / "protos"
    shutil.copytree(CHECKOUT / "protos", protos)
    for name, additions in _ADDED.items():
        text = (protos / name).read_text()
        for after, what in additions:
            # The first value of an enumeration must be its zero.
            at = text.index(after) + len(after)
            if after.startswith("enum"):
                at = text.index("= 0;\n", at) + len("= 0;\n")
            text = text[:at] + what + text[at:]
        (protos / name).write_text(text + (_APPENDED if name == _PROTO else ""))
    package = tree / "hostler"
    package.mkdir(parents=True)
    for part in (CHECKOUT / "client/hostler").iterdir():
        if part.name not in {"api", "__pycache__"}:
            (package / part.name).symlink_to(part)
    shutil.copytree(CHECKOUT / "client/hostler/api", package / "api")
    (tree / "hostlerd").symlink_to(CHECKOUT / "services/hostlerd")
    _compile(protos, tree)
    known = tree / f"hostler-{VERSION}.dist-info"
    known.mkdir()
    (known / "METADATA").write_text(f"Metadata-Version: 2.1\nName: hostler\nVersion: {VERSION}\n")
    return tree


def _compile(protos: Path, tree: Path) -> None:
    import grpc_tools

    include = Path(grpc_tools.__file__).parent / "_proto"
    argv = [sys.executable, "-m", "grpc_tools.protoc", f"-I{protos}", f"-I{include}"]
    argv += [f"--python_out={tree}", f"--grpc_python_out={tree}", *_ADDED]
    subprocess.run(argv, check=True, timeout=120)
