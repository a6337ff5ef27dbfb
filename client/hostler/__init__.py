"""Hostler's client: the SDK, and the command line on top of it.

`hostler.connect()` is the synchronous face, `hostler.aio.connect()` the one for asyncio. Names are
loaded when they are first used, since gRPC alone takes longer to import than `--help` may take.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_HOMES = {
    "Batches": "hostler.limits",
    "CallFailed": "hostler.results",
    "Client": "hostler.sync",
    "ConfigError": "hostler.config",
    "Host": "hostler.fleet",
    "HostError": "hostler.results",
    "HostResult": "hostler.results",
    "HostlerError": "hostler.config",
    "Isolation": "hostler.isolate",
    "Outcome": "hostler.outcome",
    "Retry": "hostler.session",
    "Rollout": "hostler.rollout",
    "RpcChange": "hostler.plans",
    "SelectionError": "hostler.fleet",
    "Session": "hostler.sync",
    "Tolerance": "hostler.limits",
    "connect": "hostler.sync",
    "rpc": "hostler.channel",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name == "aio":
        return import_module("hostler.aio")
    if name not in _HOMES:
        raise AttributeError(f"module 'hostler' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
