"""The firewall's daemon in a network namespace, and a caller over mTLS beside it.

The caller is a process of its own, since a namespace is entered by processes:

    firewall_door.py PORT NAME CA USER

It takes rulesets as lines of JSON, applies each, and answers as a line how many milliseconds the
call took, from the message that is there to the answer that is there, and how many steps the
plan had.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import IO, Any

import daemon
import grpc
import recipes

from hostler.api.firewall.v1 import ruleset_pb2, ruleset_pb2_grpc
from hostlerd.firewall.model.document import parse
from hostlerd.firewall.service.convert import to_proto

ARGUMENTS = ("-m", "hostlerd.firewall")
TIMEOUT_S = 120.0
MOST_BYTES = 16 << 20


@dataclass(frozen=True, slots=True)
class Applied:
    """What one call came to: how long it took, and how many steps its plan had."""

    ms: float
    steps: int


class Door:
    """The caller's end of the pipes to who calls."""

    def __init__(self, requests: IO[str], answers: IO[str]) -> None:
        self._requests = requests
        self._answers = answers

    def apply(self, document: dict[str, Any]) -> Applied:
        """Make the host have a ruleset."""
        self._requests.write(f"{json.dumps(document)}\n")
        self._requests.flush()
        line = self._answers.readline()
        if not line:
            raise RuntimeError("the caller has failed")
        return Applied(**json.loads(line))


@contextmanager
def opened(namespace: str, place: Path) -> Iterator[Door]:
    """Start the daemon and its caller in a namespace; both are gone afterwards."""
    enter = (recipes.IP, "netns", "exec", namespace)
    served = daemon.prepare(place, daemon.make_authority(place))
    served.arguments, served.wrap = ARGUMENTS, enter
    user = served.authority.folder / "users" / daemon.USER
    argv = [*enter, sys.executable, __file__, str(served.port), served.name]
    argv += [str(served.authority.ca_path), str(user)]
    with (
        daemon.listening(served),
        subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as caller,
    ):
        if caller.stdin is None or caller.stdout is None:
            raise RuntimeError("no pipes")
        try:
            yield Door(caller.stdin, caller.stdout)
        finally:
            caller.kill()


def serve(port: int, name: str, ca: Path, user: Path) -> None:
    """Apply what comes."""
    credentials = grpc.ssl_channel_credentials(
        ca.read_bytes(),
        user.with_suffix(".key").read_bytes(),
        user.with_suffix(".pem").read_bytes(),
    )
    options = [
        ("grpc.ssl_target_name_override", name),
        ("grpc.max_receive_message_length", MOST_BYTES),
    ]
    with grpc.secure_channel(f"127.0.0.1:{port}", credentials, options) as channel:
        stub = ruleset_pb2_grpc.RulesetServiceStub(channel)
        for line in sys.stdin:
            ruleset = to_proto(parse(json.loads(line)))
            request = ruleset_pb2.ApplyRulesetRequest(ruleset=ruleset)
            start = monotonic()
            answer = stub.ApplyRuleset(request, timeout=TIMEOUT_S)
            told = {"ms": (monotonic() - start) * 1000, "steps": len(answer.change.plan.steps)}
            sys.stdout.write(f"{json.dumps(told)}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    serve(int(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4]))
