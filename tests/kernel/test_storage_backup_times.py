"""Backups that run by themselves, are missed when they do not, and are forgotten in time."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from storage_backups import backup_world, definition, get, secret, settled
from storage_daemon import World

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(120)]
NOUN = "backup"


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with backup_world(tmp_path_factory.mktemp("backups")) as made:
        yield made


@pytest.fixture
def place(tmp_path: Path) -> Path:
    secret(tmp_path)
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/file").write_text("words")
    return tmp_path


def test_a_schedule_is_a_timer_with_its_zone_and_goes_with_it(host: World, place: Path) -> None:
    wanted = definition(place, "timed", warn_after={"seconds": 3600})
    wanted["schedule"] = {"calendar": "*-*-* 02:30:00", "time_zone": "Europe/Berlin"}
    timer = host.place / "root/etc/systemd/system/hostler-storage-backup@timed.timer"
    for wrong in ("*-*-* 25:00:00", "someday"):
        faulty = {**wanted, "schedule": {**wanted["schedule"], "calendar": wrong}}
        apply = lambda one=faulty: host.call(NOUN, "ApplyBackup", backup=one)  # noqa: E731
        assert host.refusal(apply) == "INVALID_REQUEST"
    zone = {**wanted, "schedule": {"calendar": "daily", "time_zone": "Europe/Nowhere"}}
    assert host.refusal(lambda: host.call(NOUN, "ApplyBackup", backup=zone)) == "INVALID_REQUEST"
    assert not timer.exists()
    assert host.call(NOUN, "ApplyBackup", backup=wanted).change.changed
    (when,) = [line for line in timer.read_text().splitlines() if line.startswith("OnCalendar=")]
    # The witness: at which moment systemd itself would start it, in the summer of Berlin.
    argv = ["/usr/bin/systemd-analyze", "calendar", "--base-time=2026-07-01 00:00:00 UTC"]
    said = subprocess.run(
        [*argv, when.removeprefix("OnCalendar=")], capture_output=True, text=True, check=True
    ).stdout
    assert "2026-07-01 00:30:00 UTC" in said, said
    assert get(host, "timed").definition.schedule.time_zone == "Europe/Berlin"
    del wanted["schedule"]
    host.call(NOUN, "ApplyBackup", backup=wanted)
    assert not timer.exists()
    wanted["schedule"] = {"calendar": "hourly", "time_zone": "UTC"}
    host.call(NOUN, "ApplyBackup", backup=wanted)
    assert timer.exists()
    host.call(NOUN, "DeleteBackup", name="timed")
    assert not timer.exists()


def test_what_a_timer_starts_has_a_run_done_and_fails_with_it(host: World, place: Path) -> None:
    host.call(NOUN, "ApplyBackup", backup=definition(place, "asked"))
    argv = (sys.executable, "-I", "-m", "hostlerd.storage.backup", "run", "asked")
    words = (*argv, "--door", str(host.place / "storage-backup.sock"))
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert get(host, "asked").last_good_run.files == 1
    (place / "password").write_text("another")
    failed = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert failed.returncode == 1
    assert "PASSWORD_WRONG" in failed.stderr and "another" not in failed.stderr
    assert [one.code for one in get(host, "asked").warnings] == ["BACKUP_FAILED", "NEVER_DRILLED"]


def test_what_the_retention_keeps_no_more_is_forgotten_by_its_plan(
    host: World, place: Path
) -> None:
    name = "kept"
    wanted = definition(place, name, retention={"keep_last": 1})
    host.call(NOUN, "ApplyBackup", backup=wanted)
    for number in range(3):
        (place / "tree/file").write_text(f"words {number}")
        assert not settled(host, "RunBackup", name=name).last_run.reason
    before = [one.id for one in host.call(NOUN, "ListSnapshots", name=name).snapshots]
    assert len(before) == 3
    planned = host.call(NOUN, "ForgetSnapshots", name=name, change={"validate_only": True}).change
    (step,) = planned.plan.steps
    assert all(one[:8] in step.description for one in before[1:]), step
    assert not any(one[:8] in step.description for one in before[:1])
    bare = lambda: host.call(NOUN, "ForgetSnapshots", name=name)  # noqa: E731
    assert host.refusal(bare) == "DESTROY_TOKEN_REQUIRED"
    options = {"plan_hash": planned.plan.hash, "destroy_token": planned.destroy_token}
    settled(host, "ForgetSnapshots", name=name, change=options)
    assert [one.id for one in host.call(NOUN, "ListSnapshots", name=name).snapshots] == before[:1]
    assert not host.call(NOUN, "ForgetSnapshots", name=name).change.changed


def test_people_are_told_when_none_was_ever_proven(host: World, place: Path) -> None:
    words = ("--to", str(place / "repository"), "--password-file", str(place / "password"))
    host.hostler("--yes", "storage", "backup", "apply", "people", str(place / "tree"), *words)
    told = host.hostler("storage", "backup", "get", "people")
    assert "NEVER_DRILLED" in told and "never" in told
