"""One run: certificates put in place, servers reloaded once each, and what they serve proven."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hostlerd.privileged.refused import Refused
from hostlerd.ssl.installer import chain_file, contents, looking, servers, transaction, window
from hostlerd.ssl.installer.configuration import Configuration, Server
from hostlerd.ssl.installer.contents import Prepared
from hostlerd.ssl.installer.keys import Waiting
from hostlerd.ssl.installer.looking import Seen, Wanted
from hostlerd.ssl.installer.transaction import Transaction


@dataclass(slots=True)
class Runs:
    """Carries out runs, one at a time: the caller sees to that."""

    allowed: Configuration
    waiting: Waiting
    journal: Path

    def install(self, items: Sequence[tuple[Mapping[str, Any], str]]) -> list[dict[str, Any]]:
        """Put certificates in place and have them served. Raises Refused; then nothing is changed.

        Answers for each listener what is served; one whose server waits says until when.
        """
        prepared = [
            contents.prepare(deployment, pem, self.allowed, self.waiting)
            for deployment, pem in items
        ]
        if all(map(contents.in_place, prepared)):
            told = served([(p.deployment, p.wanted) for p in prepared], None)
            if all(each["current"] for each in told):
                return told
        self._supersede([p.deployment["name"] for p in prepared])
        asked = _targets([p.deployment for p in prepared])
        units = _units([p.deployment for p in prepared], self.allowed)
        run = Transaction.begin(self.journal, prepared, looking.fingerprints(asked))
        try:
            run.swap(prepared)
            run.install_unix_s = int(time.time())
            self._reload(run, units, datetime.now(UTC))
        except (Refused, OSError) as cause:
            self._undo(run, cause)
        return self._settle(run)

    def write_chain(self, path: str, pem: str) -> None:
        """Put a chain file in place. Raises Refused; then the old one is there, if there was one.

        Who reads it is not asked to reload: a file that servers of a deployment read is installed.
        """
        if any(path == each for run in self.waits() for _, each, _ in run.files):
            raise Refused("RELOAD_PENDING", f"{path} waits for a window")
        prepared = chain_file.prepare(path, pem, self.allowed)
        if not contents.in_place(prepared):
            self.put_in_place(prepared)

    def put_in_place(self, prepared: Prepared) -> None:
        """Put files in place that no server is asked about, and read them again. Raises Refused."""
        run = Transaction.begin(self.journal, [prepared], [])
        try:
            run.swap([prepared])
            chain_file.verify(prepared)
        except (Refused, OSError) as cause:
            self._undo(run, cause)
        run.commit()

    def reload_due(self) -> list[dict[str, Any]]:
        """Do what waited for a window that is open now; answer what became of each run."""
        told = []
        for run in Transaction.all(self.journal):
            if run.phase != transaction.WAITING or run.due_unix_s > time.time():
                continue
            try:
                units = _units(run.deployments, self.allowed)
                left = {unit: units[unit] for unit in run.left if unit in units}
                self._reload(run, left, datetime.now(UTC))
                told.append({"names": run.names, "served": self._settle(run), "problem": ""})
            except (Refused, OSError) as cause:
                try:
                    self._undo(run, cause)
                except Refused as e:
                    told.append({"names": run.names, "served": [], "problem": e.message})
        return told

    def check(self, deployment: Mapping[str, Any]) -> None:
        """Raise Refused unless every place and every server of a deployment is allowed."""
        contents.targets(deployment, self.allowed)
        _units([deployment], self.allowed)

    def waits(self) -> list[Transaction]:
        """The runs that wait for a window."""
        return [r for r in Transaction.all(self.journal) if r.phase == transaction.WAITING]

    def recover(self) -> list[str]:
        """Undo what was cut off; answer what was done in words. Raises nothing that can be told."""
        told = []
        for run in Transaction.all(self.journal):
            names = ", ".join(run.names)
            if run.phase == transaction.WAITING:
                continue
            if run.phase == transaction.COMMITTED:
                run.commit()
                continue
            try:
                self._undo(run, Refused("INTERRUPTED", "it was cut off"))
            except Refused as e:
                told.append(f"{names}: {e.message}")
        return told

    def _supersede(self, names: Sequence[str]) -> None:
        """Take back what still waits for a window: a newer certificate comes in its place."""
        for run in self.waits():
            if not set(run.names) & set(names):
                continue
            if set(run.names) - set(names):
                words = f"{', '.join(run.names)} wait together for a window"
                raise Refused("RELOAD_PENDING", words)
            run.put_back()
            run.forget()

    def _reload(self, run: Transaction, units: Mapping[str, _Asked], now: datetime) -> None:
        """Check all, reload those that may now, and see that they serve it. Raises Refused."""
        for one in units.values():
            servers.check(one.server)
        later = {u: at for u, one in units.items() if (at := window.opens(one.window, now))}
        run.note(transaction.RELOADING)
        for unit, one in units.items():
            if unit not in later:
                run.units.append(unit)
                run.note(transaction.RELOADING)
                _reload(run, one.server)
        run.left = list(later)
        run.due_unix_s = int(min(at.timestamp() for at in later.values())) if later else 0
        asked = [(_targets([one], except_units=later), wanted) for one, wanted in _pairs(run)]
        within_s = self.allowed.served_within_s
        reloaded = [units[unit].server for unit in run.units if unit in units]
        if bad := looking.until_served(asked, within_s, lambda: any(map(servers.ended, reloaded))):
            after = next((f"{s.unit} has ended" for s in reloaded if servers.ended(s)), "")
            words = f"{bad.listener}: {bad.problem}, {after or f'{within_s:g} s after'}"
            raise Refused("NOT_SERVED", words)

    def _settle(self, run: Transaction) -> list[dict[str, Any]]:
        """End a run that went well, or leave it waiting; answer what is served."""
        if run.left:
            run.note(transaction.WAITING)
        else:
            run.commit()
            for name in run.names:
                self.waiting.drop(name)
        return served(_pairs(run), run)

    def _undo(self, run: Transaction, cause: Refused | OSError) -> None:
        """Bring everything back and see it served; raise what came of that."""
        reason = cause.reason if isinstance(cause, Refused) else "SYSTEM"
        words = cause.message if isinstance(cause, Refused) else _words(cause)
        was_asked = list(run.units)
        try:
            run.put_back()
            self._as_before(run, was_asked)
        except (Refused, OSError) as e:
            back = e.message if isinstance(e, Refused) else _words(e)
            if isinstance(e, Refused):
                # The files are back; only what is served is not as it was.
                with suppress(OSError):
                    run.forget()
            raise Refused("ROLLBACK_FAILED", f"{words}; then going back failed: {back}") from cause
        run.forget()
        raise Refused(reason, f"{words}; everything is as it was before")

    def _as_before(self, run: Transaction, was_asked: Sequence[str]) -> None:
        """Have the servers read the old files again, and see them served. Raises Refused."""
        if not was_asked:
            return
        units = _units(run.deployments, self.allowed)
        for unit in was_asked:
            if unit in units:
                servers.bring_back(units[unit].server, unit == run.stubborn)
        asked = _targets(run.deployments)
        if not looking.until_as_before(asked, run.before, self.allowed.served_within_s):
            raise Refused("NOT_SERVED", "what was served before is not served again")


def _reload(run: Transaction, server: Server) -> None:
    """Have a server reload. One that does not is noted: it has read nothing of the new files."""
    try:
        servers.reload(server)
    except Refused:
        run.stubborn = server.unit
        raise


@dataclass(frozen=True, slots=True)
class _Asked:
    """A server that a run asks to reload, and when it may."""

    server: Server
    window: Mapping[str, Any] | None


def served(
    deployments: Sequence[tuple[Mapping[str, Any], Wanted | None]], run: Transaction | None
) -> list[dict[str, Any]]:
    """What the listeners of deployments serve now; of a run that waits, until when it does."""
    left = set(run.left) if run else set()
    units, asked = [], []
    for deployment, wanted in deployments:
        for server in deployment["servers"]:
            units.append(server["unit"])
            asked.append((looking.targets(server, deployment["subject_names"]), wanted))
    return [
        _told(each, run.due_unix_s if run and unit in left else 0)
        for unit, seen in zip(units, looking.look(asked), strict=True)
        for each in seen
    ]


def _told(seen: Seen, due_unix_s: int) -> dict[str, Any]:
    return {
        "listener": seen.listener,
        "fingerprint_sha256": seen.fingerprint_sha256,
        "current": seen.current,
        "problem": seen.problem,
        "reload_unix_s": due_unix_s,
    }


def _units(deployments: Sequence[Mapping[str, Any]], allowed: Configuration) -> dict[str, _Asked]:
    """The servers of all, each once; the first window that is given counts. Raises Refused."""
    found: dict[str, _Asked] = {}
    for deployment in deployments:
        for at, one in enumerate(deployment["servers"]):
            path = f"deployment.servers[{at}].unit"
            server = allowed.server(one["unit"], one["kind"], path)
            before = found.get(server.unit)
            if before is None or before.window is None:
                found[server.unit] = _Asked(server, one.get("window"))
    return found


def _targets(
    deployments: Sequence[Mapping[str, Any]], except_units: Mapping[str, Any] | None = None
) -> list[dict[str, Any]]:
    return [
        target
        for deployment in deployments
        for server in deployment["servers"]
        if server["unit"] not in (except_units or {})
        for target in looking.targets(server, deployment["subject_names"])
    ]


def _pairs(run: Transaction) -> list[tuple[Mapping[str, Any], Wanted]]:
    """The deployments of a run, each with what has to be served of it."""
    return [
        (one, Wanted(told["leaf"], tuple(told["issuers"])))
        for one, told in zip(run.deployments, run.wanted, strict=True)
    ]


def _words(error: OSError) -> str:
    return f"{error.filename or 'kernel'}: {error.strerror}"
