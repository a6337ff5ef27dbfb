"""Verifying the audit logs of hosts, where the hosts have no say.

The lines are fetched as they lie on the hosts' disks, every hash is computed here, and the chain is
compared with what this client has seen earlier: the anchors in the answers of its own changes, and
the ends of logs that it has verified before.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hostler.api.common.v1 import audit_pb2
from hostler.channel import rpc
from hostler.config import HostlerError
from hostler.core.audit import Anchor, Finding, Verdict, Verifier
from hostler.runs import open_runs
from hostler.session import Session

_READ = rpc(audit_pb2, "AuditService", "ReadAuditLog")
_STATE = rpc(audit_pb2, "AuditService", "GetAuditState")
# Of the ends seen earlier, the oldest and the newest.
_OLDEST, _NEWEST = 10, 90


class AnchorsUnusable(HostlerError):
    """What this client has seen earlier cannot be read."""


@dataclass(frozen=True, slots=True)
class Checked:
    """One log, verified. `problem` is what keeps the host from writing it as it should."""

    verdict: Verdict
    bytes: int
    seconds: float
    problem: str = ""

    def as_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        verdict = self.verdict
        return {
            "verified": verdict.ok,
            "records": verdict.records,
            "first_seq": verdict.first_seq,
            "end": {"seq": verdict.end.seq, "head": verdict.end.head},
            "anchors": verdict.anchors,
            "findings": [_finding(each) for each in verdict.findings],
            "problem": self.problem,
            "bytes": self.bytes,
            "seconds": round(self.seconds, 3),
        }


def _finding(finding: Finding) -> dict[str, Any]:
    return {
        "flaw": finding.flaw.value,
        "from_seq": finding.from_seq,
        "to_seq": finding.to_seq,
        "message": finding.message,
        "harmless": finding.harmless,
    }


async def verify(session: Session, domain: str, anchors: Iterable[Anchor]) -> Checked:
    """Fetch the log of a host's domain and verify it. Raises CallFailed."""
    start = time.monotonic()
    verifier, size = Verifier(anchors), 0
    state = await session.call(_STATE.at(domain), audit_pb2.GetAuditStateRequest())
    async for piece in session.stream(_READ.at(domain), audit_pb2.ReadAuditLogRequest()):
        size += len(piece.data)
        # Hashing takes its time; other hosts' answers shall not wait for it.
        await asyncio.to_thread(_take, verifier, piece.data)
    journal = Anchor(state.end.seq, state.end.head) if state.journal_from_seq else None
    verdict = await asyncio.to_thread(verifier.finish, journal)
    return Checked(verdict, size, time.monotonic() - start, state.problem)


def _take(verifier: Verifier, data: bytes) -> None:
    for line in data.split(b"\n"):
        if line:
            verifier.take(line)


@dataclass(frozen=True, slots=True)
class Seen:
    """What this client has seen of one log, and since when it counts, as an ISO time."""

    since: str = ""
    heads: tuple[Anchor, ...] = ()


class Heads:
    """The ends of logs that were verified from here, in a file of the user's own.

    `context` tells fleets apart that have hosts of the same name.
    """

    def __init__(self, context: str, path: Path | None = None) -> None:
        self._context = context
        self._path = path or _default_path()

    def seen(self, host: str, domain: str) -> Seen:
        """What was seen of a log. Raises AnchorsUnusable."""
        told = self._read().get(self._key(host, domain), {})
        try:
            heads = tuple(Anchor(int(seq), str(head)) for seq, head in told.get("heads", ()))
            return Seen(str(told.get("since", "")), heads)
        except (AttributeError, TypeError, ValueError) as error:
            raise AnchorsUnusable(f"{self._path}: not what was written: {error!r}") from error

    def remember(self, host: str, domain: str, end: Anchor) -> None:
        """Keep the end of a log that was verified. Raises AnchorsUnusable."""
        with self._changed() as told:
            entry = told.setdefault(self._key(host, domain), {})
            heads = entry.setdefault("heads", [])
            if [end.seq, end.head] not in heads:
                heads.append([end.seq, end.head])
            del heads[_OLDEST:-_NEWEST]

    def forget(self, host: str, domain: str) -> None:
        """Take a log as new, as of a host that was set up again. Raises AnchorsUnusable."""
        with self._changed() as told:
            told[self._key(host, domain)] = {"since": datetime.now(UTC).isoformat(), "heads": []}

    def _key(self, host: str, domain: str) -> str:
        return json.dumps([self._context, host, domain])

    def _read(self) -> dict[str, Any]:
        try:
            told = json.loads(self._path.read_text() or "{}")
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            raise AnchorsUnusable(f"{self._path}: {error}") from error
        if not isinstance(told, dict):
            raise AnchorsUnusable(f"{self._path}: not what was written")
        return told

    @contextmanager
    def _changed(self) -> Iterator[dict[str, Any]]:
        """Change the file under a lock, as a whole."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with self._path.with_suffix(".lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                told = self._read()
                yield told
                fresh = self._path.with_suffix(".new")
                with fresh.open("w") as stream:
                    json.dump(told, stream)
                    stream.flush()
                    os.fsync(stream.fileno())
                fresh.rename(self._path)
        except OSError as error:
            raise AnchorsUnusable(f"{self._path}: {error.strerror}") from error


def _default_path() -> Path:
    """The file of the ends. Source: XDG Base Directory Specification."""
    state = os.environ.get("XDG_STATE_HOME", "")
    base = Path(state) if state.startswith("/") else Path.home() / ".local/state"
    return base / "hostler/audit-heads.json"


def from_runs(url: str, context: str, host: str, domain: str, since: str) -> Sequence[Anchor]:
    """The anchors of this context's recorded runs for one log, from a time on. Raises RunsError."""
    with open_runs(url) as runs:
        found = runs.anchors(host=host, domain=domain)
        mine = {run.id for run in runs.newest(limit=len(found) + 10_000) if run.context == context}
    return [Anchor(a.seq, a.head) for a in found if a.run in mine and a.time >= since]


def from_file(path: Path) -> dict[tuple[str, str], list[Anchor]]:
    """Read anchors from JSON, a list of {host, domain, seq, head}. Raises AnchorsUnusable."""
    found: dict[tuple[str, str], list[Anchor]] = {}
    try:
        for each in json.loads(path.read_text()):
            anchor = Anchor(int(each["seq"]), str(each["head"]))
            found.setdefault((each["host"], each["domain"]), []).append(anchor)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise AnchorsUnusable(f"{path}: no list of anchors: {error!r}") from error
    return found
