"""Whether listeners serve what is installed: asked of the network by a process without rights."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hostlerd
from hostlerd.privileged.refused import Refused
from hostlerd.ssl.installer import prober

NOBODY = 65534
# For all of one: connection, what is said before TLS, and the handshake.
HANDSHAKE_S = 10.0
PAUSE_S = 0.25
# Old workers of a server may answer one more time after it has reloaded.
IN_A_ROW = 3
MAX_NAMES = 4
_START = (
    "import sys; sys.path.insert(0, sys.argv[1]); "
    "from hostlerd.ssl.installer import prober; prober.main()"
)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What has to be served: the leaf, and the issuers with it, by SHA-256 of DER."""

    leaf: str
    issuers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Seen:
    """What a listener serves: the leaf's SHA-256, or why there was no handshake."""

    listener: str
    fingerprint_sha256: str = ""
    current: bool = False
    problem: str = ""


Asked = tuple[Sequence[Mapping[str, Any]], Wanted | None]
"""Targets, and what all of them have to serve."""


def targets(server: Mapping[str, Any], subject_names: Sequence[str]) -> list[dict[str, Any]]:
    """Each listener of a server with each name; a wildcard by a name that it covers."""
    names = [n.replace("*", "hostler-check", 1) for n in subject_names if not _is_address(n)]
    found = []
    for listener in server["listeners"]:
        address, _, port = listener.rpartition(":")
        for name in names[:MAX_NAMES] or [""]:
            target = {"address": address.strip("[]"), "port": int(port), "sni": name}
            found.append({**target, "starttls": server["starttls"], "listener": listener})
    return found


def _is_address(name: str) -> bool:
    return ":" in name or name.replace(".", "").isdigit()


def look(asked: Sequence[Asked]) -> list[list[Seen]]:
    """Make a handshake with every target; answer for each that is asked what its listeners serve.

    Of several names at a listener, one that is not served as wanted counts.
    """
    targets_of_all = [target for targets, _ in asked for target in targets]
    answers = iter(_probe(targets_of_all) if targets_of_all else ())
    found = []
    for targets, wanted in asked:
        by_listener: dict[str, Seen] = {}
        for target in targets:
            seen = _judge(target, next(answers), wanted)
            before = by_listener.get(seen.listener)
            if before is None or before.current:
                by_listener[seen.listener] = seen
        found.append(list(by_listener.values()))
    return found


def until_served(
    asked: Sequence[Asked], within_s: float, has_ended: Callable[[], bool]
) -> Seen | None:
    """Look until all listeners serve it, several times in a row; answer one that does not in time.

    All are looked at together: a run of many takes as long as its slowest server, not as all. If
    nothing is served somewhere, `has_ended` is asked whether that can change.
    """
    deadline = time.monotonic() + within_s
    in_a_row = 0
    while True:
        bad = next((each for seen in look(asked) for each in seen if not each.current), None)
        in_a_row = in_a_row + 1 if bad is None else 0
        if in_a_row >= IN_A_ROW or not any(targets for targets, _ in asked):
            return None
        if bad is not None and time.monotonic() >= deadline:
            return bad
        if bad is not None and not bad.fingerprint_sha256 and has_ended():
            return bad
        time.sleep(PAUSE_S)


def fingerprints(asked: Sequence[Mapping[str, Any]]) -> list[str]:
    """The leaf that each target serves, by SHA-256; empty where there was no handshake."""
    return [_leaf(answer) for answer in _probe(asked)] if asked else []


def until_as_before(
    asked: Sequence[Mapping[str, Any]], before: Sequence[str], within_s: float
) -> bool:
    """Look until every target that served something before serves that again."""
    deadline = time.monotonic() + within_s
    in_a_row = 0
    while in_a_row < IN_A_ROW:
        now = fingerprints(asked)
        equal = len(now) == len(before) and all(
            not was or was == is_now for was, is_now in zip(before, now, strict=True)
        )
        in_a_row = in_a_row + 1 if equal else 0
        if not equal and time.monotonic() >= deadline:
            return False
        time.sleep(PAUSE_S)
    return True


def _leaf(answer: Mapping[str, Any]) -> str:
    served = answer.get("certificates", ())
    return _sha256(served[0]) if served else ""


def _judge(target: Mapping[str, Any], answer: Mapping[str, Any], wanted: Wanted | None) -> Seen:
    listener = target["listener"]
    served = [_sha256(each) for each in answer.get("certificates", ())]
    if not served:
        return Seen(listener, problem=answer.get("problem", "the server sent no certificate"))
    if wanted is None:
        return Seen(listener, served[0])
    if served[0] != wanted.leaf:
        problem = "another certificate is served"
    elif missing := [each for each in wanted.issuers if each not in served[1:]]:
        problem = f"{len(missing)} of the issuers are not served with it"
    else:
        return Seen(listener, served[0], current=True)
    return Seen(listener, served[0], problem=f"{problem} for {target['sni'] or 'no name'}")


def _sha256(der: str) -> str:
    return hashlib.sha256(base64.b64decode(der)).hexdigest()


def _probe(asked: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Have the prober make the handshakes, as nobody and with nothing of ours open."""
    probes = [{k: v for k, v in each.items() if k != "listener"} for each in asked]
    tree = str(Path(hostlerd.__file__).parent.parent)
    drop: dict[str, Any] = {}
    if os.geteuid() == 0:
        drop = {"user": NOBODY, "group": NOBODY, "extra_groups": []}
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-c", _START, tree],
            input=json.dumps({"timeout_s": HANDSHAKE_S, "targets": probes}).encode(),
            capture_output=True,
            env={"LC_ALL": "C"},
            cwd="/",
            timeout=HANDSHAKE_S * (1 + len(probes) / prober.AT_ONCE) + 30,
            check=True,
            **drop,
        )
        found: list[dict[str, Any]] = json.loads(done.stdout)
    except (subprocess.SubprocessError, OSError, ValueError) as e:
        raise Refused("HANDSHAKE_FAILED", f"the prober did not answer: {type(e).__name__}") from e
    if len(found) != len(probes):
        raise Refused("HANDSHAKE_FAILED", "the prober answered for other targets")
    return found
