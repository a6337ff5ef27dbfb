"""What `hostler pki` and `hostler policy` share: the CA's folder, and how failures are told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from hostler.cli.context import State
from hostler.config import ConfigError, HostlerError
from hostler.core.names import InvalidField

if TYPE_CHECKING:
    from hostler.pki import Authority

F = TypeVar("F", bound=Callable[..., Any])


class SystemFailure(HostlerError):
    """The system did not let us: no space, no permission, a lock that is held."""

    exit_code = 1


class AuthorityGroup(click.Group):
    """Turns bad names and failures of the system into one line and an exit status."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the chosen command."""
        try:
            return super().invoke(ctx)
        except InvalidField as e:
            raise click.UsageError(str(e), ctx) from e
        except BrokenPipeError:
            raise
        except OSError as e:
            what = f"{e.filename}: {e.strerror}" if e.filename else str(e)
            raise SystemFailure(what) from e


def folder_option(command: F) -> F:
    """Add `--dir`, the folder of the CA."""
    return click.option(
        "--dir",
        "folder",
        type=click.Path(file_okay=False, path_type=Path),
        help="Folder of the CA. Default: `pki` of the current context.",
    )(command)


def open_authority(state: State, folder: Path | None) -> Authority:
    """Open the CA of `--dir`, else of the context. Raises ConfigError, PkiError, OSError."""
    from hostler.pki import Authority

    if folder is None:
        folder = state.context.pki
    if folder is None:
        raise ConfigError(
            f"context {state.context.name!r} names no CA folder: set its `pki`, or give --dir"
        )
    return Authority.open(folder)
