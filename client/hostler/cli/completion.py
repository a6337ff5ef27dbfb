"""`hostler completion`: what a shell needs to complete commands and options."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from hostler.cli.examples import examples


@click.command(
    epilog=examples(
        "hostler completion bash > /etc/bash_completion.d/hostler",
        'eval "$(hostler completion zsh)"',
        "hostler completion fish > ~/.config/fish/completions/hostler.fish",
    )
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the completion script of a shell."""
    found = get_completion_class(shell)
    if found is None:
        raise click.UsageError(f"there is no completion for {shell}")
    root = click.get_current_context().find_root().command
    click.echo(found(root, {}, "hostler", "_HOSTLER_COMPLETE").source())
