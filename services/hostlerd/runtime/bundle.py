"""Which bundle is in force: the newest valid one of those that were installed and pushed."""

from __future__ import annotations

from pathlib import Path

from hostler.core import files
from hostler.core.bundle import MAX_BUNDLE_BYTES, Bundle, BundleInvalid, check_newer, verify
from hostlerd.runtime.authz import Authorizer
from hostlerd.runtime.errors import Code, DomainError
from hostlerd.runtime.log import get_log

log = get_log("runtime.bundle")


class BundleRefused(DomainError):
    """A pushed bundle is not taken; the one in force stays."""

    code, reason = Code.INVALID_ARGUMENT, "BUNDLE_REFUSED"


class BundleStore:
    """Keeps the authorizer on the newest valid bundle.

    There are two places: the one that enrolment writes, shared by all daemons of the host and
    only read here, and the daemon's own, which pushes go to. A bundle that is bad, or older than
    the one in force, changes nothing and is told as the `problem`.
    """

    def __init__(self, installed: Path, pushed: Path, ca: Path, authorizer: Authorizer) -> None:
        self._places = (installed, pushed)
        self._pushed = pushed
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
        problems = [problem for place in self._places if (problem := self._try(place))]
        if problems:
            log.error("bundle not taken", problem="; ".join(problems))
        if self._authorizer.bundle is not None or problems:
            self.problem = "; ".join(problems)
        return self._authorizer.bundle is not before

    def push(self, data: bytes) -> Bundle:
        """Verify a bundle, keep it across restarts and put it in force. Raises BundleRefused."""
        bundle = self.check(data)
        files.replace(self._pushed, data, mode=0o600)
        self._authorizer.use(bundle)
        self._seen = ()
        self.refresh()
        return bundle

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

    def _try(self, place: Path) -> str:
        try:
            data = files.read_bounded(place, MAX_BUNDLE_BYTES)
        except FileNotFoundError:
            return ""
        except (OSError, ValueError) as e:
            return f"{place}: {e}"
        try:
            bundle = verify(data, self._ca.read_bytes())
            current = self._authorizer.bundle
            if current is None or bundle.version > current.version:
                self._authorizer.use(bundle)
                log.info("bundle in force", version=bundle.version, place=place)
        except (BundleInvalid, ValueError, OSError) as e:
            return f"{place}: {e}"
        return ""


def _stamp(path: Path) -> object:
    try:
        stat = path.stat()
    except OSError as e:
        return e.errno
    return (stat.st_ino, stat.st_mtime_ns, stat.st_size)
