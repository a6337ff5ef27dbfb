"""`hostler ssl inventory` and `hostler ssl keys`: what lies on hosts, and who uses it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from hostler.api.ssl.v1 import certificate_pb2
from hostler.channel import rpc
from hostler.cli.context import State, pass_state
from hostler.cli.examples import examples
from hostler.cli.kinds import Age
from hostler.cli.output import Table
from hostler.cli.ssl_findings import SEVERITIES, key_words, some, tell_apart, used_by, words_of
from hostler.core.ssl.place import place_words
from hostler.results import HostResult

_TITLES = ("ENDS", "DAYS", "SUBJECT", "NAMES", "KEY", "USED BY", "PATH", "FINDINGS")
_KEY_TITLES = ("SPKI", "KEY", "ENCRYPTED", "CERTIFICATES", "ALSO ON", "USED BY", "PATH", "FINDINGS")


def _rows(answer: Any) -> Iterable[Sequence[Any]]:
    now = datetime.now(UTC)
    for each in answer.certificates:
        ends = datetime.fromtimestamp(each.not_after.seconds, UTC)
        yield (
            f"{ends:%Y-%m-%d}",
            (ends - now).days,
            each.subject or f"serial {each.serial}",
            some(name.value for name in each.names),
            key_words(each.key),
            used_by(each.uses),
            some(place_words(place) for place in each.places),
            words_of(each.findings),
        )


@click.command(
    epilog=examples(
        "hostler -H all ssl inventory --expires-within 30d",
        "hostler -H web1 ssl inventory --names www.example.net --findings",
        "hostler -H all ssl inventory --html expiry.html",
        "hostler -H all -o json ssl inventory --severity critical",
    )
)
@click.option("--expires-within", type=Age(), help="Only those that end within, such as 30d.")
@click.option("--names", "name", default="", help="Only those that are good for this host name.")
@click.option("--spki", default="", help="Only those with this key, by its hash.")
@click.option("--severity", type=click.Choice(list(SEVERITIES)), help="With findings so bad.")
@click.option("--in-use", is_flag=True, help="Only those that a server's configuration names.")
@click.option("--trust-stores", is_flag=True, help="Those of trust stores, too.")
@click.option("--findings", is_flag=True, help="Tell each finding in words, on standard error.")
@click.option(
    "--html",
    "html_path",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write a calendar of when they end, too. It needs nothing but itself.",
)
@pass_state
def inventory(
    state: State,
    expires_within: float | None,
    name: str,
    spki: str,
    severity: str | None,
    in_use: bool,
    trust_stores: bool,
    findings: bool,
    html_path: Path | None,
) -> None:
    """List the certificates on hosts: in folders, in what servers' configurations name.

    Each certificate once for each host, by its end; files that could not be read are named on
    standard error.
    """
    asked = certificate_pb2.ListCertificatesRequest(
        name=name,
        spki_sha256=spki,
        severity=certificate_pb2.Severity.Name(SEVERITIES.get(severity or "", 0)),
        in_use=in_use,
        trust_stores=trust_stores,
    )
    if expires_within is not None:
        asked.expires_within.FromSeconds(int(expires_within))
    method = rpc(certificate_pb2, "CertificateService", "ListCertificates")
    results = state.read(method, asked, pages=True)
    if html_path is not None:
        from hostler.ssl_calendar import entries_of, page

        made = page(entries_of(results), _failed(results), datetime.now(UTC))
        html_path.write_text(made, encoding="utf-8")
    if state.output == "table":
        tell_apart(results, findings=findings)
    state.finish(results, Table(_TITLES, _rows))


def _failed(results: Sequence[HostResult[Any]]) -> list[tuple[str, str]]:
    return [(each.host, str(each.error)) for each in results if each.error is not None]


@click.command(
    epilog=examples("hostler -H all ssl keys", "hostler -H web1 -o json ssl keys --spki 0f3a…")
)
@click.option("--spki", default="", help="Only this key, by the hash of its public half.")
@click.option("--findings", is_flag=True, help="Tell each finding in words, on standard error.")
@pass_state
def keys(state: State, spki: str, findings: bool) -> None:
    """List the private keys on hosts, by the hash of their public halves: no key leaves its host.

    ALSO ON names the other hosts, of those that were asked, that have the same key.
    """
    asked = certificate_pb2.ListKeysRequest(spki_sha256=spki)
    method = rpc(certificate_pb2, "CertificateService", "ListKeys")
    results = state.read(method, asked, pages=True)
    if state.output == "table":
        tell_apart(results, findings=findings)
    holders = holders_of(results)

    def rows(result: HostResult[Any]) -> Iterable[Sequence[Any]]:
        for each in getattr(result.result, "keys", ()):
            hash_ = each.key.spki_sha256
            yield (
                hash_[:16] or "-",
                key_words(each.key) if hash_ else "-",
                "yes" if each.encrypted else "no",
                len(each.certificates),
                some(host for host in holders[hash_] if host != result.host) if hash_ else "-",
                used_by(each.uses),
                some(place_words(place) for place in each.places),
                words_of(each.findings),
            )

    state.finish(results, Table(_KEY_TITLES, rows, of_results=True))


def holders_of(results: Sequence[HostResult[Any]]) -> dict[str, list[str]]:
    """The hosts that have each key, by the hash of its public half."""
    found: dict[str, list[str]] = defaultdict(list)
    for result in results:
        for each in getattr(result.result, "keys", ()):
            found[each.key.spki_sha256].append(result.host)
    return found
