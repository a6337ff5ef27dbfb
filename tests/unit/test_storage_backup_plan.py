"""Plans of backups, and what is said of them."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostlerd.runtime.errors import InvalidRequest
from hostlerd.storage.errors.backups import BackupNotFound, SnapshotNotFound
from hostlerd.storage.model.backup import (
    Backup,
    Definition,
    Outcome,
    Record,
    Retention,
    Snapshot,
    faults,
)
from hostlerd.storage.model.backup_steps import ApplyBackup, BeginForget, DeleteBackup
from hostlerd.storage.model.observed import Observed
from hostlerd.storage.model.reason import Level
from hostlerd.storage.plan import backup as plan
from hostlerd.storage.plan.health import health

NAMES = st.sampled_from(("srv", "etc", "x-1"))
PATHS = st.lists(st.sampled_from(("/srv", "/etc", "/home")), min_size=1, unique=True).map(tuple)
DEFINITIONS = st.builds(
    Definition,
    name=NAMES,
    paths=PATHS,
    repository=st.sampled_from(("/backup", "rest:https://h/x", "s3:https://h/b")),
    password_file=st.just("/root/p"),
    retention=st.builds(Retention, last=st.integers(0, 9)),
    calendar=st.just("*-*-* 02:30:00"),
    zone=st.sampled_from(("UTC", "Europe/Berlin", "America/Argentina/Buenos_Aires")),
    warn_after_s=st.integers(1, 86_400),
)
HAVE = st.lists(DEFINITIONS, unique_by=lambda one: one.name).map(tuple)
ONE = Definition("srv", ("/srv",), "/backup", "/root/p")


def carried_out(steps, have):
    """What is defined after these steps."""
    now = {one.name: one for one in have}
    for step in steps:
        if isinstance(step, ApplyBackup):
            assert step.before == now.get(step.backup.name)
            now[step.backup.name] = step.backup
        else:
            assert isinstance(step, DeleteBackup)
            assert now.pop(step.before.name) == step.before
    return now


@given(DEFINITIONS, HAVE)
def test_a_definition_is_as_wanted_once_and_goes_back(wanted, have):
    plan.check(wanted)
    first = plan.apply(wanted, have)
    now = carried_out(first.steps, have)
    assert now == {**{one.name: one for one in have}, wanted.name: wanted}
    again = plan.apply(wanted, tuple(now.values()))
    assert again.steps == () and again.etag == first.etag_after
    back = [step.inverse() for step in reversed(first.steps)]
    assert carried_out(back, now.values()) == {one.name: one for one in have}


@given(NAMES, HAVE)
def test_a_deleted_definition_is_gone_once_and_comes_back(name, have):
    first = plan.delete(name, have)
    now = carried_out(first.steps, have)
    assert now == {one.name: one for one in have if one.name != name}
    assert plan.delete(name, tuple(now.values())).steps == ()
    back = [step.inverse() for step in reversed(first.steps)]
    assert carried_out(back, now.values()) == {one.name: one for one in have}


@pytest.mark.parametrize(
    ("field", "more"),
    [
        ("name", {"name": "Srv"}),
        ("paths", {"paths": ()}),
        ("paths", {"paths": ("/a", "/a")}),
        ("paths[0]", {"paths": ("srv",)}),
        ("paths[0]", {"paths": ("/srv/../etc",)}),
        ("paths[0]", {"paths": ("/srv\n",)}),
        ("excludes[0]", {"excludes": ("",)}),
        ("repository", {"repository": "/srv/backup"}),
        ("repository", {"repository": "/"}),
        ("repository", {"repository": "rest:https://user:secret@host/x"}),
        ("repository", {"repository": "rclone:x"}),
        ("repository", {"repository": "sftp:host:/y"}),
        ("password_file", {"password_file": "p"}),
        ("credentials_file", {"credentials_file": "p"}),
        ("host", {"host": "-x"}),
        ("retention.keep_daily", {"retention": Retention(daily=-1)}),
        ("schedule.time_zone", {"calendar": "daily", "warn_after_s": 9}),
        ("schedule.calendar", {"zone": "UTC"}),
        ("schedule.calendar", {"calendar": "daily\n[Service]", "zone": "UTC", "warn_after_s": 9}),
        ("warn_after", {"calendar": "daily", "zone": "UTC"}),
    ],
)
def test_each_fault_is_told_by_its_field(field, more):
    assert [where for where, _ in faults(replace(ONE, **more))] == [field]
    with pytest.raises(InvalidRequest):
        plan.check(replace(ONE, **more))


def test_a_backup_is_no_backup_until_a_restore_of_it_is_proven():
    def codes(now=1000, **more):
        one = {"since_unix_s": 0, "runs": Record(), "drills": Record(), "is_busy": False, **more}
        limited = replace(ONE, warn_after_s=100)
        return [each.code for each in plan.warnings(Backup(limited, **one), now)]

    good, bad = Outcome(unix_s=950, seconds=1), Outcome(unix_s=960, reason="X", message="why")
    assert codes(now=50) == ["BACKUP_NEVER_RUN", "NEVER_DRILLED"]
    assert codes() == ["BACKUP_LATE", "NEVER_DRILLED"]
    ran, drilled = Record(last=good, good=good), Record(last=good, good=good)
    assert codes(runs=ran) == ["NEVER_DRILLED"]
    assert codes(runs=ran, drills=drilled) == []
    assert codes(runs=ran, drills=drilled, now=1050) == []
    assert codes(runs=ran, drills=drilled, now=1051) == ["BACKUP_LATE"]
    assert codes(runs=replace(ran, last=bad), drills=drilled) == ["BACKUP_FAILED"]
    assert codes(runs=ran, drills=replace(drilled, last=bad)) == ["DRILL_FAILED"]
    # What is known of one repository says nothing of another one.
    assert ran.of("/backup") == Record(repository="/backup")


def test_a_host_whose_backup_cannot_be_restored_is_not_well():
    def told(now=1000, **more):
        one = {"since_unix_s": 0, "runs": Record(), "drills": Record(), "is_busy": False, **more}
        level, reasons = health(
            Observed(devices=()), [Backup(replace(ONE, warn_after_s=100), **one)], now
        )
        assert all(each.id == f"backup-{ONE.name}" for each in reasons)
        return level, [each.code for each in reasons]

    good, bad = Outcome(unix_s=950, seconds=1), Outcome(unix_s=960, reason="X", message="why")
    well = Record(last=good, good=good)
    assert told(runs=well, drills=well) == (Level.GOOD, [])
    assert told(runs=well) == (Level.WARNING, ["NEVER_DRILLED"])
    assert told(runs=replace(well, last=bad), drills=well) == (Level.WARNING, ["BACKUP_FAILED"])
    assert told(now=2000, runs=well, drills=well) == (Level.CRITICAL, ["BACKUP_LATE"])
    failed = {"runs": well, "drills": replace(well, last=bad)}
    assert told(**failed) == (Level.CRITICAL, ["DRILL_FAILED"])


def test_a_restore_names_one_snapshot_and_a_place_apart():
    have = [Snapshot(digit * 64, 9 - at, "h", ("/srv",)) for at, digit in enumerate("ab")]
    have.append(Snapshot("a" * 8 + "c" * 56, 1, "h", ("/srv",)))
    (step,) = plan.restore(ONE, "", "/back", (), have).steps
    assert step.snapshot == "a" * 64
    (step,) = plan.restore(ONE, "b" * 8, "/back", ("/srv/x",), have).steps
    assert (step.snapshot, step.include) == ("b" * 64, ("/srv/x",))
    for name in ("a" * 8, "c" * 8):
        with pytest.raises(SnapshotNotFound):
            plan.restore(ONE, name, "/back", (), have)
    for target in ("/srv", "/srv/x", "/", "/backup/x"):
        with pytest.raises(InvalidRequest):
            plan.restore(ONE, "", target, (), have)
    for wrong in (("abc", "/back", ()), ("", "back", ()), ("", "/back", ("x",))):
        with pytest.raises(InvalidRequest):
            plan.check_restore(*wrong)


def test_what_is_begun_is_of_a_backup_that_is_there():
    assert plan.run("srv", [ONE]).steps and plan.drill("srv", 5, False, [ONE]).steps
    assert plan.drill("srv", 0, True, [ONE]).steps[0].files == 0
    with pytest.raises(BackupNotFound):
        plan.run("etc", [ONE])
    for files, full in ((0, False), (5, True), (10_001, False)):
        with pytest.raises(InvalidRequest):
            plan.drill("srv", files, full, [ONE])


def test_forgetting_names_each_snapshot_the_oldest_first():
    have = [Snapshot(digit * 64, at, "h", ()) for at, digit in enumerate("cba")]
    backup = Backup(ONE, 0, Record(), Record(), False)
    forgotten = plan.forget(backup, ("a" * 64, "c" * 64), have)
    assert forgotten.steps == (BeginForget("srv", ("c" * 64, "a" * 64)),)
    assert [one.code for one in forgotten.notices] == ["NEVER_DRILLED"]
    assert plan.forget(backup, (), have).steps == ()
