"""What `hostler ssl chain` prints: the verdict, the path, what is wrong, and what clients say."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

import click

from hostler.cli.output import print_table, printable
from hostler.core.ssl.certificate import Certificate
from hostler.core.ssl.chain import ChainReport
from hostler.core.ssl.clients import Outcome
from hostler.core.ssl.paths import Path
from hostler.core.ssl.verdict import Reason

_MOST_OTHERS = 5


def show_report(report: ChainReport, faults: Sequence[str], output: str) -> None:
    """Print a report to standard output; what could not be read follows on standard error."""
    if output == "table":
        _show_table(report)
    elif output == "yaml":
        import yaml

        text = yaml.safe_dump(as_dict(report, faults), sort_keys=False, allow_unicode=True)
        click.echo(text, nl=False)
    else:
        indent = 2 if output == "json" else None
        click.echo(json.dumps(as_dict(report, faults), indent=indent))
    for fault in faults:
        click.secho(printable(fault), fg="yellow", err=True)


def _show_table(report: ChainReport) -> None:
    judged = report.judged
    good = judged.verdict.ok
    click.secho("good" if good else "not good", fg="green" if good else "red", bold=True)
    _lines("", judged.verdict.reasons)
    _lines("warning: ", judged.verdict.warnings)
    if judged.best is not None:
        click.echo()
        print_table(("#", "BEST PATH", "KEY", "ENDS", "FROM"), _path_rows(report, judged.best))
    _others("other good path", judged.good[1:])
    if not good:
        _others("rejected path", judged.rejected)
    if report.faults:
        click.echo("\nAs it is served:")
        _lines("", report.faults)
    if judged.fetches:
        click.echo("\nFetched:")
        for fetched in judged.fetches:
            said = fetched.fault or number_of(fetched.certificates)
            click.echo(f"  {printable(fetched.uri)}: {printable(said)}")
    click.echo()
    print_table(("CLIENTS", "AS SERVED", "WHY"), map(_client_row, report.clients))


def number_of(certificates: int) -> str:
    """A number of certificates in words."""
    return "1 certificate" if certificates == 1 else f"{certificates} certificates"


def _lines(prefix: str, items: Iterable[object]) -> None:
    for item in items:
        click.echo(f"  {prefix}{printable(item)}")


def _path_rows(report: ChainReport, path: Path) -> Iterable[Sequence[Any]]:
    for index, certificate in enumerate(path.certificates):
        last = index == len(path.certificates) - 1
        if certificate in report.judged.added:
            where = f"fetched: {certificate.place}"
        elif last:
            where = f"store: {certificate.place}"
        else:
            where = certificate.place
        key = certificate.key_facts
        kind = key.curve or f"{key.kind} {key.size_bits}"
        yield index, certificate.label, kind, f"{certificate.not_after:%Y-%m-%d}", where


def _others(title: str, paths: Sequence[Path]) -> None:
    for path in paths[:_MOST_OTHERS]:
        click.echo(f"\n{title}: {printable(_way(path.certificates))}")
        _lines("", path.reasons)
    if len(paths) > _MOST_OTHERS:
        click.echo(f"\n… and {len(paths) - _MOST_OTHERS} more")


def _way(certificates: Iterable[Certificate]) -> str:
    return " < ".join(certificate.label for certificate in certificates)


def _client_row(outcome: Outcome) -> Sequence[Any]:
    why = "; ".join(f"{r.code}: {r.subject}: {r.message}" for r in outcome.reasons[:2])
    return outcome.client, "good" if outcome.ok else "fails", why or _way(outcome.path)


def as_dict(report: ChainReport, faults: Sequence[str]) -> dict[str, Any]:
    """The report as plain values, for programs."""
    judged = report.judged
    return {
        "ok": report.ok,
        "verdict": {
            "ok": judged.verdict.ok,
            "reasons": [_reason(reason) for reason in judged.verdict.reasons],
            "warnings": [_reason(reason) for reason in judged.verdict.warnings],
        },
        "good_paths": [_path(path) for path in judged.good],
        "rejected_paths": [_path(path) for path in judged.rejected],
        "served": [_certificate(certificate) for certificate in report.served],
        "served_faults": [
            {
                "code": str(fault.code),
                "subject": fault.certificate.label,
                "place": fault.certificate.place,
                "message": fault.message,
                "harmless": fault.harmless,
            }
            for fault in report.faults
        ],
        "clients": [
            {
                "client": str(outcome.client),
                "ok": outcome.ok,
                "path": [c.fingerprint_sha256 for c in outcome.path],
                "reasons": [_reason(reason) for reason in outcome.reasons],
            }
            for outcome in report.clients
        ],
        "fetches": [
            {"uri": f.uri, "certificates": f.certificates, "fault": f.fault} for f in judged.fetches
        ],
        "to_serve": [certificate.fingerprint_sha256 for certificate in report.to_serve],
        "unreadable": list(faults),
    }


def _path(path: Path) -> dict[str, Any]:
    return {
        "anchored": path.anchored,
        "certificates": [_certificate(certificate) for certificate in path.certificates],
        "reasons": [_reason(reason) for reason in path.reasons],
        "warnings": [_reason(reason) for reason in path.warnings],
    }


def _certificate(certificate: Certificate) -> dict[str, Any]:
    facts = certificate.facts
    return {
        "subject": facts.subject,
        "issuer": facts.issuer,
        "serial": facts.serial,
        "not_before": facts.not_before.isoformat(),
        "not_after": facts.not_after.isoformat(),
        "names": [{"kind": name.kind, "value": name.value} for name in facts.names],
        "key": {"kind": facts.key.kind, "size_bits": facts.key.size_bits, "curve": facts.key.curve},
        "spki_sha256": facts.key.spki_sha256,
        "fingerprint_sha256": facts.fingerprint_sha256,
        "place": certificate.place,
    }


def _reason(reason: Reason) -> dict[str, str]:
    return {
        "code": str(reason.code),
        "subject": reason.subject,
        "message": reason.message,
        "place": reason.place,
    }
