"""`hostler ssl recommend`: TLS settings in a server's own words, and how a file differs."""

from __future__ import annotations

from pathlib import Path

import click

from hostler.cli.context import State, pass_state
from hostler.cli.examples import examples
from hostler.core.files import read_bounded
from hostler.core.ssl.recommend import GRADES, PROFILES, SERVERS, Snippet, diff
from hostler.core.ssl.recommend import recommend as of_profile

_MOST_BYTES = 4 << 20


@click.command(
    epilog=examples(
        "hostler ssl recommend nginx",
        "hostler ssl recommend postfix --profile old",
        "hostler ssl recommend nginx --diff /etc/nginx/nginx.conf",
    )
)
@click.argument("server", type=click.Choice(SERVERS))
@click.option(
    "--profile",
    type=click.Choice(PROFILES),
    default="intermediate",
    show_default=True,
    help="Mozilla's profiles: who shall be able to connect.",
)
@click.option(
    "--diff",
    "path",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Show how this configuration would have to change.",
)
@pass_state
def recommend(state: State, server: str, profile: str, path: Path | None) -> None:
    """Write the TLS settings that a server should have.

    'ssl scan' grades what is served with them A or better, with --profile old B.
    Files that a configuration includes are not looked into by --diff.
    """
    snippet = of_profile(server, profile)
    text = snippet.text if path is None else _difference(path, snippet)
    if state.output in ("json", "ndjson"):
        import json

        told = {"server": server, "profile": profile, "grade": GRADES[profile], "text": text}
        click.echo(json.dumps(told))
    else:
        click.echo(text, nl=False)


def _difference(path: Path, snippet: Snippet) -> str:
    try:
        text = read_bounded(path, _MOST_BYTES).decode()
    except (OSError, ValueError) as error:
        raise click.UsageError(f"{path}: {error}") from error
    return diff(text, snippet, str(path))
