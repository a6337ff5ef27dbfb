"""The end of a wave under --confirm-within: hosts are reached again, or have taken it back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from hostler.outcome import Outcome, changes_of, of_error
from hostler.plans import Planned
from hostler.results import CallFailed, HostError, HostResult
from hostler.session import Session, Terms

_NOT_APPLIED = "NOT_APPLIED"


@dataclass(frozen=True, slots=True)
class Stands:
    """A change whose answer was lost, perhaps by its own doing, and which was confirmed."""

    planned: Planned

    @property
    def changed(self) -> bool:
        """Whether there was anything to do."""
        return bool(self.planned.steps)

    def as_dict(self) -> dict[str, Any]:
        """As JSON has it: the plan that was carried out."""
        return {"changed": self.changed, **self.planned.as_dict()}


class Confirming:
    """One wave, or as much of one as is applied at once. Times are of the running loop's clock.

    A host counts from when it was asked, so its deadline is not before `start + within_s`.
    """

    def __init__(self, within_s: float, start: float) -> None:
        self._within_s = within_s
        self._deadline = start + within_s

    def gate_s(self) -> float:
        """How long a health gate may take, so that a quarter is left to confirm in."""
        return max(0.0, self._left_s() - self._within_s / 4)

    def _left_s(self) -> float:
        return self._deadline - asyncio.get_running_loop().time()

    async def settle(
        self,
        result: HostResult[Any],
        planned: Planned,
        terms: Terms,
        session: Callable[[], Session],
        *,
        healthy: bool,
    ) -> HostResult[Any]:
        """Confirm a host that waits for it, or may; answer what its result is now.

        One of a wave that the health gate refused is taken back at once instead.
        """
        async with session() as doors:
            if not healthy:
                return await self._revert(result, terms, doors)
            return await self._confirm(result, planned, terms, doors)

    async def _confirm(
        self, result: HostResult[Any], planned: Planned, terms: Terms, doors: Session
    ) -> HostResult[Any]:
        from hostler import confirm

        named = tuple(_doors_of(result.result))
        try:
            await confirm.confirm_host(doors, terms.group, named, max(0.1, self._left_s()))
        except CallFailed as failed:
            error = failed.error
            if error.reason == _NOT_APPLIED and result.error is not None:
                # The answer that was lost was a refusal, or the request never arrived.
                error = replace(result.error, uncertain=False)
            return HostResult(result.host, error=error, outcome=of_error(error))
        answer = result.result if result.ok else Stands(planned)
        return HostResult(result.host, answer, outcome=Outcome.APPLIED)

    async def _revert(
        self, result: HostResult[Any], terms: Terms, doors: Session
    ) -> HostResult[Any]:
        from hostler import confirm

        try:
            ended = await confirm.revert_host(doors, terms.group)
        except CallFailed as failed:
            words = f"not confirmed, and not seen to be taken back: {failed.error}"
            error = HostError("ABORTED", Outcome.UNKNOWN.name, words, uncertain=True)
            return HostResult(result.host, error=error, outcome=Outcome.UNKNOWN)
        outcome = Outcome.ROLLED_BACK if ended is None else confirm.outcome_of(ended)
        words = "taken back: the health gate refused the wave"
        if outcome is not Outcome.ROLLED_BACK:
            words = f"the health gate refused the wave, but {getattr(ended, 'reason', '')}"
        error = HostError("ABORTED", outcome.name, words, uncertain=outcome is Outcome.UNKNOWN)
        return HostResult(result.host, error=error, outcome=outcome)


def _doors_of(answer: Any) -> dict[str, None]:
    return {door: None for change in changes_of(answer) for door in change.pending.doors}
