"""Options that several commands take."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from hostler.fleet import PORTS


def with_doors(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the option that chooses doors, as `doors`; none chosen means all."""
    return click.option(
        "--domain",
        "doors",
        multiple=True,
        type=click.Choice(list(PORTS)),
        help="Only this door. [default: all]",
    )(command)
