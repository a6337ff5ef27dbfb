"""Plans of changes to backups, and what is to be said of them as they are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from hostlerd.runtime.errors import InvalidRequest, Violation
from hostlerd.runtime.steps import Notice, Plan, fingerprint
from hostlerd.storage.errors.backups import BackupNotFound, SnapshotNotFound
from hostlerd.storage.model.backup import (
    SNAPSHOT,
    Backup,
    Definition,
    Snapshot,
    faults,
    is_within,
    path_fault,
)
from hostlerd.storage.model.backup_steps import (
    ApplyBackup,
    BeginBackup,
    BeginDrill,
    BeginForget,
    BeginRestore,
    DeleteBackup,
)
from hostlerd.storage.model.reason import Level, Reason

SAMPLE_MOST = 10_000
INCLUDE_MOST = 1000
_ID_LEAST = 8
# What could not be restored today if it had to be; the rest is to be looked after.
_CRITICAL = frozenset(("BACKUP_LATE", "DRILL_FAILED"))


def check(wanted: Definition) -> None:
    """Raise InvalidRequest with all that is wrong with a definition."""
    if found := faults(wanted):
        raise InvalidRequest.of([Violation(f"backup.{field}", why) for field, why in found])


def apply(wanted: Definition, have: Sequence[Definition]) -> Plan:
    """Define a backup; nothing if it is defined so. `check` has passed."""
    before = next((one for one in have if one.name == wanted.name), None)
    etag, after = fingerprint(before), fingerprint(wanted)
    if before == wanted:
        return Plan(etag=etag, etag_after=after)
    notices = []
    if before is not None and before.repository != wanted.repository:
        words = f"the snapshots of {wanted.name} so far stay in {before.repository}"
        notices.append(Notice("REPOSITORY_LEFT", words, wanted.name))
    if not wanted.calendar:
        words = f"{wanted.name} has no schedule: it runs only when somebody asks for it"
        notices.append(Notice("BACKUP_NOT_SCHEDULED", words, wanted.name))
    step = ApplyBackup(wanted, before)
    return Plan((step,), etag=etag, etag_after=after, notices=tuple(notices))


def delete(name: str, have: Sequence[Definition]) -> Plan:
    """Forget a definition; nothing if there is none."""
    before = next((one for one in have if one.name == name), None)
    etag, after = fingerprint(before), fingerprint(None)
    if before is None:
        return Plan(etag=etag, etag_after=after)
    return Plan((DeleteBackup(before),), etag=etag, etag_after=after)


def find(name: str, have: Sequence[Definition]) -> Definition:
    """The definition of this name. Raises BackupNotFound."""
    found = next((one for one in have if one.name == name), None)
    if found is None:
        raise BackupNotFound(f"no backup is called {name[:64]!r}", backup=name[:64])
    return found


def run(name: str, have: Sequence[Definition]) -> Plan:
    """Run a backup."""
    return _begin(find(name, have), BeginBackup(name))


def drill(name: str, files: int, full: bool, have: Sequence[Definition]) -> Plan:
    """Drill a backup: so many files, or all."""
    wrong = []
    if full and files:
        wrong.append(Violation("sample_files", "is not for a full drill, which takes all"))
    if not full and not 1 <= files <= SAMPLE_MOST:
        wrong.append(Violation("sample_files", f"must be from 1 to {SAMPLE_MOST}"))
    if wrong:
        raise InvalidRequest.of(wrong)
    return _begin(find(name, have), BeginDrill(name, 0 if full else files))


def check_restore(snapshot: str, target: str, include: Sequence[str]) -> None:
    """Raise InvalidRequest with all that is wrong with what is to be restored, and to where."""
    wrong = []
    if snapshot not in ("", "latest") and not _is_id(snapshot):
        words = f"must be latest, or the first {_ID_LEAST} or more digits of an id"
        wrong.append(Violation("snapshot", words))
    if why := path_fault(target):
        wrong.append(Violation("target", why))
    wrong += [
        Violation(f"include[{at}]", why)
        for at, path in enumerate(include)
        if (why := path_fault(path))
    ]
    if len(include) > INCLUDE_MOST:
        wrong.append(Violation("include", f"has at most {INCLUDE_MOST}"))
    if wrong:
        raise InvalidRequest.of(wrong)


def restore(
    backup: Definition,
    snapshot: str,
    target: str,
    include: Sequence[str],
    snapshots: Sequence[Snapshot],
) -> Plan:
    """Restore a snapshot to a place that is empty. `check_restore` has passed."""
    apart = [*backup.paths, *([backup.repository] if backup.is_local else [])]
    for other in apart:
        if is_within(target, other) or is_within(other, target):
            raise InvalidRequest.of([Violation("target", f"must be apart from {other}")])
    wanted = "" if snapshot == "latest" else snapshot
    found = [one for one in snapshots if one.id.startswith(wanted)][: None if wanted else 1]
    if len(found) != 1:
        words = "is ambiguous" if found else "is not there"
        raise SnapshotNotFound(
            f"snapshot {wanted or 'latest'} of backup {backup.name} {words}", backup=backup.name
        )
    return _begin(backup, BeginRestore(backup.name, found[0].id, target, tuple(include)))


def _is_id(text: str) -> bool:
    return len(text) >= _ID_LEAST and SNAPSHOT.fullmatch(text.ljust(64, "0")) is not None


def forget(backup: Backup, going: Sequence[str], have: Sequence[Snapshot]) -> Plan:
    """Forget the snapshots that the retention keeps no more; nothing if it keeps all."""
    name = backup.definition.name
    etag = fingerprint([name, sorted(one.id for one in have)])
    if not going:
        return Plan(etag=etag, etag_after=etag)
    when = {one.id: one.unix_s for one in have}
    step = BeginForget(name, tuple(sorted(going, key=lambda one: (when.get(one, 0.0), one))))
    notices = [one for one in warnings(backup, 0) if one.code in ("NEVER_DRILLED", "DRILL_FAILED")]
    return Plan(
        (step,), etag=etag, notices=tuple(notices), bindings={"snapshots": list(step.snapshots)}
    )


def _begin(backup: Definition, step: BeginBackup | BeginDrill | BeginRestore) -> Plan:
    return Plan((step,), etag=fingerprint(backup))


def warnings(backup: Backup, now_unix_s: int) -> tuple[Notice, ...]:
    """What is not well with a backup."""
    name = backup.definition.name
    return tuple(Notice(code, words, name) for code, words in _warnings(backup, now_unix_s))


def reasons(backup: Backup, now_unix_s: int) -> tuple[Reason, ...]:
    """What a backup adds to the health of its host."""
    return tuple(
        Reason(
            one.code,
            Level.CRITICAL if one.code in _CRITICAL else Level.WARNING,
            f"backup-{one.subject}",
            f"backup {one.subject}: {one.message}",
        )
        for one in warnings(backup, now_unix_s)
    )


def _warnings(backup: Backup, now_unix_s: int) -> Iterator[tuple[str, str]]:
    runs, drills, limit = backup.runs, backup.drills, backup.definition.warn_after_s
    late = now_unix_s - (runs.good.unix_s or backup.since_unix_s)
    if limit and late > limit:
        since = "no run has succeeded" if not runs.good.unix_s else "the last good run was"
        yield "BACKUP_LATE", f"{since} {late} s ago; it is to be missed after {limit} s"
    elif not runs.good.unix_s:
        yield "BACKUP_NEVER_RUN", "no run has succeeded yet"
    if runs.last.reason:
        yield "BACKUP_FAILED", f"the last run failed: {runs.last.message}"
    if drills.last.reason:
        yield "DRILL_FAILED", f"the last drill failed: {drills.last.message}"
    elif not drills.good.unix_s:
        yield "NEVER_DRILLED", "no restore of it was ever proven: it is no backup yet"
