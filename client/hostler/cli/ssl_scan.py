"""`hostler ssl scan` and `ssl diff`: what endpoints accept and serve, and what has changed."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from hostler.cli.context import State, pass_state
from hostler.cli.examples import examples
from hostler.cli.kinds import Age
from hostler.cli.ssl_targets import Target, endpoints, read_targets

if TYPE_CHECKING:
    from hostler.core.ssl.scan.connect import Endpoint
    from hostler.core.ssl.scan.scan import Wanted
    from hostler.ssl_history import Key

_STARTTLS = ("ftp", "imap", "ldap", "mysql", "pop3", "postgres", "smtp", "xmpp")
_TITLES = ("ENDPOINT", "NAME", "GRADE", "TRUST ASIDE", "VERSIONS", "EXPIRES", "WHY")

_store = click.option(
    "--store",
    "url",
    default="",
    envvar="HOSTLER_SSL_URL",
    metavar="URL",
    help="sqlite:///FILE or postgresql://...  [default: ~/.local/state/hostler/ssl.sqlite]",
)


@click.command(
    epilog=examples(
        "hostler ssl scan www.example.com",
        "hostler ssl scan mail.example.com:25 --starttls smtp",
        "hostler -o json ssl scan 192.0.2.7:8443 --name intranet.example --ca company-ca.pem",
        "hostler ssl scan --targets sites.txt --checks certificates,http",
        "hostler -H all ssl scan 127.0.0.1:443",
    )
)
@click.argument("targets", nargs=-1, type=Target())
@click.option(
    "--targets",
    "file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="More of them, one a line.",
)
@click.option(
    "--starttls", type=click.Choice(_STARTTLS), default=None, help="Go over to TLS in it."
)
@click.option("--name", help="The server name that is sent.  [default: HOST, if it is a name]")
@click.option("--also", "names", multiple=True, metavar="NAME", help="Another virtual host's name.")
@click.option("--checks", metavar="CHECK,...", help="Versions, suites and these only.")
@click.option(
    "--ca",
    "roots",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Roots that are trusted beside the machine's, as those of a private CA.",
)
@click.option("--details/--no-details", default=None, help="All that was found, for people.")
@_store
@pass_state
def scan(state: State, /, **options: Any) -> None:
    """Say what TLS endpoints accept, serve and get wrong, with a grade and its reasons.

    Every scan is stored, so that 'ssl diff' can tell what has changed; --no-record leaves that out.
    With -H the selected hosts scan, and nothing is stored: the inside view. They scan themselves,
    and what their configuration names (scan_networks).
    """
    written = [*options["targets"], *(read_targets(options["file"]) if options["file"] else ())]
    found = endpoints(written, options["name"], options["starttls"] or "")
    if not found:
        raise click.UsageError("give at least one HOST[:PORT], or --targets FILE")
    wanted = _wanted(options["checks"], options["names"], options["roots"])
    if state.selectors:
        _from_hosts(state, found, options)
    results = asyncio.run(_scan(found, wanted, state))
    if not state.no_record:
        from hostler.ssl_history import open_history

        with open_history(options["url"]) as history:
            history.add(results)
    if state.output == "table":
        detailed = options["details"]
        _show(results, len(results) == 1 if detailed is None else detailed)
    elif state.output != "ndjson":
        _dump(state.output, results)
    if any("failure" in result for result in results):
        sys.exit(1)


def _from_hosts(state: State, found: Sequence[Endpoint], options: Mapping[str, Any]) -> NoReturn:
    from hostler.cli.ssl_scan_hosts import scan_from_hosts

    if options["names"] or options["roots"] or options["details"]:
        raise click.UsageError("--also, --ca and --details are for scans from here, without -H")
    checks = tuple(filter(None, (options["checks"] or "").split(",")))
    scan_from_hosts(state, found, options["name"] or "", options["starttls"] or "", checks)


def _wanted(checks: str | None, names: Sequence[str], roots: Sequence[Path]) -> Wanted:
    from hostler.core.ssl.scan.scan import CHECKS, Wanted
    from hostler.core.ssl.stores import read_store

    chosen = CHECKS if checks is None else tuple(filter(None, checks.split(",")))
    if unknown := sorted(set(chosen) - set(CHECKS)):
        raise click.UsageError(f"--checks: no {', '.join(unknown)}; there are {', '.join(CHECKS)}")
    for path in roots:
        try:
            read_store(path)
        except (ValueError, OSError) as error:
            raise click.UsageError(f"--ca {path}: {error}") from error
    return Wanted(chosen, names, roots)


async def _scan(found: Sequence[Endpoint], wanted: Wanted, state: State) -> list[dict[str, Any]]:
    """Scan, and answer in the order that was asked for; ndjson is written as it comes."""
    from hostler.core.ssl.scan.report import as_dict
    from hostler.core.ssl.scan.scan import scan_all

    results: dict[Any, dict[str, Any]] = {}
    async for report in scan_all(found, wanted, at_once=min(state.parallel, 50)):
        results[report.endpoint] = result = as_dict(report)
        if state.output == "ndjson":
            click.echo(json.dumps(result))
    return [results[endpoint] for endpoint in found]


def _dump(output: str, documents: Sequence[Any]) -> None:
    if output == "json":
        click.echo(json.dumps(documents, indent=2))
    elif output == "ndjson":
        for document in documents:
            click.echo(json.dumps(document))
    else:
        import yaml

        click.echo(yaml.safe_dump(list(documents), sort_keys=False, allow_unicode=True), nl=False)


def _show(results: Sequence[Mapping[str, Any]], detailed: bool) -> None:
    from hostler.cli.output import print_table, printable

    sound = [result for result in results if "failure" not in result]
    if detailed:
        from hostler.cli.ssl_details import details

        for result in sound:
            click.echo("\n".join(printable(line) for line in details(result)))
    elif sound:
        print_table(_TITLES, [_row(result) for result in sound])
    for result in results:
        if failure := result.get("failure"):
            said = f"{result['endpoint']}: {failure['code']}: {failure['message']}"
            click.secho(printable(said), fg="red", err=True)


def _row(result: Mapping[str, Any]) -> tuple[str, ...]:
    grade = result["grade"]
    accepted = [name for name, found in result["versions"].items() if found["supported"]]
    served = result["certificates"] or ()
    ends = [each["trust"]["leaf"]["not_after"][:10] for each in served if _leaf(each)]
    return (
        result["endpoint"],
        result["name"] or "-",
        grade["letter"],
        grade["ignoring_trust"],
        " ".join(accepted),
        min(ends, default="-"),
        " ".join(each["code"] for each in grade["reasons"]),
    )


def _leaf(served: Mapping[str, Any]) -> Any:
    return (served.get("trust") or {}).get("leaf")


@click.command(
    epilog=examples(
        "hostler ssl diff",
        "hostler ssl diff www.example.com --since 365d",
        "hostler -o json ssl diff mail.example.com:25",
    )
)
@click.argument("targets", nargs=-1, type=Target())
@click.option("--since", "since_s", type=Age(), help="Compare with the last scan before that.")
@_store
@pass_state
def diff(state: State, targets: Sequence[tuple[str, int]], since_s: float | None, url: str) -> None:
    """Say what has changed since the scan before the last; without endpoints, at each of them."""
    from hostler.ssl_history import HistoryError, open_history

    before = None if since_s is None else time.time_ns() - int(since_s * 1e9)
    with open_history(url) as history:
        keys = [key for key in history.endpoints() if not targets or _is_meant(key, targets)]
        if not keys and targets:
            raise HistoryError("no scan of these endpoints is stored")
        found = [each for each in (_compared(history, key, before) for key in keys) if each]
    if state.output != "table":
        _dump(state.output, found)
        return
    _show_changes(found)


def _is_meant(key: Key, targets: Sequence[tuple[str, int]]) -> bool:
    host, _, port = key.endpoint.rpartition(":")
    host = host.strip("[]")
    return any(host == wanted and number in (0, int(port)) for wanted, number in targets)


def _compared(history: Any, key: Key, before: int | None) -> dict[str, Any] | None:
    """The changes at one endpoint; None if there is nothing to compare with."""
    from hostler.ssl_history_diff import compare

    newest = history.newest(key, limit=1 if before is not None else 2)
    older = newest[1:] if before is None else history.newest(key, before=before)
    if not newest or not older:
        return None
    changes = compare(older[0].result, newest[0].result)
    return {
        "endpoint": key.endpoint,
        "name": key.name,
        "starttls": key.starttls,
        "before": older[0].time / 1e9,
        "after": newest[0].time / 1e9,
        "changes": [
            {"what": each.what, "before": each.before, "after": each.after, "text": str(each)}
            for each in changes
        ],
    }


def _show_changes(found: Iterable[Mapping[str, Any]]) -> None:
    from hostler.cli.output import printable

    some = False
    for each in found:
        some = True
        when = [
            time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(each[w])) for w in ("before", "after")
        ]
        name = f" ({each['name']})" if each["name"] else ""
        click.secho(printable(f"{each['endpoint']}{name}: {when[0]} to {when[1]}"), bold=True)
        for change in each["changes"]:
            click.echo(f"  {printable(change['text'])}")
        if not each["changes"]:
            click.echo("  nothing has changed")
    if not some:
        click.echo("There are no two scans of an endpoint to compare.", err=True)
