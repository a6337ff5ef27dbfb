"""`hostler lab`: real hosts on this machine to try things on."""

from __future__ import annotations

from pathlib import Path

import click

from hostler.lab.errors import LabError
from hostler.lab.lab import Lab, default_folder


class _Failure(click.ClickException):
    """A lab that cannot do it: status 1, as for a host that fails."""

    exit_code = 1


class _LabGroup(click.Group):
    """Turns the lab's own errors into one line."""

    def invoke(self, ctx: click.Context) -> object:
        """Run the chosen command."""
        try:
            return super().invoke(ctx)
        except LabError as e:
            raise _Failure(str(e)) from e


def _in_folder(command: click.decorators.FC) -> click.decorators.FC:
    return click.option(
        "--dir",
        "folder",
        type=click.Path(file_okay=False, path_type=Path),
        help="Folder of the lab. Default: build/lab of a checkout, else /var/lib/hostler-lab.",
    )(command)


def _lab(folder: Path | None) -> Lab:
    return Lab(folder or default_folder(), say=lambda line: click.echo(line, err=True))


_EXAMPLES = """\b
Examples:
  hostler lab up --hosts 3
  hostler lab exec h1 -- systemctl list-sockets 'hostler-*'
  hostler lab kill h2
  hostler lab down
"""


@click.group(cls=_LabGroup, epilog=_EXAMPLES)
def lab() -> None:
    """Real hosts on this machine: Debian with systemd, in containers joined by a bridge.

    They run the Debian packages of Hostler. Needs root, systemd-container, mmdebstrap, iproute2.
    """


@lab.command()
@click.option("--hosts", type=click.IntRange(1, 64), default=3, show_default=True)
@click.option(
    "--packages",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of the Debian packages. Default: those of the checkout, built when needed.",
)
@click.option("--bare", is_flag=True, help="Debian and sshd alone: hosts for `hostler enroll`.")
@_in_folder
def up(hosts: int, packages: Path | None, bare: bool, folder: Path | None) -> None:
    """Bring up hosts h1, h2, …, and print the HOSTLER_CONFIG to use.

    A second time it takes seconds and starts only what is off. New packages make new hosts.
    """
    one = _lab(folder)
    made = one.up(hosts, packages, bare=bare)
    if bare:
        click.echo("\n".join(f"{host.name} {host.ipv4}" for host in made))
    else:
        click.echo(f"HOSTLER_CONFIG={one.config}")


@lab.command()
@_in_folder
def status(folder: Path | None) -> None:
    """Show each host: addresses, state, PID on this machine. Status 1 if one is off."""
    rows = _lab(folder).status()
    for row in rows:
        pid = row.leader or "-"
        click.echo(f"{row.name:<5} {row.ipv4:<14} {row.ipv6:<18} {row.state:<10} {pid}")
    if any(row.leader is None for row in rows):
        raise SystemExit(1)


@lab.command("exec", context_settings={"ignore_unknown_options": True})
@_in_folder
@click.argument("host")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def execute(folder: Path | None, host: str, command: tuple[str, ...]) -> None:
    """Run a command in a host, as root: `hostler lab exec h1 -- ip -br addr`."""
    _lab(folder).host(host).exec(command)


@lab.command()
@_in_folder
@click.argument("host")
def kill(folder: Path | None, host: str) -> None:
    """Cut a host's power. Its files stay; `boot` starts it again."""
    _lab(folder).kill(host)


@lab.command()
@_in_folder
@click.argument("host")
def boot(folder: Path | None, host: str) -> None:
    """Boot a host that is off, with the files it had."""
    click.echo(f"{host} is up: {_lab(folder).boot(host)}")


@lab.command()
@_in_folder
def down(folder: Path | None) -> None:
    """Remove the lab: hosts, bridge, certificates, configuration. The cached root stays."""
    _lab(folder).down()
