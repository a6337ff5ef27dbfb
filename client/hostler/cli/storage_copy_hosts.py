"""Copies on hosts, and looks at them: what `hostler storage copy` and `verify` ask hosts for."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NoReturn

import click

from hostler.cli.context import State
from hostler.cli.storage_graph import size

Place = tuple[str, str]


def copy_on_hosts(
    state: State, source: Place | None, target: Place | None, manifest: bool
) -> NoReturn:
    """Copy from one host's path to another's; then leave."""
    from hostler.api.storage.v1 import copy_pb2 as pb

    if source is None or target is None:
        raise click.UsageError("files are copied on this machine, or from host to host")
    if source[0] != target[0]:
        raise click.UsageError("both must be of the same host")
    request = pb.CopyFilesRequest(source=source[1], target=target[1], manifest=manifest)
    _as_job(state, source[0], "CopyFiles", request)


def verify_on_host(state: State, manifest: Place, root: str) -> NoReturn:
    """Compare a copy on a host with its manifest; then leave."""
    from hostler.api.storage.v1 import copy_pb2 as pb

    request = pb.VerifyFilesRequest(manifest=manifest[1], root=root)
    _as_job(state, manifest[0], "VerifyFiles", request)


def _as_job(state: State, host: str, method: str, request: Any) -> NoReturn:
    """Have a host do it as a job: it takes as long as the disks do."""
    from hostler.api.storage.v1 import copy_pb2 as pb
    from hostler.channel import rpc
    from hostler.plans import RpcChange

    if state.selectors:
        raise click.UsageError("the host is named with the path, not by -H")
    chosen = replace(state, selectors=(host,), background=True)
    chosen.change(RpcChange(rpc(pb, "CopyService", method), request), _after)


def _after(answer: Any) -> str:
    if not answer.HasField("outcome"):
        return ""
    ended = answer.outcome
    return f"{ended.entries} entries, {size(ended.size_bytes)}, {ended.duration.seconds} s"
