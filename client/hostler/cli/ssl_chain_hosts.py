"""`hostler -H HOSTS ssl chain`: chains built, and written, where they are served."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NoReturn

import click

from hostler.api.ssl.v1 import chain_pb2 as pb
from hostler.channel import rpc
from hostler.cli.context import State
from hostler.cli.output import Table
from hostler.plans import RpcChange

_SERVICE = "ChainService"
_TITLES = ("CERTIFICATE", "GOOD", "BEST PATH", "AS SERVED", "CLIENTS", "WHY")


def build_on_hosts(state: State, query: pb.ChainQuery) -> NoReturn:
    """Have hosts build a chain and show it; exit 1 if one of them finds it wanting."""
    from hostler.cli.output import show
    from hostler.results import exit_code

    results = state.read(rpc(pb, _SERVICE, "BuildChain"), pb.BuildChainRequest(query=query))
    show(results, state.output, Table(_TITLES, _rows))
    sound = all(answer.report.ok for answer in (each.result for each in results) if answer)
    click.get_current_context().exit(exit_code(results) or (0 if sound else 1))


def write_on_hosts(state: State, target: str, query: pb.ChainQuery) -> NoReturn:
    """Have hosts write the chain that is to be served to a file, or to a deployment's files."""
    request = pb.WriteChainRequest(target=target, query=query)
    state.change(RpcChange(rpc(pb, _SERVICE, "WriteChain"), request), _written)


def _rows(answer: Any) -> Iterator[Sequence[Any]]:
    report = answer.report
    best = report.good_paths[0].certificates if report.good_paths else ()
    leaf = best[0] if best else report.rejected_paths[0].certificates[0]
    fails = [each.client for each in report.clients if not each.ok]
    yield (
        leaf.subject,
        "yes" if report.good else "no",
        " < ".join(each.subject for each in best) or "-",
        "; ".join(f"{fault.code} {fault.subject}" for fault in report.served_faults) or "whole",
        f"fail: {', '.join(fails)}" if fails else "all",
        "; ".join(_why(answer)) or "-",
    )


def _why(answer: Any) -> Iterator[str]:
    report = answer.report
    for reason in (*report.reasons, *report.warnings):
        yield f"{reason.code}: {reason.subject}: {reason.message}"
    for fetched in report.fetches:
        yield f"{fetched.uri}: {fetched.fault or 'fetched'}"
    yield from _texts(answer.warnings)
    yield from report.unreadable


def _texts(warnings: Iterable[Any]) -> Iterator[str]:
    for warning in warnings:
        yield warning.message


def _written(answer: Any) -> str:
    """What came of it: the chain, and who serves it."""
    count = answer.report.to_serve_pem.count("-----BEGIN CERTIFICATE-----")
    served = [f"{each.listener} {'yes' if each.current else 'no'}" for each in answer.served]
    return ", ".join([f"{count} certificates, the leaf first", *served])
