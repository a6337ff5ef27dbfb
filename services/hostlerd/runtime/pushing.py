"""Pushing a bundle, as a step like any other change."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from hostlerd.runtime.bundle import BundleStore


@dataclass(frozen=True, slots=True)
class PushBundle:
    """Put a verified bundle in force. There is no way back but a newer one."""

    signed: bytes
    version: int
    previous_version: int

    def describe(self) -> str:
        """Say which version follows which."""
        return f"put bundle version {self.version} in force (was {self.previous_version})"

    def inverse(self) -> None:
        """Answer None: versions only go up."""
        return


class BundleKernel:
    """The edge that a pushed bundle crosses: the store's file."""

    def __init__(self, store: BundleStore) -> None:
        self._store = store

    @contextmanager
    def applying(self) -> Iterator[Callable[[PushBundle], None]]:
        """Yield the function that puts a bundle in force."""
        yield self._apply

    def _apply(self, step: PushBundle) -> None:
        self._store.push(step.signed)
