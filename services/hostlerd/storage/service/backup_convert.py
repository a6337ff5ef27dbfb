"""Backups as messages, and back."""

from __future__ import annotations

from hostler.api.storage.v1 import backup_pb2 as pb
from hostlerd.runtime.steps import fingerprint
from hostlerd.storage.model.backup import Backup, Definition, Outcome, Retention, Snapshot
from hostlerd.storage.plan import backup as plan

_NANOS = 1_000_000_000


def definition(told: pb.BackupDefinition) -> Definition:
    """The definition that a message tells, as it stands."""
    return Definition(
        name=told.name,
        paths=tuple(told.paths),
        repository=told.repository,
        password_file=told.password_file,
        excludes=tuple(told.excludes),
        credentials_file=told.credentials_file,
        one_file_system=told.one_file_system,
        retention=Retention(
            told.retention.keep_last,
            told.retention.keep_daily,
            told.retention.keep_weekly,
            told.retention.keep_monthly,
        ),
        calendar=told.schedule.calendar,
        zone=told.schedule.time_zone,
        warn_after_s=told.warn_after.seconds,
        host=told.host,
    )


def backup(one: Backup, now_unix_s: int) -> pb.Backup:
    """A backup as a message, with what is not well at a moment."""
    message = pb.Backup(
        definition=_definition(one.definition),
        last_run=outcome(one.runs.last),
        last_good_run=outcome(one.runs.good),
        last_drill=outcome(one.drills.last),
        last_good_drill=outcome(one.drills.good),
        last_good_full_drill=outcome(one.drills.full),
        busy=one.is_busy,
        etag=fingerprint(one.definition),
    )
    for notice in plan.warnings(one, now_unix_s):
        message.warnings.add(code=notice.code, message=notice.message, subject=notice.subject)
    return message


def _definition(one: Definition) -> pb.BackupDefinition:
    keep = one.retention
    message = pb.BackupDefinition(
        name=one.name,
        paths=one.paths,
        excludes=one.excludes,
        repository=one.repository,
        password_file=one.password_file,
        credentials_file=one.credentials_file,
        one_file_system=one.one_file_system,
        host=one.host,
    )
    if not keep.is_empty:
        message.retention.CopyFrom(
            pb.BackupRetention(
                keep_last=keep.last,
                keep_daily=keep.daily,
                keep_weekly=keep.weekly,
                keep_monthly=keep.monthly,
            )
        )
    if one.calendar:
        message.schedule.CopyFrom(pb.BackupSchedule(calendar=one.calendar, time_zone=one.zone))
    if one.warn_after_s:
        message.warn_after.FromSeconds(one.warn_after_s)
    return message


def outcome(one: Outcome | None) -> pb.BackupOutcome | None:
    """How something ended; None if nothing did."""
    if one is None or not one.unix_s:
        return None
    message = pb.BackupOutcome(
        snapshot=one.snapshot,
        files=one.files,
        size_bytes=one.bytes,
        reason=one.reason,
        message=one.message,
    )
    message.start_time.FromSeconds(one.unix_s)
    message.duration.FromMilliseconds(round(one.seconds * 1000))
    return message


def snapshot(one: Snapshot) -> pb.BackupSnapshot:
    """A snapshot as a message."""
    message = pb.BackupSnapshot(id=one.id, host=one.host, paths=one.paths)
    message.create_time.FromNanoseconds(round(one.unix_s * _NANOS))
    return message
