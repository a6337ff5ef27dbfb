"""What tests of the audit log have in common: the judge is the one that clients have."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from hostler.core.audit import Anchor, Verdict, Verifier
from hostlerd.runtime.audit_files import lines, records


def verdict(path: Path, anchors: Iterable[Anchor] = (), journal: Anchor | None = None) -> Verdict:
    """Verify a log on the disk against anchors."""
    verifier = Verifier(anchors)
    for line in lines(path):
        verifier.take(line)
    return verifier.finish(journal)


def kinds(path: Path) -> list[str]:
    """The kinds of a log's records, in order."""
    return [record["kind"] for record in records(path)]


def take(printed: Iterable[str]) -> list[Anchor]:
    """Anchors as a process has printed them."""
    return [Anchor(int(line.split()[0]), line.split()[1]) for line in printed]
