"""What the commands that use the CA share: the CA's folder, and how failures are told."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click

from hostler.cli.context import State
from hostler.config import ConfigError, HostlerError
from hostler.core.names import InvalidField

if TYPE_CHECKING:
    from hostler.pki import Authority

F = TypeVar("F", bound=Callable[..., Any])
_NAMES_FILE = "HOSTLER_CA_PASSPHRASE_FILE"
_MAX_PASSPHRASE_BYTES = 4096


class SystemFailure(HostlerError):
    """The system did not let us: no space, no permission, a lock that is held."""

    exit_code = 1


@contextmanager
def _failures_told(ctx: click.Context) -> Iterator[None]:
    """Turn bad names and failures of the system into one line and an exit status."""
    try:
        yield
    except InvalidField as e:
        raise click.UsageError(str(e), ctx) from e
    except BrokenPipeError:
        raise
    except OSError as e:
        what = f"{e.filename}: {e.strerror}" if e.filename else str(e)
        raise SystemFailure(what) from e


class AuthorityGroup(click.Group):
    """A group whose commands have their failures told in one line."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the chosen command."""
        with _failures_told(ctx):
            return super().invoke(ctx)


def telling_failures(command: F) -> F:
    """Have the failures of a command that is in no group told in one line."""

    @wraps(command)
    def told(*args: Any, **options: Any) -> Any:
        with _failures_told(click.get_current_context()):
            return command(*args, **options)

    return cast(F, told)


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
    return Authority.open(folder, key_passphrase)


@cache
def key_passphrase() -> bytes:
    """The passphrase of the CA's key, from $HOSTLER_CA_PASSPHRASE_FILE or the terminal.

    Raises PkiError, OSError.
    """
    named = os.environ.get(_NAMES_FILE)
    return read_passphrase(Path(named) if named else None, "Passphrase of the CA's key")


def read_passphrase(file: Path | None, prompt: str, *, twice: bool = False) -> bytes:
    """A passphrase: the first line of a file, or typed. Raises PkiError, OSError."""
    from hostler.ca_backup import check_passphrase

    if file is None:
        text: str = click.prompt(prompt, hide_input=True, err=True, confirmation_prompt=twice)
        return check_passphrase(text.encode())
    with file.open("rb") as stream:
        return check_passphrase(stream.readline(_MAX_PASSPHRASE_BYTES))
