"""`hostler trace`: what processes do, and what they wait for."""

from __future__ import annotations

import click

from hostler.cli.trace_captures import captures
from hostler.cli.trace_chisel import chisels
from hostler.cli.trace_io import io, net
from hostler.cli.trace_lists import fields, list_, stop
from hostler.cli.trace_live import attach, live, pid, run
from hostler.cli.trace_memory import mem
from hostler.cli.trace_read import read
from hostler.cli.trace_sockets import sockets
from hostler.cli.trace_stuck import stuck


@click.group()
def trace() -> None:
    """What processes of hosts do and wait for, and where memory, disks and links go."""


for _command in (
    attach,
    captures,
    chisels,
    fields,
    io,
    list_,
    live,
    mem,
    net,
    pid,
    read,
    run,
    sockets,
    stop,
    stuck,
):
    trace.add_command(_command)
