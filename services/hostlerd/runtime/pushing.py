"""Pushing a bundle, as a step like any other change, and putting the one before back."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from hostlerd.runtime.bundle import put
from hostlerd.runtime.edge import Recoverable


@dataclass(frozen=True, slots=True)
class PushBundle:
    """Put a verified bundle in force.

    `previous` is the one that was pushed before it, as it was signed, or None if none was; the
    version before it, `previous_version`, may be the installed one's.
    """

    signed: bytes
    version: int
    previous: bytes | None
    previous_version: int

    @property
    def survives_boot(self) -> bool:
        """A pushed bundle is on disk."""
        return True

    def describe(self) -> str:
        """Say which version follows which."""
        return f"put bundle version {self.version} in force (was {self.previous_version})"

    def inverse(self) -> RestoreBundle:
        """Put the one before back."""
        return RestoreBundle(self.previous, self.previous_version, self.signed, self.version)


@dataclass(frozen=True, slots=True)
class RestoreBundle:
    """Put back what was pushed before, or nothing: then the installed bundle is in force again.

    Every daemon verifies what it finds when it loads it, so nothing is trusted for being restored.
    """

    signed: bytes | None
    version: int
    replaced: bytes
    replaced_version: int

    @property
    def survives_boot(self) -> bool:
        """A pushed bundle is on disk."""
        return True

    def describe(self) -> str:
        """Say which version follows which."""
        return f"put bundle version {self.version} back in force (was {self.replaced_version})"

    def inverse(self) -> PushBundle:
        """Push it again."""
        return PushBundle(self.replaced, self.replaced_version, self.signed, self.version)


class Keeper(Protocol):
    """Keeps the pushed bundle."""

    def push(self, data: bytes) -> object:
        """Put a bundle in force."""
        ...

    def restore(self, data: bytes | None) -> None:
        """Put back what was pushed before; None if nothing was."""
        ...


class BundleFile:
    """The pushed bundle's file alone, for processes that authorize nobody."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def push(self, data: bytes) -> None:
        """Write the file; whoever loads it verifies it. Raises OSError."""
        put(self._path, data)

    def restore(self, data: bytes | None) -> None:
        """Write the file as it was, or remove it. Raises OSError."""
        put(self._path, data)


class BundleKernel(Recoverable):
    """The edge that a pushed bundle crosses: the keeper's file."""

    def __init__(self, keeper: Keeper) -> None:
        self._keeper = keeper

    @property
    def kinds(self) -> Collection[type]:
        """There and back."""
        return (PushBundle, RestoreBundle)

    @contextmanager
    def applying(self) -> Iterator[Callable[[PushBundle | RestoreBundle], None]]:
        """Yield the function that puts a bundle in force."""
        yield self._apply

    def _apply(self, step: PushBundle | RestoreBundle) -> None:
        if isinstance(step, PushBundle):
            self._keeper.push(step.signed)
        else:
            self._keeper.restore(step.signed)
