"""`hostler web`: the fleet on a page of this machine, drawn again as it changes."""

from __future__ import annotations

import click

from hostler.cli.context import State, pass_state
from hostler.cli.examples import examples
from hostler.cli.kinds import Seconds


@click.command(epilog=examples("hostler web", "hostler -H role=web web --port 8700 --interval 10s"))
@click.option("--listen", default="127.0.0.1", show_default=True, help="Of this machine's own.")
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="[default: any free one]")
@click.option(
    "--interval", type=Seconds(), default="5s", show_default=True, help="Between two readings."
)
@pass_state
def web(state: State, listen: str, port: int, interval: float) -> None:
    """Serve a read-only page of the selected hosts, or all, until Ctrl-C.

    Doors, pending changes, jobs, drift, disks, certificates that end within 30 days, and the rules
    that drop most. Certificates and disks are read every five minutes. The page is for the user of
    this machine: it listens on loopback, below a path that only its URL tells.
    """
    from hostler.board.board import Board
    from hostler.board.web import Shown, served

    shown = Shown()
    hosts = state.hosts_or_all
    client = state.client

    async def serve() -> None:
        async with Board(client, hosts, interval, lambda: shown.show(board.statuses)) as board:
            shown.show(board.statuses)
            with served(listen, port, shown) as url:
                click.echo(url)
                await board.follow()

    try:
        state.run(serve())
    except (OSError, ValueError) as error:
        raise click.UsageError(f"--listen {listen}, --port {port}: {error}") from error
