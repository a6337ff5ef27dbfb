"""`hostler trace io` and `trace net`: who reads and writes, how busy links and connections are."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import click

from hostler.api.tracing.v1 import io_pb2, network_pb2
from hostler.channel import Rpc, rpc
from hostler.cli.context import State, pass_state
from hostler.cli.examples import examples
from hostler.cli.kinds import Seconds
from hostler.cli.netns_counters import scaled
from hostler.cli.output import print_table
from hostler.results import plain
from hostler.resume import after_seq
from hostler.session import Session

_IO = ("HOST", "PID", "NAME", "UNIT", "READ B/S", "WRITE B/S", "BLOCKED", "RUNS/S", "WHAT IT DOES")
_DEVICES = ("HOST", "DEVICE", "READ B/S", "WRITE B/S", "BUSY", "IN FLIGHT")
_NET = ("HOST", "LINK", "RX BIT/S", "TX BIT/S", "RX PKT/S", "TX PKT/S", "LOST/S")

_CONNECTIONS = (
    *("HOST", "LOCAL", "PEER", "RX BIT/S", "TX BIT/S", "RX BYTES", "TX BYTES"),
    *("AGAIN/S", "RTT", "PROCESSES"),
)
_PROCESSES = ("HOST", "PID", "NAME", "UNIT", "CONNECTIONS", "RX BIT/S", "TX BIT/S")
_MOST_NAMED = 3

_interval = click.option(
    "--interval", type=Seconds(), default="1s", show_default=True, help="Of readings."
)
_count = click.option(
    "--count", type=click.IntRange(0), default=0, help="End after so many; 0: go on."
)
_top = click.option(
    "-n", "top", type=click.IntRange(1, 10_000), default=20, show_default=True, help="Rows a host."
)


@click.command(
    epilog=examples(
        "hostler -H all trace io", "hostler -H h1 trace io --interval 5s --count 3 -n 5"
    )
)
@_interval
@_count
@_top
@pass_state
def io(state: State, interval: float, count: int, top: int) -> None:
    """Show who reads from disks and writes to them, again and again.

    WRITE counts what a process has made dirty; the disk gets it later, by threads of the kernel.
    BLOCKED is the share of time in which threads waited for disks, where the kernel counts it. Of
    threads of the kernel RUNS/S tells how often they worked: not all count what they write.
    """
    asked = io_pb2.WatchIoRequest(top=top)
    asked.interval.FromNanoseconds(round(interval * 1e9))
    _watch(state, rpc(io_pb2, "IoService", "WatchIo"), asked, count, _say_io)


@click.command(
    epilog=examples(
        "hostler -H all trace net",
        "hostler -H h1 trace net --by connection -n 5",
        "hostler -H all trace net --by process --interval 5s --count 3",
    )
)
@click.option(
    "--by", type=click.Choice(["link", "connection", "process"]), help="What is told.",
    default="link", show_default=True,
)  # fmt: skip
@_interval
@_count
@_top
@pass_state
def net(state: State, by: str, interval: float, count: int, top: int) -> None:
    """Show how busy links, connections or processes are, again and again.

    In bits for each second, by decimal units. Links carry what their devices count: whole frames
    without their check sequence. Connections are of TCP, and carry what programs sent and received:
    no headers, and nothing twice. AGAIN/S is segments that were sent again.
    """
    kind = network_pb2.WatchLinksRequest if by == "link" else network_pb2.WatchConnectionsRequest
    method = "WatchLinks" if by == "link" else "WatchConnections"
    say = {"link": _say_net, "connection": _say_connections, "process": _say_processes}[by]
    asked = kind(top=top)
    asked.interval.FromNanoseconds(round(interval * 1e9))
    _watch(state, rpc(network_pb2, "NetworkService", method), asked, count, say)


def _watch(
    state: State, method: Rpc, asked: Any, count: int, say: Callable[[str, Any], None]
) -> None:
    """Show readings that have rates: the first one of a stream has none."""

    async def one(session: Session) -> None:
        left = count
        async for reading in session.stream(method, asked, resume=_after):
            if reading.seq == 1:
                continue
            if state.output != "table":
                click.echo(json.dumps({"host": session.host.name, **plain(reading)}))
            else:
                if reading.dropped:
                    words = f"{session.host.name}: {reading.dropped} readings were left out"
                    click.echo(words, err=True)
                say(session.host.name, reading)
            left -= 1
            if left == 0:
                return

    state.end(state.run(state.client.each(state.hosts, one)))


def _after(request: Any, reading: Any) -> None:
    after_seq(request, reading)
    request.after_time.CopyFrom(reading.time)


def _say_io(host: str, reading: Any) -> None:
    rows: list[Sequence[Any]] = [
        (
            host,
            each.process.pid,
            each.process.comm,
            each.process.unit or "-",
            scaled(each.read_bytes_per_second),
            scaled(each.write_bytes_per_second),
            f"{each.blocked_percent:.0f} %" if each.HasField("blocked_percent") else "-",
            scaled(each.runs_per_second) if each.is_kernel_thread else "-",
            each.explanation,
        )
        for each in reading.processes
    ]
    print_table(_IO, rows)
    devices = [
        (
            host,
            each.name,
            scaled(each.read_bytes_per_second),
            scaled(each.write_bytes_per_second),
            f"{each.busy_percent:.0f} %",
            each.in_flight,
        )
        for each in reading.devices
    ]
    if devices:
        print_table(_DEVICES, devices)


def _say_net(host: str, reading: Any) -> None:
    rows = [
        (
            host,
            each.ifname,
            scaled(each.rx_bits_per_second),
            scaled(each.tx_bits_per_second),
            scaled(each.rx_packets_per_second),
            scaled(each.tx_packets_per_second),
            scaled(each.lost_packets_per_second),
        )
        for each in reading.links
    ]
    print_table(_NET, rows)


def _say_connections(host: str, reading: Any) -> None:
    rows: list[Sequence[Any]] = []
    for each in reading.connections:
        names = [f"{p.comm} ({p.pid})" for p in each.processes]
        more = [f"and {len(names) - _MOST_NAMED} more"] if len(names) > _MOST_NAMED else []
        rows.append(
            (
                host,
                each.local,
                each.peer,
                scaled(each.rx_bits_per_second),
                scaled(each.tx_bits_per_second),
                scaled(each.rx_bytes),
                scaled(each.tx_bytes),
                scaled(each.retransmits_per_second),
                f"{each.round_trip_microseconds / 1000:.1f} ms",
                ", ".join([*names[:_MOST_NAMED], *more]) or "-",
            )
        )
    print_table(_CONNECTIONS, rows)
    _say_unseen(host, reading)


def _say_processes(host: str, reading: Any) -> None:
    rows = [
        (
            host,
            each.process.pid,
            each.process.comm,
            each.process.unit or "-",
            each.connections,
            scaled(each.rx_bits_per_second),
            scaled(each.tx_bits_per_second),
        )
        for each in reading.processes
    ]
    print_table(_PROCESSES, rows)
    _say_unseen(host, reading)


def _say_unseen(host: str, reading: Any) -> None:
    if reading.hidden:
        words = f"{host}: {reading.hidden} processes do not show what they have open"
        click.secho(words, fg="yellow", err=True)
    if reading.left_out:
        words = f"{host}: {reading.left_out} connections are left out"
        click.secho(words, fg="yellow", err=True)
