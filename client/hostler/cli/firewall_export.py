"""`hostler firewall export`: the rulesets of hosts as files, or the table in nft's words."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

import click

from hostler.api.firewall.v1 import ruleset_pb2
from hostler.channel import rpc
from hostler.cli.context import State, pass_state
from hostler.cli.examples import examples
from hostler.cli.output import printable
from hostler.config import ConfigError
from hostler.desired_text import to_toml
from hostler.results import HostResult

_GET_TABLE = rpc(ruleset_pb2, "RulesetService", "GetTable")
_LIST = rpc(ruleset_pb2, "RulesetService", "ListRulesets")
_OUTPUT_ONLY = ("etag", "update_time")
# A host's answer becomes a file's name.
_NAME = re.compile(r"[a-z][a-z0-9-]{0,31}")


@click.command(
    epilog=examples(
        "hostler -H h1 firewall export web > web.toml",
        "hostler -H all firewall export --into saved",
        "hostler -H h1 firewall export --nft > h1.nft",
    )
)
@click.argument("names", nargs=-1, metavar="[RULESET]...")
@click.option("--nft", is_flag=True, help="The table as the kernel has it, in nft's words.")
@click.option(
    "--into",
    type=click.Path(path_type=Path, file_okay=False),
    help="Write DIR/HOST/RULESET.toml, or DIR/HOST.nft, instead of standard output.",
)
@pass_state
def export(state: State, names: tuple[str, ...], nft: bool, into: Path | None) -> None:
    """Write the rulesets of hosts as TOML that makes the same rulesets again.

    Apply files are one ruleset each: give --into a folder where there are several.
    """
    if nft and names:
        raise click.UsageError("--nft is of the whole table: give no ruleset with it")
    if nft:
        results = state.read(_GET_TABLE, ruleset_pb2.GetTableRequest())
    else:
        request = ruleset_pb2.ListRulesetsRequest()
        results = state.read(_LIST, request, pages=True)
    if state.output != "table":
        state.finish(results)
    missing = False
    for result in results:
        if result.result is None:
            continue
        texts = {"": result.result.nft_text} if nft else _texts(result.result, names)
        if lacking := [name for name in names if name not in texts]:
            click.echo(f"{result.host}: there is no ruleset {', '.join(lacking)}", err=True)
            missing = True
        if into is None:
            _print(result.host, texts)
        else:
            _write(into, result.host, texts)
    _leave(state, results, missing=missing)


def _leave(state: State, results: Sequence[HostResult[Any]], *, missing: bool) -> NoReturn:
    if missing and all(result.ok for result in results):
        click.get_current_context().exit(1)
    state.end(results)


def _texts(answer: Any, names: Sequence[str]) -> dict[str, str]:
    return {
        each.name: to_toml(each, without=_OUTPUT_ONLY)
        for each in answer.rulesets
        if not names or each.name in names
    }


def _print(host: str, texts: dict[str, str]) -> None:
    for name, text in texts.items():
        click.echo(f"# {' '.join(filter(None, (host, name)))}")
        for line in _lines(text):
            click.echo(line)


def _lines(text: str) -> Iterator[str]:
    for line in text.splitlines():
        yield printable(line)


def _write(into: Path, host: str, texts: dict[str, str]) -> None:
    for name, text in texts.items():
        if name and not _NAME.fullmatch(name):
            raise ConfigError(f"{host}: {name!r} is no name of a ruleset, so of no file")
        path = into / host / f"{name}.toml" if name else into / f"{host}.nft"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        except OSError as error:
            raise ConfigError(f"cannot write {path}: {error.strerror}") from error
        click.echo(str(path))
