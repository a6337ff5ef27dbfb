"""The edge of a domain to the system, as far as changes and their recovery need it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from hostlerd.runtime.codec import Registry
from hostlerd.runtime.steps import Step

Apply = Callable[[Any], None]
"""Carries out one step, in full or not at all. Raises DomainError or OSError."""


class Kernel(Protocol):
    """Carries out steps."""

    def applying(self) -> AbstractContextManager[Apply]:
        """Open a session of one change; it yields the function that carries out a step."""
        ...


class Recoverable(Kernel, Protocol):
    """A kernel whose changes are journalled. A class that inherits it has these defaults."""

    @property
    def kinds(self) -> Collection[type]:
        """The classes of all steps that it carries out, those of the way back included."""
        ...

    @property
    def one_way(self) -> Collection[type]:
        """Steps that are not taken back once they may have begun: recovery goes on instead."""
        return ()

    @property
    def unrepeatable(self) -> Collection[type]:
        """Steps of which nobody can tell whether they were done, and that must not be done twice.

        A change that was cut off in one is reported as of unknown outcome, and left as it is.
        """
        return ()

    def recovering(self) -> AbstractContextManager[Apply]:
        """Open a session in which what is as wanted already, or has gone, is no error."""
        return self.applying()

    def settle(self, steps: Sequence[Step]) -> None:
        """Return when nothing is being done any more of steps that a process has left behind.

        Raises DomainError, OSError.
        """
        return

    def resume_at(self, steps: Sequence[Step], begun: int) -> int:
        """Answer where to go on with a change that was cut off while step `begun` was carried out.

        Before `begun` if the effect of earlier steps went with the process; they are repeated.
        """
        return begun


@dataclass(frozen=True, slots=True)
class Edge:
    """A kernel, and how its steps are written."""

    kernel: Recoverable
    registry: Registry

    @classmethod
    def of(cls, kernel: Recoverable) -> Edge:
        """Make one. Raises TypeError if a step cannot be written."""
        return cls(kernel, Registry(kernel.kinds))


def survives_boot(step: Step) -> bool:
    """Whether what a step does is there after a boot; a step without an answer says no."""
    return bool(getattr(step, "survives_boot", False))


def needs_no_way_back(step: Step) -> bool:
    """Whether a step without an inverse may wait for a confirm; one without an answer may not."""
    return bool(getattr(step, "needs_no_way_back", False))
