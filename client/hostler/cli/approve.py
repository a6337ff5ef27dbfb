"""`hostler approve` and `hostler approvals`: two-person approval."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import click

from hostler.api.common.v1 import approval_pb2
from hostler.approvals import LIST_APPROVALS, Approve, Withdraw, find_approval, state_word
from hostler.cli.asking import refuse_terms
from hostler.cli.context import State, pass_state
from hostler.cli.examples import examples
from hostler.cli.options import with_doors
from hostler.cli.output import Table, moment
from hostler.doors import at_doors
from hostler.jobs import method_word
from hostler.limits import shortened


@click.command(
    epilog=examples(
        "hostler -H h1 approve 5f0c4a399d553a3c0d8a7a1102c6f8d8",
        "hostler -H all approve 5f0c4a399d553a3c0d8a7a1102c6f8d8     where it is the same on all",
        "hostler -H h1 --plan approve 5f0c4a399d553a3c0d8a7a1102c6f8d8     only look at it",
    )
)
@click.argument("approval", metavar="ID")
@pass_state
def approve(state: State, approval: str) -> None:
    """Approve what somebody else has asked for, once, for exactly the plan that is shown.

    ID is what the refused call answered; on hosts with equal plans it is the same. Nobody approves
    what he has asked for himself, and a local caller approves nothing.
    """
    refuse_terms(state)
    state.change(Approve(approval), lambda answer: state_word(answer.approval))


@click.group(
    epilog=examples(
        "hostler -H all approvals list --open",
        "hostler -H h1 approvals show 5f0c4a399d553a3c0d8a7a1102c6f8d8",
        "hostler -H h1 approve 5f0c4a399d553a3c0d8a7a1102c6f8d8",
    )
)
def approvals() -> None:
    """What waits for a second person, or waited lately."""


def _rows(answer: Any) -> Iterable[Sequence[Any]]:
    for each in answer.approvals:
        yield (
            each.id,
            state_word(each),
            each.requester,
            method_word(each.method),
            shortened(each.resources) or "-",
            moment(each, "expire_time"),
            each.approver or "-",
        )


_TITLES = ("ID", "STATE", "ASKED BY", "METHOD", "RESOURCES", "UNTIL", "APPROVED BY")


@approvals.command(
    name="list",
    epilog=examples("hostler -H all approvals list", "hostler -H all -o json approvals list"),
)
@click.option("--open", "open_only", is_flag=True, help="Only those that can still be used.")
@with_doors
@pass_state
def list_approvals(state: State, open_only: bool, doors: tuple[str, ...]) -> None:
    """List requests for approval, newest first, of every door of the selected hosts."""
    request = approval_pb2.ListApprovalsRequest(open_only=open_only)
    asked = at_doors(state.client, state.hosts, doors, LIST_APPROVALS, request)
    state.finish(state.run(asked), Table(_TITLES, _rows))


@approvals.command(epilog=examples("hostler -H h1 approvals show 5f0c4a399d553a3c0d8a7a1102c6f8d8"))
@click.argument("approval", metavar="ID")
@pass_state
def show(state: State, approval: str) -> None:
    """Show a request for approval with its whole plan."""

    async def one(session: Any) -> Any:
        _, found = await find_approval(session, approval)
        return found

    def rows(found: Any) -> Iterable[Sequence[Any]]:
        yield "state", state_word(found)
        yield "asked by", found.requester
        yield "asked", moment(found, "create_time")
        yield "until", moment(found, "expire_time")
        yield "method", method_word(found.method)
        yield "resources", " ".join(found.resources) or "-"
        yield "approved by", found.approver or "-"
        for step in found.plan.steps:
            yield "step", step.description

    results = state.run(state.client.each(state.hosts, one, tolerance=state.tolerance))
    state.finish(results, Table(("FIELD", "VALUE"), rows))


@approvals.command(
    epilog=examples("hostler -H all --yes approvals withdraw 5f0c4a399d553a3c0d8a7a1102c6f8d8")
)
@click.argument("approval", metavar="ID")
@pass_state
def withdraw(state: State, approval: str) -> None:
    """Withdraw a request, or an approval that was not used yet."""
    refuse_terms(state)
    state.change(Withdraw(approval), lambda answer: state_word(answer.approval))
