"""Plans of copies of files within a host, and of looks at what was copied."""

from __future__ import annotations

from hostlerd.runtime.errors import InvalidRequest, Violation
from hostlerd.runtime.steps import Notice, Plan, fingerprint
from hostlerd.storage.model.backup import is_within, path_fault
from hostlerd.storage.model.copies import (
    BURN_BYTES_LEAST,
    BURN_BYTES_MOST,
    BURN_ROUNDS_MOST,
    ORIGIN,
    Seen,
)
from hostlerd.storage.model.copy_steps import BeginBurnIn, BeginCopy, BeginVerify


def check(source: str, target: str) -> None:
    """Raise InvalidRequest with all that is wrong with the paths of a copy."""
    wrong = [
        Violation(field, why)
        for field, path in (("source", source), ("target", target))
        if (why := path_fault(path))
    ]
    if not wrong and is_within(target, source):
        wrong.append(Violation("target", "is what is to be copied, or inside of it"))
    if wrong:
        raise InvalidRequest.of(wrong)


def copy(source: str, target: str, manifest: bool, seen: Seen) -> Plan:
    """Copy a file or a tree to a place that is free. `check` has passed."""
    notices = []
    if seen.left == "same":
        words = f"a copy of {source} to {target} was cut off; what it left and is equal is kept"
        notices.append(Notice("COPY_RESUMED", words, target))
    elif seen.left == "other":
        words = f"what another copy to {target} left is removed; this one begins anew"
        notices.append(Notice("COPY_BEGUN_ANEW", words, target))
    step = BeginCopy(source, target, manifest)
    return Plan((step,), etag=fingerprint([step, seen]), notices=tuple(notices))


def check_verify(manifest: str, root: str) -> None:
    """Raise InvalidRequest with all that is wrong with the paths of a look at a copy."""
    wrong = []
    if why := path_fault(manifest):
        wrong.append(Violation("manifest", why))
    if root and (why := path_fault(root)):
        wrong.append(Violation("root", why))
    if wrong:
        raise InvalidRequest.of(wrong)


def verify(manifest: str, root: str) -> Plan:
    """Read a copy again and compare it with its manifest. `check_verify` has passed."""
    step = BeginVerify(manifest, root)
    return Plan((step,), etag=fingerprint(step))


def check_burn_in(folder: str, size_bytes: int, rounds: int) -> None:
    """Raise InvalidRequest with all that is wrong with what a filesystem is to be put to."""
    wrong = [Violation("folder", why)] if (why := path_fault(folder)) else []
    if not BURN_BYTES_LEAST <= size_bytes <= BURN_BYTES_MOST:
        words = f"must be from {BURN_BYTES_LEAST} to {BURN_BYTES_MOST}"
        wrong.append(Violation("size_bytes", words))
    if not 1 <= rounds <= BURN_ROUNDS_MOST:
        wrong.append(Violation("rounds", f"must be from 1 to {BURN_ROUNDS_MOST}"))
    if wrong:
        raise InvalidRequest.of(wrong)


def burn_in(folder: str, size_bytes: int, rounds: int) -> Plan:
    """Put a filesystem to work. `check_burn_in` has passed."""
    step = BeginBurnIn(folder, size_bytes, rounds)
    return Plan((step,), etag=fingerprint(step))


def check_read(source: str, entries: int, offset: int) -> None:
    """Raise InvalidRequest with all that is wrong with what is to be streamed."""
    wrong = [Violation("source", why)] if (why := path_fault(source)) else []
    if min(entries, offset) < 0:
        wrong.append(Violation("have", "must be no less than nothing"))
    if wrong:
        raise InvalidRequest.of(wrong)


def check_write(target: str, origin: str) -> None:
    """Raise InvalidRequest with all that is wrong with what is to be written."""
    wrong = [Violation("start.target", why)] if (why := path_fault(target)) else []
    if not ORIGIN.fullmatch(origin):
        wrong.append(Violation("start.source", "says what it is a copy of, such as h1:/srv"))
    if wrong:
        raise InvalidRequest.of(wrong)
