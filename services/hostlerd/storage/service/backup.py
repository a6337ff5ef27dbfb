"""The gRPC edge of backups."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import grpc.aio

from hostler.api.common.v1 import change_pb2
from hostler.api.storage.v1 import backup_pb2 as pb
from hostlerd.runtime.call import PROGRESS
from hostlerd.runtime.changes import Changes, Done
from hostlerd.runtime.domain import Runtime
from hostlerd.runtime.steps import Plan
from hostlerd.storage.errors.backups import BackupNotFound
from hostlerd.storage.kernel.backups import Backups, refuse_calendar
from hostlerd.storage.kernel.changing import Changing
from hostlerd.storage.model.backup import Backup, Outcome
from hostlerd.storage.model.backup_steps import BACKUP, RESTORE
from hostlerd.storage.plan import backup as plan
from hostlerd.storage.service import backup_convert as convert

Context = grpc.aio.ServicerContext[Any, Any]


class BackupService:
    """Serves hostler.api.storage.v1.BackupService."""

    def __init__(self, runtime: Runtime, changing: Changing, changes: Changes) -> None:
        self._runtime = runtime
        self._changing = changing
        self._changes = changes
        self._backups = Backups(changing.worker, changing.doors)

    async def ListBackups(
        self, request: pb.ListBackupsRequest, context: Context
    ) -> pb.ListBackupsResponse:
        """Answer all backups."""
        found: tuple[Backup, ...] = await self._runtime.blocking(self._backups.all)
        now = int(time.time())
        return pb.ListBackupsResponse(backups=[convert.backup(one, now) for one in found])

    async def GetBackup(
        self, request: pb.GetBackupRequest, context: Context
    ) -> pb.GetBackupResponse:
        """Answer one backup."""
        found: Backup = await self._runtime.blocking(self._get, request.name)
        return pb.GetBackupResponse(backup=convert.backup(found, int(time.time())))

    async def ApplyBackup(
        self, request: pb.ApplyBackupRequest, context: Context
    ) -> pb.ApplyBackupResponse:
        """Define a backup, or redefine it."""
        wanted = convert.definition(request.backup)

        def make_plan() -> Plan:
            plan.check(wanted)
            refuse_calendar(wanted)
            return plan.apply(wanted, self._backups.definitions())

        done = await self._changes.carry_out(request.change, make_plan)
        return pb.ApplyBackupResponse(change=done.change)

    async def DeleteBackup(
        self, request: pb.DeleteBackupRequest, context: Context
    ) -> pb.DeleteBackupResponse:
        """Delete a definition."""
        done = await self._changes.carry_out(
            request.change, lambda: plan.delete(request.name, self._backups.definitions())
        )
        return pb.DeleteBackupResponse(change=done.change)

    async def RunBackup(
        self, request: pb.RunBackupRequest, context: Context
    ) -> pb.RunBackupResponse:
        """Run a backup."""
        change, outcome = await self._begin(
            request, BACKUP, lambda: plan.run(request.name, self._backups.definitions())
        )
        return pb.RunBackupResponse(change=change, outcome=convert.outcome(outcome))

    async def ListSnapshots(
        self, request: pb.ListSnapshotsRequest, context: Context
    ) -> pb.ListSnapshotsResponse:
        """Answer the snapshots of a backup."""
        found = await self._runtime.blocking(self._snapshots, request.name)
        return pb.ListSnapshotsResponse(snapshots=[convert.snapshot(one) for one in found])

    async def RestoreBackup(
        self, request: pb.RestoreBackupRequest, context: Context
    ) -> pb.RestoreBackupResponse:
        """Restore a snapshot."""

        def make_plan() -> Plan:
            plan.check_restore(request.snapshot, request.target, request.include)
            backup = plan.find(request.name, self._backups.definitions())
            snapshots = self._backups.snapshots(backup.name)
            return plan.restore(
                backup, request.snapshot, request.target, request.include, snapshots
            )

        change, outcome = await self._begin(request, RESTORE, make_plan)
        return pb.RestoreBackupResponse(change=change, outcome=convert.outcome(outcome))

    async def DrillBackup(
        self, request: pb.DrillBackupRequest, context: Context
    ) -> pb.DrillBackupResponse:
        """Drill a backup."""
        planner = partial(plan.drill, request.name, request.sample_files, request.full)
        change, outcome = await self._begin(
            request, RESTORE, lambda: planner(self._backups.definitions())
        )
        return pb.DrillBackupResponse(change=change, outcome=convert.outcome(outcome))

    async def ForgetSnapshots(
        self, request: pb.ForgetSnapshotsRequest, context: Context
    ) -> pb.ForgetSnapshotsResponse:
        """Forget what the retention keeps no more."""

        def make_plan() -> Plan:
            backup = self._get(request.name)
            going = self._backups.forgotten(request.name)
            return plan.forget(backup, going, self._backups.snapshots(request.name))

        change, _ = await self._begin(request, BACKUP, make_plan)
        return pb.ForgetSnapshotsResponse(change=change)

    async def _begin(
        self, request: Any, role: str, make_plan: Callable[[], Plan]
    ) -> tuple[change_pb2.Change, Outcome | None]:
        """Plan and begin; as a job, follow it to its end. No lock is held meanwhile."""
        done = await self._changes.carry_out(request.change, make_plan)
        if request.change.validate_only or not done.plan.steps:
            return done.change, None
        outcome: Outcome | None = await self._runtime.blocking(self._follow, role, done)
        return done.change, outcome

    def _follow(self, role: str, done: Done) -> Outcome | None:
        (step,) = done.plan.steps
        begun, progress = self._changing.take_answer(step), PROGRESS.get()
        if progress is None or "run" not in begun:
            return None
        target = getattr(step, "target", "")
        leaves = f"what was restored so far stays in {target}" if target else ""
        progress.follow("bytes", f"goes on without this job: {step.describe()}", leaves)
        return self._backups.follow(role, str(begun["run"]), progress.step)

    def _get(self, name: str) -> Backup:
        for one in self._backups.all():
            if one.definition.name == name:
                return one
        raise BackupNotFound(f"no backup is called {name[:64]!r}", backup=name[:64])

    def _snapshots(self, name: str) -> Any:
        plan.find(name, self._backups.definitions())
        return self._backups.snapshots(name)
