"""`hostler netns ps|processes|start|stop|signal|logs`: processes in namespaces."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from typing import Any

import click

from hostler.api.netns.v1 import process_pb2
from hostler.channel import rpc
from hostler.cli.context import State, pass_state
from hostler.cli.examples import examples
from hostler.cli.kinds import Bytes, Cpus, Pair
from hostler.cli.output import Table, printable
from hostler.plans import RpcChange
from hostler.results import plain
from hostler.resume import after_seq
from hostler.session import Session
from hostler.skew import word

_SERVICE = "ProcessService"
_KINDS = ("net", "pid", "mnt", "uts", "ipc", "user", "cgroup")
_RESTARTS = ("never", "on-failure", "always")
Decorated = Callable[..., Any]


def process_options(command: Decorated) -> Decorated:
    """Add the options that say what to run, and in what surroundings."""
    options = (
        click.option("--user", help="A name or number. [default: root]"),
        click.option("--group", help="A name or number. [default: the user's own]"),
        click.option("--directory", metavar="DIR", help="Where it runs. [default: /]"),
        click.option("--env", "environment", type=Pair(), multiple=True),
        click.option("--private-tmp", is_flag=True, help="A /tmp of its own, noexec."),
        click.option("--private-pid", is_flag=True, help="PIDs of its own."),
        click.option("--private-uts", is_flag=True, help="A host name of its own."),
        click.option("--private-ipc", is_flag=True, help="IPC objects of its own."),
        click.option("--memory", type=Bytes(), help="At most so much memory, such as 64M."),
        click.option("--cpu", type=Cpus(), help="At most so many CPUs, such as 0.5."),
        click.option("--tasks", type=click.IntRange(1), help="At most so many tasks."),
        click.option("--io-weight", type=click.IntRange(1, 10000), help="Weight of its I/O."),
    )
    for option in reversed(options):
        command = option(command)
    return command


def build_process(namespace: str, name: str, argv: Sequence[str], options: Any) -> Any:
    """The message of those options."""
    process = process_pb2.Process(
        name=name,
        namespace=namespace,
        argv=argv,
        user=options["user"] or "",
        group=options["group"] or "",
        working_directory=options["directory"] or "",
        environment=dict(options["environment"]),
        private_tmp=options["private_tmp"],
        private_pid=options["private_pid"],
        private_uts=options["private_uts"],
        private_ipc=options["private_ipc"],
    )
    limits = {
        "memory_max_bytes": options["memory"],
        "cpu_max_millicpus": options["cpu"],
        "tasks_max": options["tasks"],
        "io_weight": options["io_weight"],
    }
    for key, value in limits.items():
        if value is not None:
            setattr(process.limits, key, value)
    return process


@click.command(epilog=examples("hostler -H all netns ps web", "hostler -H h1 netns ps -a"))
@click.argument("name", required=False, default="")
@click.option("-a", "--argv", "with_argv", is_flag=True, help="Command lines, too.")
@pass_state
def ps(state: State, name: str, with_argv: bool) -> None:
    """List every task in a namespace, or in all but the host's own, with its ids in and outside."""

    def rows(answer: Any) -> Iterable[Sequence[Any]]:
        for task in answer.tasks:
            inodes = " ".join(
                f"{kind}:{task.namespaces[kind]}" for kind in _KINDS if kind in task.namespaces
            )
            command = " ".join(task.argv) if with_argv and task.argv else task.comm
            yield (
                task.network_namespace,
                task.pid_outside,
                task.pid_inside,
                task.uid,
                command,
                task.process or task.container_engine,
                inodes,
            )

    request = process_pb2.ListTasksRequest(namespace=name, with_argv=with_argv)
    titles = ("NETNS", "PID OUTSIDE", "PID INSIDE", "UID", "COMMAND", "OF", "NAMESPACES")
    state.tell(rpc(process_pb2, _SERVICE, "ListTasks"), request, Table(titles, rows), pages=True)


def _process_rows(answer: Any) -> Iterable[Sequence[Any]]:
    for each in answer.processes:
        state = word(process_pb2.ProcessState, each.state)
        ended = each.exit_signal or (each.exit_code if each.HasField("exit_code") else "")
        if each.out_of_memory:
            ended = f"{ended} out of memory"
        yield (
            f"{each.process.namespace}/{each.process.name}",
            state,
            each.main_pid or "",
            ended,
            each.restart_count,
            each.process.user or "root",
            " ".join(each.process.argv),
        )


@click.command(
    epilog=examples("hostler -H all netns processes", "hostler -H h1 netns processes web")
)
@click.argument("namespace", required=False, default="")
@pass_state
def processes(state: State, namespace: str) -> None:
    """List what was started by name, running or failed."""
    request = process_pb2.ListProcessesRequest(namespace=namespace)
    titles = ("PROCESS", "STATE", "PID", "ENDED", "RESTARTS", "USER", "COMMAND")
    state.tell(
        rpc(process_pb2, _SERVICE, "ListProcesses"),
        request,
        Table(titles, _process_rows),
        pages=True,
    )


@click.command(
    epilog=examples(
        "hostler -H h1 netns start web main --user www-data --private-tmp -- \\",
        "    python3 -m http.server 8000",
        "hostler -H h1 netns start web db --memory 64M --restart on-failure -- redis-server",
    )
)
@click.argument("namespace")
@click.argument("name")
@click.argument("argv", nargs=-1, required=True, metavar="-- COMMAND...")
@process_options
@click.option("--restart", type=click.Choice(_RESTARTS), default="never", show_default=True)
@click.option("--persistent", is_flag=True, help="A boot starts it again.")
@pass_state
def start(
    state: State,
    /,
    namespace: str,
    name: str,
    argv: tuple[str, ...],
    restart: str,
    persistent: bool,
    **options: Any,
) -> None:
    """Start a process that goes on without the caller."""
    process = build_process(namespace, name, argv, options)
    process.persistent = persistent
    if restart != "never":
        policy = "POLICY_" + restart.upper().replace("-", "_")
        process.restart.MergeFrom(process_pb2.Restart(policy=policy))
    request = process_pb2.StartProcessRequest(process=process)
    state.change(
        RpcChange(rpc(process_pb2, _SERVICE, "StartProcess"), request),
        lambda answer: f"{namespace}/{name} pid {answer.status.main_pid or '-'}",
    )


@click.command(epilog=examples("hostler -H all --yes netns stop web main"))
@click.argument("namespace")
@click.argument("name")
@pass_state
def stop(state: State, namespace: str, name: str) -> None:
    """End a process that was started by name, and its children. None there is no error."""
    request = process_pb2.StopProcessRequest(namespace=namespace, name=name)
    state.change(RpcChange(rpc(process_pb2, _SERVICE, "StopProcess"), request))


@click.command(name="signal", epilog=examples("hostler -H h1 --yes netns signal web main SIGHUP"))
@click.argument("namespace")
@click.argument("name")
@click.argument("signal_name", metavar="SIGNAL")
@pass_state
def send_signal(state: State, namespace: str, name: str, signal_name: str) -> None:
    """Send a signal to a process that was started by name."""
    word = signal_name.upper()
    word = word if word.startswith("SIG") else f"SIG{word}"
    request = process_pb2.SignalProcessRequest(namespace=namespace, name=name, signal=word)
    state.change(RpcChange(rpc(process_pb2, _SERVICE, "SignalProcess"), request))


@click.command(
    epilog=examples("hostler -H h1 netns logs web main", "hostler -H all netns logs web main -f")
)
@click.argument("namespace")
@click.argument("name")
@click.option("-f", "--follow", is_flag=True, help="Go on with what is written from now on.")
@click.option("-n", "--lines", type=click.IntRange(1, 10000), default=100, show_default=True)
@pass_state
def logs(state: State, namespace: str, name: str, follow: bool, lines: int) -> None:
    """Show what a process has written. With -o json or ndjson, one line of JSON per line."""
    request = process_pb2.StreamLogsRequest(
        namespace=namespace, name=name, follow=follow, tail=lines
    )
    prefix = len(state.hosts) > 1

    async def one(session: Session) -> None:
        async for line in _lines(session, request):
            _say(state.output, session.host.name, line, prefix)

    results = state.run(state.client.each(state.hosts, one))
    state.end(results)


async def _lines(session: Session, request: Any) -> AsyncIterator[Any]:
    """Every line once. A followed stream that is cut goes on behind the last line it gave."""
    method = rpc(process_pb2, _SERVICE, "StreamLogs")
    timeout_s = None if request.follow else session.timeout_s
    async for batch in session.stream(method, request, timeout_s=timeout_s, resume=_after):
        if batch.dropped:
            click.echo(f"{session.host.name}: {batch.dropped} lines left out", err=True)
        for line in batch.lines:
            yield line


def _after(request: Any, batch: Any) -> None:
    after_seq(request, batch)
    if batch.lines:
        request.after_cursor = batch.lines[-1].cursor


def _say(output: str, host: str, line: Any, prefix: bool) -> None:
    import json

    if output != "table":
        click.echo(json.dumps({"host": host, **plain(line)}))
        return
    when = line.time.ToDatetime().strftime("%Y-%m-%dT%H:%M:%SZ")
    head = f"{host}: " if prefix else ""
    click.echo(f"{head}{when} {printable(line.message)}")


COMMANDS = (ps, processes, start, stop, send_signal, logs)
