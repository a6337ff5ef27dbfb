"""What the commands of `hostler ssl` have in common: findings, warnings, places in words."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import click

from hostler.cli.output import printable
from hostler.results import HostResult

SEVERITIES = {"note": 1, "warning": 2, "critical": 3}
_MOST = 3


def words_of(findings: Iterable[Any]) -> str:
    """The codes of findings, the worst first, each once; "-" for none."""
    ordered = sorted(findings, key=lambda each: -each.severity)
    return ", ".join(dict.fromkeys(each.code for each in ordered)) or "-"


def some(words: Iterable[str]) -> str:
    """A few words of a list, and how many more there are; "-" for none."""
    every = list(dict.fromkeys(words))
    more = [f"and {len(every) - _MOST} more"] if len(every) > _MOST else []
    return ", ".join([*every[:_MOST], *more]) or "-"


def used_by(uses: Iterable[Any]) -> str:
    """The servers that use something, with the names that they serve it for."""
    return some(f"{each.server} {each.names[0] if each.names else ''}".strip() for each in uses)


def key_words(key: Any) -> str:
    """A public key, such as "rsa 2048" or "secp256r1"."""
    kind = {1: "rsa", 2: "ec", 3: "ed25519", 4: "ed448", 5: "dsa"}.get(key.type, "unknown")
    return key.curve or (f"{kind} {key.size_bits}" if kind in ("rsa", "dsa") else kind)


def tell_apart(results: Sequence[HostResult[Any]], *, findings: bool = False) -> None:
    """Tell what is not whole, and which files could not be read, on standard error."""
    for result in results:
        if not result.ok or result.result is None:
            continue
        for warning in result.result.warnings:
            told = f"{warning.message} ({warning.subject})" if warning.subject else warning.message
            click.echo(printable(f"{result.host}: warning: {told}"), err=True)
        for file in getattr(result.result, "unreadable", ()):
            line = f"{result.host}: {file.path}: {file.reason}: {file.message}"
            click.echo(printable(line), err=True)
        if findings:
            _tell_findings(result)


def _tell_findings(result: HostResult[Any]) -> None:
    answer: Any = result.result
    for field in ("certificates", "keys", "endpoints"):
        for each in getattr(answer, field, ()):
            for finding in each.findings:
                subject = f"{finding.subject}: " if finding.subject else ""
                line = f"{result.host}: {finding.code}: {subject}{finding.message}"
                click.echo(printable(line), err=True)
