"""A program of the SDK's that asks all hosts or writes a ruleset, and tells each answer at once.

fleet_ours.py CONFIG read|write|delete [DOCUMENT]
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hostler.aio import Rpc, Session, connect, rpc
from hostler.api.common.v1 import host_pb2
from hostler.api.firewall.v1 import ruleset_pb2
from hostler.firewall_files import load_rulesets

READ = rpc(host_pb2, "HostService", "GetHost").at("firewall")
WRITE = rpc(ruleset_pb2, "RulesetService", "ApplyRuleset")
DELETE = rpc(ruleset_pb2, "RulesetService", "DeleteRuleset")


def wanted(what: str, more: Sequence[str]) -> tuple[Rpc, Any]:
    """Answer the method to call, and the request."""
    if what == "read":
        return READ, host_pb2.GetHostRequest()
    (file,) = load_rulesets([Path(more[0])])
    if what == "delete":
        return DELETE, ruleset_pb2.DeleteRulesetRequest(name=file.ruleset.name)
    return WRITE, ruleset_pb2.ApplyRulesetRequest(ruleset=file.ruleset)


async def main(config: str, what: str, *more: str) -> None:
    """Call all hosts; a line for each that has done it."""
    method, request = wanted(what, more)
    async with connect(config=Path(config), record=False) as client:

        async def one(session: Session) -> None:
            answer = await session.call(method, request)
            release = answer.host.kernel_release if what == "read" else "done"
            told = {"host": session.host.name, "ok": True, "result": release}
            sys.stdout.write(f"{json.dumps(told)}\n")
            sys.stdout.flush()

        for result in await client.each(client.select("all"), one):
            if not result.ok:
                sys.stderr.write(f"{result.host}: {result.error}\n")


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
