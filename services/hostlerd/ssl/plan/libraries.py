"""Which processes are affected: by staleness, by library, by version. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from hostlerd.ssl.model.library import Library, LibraryUser
from hostlerd.ssl.plan.versions import compare_debian, compare_own, is_debian, upstream_of


@dataclass(frozen=True, slots=True)
class Selection:
    """What is asked for; "" and False leave it open."""

    stale: bool = False
    library: str = ""
    fixed_in: str = ""


def select(users: Iterable[LibraryUser], wanted: Selection) -> list[LibraryUser]:
    """The processes with a library that is wanted, each with those alone, by unit and pid."""
    found = []
    for user in users:
        libraries = tuple(each for each in user.libraries if is_wanted(each, wanted))
        if libraries:
            found.append(replace(user, libraries=libraries))
    return sorted(found, key=order)


def order(user: LibraryUser) -> tuple[str, int]:
    """By unit and pid."""
    return user.unit, user.pid


def is_wanted(library: Library, wanted: Selection) -> bool:
    """Whether a library is asked for."""
    if wanted.stale and not library.stale:
        return False
    if wanted.library and wanted.library not in (library.library, library.family):
        return False
    return not wanted.fixed_in or is_older(library, wanted.fixed_in)


def is_older(library: Library, fixed_in: str) -> bool:
    """Whether a library is, or may be, older than the version that has the fix.

    A version that nobody knows counts as older: what is not known to be fixed is not fixed. The
    package's version is that of the file on the disk, so for a stale library it says nothing.
    """
    if not is_debian(fixed_in):
        return not library.version or compare_own(library.version, fixed_in) < 0
    if library.package_version and not library.stale:
        return compare_debian(library.package_version, fixed_in) < 0
    # Of equal versions of the library, the package's revision decides, which nobody knows.
    return not library.version or compare_own(library.version, upstream_of(fixed_in)) <= 0
