"""Which bundle is in force: the newest valid one of those that were installed and pushed."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from hostler.core import files
from hostler.core.bundle import MAX_BUNDLE_BYTES, Bundle, BundleInvalid, check_newer, verify
from hostlerd.runtime import events
from hostlerd.runtime.authz import Authorizer
from hostlerd.runtime.errors import Code, DomainError
from hostlerd.runtime.log import get_log

log = get_log("runtime.bundle")


class BundleRefused(DomainError):
    """A pushed bundle is not taken; the one in force stays."""

    code, reason = Code.INVALID_ARGUMENT, "BUNDLE_REFUSED"


class BundleStore:
    """Keeps the authorizer on the newest valid bundle of those there are.

    There are two places: the one that enrolment writes, shared by all daemons of the host and
    only read here, and the daemon's own, which pushes go to. The version in force goes down only
    where a bundle was taken back: while one of the places cannot be used, which is told as the
    `problem`, what is in force stays. So that this outlives the daemon, the last good one that was
    installed is kept, and read in place of one that is damaged.
    """

    def __init__(self, installed: Path, pushed: Path, ca: Path, authorizer: Authorizer) -> None:
        self._places = (installed, pushed)
        self._installed, self._pushed = installed, pushed
        self._kept = pushed.with_name("bundle.kept.json")
        self._ca = ca
        self._authorizer = authorizer
        self._seen: tuple[object, ...] = ()
        self.problem = "no bundle has been installed"

    def refresh(self) -> bool:
        """Look whether a file has changed and take what is newer. Answers whether one was taken."""
        seen = tuple(_stamp(place) for place in (*self._places, self._ca))
        if seen == self._seen:
            return False
        self._seen = seen
        before = self._authorizer.bundle
        found, problems = self._read()
        if problems:
            log.error(
                "bundle not taken", event=events.BUNDLE_NOT_TAKEN, problem="; ".join(problems)
            )
        newest = max(found, key=lambda bundle: bundle.version, default=None)
        if newest is not None and _replaces(newest, before, bool(problems)):
            self._authorizer.use(newest)
            log.info("bundle in force", event=events.BUNDLE_IN_FORCE, version=newest.version)
        if self._authorizer.bundle is not None or problems:
            self.problem = "; ".join(problems)
        return self._authorizer.bundle is not before

    def pushed(self) -> bytes | None:
        """Answer the bundle that was pushed last, as it was signed. Raises OSError, ValueError."""
        try:
            return files.read_bounded(self._pushed, MAX_BUNDLE_BYTES)
        except FileNotFoundError:
            return None

    def push(self, data: bytes) -> Bundle:
        """Verify a bundle, keep it across restarts and put it in force. Raises BundleRefused."""
        bundle = self.check(data)
        self.restore(data)
        return bundle

    def restore(self, data: bytes | None) -> None:
        """Put back what was pushed before, or nothing, and go by it if it is valid."""
        put(self._pushed, data)
        self._seen = ()
        self.refresh()

    def check(self, data: bytes) -> Bundle:
        """Answer the bundle if it could be put in force. Raises BundleRefused, naming why."""
        try:
            bundle = verify(data, self._ca.read_bytes())
            check_newer(bundle, self._authorizer.bundle)
        except BundleInvalid as e:
            raise BundleRefused(str(e), problem=e.reason) from e
        try:
            self._authorizer.check(bundle)
        except ValueError as e:
            raise BundleRefused(f"its policies do not parse: {e}") from e
        return bundle

    def _read(self) -> tuple[list[Bundle], list[str]]:
        """Read what is there: valid bundles, and what is wrong with the others."""
        found, problems = [], []
        for place in self._places:
            try:
                bundle, data = self._valid(place)
            except FileNotFoundError as e:
                if e.filename != str(place):
                    problems.append(f"{place}: {e}")
            except (OSError, BundleInvalid, ValueError) as e:
                problems.append(f"{place}: {e}")
                if place == self._installed:
                    found += self._last_good()
            else:
                found.append(bundle)
                if place == self._installed:
                    self._keep(data)
        return found, problems

    def _valid(self, place: Path) -> tuple[Bundle, bytes]:
        """Read and verify a bundle. Raises OSError, BundleInvalid, ValueError."""
        data = files.read_bounded(place, MAX_BUNDLE_BYTES)
        bundle = verify(data, self._ca.read_bytes())
        self._authorizer.check(bundle)
        return bundle, data

    def _last_good(self) -> list[Bundle]:
        with suppress(OSError, BundleInvalid, ValueError):
            return [self._valid(self._kept)[0]]
        return []

    def _keep(self, data: bytes) -> None:
        try:
            if not self._kept.exists() or self._kept.read_bytes() != data:
                put(self._kept, data)
        except OSError as e:
            # It is in force all the same.
            log.warning("the bundle cannot be kept", path=self._kept, error=e.strerror)


def put(path: Path, data: bytes | None) -> None:
    """Write the file of a pushed bundle, or with None remove it, on disk. Raises OSError."""
    if data is None:
        path.unlink(missing_ok=True)
        files.sync_folder(path.parent)
    else:
        files.replace(path, data, mode=0o600)


def _replaces(newest: Bundle, current: Bundle | None, damaged: bool) -> bool:
    """Whether the newest bundle there is takes the place of the one in force."""
    if current is None or newest.version > current.version:
        return True
    return not damaged and newest.sha256 != current.sha256


def _stamp(path: Path) -> object:
    try:
        stat = path.stat()
    except OSError as e:
        return e.errno
    return (stat.st_ino, stat.st_mtime_ns, stat.st_size)
