"""`hostler isolate`: a process with a private network and published ports, on every host."""

from __future__ import annotations

from typing import Any

import click

from hostler.cli.asking import refuse_background
from hostler.cli.context import State, pass_state
from hostler.cli.examples import examples
from hostler.cli.kinds import Bytes, Cpus, Pair
from hostler.isolate import Isolate, Remove
from hostler.isolation import Isolated, Isolation, Publish


class Published(click.ParamType[Any]):
    """A published port."""

    name = "[ADDR:]PORT:PORT[/PROTO]"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> Publish:
        """Read it; a usage error if it is none."""
        if isinstance(value, Publish):
            return value
        try:
            return Publish.parse(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


@click.command(
    epilog=examples(
        "hostler -H all isolate web --publish 8080:8000 --private-tmp --user www-data -- \\",
        "    python3 -m http.server 8000",
        "hostler -H h1 isolate dns --publish 5353:53/udp --dns 9.9.9.9 --memory 64M -- dnsmasq -k",
        "hostler -H h1 isolate app --publish 10.0.0.1:443:8443 --persistent -- /opt/app/run",
        "hostler -H all --plan isolate web -- sleep infinity",
        "hostler -H all --yes isolate web --remove",
    )
)
@click.argument("name")
@click.argument("argv", nargs=-1, metavar="[-- COMMAND...]")
@click.option("--remove", is_flag=True, help="Remove all of it, in whatever state it is.")
@click.option(
    "--publish",
    type=Published(),
    multiple=True,
    help="A port of the host that leads inside, such as 8080:8000 or 53:53/udp.",
)
@click.option(
    "--pool",
    default="default",
    show_default=True,
    help="The hosts' address pool to take networks from.",
)
@click.option("--no-ipv6", is_flag=True, help="Leave IPv6 out.")
@click.option(
    "--dns",
    multiple=True,
    metavar="IP",
    help="A resolver of its own. [default: the context's, else none]",
)
@click.option("--uplink", default="", metavar="LINK", help="The link that traffic leaves by.")
@click.option("--user", default="", help="A name or number. [default: root]")
@click.option("--private-tmp", is_flag=True, help="A /tmp of its own, noexec.")
@click.option("--private-pid", is_flag=True, help="PIDs of its own.")
@click.option("--private-uts", is_flag=True, help="A host name of its own.")
@click.option("--env", "environment", type=Pair(), multiple=True)
@click.option("--memory", "memory_max_bytes", type=Bytes(), help="Such as 64M.")
@click.option("--cpu", "cpu_max_millicpus", type=Cpus(), help="Such as 0.5.")
@click.option("--tasks", "tasks_max", type=click.IntRange(1), help="At most so many tasks.")
@click.option(
    "--restart",
    type=click.Choice(["never", "on-failure", "always"]),
    default="never",
    show_default=True,
)
@click.option(
    "--unprivileged-ports-from",
    "unprivileged_port_start",
    type=click.IntRange(0, 65535),
    metavar="N",
    help="The first port that needs no privilege inside.",
)
@click.option("--persistent", is_flag=True, help="A boot brings it back.")
@pass_state
def isolate(
    state: State, /, name: str, argv: tuple[str, ...], remove: bool, **options: Any
) -> None:
    """Run a process with a private network, and publish its ports.

    On every selected host: a network namespace with addresses from the host's pool, masquerade
    and forwards of its own ruleset, and the process. All three are planned and shown together; if
    one fails, what was made before it is removed again.
    """
    refuse_background(state)
    if remove:
        given = [key for key in options if _given(key)]
        if argv or given:
            raise click.UsageError("--remove takes nothing but the name")
        state.change(Remove(name), lambda done: ", ".join(done.answers) or "nothing there")
    if not argv:
        raise click.UsageError("say what to run: hostler isolate NAME [OPTIONS] -- COMMAND...")
    pool, no_ipv6 = options.pop("pool"), options.pop("no_ipv6")
    dns = options.pop("dns") or (() if state.local_only else state.context.dns)
    isolation = Isolation(
        name=name,
        argv=argv,
        dns=tuple(dns),
        ipv4_pool=pool,
        ipv6_pool="" if no_ipv6 else pool,
        **options,
    )
    state.change(Isolate(isolation), _describe)


def _given(option: str) -> bool:
    source = click.get_current_context().get_parameter_source(option)
    return source is click.core.ParameterSource.COMMANDLINE


def _describe(done: Isolated) -> str:
    namespace = done.answers["namespace"].namespace
    addresses = " ".join(a for each in namespace.interfaces for a in each.addresses)
    pid = done.answers["process"].status.main_pid
    ports = sorted({entry.port for entry in done.answers["ruleset"].ruleset.forwards})
    published = f", published {' '.join(map(str, ports))}" if ports else ""
    return f"{addresses}, pid {pid or '-'}{published}"
