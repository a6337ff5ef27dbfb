"""Several changes of one host in one pending group: how they join it, and go back together."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from hostler.confirm import outcome_of, revert_host
from hostler.outcome import Outcome, of_answer
from hostler.results import CallFailed, HostError
from hostler.session import Session


def joined(options: Any, answers: Iterable[Any]) -> None:
    """Make the next change of a composite join the group that one before has opened, if one has.

    Not open it: were the group taken back meanwhile, the rest would be done without its beginning.
    """
    if any(of_answer(answer) is Outcome.PENDING_CONFIRM for answer in answers):
        options.confirm.ClearField("within")


def refuse_jobs(session: Session) -> None:
    """Raise CallFailed if a composite is to be done as a job: its parts need one another."""
    if session.terms.as_job:
        message = "a composite of several changes cannot be done as a job"
        raise CallFailed(HostError("INVALID_ARGUMENT", "NOT_AS_JOB", message))


async def take_back(session: Session) -> str:
    """Take the session's group back at once. Answers what went wrong, or nothing."""
    try:
        ended = await revert_host(session, session.terms.group)
    except CallFailed as failed:
        return f"taken back by the host at the deadline: {failed}"
    if ended is None or outcome_of(ended) is Outcome.ROLLED_BACK:
        return ""
    return f"taking it back has failed: {ended.reason}"
