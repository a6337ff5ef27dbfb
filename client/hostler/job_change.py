"""A change that is a job of the host, and is over here when it is over there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hostler.jobs import error_of, watch_job
from hostler.outcome import settled
from hostler.plans import Planned, RpcChange, to_apply
from hostler.results import CallFailed
from hostler.session import Session

Say = Callable[[str, str, Any], None]


class JobChange(RpcChange):
    """Starts a job and watches it to its end; `say` is told of each state: host, domain, answer.

    Recorded as the call that it is. A session whose terms want a job anyway does not watch it.
    """

    def __init__(self, rpc: Any, request: Any, say: Say) -> None:
        super().__init__(rpc, request)
        self._say = say

    async def apply(self, session: Session, planned: Planned) -> Any:
        """Do it, if the plan is still the same. Raises CallFailed, also if the job fails.

        Cancelled, it ceases to watch: the job goes on.
        """
        request = self.message(session.host)
        request.change.job = True
        answer = settled(await session.call(self.rpc, to_apply(session, request, planned)))
        name = answer.change.job
        if session.terms.as_job or not name:
            return answer
        job = None
        async for told in watch_job(session, self.rpc.domain, name):
            job = told.job
            self._say(session.host.name, self.rpc.domain, told)
        if job is None:
            return answer
        if (error := error_of(job)) is not None:
            raise CallFailed(error, answer)
        answer.change.CopyFrom(job.change)
        answer.change.job = name
        return answer
