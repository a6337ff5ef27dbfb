"""The options of commands that reach a host by ssh."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from hostler.enrolment.ssh import Ssh

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_PLACE = click.option("--ssh", "place", help="What ssh calls the host.  [default: its address]")
_OPTIONS = (
    click.option("--user", default="root", show_default=True, help="Whom to log in as by ssh."),
    click.option("--sudo", is_flag=True, help="Become root by `sudo -n`, where --user is another."),
    click.option("--ssh-port", type=click.IntRange(1, 65535), help="As -p of ssh."),
    click.option("--identity", type=_FILE, help="The ssh key to log in with: as -i of ssh."),
    click.option("-F", "--ssh-config", type=_FILE, help="As -F of ssh."),
)

OpenSsh = Callable[[str], "Ssh"]


def with_ssh(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command these options, and `open_ssh`, which makes of an address the way there.

    Hosts are known by your known_hosts alone; a key that is not in it is never taken.
    """
    return _PLACE(with_fleet_ssh(command))


def with_fleet_ssh(command: Callable[..., Any]) -> Callable[..., Any]:
    """As `with_ssh`, for a command that reaches many hosts, each at its address."""

    @wraps(command)
    def opened(
        *args: Any,
        place: str | None = None,
        user: str,
        sudo: bool,
        ssh_port: int | None,
        identity: Path | None,
        ssh_config: Path | None,
        **options: Any,
    ) -> Any:
        def open_ssh(address: str) -> Ssh:
            from hostler.enrolment.ssh import Ssh

            return Ssh(place or address, user, ssh_port, identity, ssh_config, sudo)

        return command(*args, open_ssh=open_ssh, **options)

    for option in reversed(_OPTIONS):
        opened = option(opened)
    return opened
