"""What every command has at hand: the global options, and the way to the selected hosts.

Imports of gRPC and of output libraries wait until a command needs them.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click

from hostler.config import ConfigError, Context, load_context
from hostler.fleet import LOCAL, Fleet, Host, SelectionError, load_fleet
from hostler.limits import Batches, Tolerance

if TYPE_CHECKING:
    from hostler.aio import Client
    from hostler.channel import Rpc
    from hostler.cli.output import Table
    from hostler.cli.rolling import Review
    from hostler.health_gate import Gate
    from hostler.plans import Change
    from hostler.results import HostResult
    from hostler.rollout import Rollout

COMMAND_LINE = "hostler.command_line"
T = TypeVar("T")


@dataclass(frozen=True)
class State:
    """The global options, and what is loaded because of them."""

    selectors: tuple[str, ...] = ()
    output: str = "table"
    timeout_s: float = 30.0
    parallel: int = 256
    processes: int = 1
    tolerance: Tolerance | None = None
    plan_only: bool = False
    yes: bool = False
    context_name: str | None = None
    batches: Batches | None = None
    pause_s: float | None = None
    gate: str | None = None
    gate_timeout_s: float | None = None
    confirm_within_s: float | None = None
    background: bool = False
    no_record: bool = False

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
        return Client(
            context,
            fleet,
            timeout_s=self.timeout_s,
            window=self.parallel,
            record=not self.no_record,
        )

    @cached_property
    def rollout(self) -> Rollout:
        """How changes go out. Raises UsageError."""
        from hostler.rollout import Rollout

        return self.rollout_as(Rollout())

    def rollout_as(self, before: Rollout) -> Rollout:
        """How changes go out, where the options say nothing as they did before."""
        from dataclasses import replace

        said = before
        if self.batches is not None:
            said = replace(said, batches=self.batches)
        if self.tolerance is not None:
            said = replace(said, tolerance=self.tolerance)
        if self.pause_s is not None:
            said = replace(said, pause_s=self.pause_s)
        if self.confirm_within_s is not None:
            said = replace(said, confirm_within_s=self.confirm_within_s)
        return replace(said, gate=self._gate(said.gate), as_job=said.as_job or self.background)

    def _gate(self, before: Gate | None) -> Gate | None:
        from dataclasses import replace

        from hostler.health_gate import Gate

        try:
            gate = before if self.gate is None else Gate.parse(self.gate)
        except ValueError as error:
            raise click.UsageError(f"--gate: {error}") from error
        if gate is not None and self.gate_timeout_s is not None:
            gate = replace(gate, timeout_s=self.gate_timeout_s)
        return gate

    @cached_property
    def hosts(self) -> tuple[Host, ...]:
        """The selected hosts. Raises SelectionError."""
        if self.local_only:
            try:
                return self.fleet.select(self.selectors)
            except ConfigError:
                return Fleet().select(self.selectors)
        return self.fleet.select(self.selectors)

    @property
    def hosts_or_all(self) -> tuple[Host, ...]:
        """The selected hosts; all of the fleet if none is selected. Raises SelectionError."""
        return self.hosts if self.selectors else self.fleet.hosts

    def one_host(self) -> Host:
        """The selected host, if it is exactly one. Raises SelectionError, UsageError."""
        if len(self.hosts) != 1:
            raise click.UsageError(f"this is for one host; {len(self.hosts)} are selected")
        return self.hosts[0]

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine to its end."""
        import asyncio

        return asyncio.run(coroutine)

    def tell(
        self, rpc: Rpc, request: Any, table: Table | None = None, *, pages: bool = False
    ) -> NoReturn:
        """Call a method on the selected hosts, print what they answer, and leave.

        As ndjson each is printed as soon as it has answered, else in the hosts' order.
        """
        results = self.read(rpc, request, pages=pages, heard=self.as_heard)
        self.finish(results, table, told=self.as_heard is not None and self.processes == 1)

    @property
    def as_heard(self) -> Callable[[HostResult[Any]], None] | None:
        """What prints a result as soon as it is there; None where all are printed together."""
        from hostler.cli.output import show_line

        return show_line if self.output == "ndjson" else None

    def read(
        self,
        rpc: Rpc,
        request: Any,
        *,
        pages: bool = False,
        heard: Callable[[HostResult[Any]], None] | None = None,
    ) -> list[HostResult[Any]]:
        """Call a method on the selected hosts; with `pages`, a List method to its last page.

        In one process `heard` is given each result as soon as it is there.
        """
        hosts, client = self.hosts, self.client
        if self.processes > 1:
            return self._read_by_processes(hosts, rpc, request, pages=pages)
        return self.run(
            client.each(
                hosts,
                lambda s: (s.list_all if pages else s.call)(rpc, request),
                tolerance=self.tolerance,
                heard=heard,
            )
        )

    def _read_by_processes(
        self, hosts: Sequence[Host], rpc: Rpc, request: Any, *, pages: bool
    ) -> list[HostResult[Any]]:
        from hostler.sharding import Shards, processes
        from hostler.sync import Client

        if self.tolerance is not None:
            raise click.UsageError("--max-failures counts in one process, not in --processes.")
        count = min(self.processes, len(hosts))
        with processes(count) as executor:
            shards = Shards(Client(self.client), executor, count)
            return (shards.list_all if pages else shards.call)(rpc, request, hosts=hosts)

    def finish(
        self,
        results: Sequence[HostResult[Any]],
        table: Table | None = None,
        *,
        told: bool = False,
    ) -> NoReturn:
        """Print results, unless that was done, and leave with their exit status."""
        from hostler.cli.output import show
        from hostler.results import exit_code

        if not told:
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
        review: Review | None = None,
        options: Rollout | None = None,
    ) -> NoReturn:
        """Plan a change on the selected hosts, show, ask, and carry it out; then leave.

        Refused with exit 2 where nobody can be asked and --yes is not given. `describe` says in
        the table what came of it. A `review` looks at the plans before anybody is asked.
        """
        from hostler.cli import rolling
        from hostler.cli.asking import must_be_able_to_ask
        from hostler.cli.output import change_table

        chosen = tuple(self.hosts if hosts is None else hosts)
        if not chosen:
            raise SelectionError("no host is selected")
        must_be_able_to_ask(self)
        client, options = self.client, options or self.rollout
        run = client.new_run(command_line(), self.selectors)
        plans = self.run(client.plan(change, chosen, options=options, run=run))
        if self.plan_only:
            rolling.show_plans_only(self, plans, review)
        if review is not None:
            options = review.judge(plans, options)
        rolling.show_and_ask(self, plans, options, review=review)
        rolled = rolling.roll(
            self,
            lambda halt, say: client.roll_out(
                change, chosen, plans, options=options, run=run, halt=halt, say=say
            ),
        )
        rolling.finish(self, rolled, change_table(describe))


def command_line() -> tuple[str, ...]:
    """The words after `hostler`, as they were given."""
    root = click.get_current_context().find_root()
    return tuple(root.meta.get(COMMAND_LINE, ()))


pass_state = click.make_pass_decorator(State)
