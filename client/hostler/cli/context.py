"""What every command has at hand: the global options, and the way to the selected hosts.

Imports of gRPC and of output libraries wait until a command needs them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click

from hostler.config import ConfigError, Context, load_context
from hostler.fleet import LOCAL, Fleet, Host, SelectionError, load_fleet
from hostler.limits import Tolerance

if TYPE_CHECKING:
    from hostler.aio import Client
    from hostler.channel import Rpc
    from hostler.cli.output import Table
    from hostler.plans import Change
    from hostler.results import HostResult

T = TypeVar("T")


@dataclass(frozen=True)
class State:
    """The global options, and what is loaded because of them."""

    selectors: tuple[str, ...] = ()
    output: str = "table"
    timeout_s: float = 30.0
    parallel: int = 256
    tolerance: Tolerance | None = None
    plan_only: bool = False
    yes: bool = False
    context_name: str | None = None

    @cached_property
    def context(self) -> Context:
        """The context in use. Raises ConfigError."""
        return load_context(self.context_name)

    @cached_property
    def fleet(self) -> Fleet:
        """The fleet of the context. Raises ConfigError."""
        return load_fleet(self.context.fleet)

    @property
    def local_only(self) -> bool:
        """Whether only this machine is meant, which needs no configuration: break-glass."""
        return bool(self.selectors) and set(self.selectors) == {LOCAL}

    @cached_property
    def client(self) -> Client:
        """The client. Raises ConfigError."""
        from hostler.aio import Client

        context, fleet = (None, Fleet()) if self.local_only else (self.context, self.fleet)
        return Client(context, fleet, timeout_s=self.timeout_s, window=self.parallel)

    @cached_property
    def hosts(self) -> tuple[Host, ...]:
        """The selected hosts. Raises SelectionError."""
        if self.local_only:
            try:
                return self.fleet.select(self.selectors)
            except ConfigError:
                return Fleet().select(self.selectors)
        return self.fleet.select(self.selectors)

    def one_host(self) -> Host:
        """The selected host, if it is exactly one. Raises SelectionError, UsageError."""
        if len(self.hosts) != 1:
            raise click.UsageError(f"this is for one host; {len(self.hosts)} are selected")
        return self.hosts[0]

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine to its end."""
        import asyncio

        return asyncio.run(coroutine)

    def read(self, rpc: Rpc, request: Any, *, pages: bool = False) -> list[HostResult[Any]]:
        """Call a method on the selected hosts; with `pages`, a List method to its last page."""
        hosts, client = self.hosts, self.client
        return self.run(
            client.each(
                hosts,
                lambda s: (s.list_all if pages else s.call)(rpc, request),
                tolerance=self.tolerance,
            )
        )

    def finish(self, results: Sequence[HostResult[Any]], table: Table | None = None) -> NoReturn:
        """Print results and leave with their exit status."""
        from hostler.cli.output import show
        from hostler.results import exit_code

        show(results, self.output, table)
        click.get_current_context().exit(exit_code(results))

    def end(self, results: Sequence[HostResult[Any]]) -> NoReturn:
        """Leave a command that has printed its output already; errors are named."""
        from hostler.cli.output import show_errors
        from hostler.results import exit_code

        show_errors(results)
        click.get_current_context().exit(exit_code(results))

    def change(
        self,
        change: Change,
        describe: Callable[[Any], str] | None = None,
        hosts: Iterable[Host] | None = None,
    ) -> NoReturn:
        """Plan a change on the selected hosts, show, ask, and carry it out; then leave.

        Refused with exit 2 where nobody can be asked and --yes is not given. `describe` says in
        the table what came of it.
        """
        from hostler.cli.output import change_table, show_plans
        from hostler.plans import group_plans

        chosen = tuple(self.hosts if hosts is None else hosts)
        if not chosen:
            raise SelectionError("no host is selected")
        if not (self.plan_only or self.yes or sys.stdin.isatty()):
            raise click.UsageError(
                "this changes hosts, and there is no terminal to ask on: give --yes, or --plan to "
                "see what would change"
            )
        client = self.client
        plans = self.run(client.plan(change, chosen))
        if self.plan_only:
            if self.output == "table":
                show_plans(group_plans(plans), sys.stdout)
                self.finish([plan for plan in plans if not plan.ok] or plans, _silent())
            self.finish(plans)
        groups = group_plans(plans)
        brake = (self.tolerance or Tolerance()).allowed(len(chosen))
        stopped = sum(not plan.ok for plan in plans) > brake
        if self.output == "table" or not self.yes:
            show_plans(groups, sys.stderr)
        if any(group.planned.steps for group in groups) and not (self.yes or stopped):
            self._ask(sum(bool(p.result and p.result.steps) for p in plans))
        results = self.run(client.apply(change, chosen, plans, tolerance=self.tolerance))
        self.finish(results, change_table(describe))

    def _ask(self, count: int) -> None:
        question = f"Change {count} host{'s' if count != 1 else ''}?"
        if not click.confirm(question, err=True):
            click.echo("Nothing was changed.", err=True)
            click.get_current_context().exit(1)


def _silent() -> Table:
    from hostler.cli.output import Table

    return Table((), lambda _: ())


pass_state = click.make_pass_decorator(State)
