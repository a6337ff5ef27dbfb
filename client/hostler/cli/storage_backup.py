"""`hostler storage backup`: backups with restic, and whether they can be restored."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import click

from hostler.api.storage.v1 import backup_pb2 as pb
from hostler.channel import rpc
from hostler.cli.context import State, pass_state
from hostler.cli.examples import examples
from hostler.cli.output import Table, moment
from hostler.cli.storage_graph import size
from hostler.plans import RpcChange

_SERVICE = "BackupService"
_UNITS = {"m": 60, "h": 3600, "d": 86_400}


class Span(click.ParamType[Any]):
    """A time such as 90m, 26h or 2d; in seconds."""

    name = "TIME"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Read it; a usage error if it is none."""
        text = str(value)
        unit, digits = _UNITS.get(text[-1:]), text[:-1]
        if unit is None or not (digits.isascii() and digits.isdigit()):
            self.fail(f"{value!r} is not a time such as 90m, 26h or 2d", param, ctx)
        return int(digits) * unit


def _rows(answer: Any) -> Iterable[Sequence[Any]]:
    for one in answer.backups if hasattr(answer, "backups") else [answer.backup]:
        schedule = one.definition.schedule
        yield (
            one.definition.name,
            ", ".join(one.definition.paths),
            one.definition.repository,
            f"{schedule.calendar} {schedule.time_zone}".strip() or "when asked",
            _when(one, "last_good_run"),
            _when(one, "last_good_drill"),
            "; ".join(f"{each.code}: {each.message}" for each in one.warnings),
        )


def _when(one: Any, field: str) -> str:
    return moment(getattr(one, field), "start_time") if one.HasField(field) else "never"


_TABLE = Table(
    ("NAME", "PATHS", "REPOSITORY", "RUNS", "LAST GOOD", "LAST PROVEN", "WARNINGS"), _rows
)
_SNAPSHOTS = Table(
    ("SNAPSHOT", "BEGUN", "HOST", "PATHS"),
    lambda answer: (
        (one.id[:8], moment(one, "create_time"), one.host, ", ".join(one.paths))
        for one in answer.snapshots
    ),
)


def _after(answer: Any) -> str:
    if not answer.HasField("outcome"):
        return ""
    ended = answer.outcome
    amount = f"{ended.files} files, {size(ended.size_bytes)}"
    return f"snapshot {ended.snapshot[:8]}, {amount}, {ended.duration.seconds} s"


@click.group()
def backup() -> None:
    """Backups with restic: defined, run, proven by restoring, kept for a while.

    What takes long is begun, and goes on; with --background it is a job, which ends when it is
    done and fails when that fails: watch it with `hostler jobs watch`.
    """


@backup.command(
    epilog=examples(
        "hostler -H h1 storage backup apply srv /srv --to /backup/srv "
        "--password-file /etc/hostler/srv.password --at '*-*-* 02:30:00' --zone Europe/Berlin "
        "--warn-after 26h --keep-daily 7 --keep-weekly 4",
        "hostler -H h1 storage backup apply etc /etc --to rest:https://backup.example/h1 "
        "--password-file /etc/hostler/etc.password --credentials-file /etc/hostler/etc.rest",
    )
)
@click.argument("name")
@click.argument("paths", nargs=-1, required=True)
@click.option("--to", "repository", required=True, help="A path, or rest:URL or s3:URL.")
@click.option("--password-file", required=True, help="On the host; root's alone.")
@click.option("--credentials-file", default="", help="On the host; lines of NAME=VALUE.")
@click.option("--exclude", "excludes", multiple=True, metavar="PATTERN")
@click.option("--one-file-system", is_flag=True, help="Stay on the filesystems of PATHS.")
@click.option("--at", "calendar", default="", help="When, as in systemd.time(7), without a zone.")
@click.option("--zone", default="", help="The zone of --at: UTC, Europe/Berlin and so on.")
@click.option("--warn-after", type=Span(), default="0m", help="26h, 2d: when a good run is missed.")
@click.option("--keep-last", type=click.IntRange(0), default=0)
@click.option("--keep-daily", type=click.IntRange(0), default=0)
@click.option("--keep-weekly", type=click.IntRange(0), default=0)
@click.option("--keep-monthly", type=click.IntRange(0), default=0)
@click.option("--host", "of_host", default="", help="Stand in for the lost host of this name.")
@pass_state
def apply(state: State, /, name: str, paths: Sequence[str], **options: Any) -> None:
    """Define a backup of PATHS, or redefine it."""
    keep = {key: options[key] for key in options if key.startswith("keep_") and options[key]}
    definition = pb.BackupDefinition(
        name=name,
        paths=paths,
        excludes=options["excludes"],
        repository=options["repository"],
        password_file=options["password_file"],
        credentials_file=options["credentials_file"],
        one_file_system=options["one_file_system"],
        host=options["of_host"],
        retention=pb.BackupRetention(**keep) if keep else None,
    )
    if options["calendar"] or options["zone"]:
        schedule = pb.BackupSchedule(calendar=options["calendar"], time_zone=options["zone"])
        definition.schedule.CopyFrom(schedule)
    if options["warn_after"]:
        definition.warn_after.FromSeconds(options["warn_after"])
    request = pb.ApplyBackupRequest(backup=definition)
    state.change(RpcChange(rpc(pb, _SERVICE, "ApplyBackup"), request))


@backup.command(epilog=examples("hostler -H h1 storage backup delete srv"))
@click.argument("name")
@pass_state
def delete(state: State, name: str) -> None:
    """Delete a definition. Its repository stays as it is."""
    request = pb.DeleteBackupRequest(name=name)
    state.change(RpcChange(rpc(pb, _SERVICE, "DeleteBackup"), request))


@backup.command(name="list", epilog=examples("hostler -H all storage backup list"))
@pass_state
def list_backups(state: State) -> None:
    """List backups: when the last good run was, the last proven restore, what is not well."""
    state.tell(rpc(pb, _SERVICE, "ListBackups"), pb.ListBackupsRequest(), _TABLE)


@backup.command(epilog=examples("hostler -H h1 -o yaml storage backup get srv"))
@click.argument("name")
@pass_state
def get(state: State, name: str) -> None:
    """Show a backup."""
    request = pb.GetBackupRequest(name=name)
    state.tell(rpc(pb, _SERVICE, "GetBackup"), request, _TABLE)


@backup.command(epilog=examples("hostler -H all --background storage backup run srv"))
@click.argument("name")
@pass_state
def run(state: State, name: str) -> None:
    """Run a backup now."""
    request = pb.RunBackupRequest(name=name)
    state.change(RpcChange(rpc(pb, _SERVICE, "RunBackup"), request), _after)


@backup.command(epilog=examples("hostler -H h1 storage backup snapshots srv"))
@click.argument("name")
@pass_state
def snapshots(state: State, name: str) -> None:
    """List the snapshots of a backup, the newest first."""
    request = pb.ListSnapshotsRequest(name=name)
    state.tell(rpc(pb, _SERVICE, "ListSnapshots"), request, _SNAPSHOTS)


@backup.command(
    epilog=examples(
        "hostler -H h1 --background storage backup restore srv /restored",
        "hostler -H h1 storage backup restore srv /restored --snapshot 1a2b3c4d --only /srv/www",
    )
)
@click.argument("name")
@click.argument("target")
@click.option("--snapshot", default="", help="Its id. Default: the latest.")
@click.option("--only", "include", multiple=True, metavar="PATH", help="This alone, of all.")
@pass_state
def restore(state: State, name: str, target: str, snapshot: str, include: Sequence[str]) -> None:
    """Restore a backup into TARGET, a folder that is made or empty. Nothing is written over."""
    request = pb.RestoreBackupRequest(name=name, snapshot=snapshot, target=target, include=include)
    state.change(RpcChange(rpc(pb, _SERVICE, "RestoreBackup"), request), _after)


@backup.command(
    epilog=examples(
        "hostler -H all --background storage backup drill srv",
        "hostler -H h1 --background storage backup drill srv --full",
    )
)
@click.argument("name")
@click.option("--full", is_flag=True, help="Read all of the repository, restore all.")
@click.option("--files", type=click.IntRange(1), default=100, show_default=True, help="At random.")
@pass_state
def drill(state: State, name: str, full: bool, files: int) -> None:
    """Prove that a backup can be restored: do it aside, compare, remove it again."""
    request = pb.DrillBackupRequest(name=name, full=full, sample_files=0 if full else files)
    state.change(RpcChange(rpc(pb, _SERVICE, "DrillBackup"), request), _after)


@backup.command(epilog=examples("hostler -H h1 --plan storage backup forget srv"))
@click.argument("name")
@pass_state
def forget(state: State, name: str) -> None:
    """Forget the snapshots that the retention keeps no more. What only they had is lost."""
    request = pb.ForgetSnapshotsRequest(name=name)
    state.change(RpcChange(rpc(pb, _SERVICE, "ForgetSnapshots"), request))
