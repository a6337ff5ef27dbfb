"""The audit log's chain: how records are hashed, and how a log is verified. Pure.

A log is JSON lines. Each record has `seq`, which counts from 1, `previous`, the hash of the record
before it, and `hash`, its own. Whoever knows one (seq, hash) of a log, an anchor, holds everything
before it fast.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

NO_HASH = "0" * 64
Record = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Anchor:
    """The place of a record: its sequence number and its hash, the chain's head at that moment."""

    seq: int
    head: str


START = Anchor(0, NO_HASH)


def hash_of(record: Mapping[str, Any]) -> str:
    """SHA-256 of a record without its own hash, in hex."""
    plain = {key: value for key, value in record.items() if key != "hash"}
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def chained(fields: Mapping[str, Any], time: str, end: Anchor) -> tuple[bytes, Anchor]:
    """Answer the line that comes after `end`, and the new end."""
    record = {"seq": end.seq + 1, "time": time, **fields, "previous": end.head}
    digest = hash_of(record)
    line = json.dumps({**record, "hash": digest}, separators=(",", ":")).encode() + b"\n"
    return line, Anchor(end.seq + 1, digest)


def parse(line: bytes) -> Record | None:
    """Read a line; None if it is no record."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(record, dict) or type(record.get("seq")) is not int:
        return None
    return record if isinstance(record.get("hash"), str) else None


class Flaw(Enum):
    """What can be wrong with a log, or be worth knowing of it."""

    EDITED = "edited"
    MISSING = "missing"
    REORDERED = "reordered"
    REPEATED = "repeated"
    REWRITTEN = "rewritten"
    CUT = "cut"
    UNREADABLE = "unreadable"
    TORN = "torn"
    DROPPED = "dropped"
    IN_JOURNAL = "in_journal"


# What a healthy log has as well: a crash in the middle of a line, old records that retention has
# dropped, and records that went to the journal while the disk was full. Each is on record.
_HARMLESS = {Flaw.TORN, Flaw.DROPPED, Flaw.IN_JOURNAL}


@dataclass(frozen=True, slots=True)
class Finding:
    """Something found in a log, from one sequence number to another."""

    flaw: Flaw
    from_seq: int
    to_seq: int
    message: str

    @property
    def harmless(self) -> bool:
        """Whether a log that nobody has touched may have it too."""
        return self.flaw in _HARMLESS


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the verification of a log has found. `anchors` is how many were compared."""

    records: int
    first_seq: int
    end: Anchor
    anchors: int
    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        """Whether nobody has touched the log, as far as anchors and hashes can tell."""
        return all(finding.harmless for finding in self.findings)


@dataclass(slots=True)
class _Hole:
    """Records that were not met yet: those between two that were."""

    from_seq: int
    to_seq: int
    before: str
    after: str


# A log that is nothing but faults must not fill memory.
_MOST = 10_000


@dataclass(slots=True)
class Verifier:
    """Takes a log line by line, oldest first, and then says what is wrong with it.

    `anchors` are what the verifier's side knows of the log from earlier; several for one sequence
    number contradict each other, and each is compared.
    """

    anchors: Iterable[Anchor] = ()
    _known: dict[int, set[str]] = field(default_factory=dict)
    _findings: list[Finding] = field(default_factory=list)
    _holes: list[_Hole] = field(default_factory=list)
    _gaps: list[Record] = field(default_factory=list)
    _dropped: list[Record] = field(default_factory=list)
    _matching: list[int] = field(default_factory=list)
    _differing: list[int] = field(default_factory=list)
    _torn: int | None = None
    _records: int = 0
    _first: int = 0
    _end: Anchor = START

    def __post_init__(self) -> None:
        for anchor in self.anchors:
            self._known.setdefault(anchor.seq, set()).add(anchor.head)

    def take(self, line: bytes) -> None:
        """Look at the next line, with or without its line end."""
        line = line.rstrip(b"\n")
        record = parse(line)
        if record is None:
            if line:
                self._settle_torn(None)
                self._torn = len(line)
            return
        self._settle_torn(record)
        self._records += 1
        self._first = self._first or record["seq"]
        seq = record["seq"]
        honest = hash_of(record) == record["hash"]
        if not honest:
            # Its number may be what was edited; its place tells which one it was.
            place = self._end.seq + 1
            told = f", which calls itself {seq}," if seq != place else ""
            self._find(Flaw.EDITED, place, place, f"record {place}{told} was edited")
            seq = place
        self._place(seq, record, honest)
        if honest:
            self._note(record)

    def _settle_torn(self, record: Record | None) -> None:
        """Judge a line that was no record, now that the one after it is known."""
        if self._torn is None:
            return
        length, self._torn = self._torn, None
        after = self._end.seq
        if record and record.get("kind") == "recovery" and record.get("torn_bytes") == length:
            message = f"a crash tore the line after record {after}; the next start closed it"
            self._find(Flaw.TORN, after, after, message)
        else:
            message = f"a line of {length} bytes after record {after} is no record"
            self._find(Flaw.UNREADABLE, after, after, message)

    def _place(self, seq: int, record: Record, honest: bool) -> None:
        previous, expected = str(record.get("previous")), self._end.seq + 1
        if seq < expected:
            self._late(seq, record)
            return
        if seq > expected:
            self._holes.append(_Hole(expected, seq - 1, self._end.head, previous))
        elif previous != self._end.head and honest:
            # Both hashes are right, yet they do not know each other: the earlier one was made anew.
            message = f"record {expected - 1} was edited and given a new hash"
            self._find(Flaw.EDITED, expected - 1, expected - 1, message)
        self._end = Anchor(seq, record["hash"])
        self._compare(seq, record["hash"])

    def _late(self, seq: int, record: Record) -> None:
        """Take a record that stands after one with a higher number."""
        for index, hole in enumerate(self._holes):
            if hole.from_seq <= seq <= hole.to_seq:
                rest = []
                if hole.from_seq < seq:
                    before = str(record.get("previous"))
                    rest.append(_Hole(hole.from_seq, seq - 1, hole.before, before))
                if seq < hole.to_seq:
                    rest.append(_Hole(seq + 1, hole.to_seq, record["hash"], hole.after))
                self._holes[index : index + 1] = rest
                message = f"record {seq} stands after record {self._end.seq}"
                self._find(Flaw.REORDERED, seq, seq, message)
                self._compare(seq, record["hash"])
                return
        message = f"record {seq} comes again after record {self._end.seq}"
        self._find(Flaw.REPEATED, seq, seq, message)

    def _compare(self, seq: int, head: str) -> None:
        for known in self._known.pop(seq, ()):
            (self._matching if known == head else self._differing).append(seq)

    def _note(self, record: Record) -> None:
        if record.get("kind") == "gap":
            self._gaps.append(record)
            del self._gaps[:-_MOST]
        elif record.get("kind") == "dropped":
            self._dropped.append(record)
            del self._dropped[:-_MOST]

    def _find(self, flaw: Flaw, from_seq: int, to_seq: int, message: str) -> None:
        finding = Finding(flaw, from_seq, to_seq, message)
        same = any(f.flaw is flaw and f.from_seq == from_seq for f in self._findings[-3:])
        if not same and len(self._findings) < _MOST:
            self._findings.append(finding)

    def finish(self, journal: Anchor | None = None) -> Verdict:
        """Judge the whole. `journal` is the end of what the host says is in its journal alone."""
        if self._torn is not None:
            message = f"the log ends in the middle of a line, after record {self._end.seq}"
            self._find(Flaw.TORN, self._end.seq, self._end.seq, message)
            self._torn = None
        for hole in self._holes:
            self._judge_hole(hole)
        self._judge_end(journal)
        self._judge_anchors()
        findings = sorted(self._findings, key=lambda f: (f.from_seq, f.to_seq))
        compared = len(self._matching) + len(self._differing)
        return Verdict(self._records, self._first, self._end, compared, tuple(findings))

    def _judge_hole(self, hole: _Hole) -> None:
        where = _range(hole.from_seq, hole.to_seq)
        if hole.from_seq == 1 and self._is_dropped(hole):
            self._find(Flaw.DROPPED, 1, hole.to_seq, f"{where}: dropped by the log's retention")
        elif self._is_gap(hole):
            message = f"{where}: in the host's journal, written while the disk took nothing"
            self._find(Flaw.IN_JOURNAL, hole.from_seq, hole.to_seq, message)
        else:
            self._find(Flaw.MISSING, hole.from_seq, hole.to_seq, f"{where}: missing")

    def _is_dropped(self, hole: _Hole) -> bool:
        return any(
            each.get("to_seq") == hole.to_seq and each.get("head") == hole.after
            for each in self._dropped
        )

    def _is_gap(self, hole: _Hole) -> bool:
        wanted = (hole.from_seq, hole.to_seq, hole.before, hole.after)
        for gap in self._gaps:
            if wanted == tuple(gap.get(k) for k in ("from_seq", "to_seq", "before", "head")):
                hashes = gap.get("hashes")
                for index, head in enumerate(hashes if isinstance(hashes, list) else ()):
                    self._compare(hole.from_seq + index, str(head))
                self._compare(hole.to_seq, hole.after)
                return True
        return False

    def _judge_end(self, journal: Anchor | None) -> None:
        end = self._end.seq
        if journal is not None and journal.seq > end:
            where = _range(end + 1, journal.seq)
            message = f"{where}: so far in the host's journal only; the disk takes nothing"
            self._find(Flaw.IN_JOURNAL, end + 1, journal.seq, message)
            self._compare(journal.seq, journal.head)
            end = journal.seq
        beyond = max((seq for seq in self._known if seq > end), default=0)
        if beyond:
            message = f"{_range(end + 1, beyond)}: cut off; record {beyond} was there once"
            self._find(Flaw.CUT, end + 1, beyond, message)

    def _judge_anchors(self) -> None:
        if not self._differing:
            return
        self._differing.sort()
        first = self._differing[0]
        good = max((seq for seq in self._matching if seq < first), default=0)
        again = min((seq for seq in self._matching if seq > first), default=0)
        if again and any(
            f.flaw in (Flaw.EDITED, Flaw.MISSING) and good < f.from_seq < again
            for f in self._findings
        ):
            # The chain holds again later, so only what is named already can differ.
            return
        end = again - 1 if again else self._end.seq
        message = f"rewritten between record {good + 1} and {first}: what follows is another log"
        if first == good + 1:
            message = f"rewritten from record {first} on"
        self._find(Flaw.REWRITTEN, good + 1, end, message)


def _range(from_seq: int, to_seq: int) -> str:
    return f"record {from_seq}" if from_seq == to_seq else f"records {from_seq} to {to_seq}"
