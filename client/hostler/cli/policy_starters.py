"""`hostler policy starters`: policies for common teams, to begin with."""

from __future__ import annotations

from pathlib import Path

import click

from hostler.cli.authority import folder_option, open_authority
from hostler.cli.context import State, pass_state
from hostler.cli.examples import examples
from hostler.cli.records import show_record, show_records


@click.command(
    epilog=examples(
        "hostler policy starters",
        "hostler policy starters two-persons",
        "hostler policy starters network-team --add; hostler policy sign",
    )
)
@click.argument("name", default="")
@click.option("--add", is_flag=True, help="Put it into the folder `policies` of the CA.")
@folder_option
@pass_state
def starters(state: State, name: str, add: bool, folder: Path | None) -> None:
    """List policies to begin with, print the one of NAME, or add it to the CA's own.

    One that was added is yours to edit; it is never overwritten.
    """
    from hostler.core.files import write_new
    from hostler.policy import POLICIES_FOLDER
    from hostler.policy import starters as known

    texts = known()
    if name and name not in texts:
        raise click.UsageError(f"no starter is called {name}; there are {', '.join(texts)}")
    if not name:
        if add:
            raise click.UsageError("say which is to be added")
        told = [{"name": one, "about": _about(text)} for one, text in texts.items()]
        show_records(told, {"NAME": "name", "ABOUT": "about"}, state.output)
        return
    if not add:
        click.echo(texts[name], nl=False)
        return
    target = open_authority(state, folder).folder / POLICIES_FOLDER / f"{name}.cedar"
    try:
        write_new(target, texts[name].encode(), mode=0o600)
    except FileExistsError as e:
        raise click.ClickException(f"{target} is there already; nothing was changed") from e
    show_record({"added": str(target), "next": "hostler policy sign"}, state.output)


def _about(text: str) -> str:
    """The comment that it begins with, on one line."""
    lines = text.splitlines()
    end = next(at for at, line in enumerate(lines) if not line.startswith("//"))
    return " ".join(line.removeprefix("//").strip() for line in lines[:end])
