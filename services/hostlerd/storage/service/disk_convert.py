"""Replacements of disks as messages."""

from __future__ import annotations

from hostler.api.storage.v1 import disk_pb2 as pb
from hostlerd.storage.model.replacement import Pull, Replacement


def replacement(of: Replacement) -> pb.Replacement:
    """All that is to be known of a replacement."""
    return pb.Replacement(
        old=of.old,
        new=of.new,
        pull=_pull(of.pull),
        table_of=of.table_of,
        contents=[
            pb.ReplacedContent(
                number=one.number,
                kind=one.kind,
                id=one.id,
                fate=f"CONTENT_FATE_{one.fate.name}",
                message=one.words,
            )
            for one in of.contents
        ],
        findings=[
            pb.ReplacementFinding(
                code=one.code, weight=f"FINDING_WEIGHT_{one.weight.name}", message=one.message
            )
            for one in of.findings
        ],
        boot=[
            pb.BootNote(code=one.code, message=one.message, command=one.command) for one in of.boot
        ],
    )


def _pull(of: Pull) -> pb.PulledDisk:
    return pb.PulledDisk(
        id=of.id,
        present=of.is_there,
        name=of.name,
        serial=of.serial,
        wwn=of.wwn,
        model=of.model,
        path=of.path,
        enclosure=of.enclosure,
        bay=of.bay,
        words=of.words,
    )
