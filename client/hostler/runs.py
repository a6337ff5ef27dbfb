"""Run records: where they are kept, and how they are read.

SQLite at ~/.local/state/hostler/runs.sqlite by default, PostgreSQL by URL. Every change is written
down before hosts are asked, so that a run can be resumed whatever became of its client.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hostler.runs_holder import is_gone
from hostler.runs_model import (
    Anchor,
    HostState,
    Run,
    RunHost,
    RunNotFound,
    RunPlan,
    RunsError,
    RunState,
)
from hostler.store import Store

if TYPE_CHECKING:
    from sqlalchemy import Row, Select

__all__ = ["Runs", "default_url", "open_runs"]

URL_VARIABLE = "HOSTLER_RUNS_URL"
LEASE_S = 60.0
"""How long a run is its client's after the client last said so."""
_MOST_RUNS = 10_000
_LISTS = ("argv", "methods", "selectors")


def default_path() -> Path:
    """The file of the default store. Source: XDG Base Directory Specification."""
    state = os.environ.get("XDG_STATE_HOME", "")
    base = Path(state) if state.startswith("/") else Path.home() / ".local/state"
    return base / "hostler/runs.sqlite"


def default_url(configured: str = "") -> str:
    """The URL of the store: $HOSTLER_RUNS_URL, else the context's, else the default file."""
    return os.environ.get(URL_VARIABLE) or configured or f"sqlite:///{default_path()}"


def open_runs(url: str = "") -> Runs:
    """Open a store, making it if it is not there. Raises RunsError."""
    from hostler.runs_schema import VERSION, metadata, schema
    from hostler.store_engine import Kind, open_engine

    kind = Kind("run records", metadata, schema, VERSION, RunsError)
    return Runs(*open_engine(url or default_url(), kind))


class Runs(Store):
    """A store of run records. Blocking; safe to use from several threads and processes."""

    words = "run records"
    error = RunsError

    def newest(self, limit: int = 50) -> list[Run]:
        """The newest runs, newest first."""
        from sqlalchemy import select

        from hostler.runs_schema import runs

        query = select(runs).order_by(runs.c.started.desc(), runs.c.id).limit(limit)
        return [_run(row) for row in self._rows(query)]

    def find(self, text: str) -> Run:
        """A run by its id, by an unambiguous beginning of it, or "last". Raises RunNotFound."""
        from sqlalchemy import select

        from hostler.runs_schema import runs

        if text == "last":
            found = self.newest(limit=1)
        else:
            query = select(runs).where(runs.c.id.startswith(text, autoescape=True)).limit(2)
            found = [_run(row) for row in self._rows(query)] if text else []
        if not found:
            raise RunNotFound(f"no run {text!r} is recorded at {self.place}")
        if len(found) > 1:
            raise RunNotFound(f"{text!r} is the beginning of more than one run")
        return found[0]

    def hosts(self, run: str) -> list[RunHost]:
        """The hosts of a run, in its order."""
        from sqlalchemy import select

        from hostler.runs_schema import run_hosts

        query = select(run_hosts).where(run_hosts.c.run == run).order_by(run_hosts.c.place)
        return [_host(row) for row in self._rows(query)]

    def outcomes(self, runs: Sequence[str]) -> Mapping[str, Mapping[str, int]]:
        """How many hosts of each run are how far: by outcome, or by state before they have one."""
        from sqlalchemy import func, select

        from hostler.runs_schema import run_hosts as table

        query = (
            select(table.c.run, table.c.state, table.c.outcome, func.count().label("hosts"))
            .where(table.c.run.in_(runs))
            .group_by(table.c.run, table.c.state, table.c.outcome)
        )
        found: dict[str, dict[str, int]] = {run: {} for run in runs}
        for row in self._rows(query):
            word = row.outcome if row.state == HostState.ENDED else row.state
            found[row.run][word] = found[row.run].get(word, 0) + row.hosts
        return found

    def plans(self, run: str) -> Mapping[str, RunPlan]:
        """The plans of a run by their hashes."""
        from sqlalchemy import select

        from hostler.runs_schema import plans

        rows = self._rows(select(plans).where(plans.c.run == run))
        return {
            row.hash: RunPlan(
                row.run,
                row.hash,
                tuple((kind, words) for kind, words in json.loads(row.steps)),
                tuple(json.loads(row.warnings)),
            )
            for row in rows
        }

    def records(self, run: str) -> Mapping[str, Mapping[str, Any]]:
        """What rebuilds the change of a run, by digest."""
        from sqlalchemy import select

        from hostler.runs_schema import records

        rows = self._rows(select(records).where(records.c.run == run))
        return {row.digest: json.loads(row.record) for row in rows}

    def anchors(self, *, run: str = "", host: str = "", domain: str = "") -> list[Anchor]:
        """Where audit logs stood after changes; of one run, host or domain if one is given."""
        from sqlalchemy import select

        from hostler.runs_schema import anchors

        query = select(anchors).order_by(anchors.c.host, anchors.c.domain, anchors.c.seq)
        for column, value in ((anchors.c.run, run), (anchors.c.host, host),
                              (anchors.c.domain, domain)):  # fmt: skip
            if value:
                query = query.where(column == value)
        return [Anchor(**row._mapping) for row in self._rows(query)]

    def is_abandoned(self, run: Run) -> bool:
        """Whether a run is said to go on, but its client is gone."""
        return run.state is RunState.RUNNING and (run.lease < time.time() or is_gone(run.holder))

    def prune(self, keep: int | None = None, before: str = "") -> int:
        """Forget runs, all but the newest `keep` and those begun at `before` or later.

        Kept are runs that go on, and the newest anchor of each audit log. Answers how many went.
        """
        from sqlalchemy import and_, delete, func, not_, select

        from hostler.runs_schema import anchors, runs

        with self.begin() as connection:
            query = select(runs).order_by(runs.c.started.desc(), runs.c.id)
            if keep is not None:
                query = query.offset(keep)
            if before:
                query = query.where(runs.c.started < before)
            old = [_run(row) for row in connection.execute(query)]
            gone = [r.id for r in old if r.state is not RunState.RUNNING or self.is_abandoned(r)]
            newest = (
                select(anchors.c.host, anchors.c.domain, func.max(anchors.c.seq).label("seq"))
                .group_by(anchors.c.host, anchors.c.domain)
                .subquery()
            )
            is_newest = select(newest).where(
                and_(
                    newest.c.host == anchors.c.host,
                    newest.c.domain == anchors.c.domain,
                    newest.c.seq == anchors.c.seq,
                )
            )
            for start in range(0, len(gone), 500):
                some = gone[start : start + 500]
                connection.execute(
                    delete(anchors).where(anchors.c.run.in_(some), not_(is_newest.exists()))
                )
                connection.execute(delete(runs).where(runs.c.id.in_(some)))
        return len(gone)

    def prune_if_many(self) -> None:
        """Keep the newest 10,000 runs of a file, which nobody looks after."""
        if self.engine.dialect.name == "sqlite":
            self.prune(keep=_MOST_RUNS)

    def claim(self, run: Run, holder: str) -> Run:
        """Take over a run that has ended or was abandoned. Raises RunsError if it goes on.

        `run` is as it was read: of two that try at once, or one after the other, only one gets it.
        """
        from sqlalchemy import update

        from hostler.runs_schema import runs

        if run.state is RunState.RUNNING and not self.is_abandoned(run):
            raise RunsError(f"run {run.id} goes on: {holder_words(run.holder)}")
        with self.begin() as connection:
            taken = connection.execute(
                update(runs)
                .where(runs.c.id == run.id, runs.c.holder == run.holder)
                .where(runs.c.state == str(run.state), runs.c.resumed == run.resumed)
                .values(
                    holder=holder,
                    lease=time.time() + LEASE_S,
                    state=str(RunState.RUNNING),
                    resumed=runs.c.resumed + 1,
                    ended="",
                    why="",
                )
            )
            if taken.rowcount != 1:
                raise RunsError(f"run {run.id} was taken over by another client just now")
        return self.find(run.id)

    def _rows(self, query: Select[Any]) -> Sequence[Row[Any]]:
        with self.begin(reading=True) as connection:
            return connection.execute(query).all()


def holder_words(holder: str) -> str:
    """Who carries out a run, for people."""
    told = json.loads(holder) if holder else {}
    return f"process {told.get('pid', '?')} of {told.get('machine', 'an unknown machine')}"


def _run(row: Row[Any]) -> Run:
    values = dict(row._mapping)
    for name in _LISTS:
        values[name] = tuple(json.loads(values[name]))
    values["options"] = json.loads(values["options"])
    values["state"] = RunState(values["state"])
    return Run(**values)


def _host(row: Row[Any]) -> RunHost:
    values = dict(row._mapping)
    values["state"] = HostState(values["state"])
    values["error"] = json.loads(values["error"]) if values["error"] else None
    return RunHost(**values)


def started_before(days: float) -> str:
    """The time so many days ago, as records have it."""
    from datetime import UTC, datetime, timedelta

    then = datetime.now(UTC) - timedelta(days=days)
    return then.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
