"""The command `hostler`: global options, and the domains, each loaded when it is used.

Kept free of gRPC, protobuf, rich and cryptography, so that `--help` answers at once.
"""

from __future__ import annotations

import atexit
import gc
import os
import sys
from collections.abc import Mapping
from typing import Any

import click

from hostler.cli.context import COMMAND_LINE, State
from hostler.cli.kinds import Failures, Seconds, Waves
from hostler.cli.lazy import LazyGroup
from hostler.config import HostlerError
from hostler.limits import DEFAULT_WINDOW, MAX_WINDOW

# Name, where it is, and what the list of commands says about it.
_COMMANDS: Mapping[str, tuple[str, str]] = {
    "approvals": ("hostler.cli.approve:approvals", "What waits for a second person."),
    "approve": ("hostler.cli.approve:approve", "Approve what somebody else has asked for."),
    "audit": ("hostler.cli.audit:audit", "Read what was done, and by whom."),
    "ca": ("hostler.cli.ca:ca", "Keep the CA: back it up, restore and replace it."),
    "completion": ("hostler.cli.completion:completion", "Print the shell's completion script."),
    "doctor": ("hostler.cli.doctor:doctor", "What is not as it has to be, and what to do."),
    "enroll": ("hostler.cli.enroll:enroll", "Make a host one of the fleet, over ssh."),
    "firewall": ("hostler.cli.firewall:firewall", "Rulesets, NAT and forwards."),
    "fleet": ("hostler.cli.fleet:fleet", "The hosts: list, check, add, remove."),
    "host": ("hostler.cli.host:host", "What hosts are and what they can do."),
    "init": ("hostler.cli.init:init", "Make this machine a CA, and you its first admin."),
    "isolate": ("hostler.cli.isolate:isolate", "A process with a network of its own."),
    "jobs": ("hostler.cli.jobs:jobs", "Work that hosts go on with by themselves."),
    "lab": ("hostler.cli.lab:lab", "Real test hosts on this machine."),
    "metrics": ("hostler.cli.metrics:metrics", "The state of the fleet for Prometheus."),
    "netns": ("hostler.cli.netns:netns", "Network namespaces and the processes in them."),
    "pending": ("hostler.cli.pending:pending", "What hosts take back unless it is confirmed."),
    "pki": ("hostler.cli.pki:pki", "The CA: certificates of hosts and users."),
    "policy": ("hostler.cli.policy:policy", "Who may do what: groups, revocations, bundle."),
    "retire": ("hostler.cli.retire:retire", "Take a host out of the fleet, for good."),
    "runs": ("hostler.cli.runs:runs", "What was changed from here: list, show, resume, compare."),
    "ssl": ("hostler.cli.ssl:ssl", "Certificates, chains and endpoints."),
    "storage": ("hostler.cli.storage:storage", "Disks and what is on them."),
    "top": ("hostler.cli.top:top", "The state of the fleet, in this terminal."),
    "trace": ("hostler.cli.trace:trace", "What processes do, and what they wait for."),
    "web": ("hostler.cli.web:web", "The state of the fleet, on a page of this machine."),
}

_EPILOG = """\b
Examples:
  hostler lab up                                  three real hosts on this machine
  hostler -H all fleet check                      who answers, and what works there
  hostler -H 'web*' netns list
  hostler -H role=web -o json netns ps
  hostler -H all --plan isolate web --publish 8080:8000 -- python3 -m http.server 8000
  hostler -H all --yes isolate web --remove
  hostler -H all --batch 1,10%,100% --confirm-within 60s firewall apply -f rules.toml
  hostler runs resume last                        what is missing of the last change

\b
Exit status: 0 every host did it, 1 some host failed, 2 wrong usage, 3 no host selected.
"""


# gRPC core writes every failed handshake to standard error, which the results tell in order.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")


class Failure(click.ClickException):
    """A message for the user, with the exit status that belongs to it."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self._status = status

    @property
    def exit_code(self) -> int:  # type: ignore[override] # click has a class variable here
        """The exit status."""
        return self._status


class DomainGroup(LazyGroup):
    """The domains and what else is a command, with the errors of all of them."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Keep the command line for the record of what it changes."""
        ctx.meta[COMMAND_LINE] = tuple(args)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; what the user can put right becomes a message and an exit status."""
        try:
            return super().invoke(ctx)
        except HostlerError as error:
            raise Failure(str(error), error.exit_code) from error
        except click.NoSuchOption as error:
            if error.option_name not in _GLOBAL:
                raise
            hint = f"{error.option_name} is global: give it right after 'hostler'."
            raise click.UsageError(f"{error.format_message()} {hint}", error.ctx) from error


def _version(ctx: click.Context, _param: click.Parameter, wanted: bool) -> None:
    if wanted:
        from importlib import metadata

        click.echo(f"hostler {metadata.version('hostler')}")
        ctx.exit()


@click.group(
    cls=DomainGroup,
    lazy=_COMMANDS,
    epilog=_EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option(
    "-H",
    "--host",
    "selectors",
    multiple=True,
    metavar="SELECTOR",
    help="Hosts: a name, a glob, label=value, @group or all. May be given several times.",
)
@click.option(
    "-o",
    "--output",
    type=click.Choice(["table", "json", "yaml", "ndjson"]),
    default="table",
    help="How results are printed.",
    show_default=True,
)
@click.option(
    "--timeout",
    "timeout_s",
    type=Seconds(),
    default="30s",
    help="For each call to a host.",
    show_default=True,
)
@click.option(
    "--parallel",
    type=click.IntRange(1, MAX_WINDOW),
    default=DEFAULT_WINDOW,
    help="How many hosts at a time.",
    show_default=True,
)
@click.option(
    "--processes",
    type=click.IntRange(1, 64),
    default=1,
    help="How many processes share the hosts of a read; it pays from a thousand hosts on.",
    show_default=True,
)
@click.option(
    "--max-failures",
    "tolerance",
    type=Failures(),
    default=None,
    help="How many hosts may fail before no further one is started. "
    "[default: 0 for changes, no limit for reads]",
)
@click.option(
    "--batch",
    "batches",
    type=Waves(),
    default=None,
    help="In which waves a change goes out: how many hosts have it after each.  [default: 1,100%]",
)
@click.option("--pause", "pause_s", type=Seconds(), help="Wait so long between waves.")
@click.option(
    "--gate",
    metavar="COMMAND",
    help="Run this here after each wave, without a shell; go on if it exits with 0. It has the "
    "hosts of the wave in $HOSTLER_HOSTS, and in place of an argument {hosts}.",
)
@click.option(
    "--gate-timeout",
    "gate_timeout_s",
    type=Seconds(),
    help="How long the gate may take.  [default: 60s]",
)
@click.option(
    "--confirm-within",
    "confirm_within_s",
    type=Seconds(),
    help="Hosts take a change back after this time, 1s to 1h, unless they can be reached again.",
)
@click.option("--background", is_flag=True, help="Have hosts do a change as a job of theirs.")
@click.option("--no-record", is_flag=True, help="Change without writing a record; see 'runs'.")
@click.option("--plan", "plan_only", is_flag=True, help="Show what would change; change nothing.")
@click.option("--yes", is_flag=True, help="Change without asking.")
@click.option("--context", "context_name", metavar="NAME", help="A context of the configuration.")
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_version,
    help="Print the version.",
)
@click.pass_context
def cli(ctx: click.Context, /, **options: Any) -> None:
    """Look after Linux hosts: typed, planned, audited changes, on many hosts at once."""
    if options["plan_only"] and options["yes"]:
        raise click.UsageError("--plan shows and --yes does: give one of them.")
    within_s = options["confirm_within_s"]
    if within_s is not None and options["background"]:
        raise click.UsageError("--confirm-within waits for hosts and --background does not.")
    if within_s is not None and not 1 <= within_s <= 3600:
        raise click.UsageError("--confirm-within: from 1s to 1h.")
    ctx.obj = State(**options)


_GLOBAL = frozenset(name for param in cli.params for name in param.opts) - {"-h", "--help"}


def main() -> None:
    """The entry point. Exits 0, 1, 2 or 3 as the help says; 130 after an interrupt."""
    # At exit all objects would be gone through for cycles, only to be given back together.
    atexit.register(gc.freeze)
    try:
        code = cli.main(prog_name="hostler", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        click.echo("Interrupted.", err=True)
        sys.exit(130)
    except BrokenPipeError:
        # The reader of our output has gone, as `head` does; nothing is left to say.
        sys.stderr.close()
        sys.exit(1)
    sys.exit(code if isinstance(code, int) else 0)
