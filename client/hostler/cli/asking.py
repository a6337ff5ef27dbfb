"""Asking before something is done to hosts."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from hostler.cli.context import State


def must_be_able_to_ask(state: State) -> None:
    """Raise a usage error where nobody can be asked and --yes is not given."""
    if not (state.plan_only or state.yes or sys.stdin.isatty()):
        raise click.UsageError(
            "this changes hosts, and there is no terminal to ask on: give --yes, or --plan to see "
            "what would be done"
        )


def ask(state: State, question: str) -> None:
    """Ask unless --yes is given; leave with status 1 if the answer is no."""
    if state.yes or click.confirm(question, err=True):
        return
    click.echo("Nothing was changed.", err=True)
    click.get_current_context().exit(1)


def refuse_background(state: State) -> None:
    """Raise a usage error for --background, where a command makes changes that need one another."""
    if state.background:
        raise click.UsageError(
            "this makes several changes in turn: --background does not go with it"
        )


def refuse_terms(state: State) -> None:
    """Raise a usage error for options that make a change wait, where a command is done at once."""
    if state.background or state.confirm_within_s is not None:
        raise click.UsageError("neither --background nor --confirm-within goes with this")
