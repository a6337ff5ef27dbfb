"""Steps and plans: what a change does, as values.

A domain's planner answers a `Plan` of frozen dataclasses; the runtime shows it, hashes it, carries
it out and takes it back. Pure: no system, no gRPC.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from enum import Enum
from functools import lru_cache
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
)
from pathlib import PurePath
from typing import Any, Protocol

_ADDRESSES = (
    IPv4Address,
    IPv6Address,
    IPv4Interface,
    IPv6Interface,
    IPv4Network,
    IPv6Network,
)
_PLAIN = {str, int, float, bool, type(None)}


class Step(Protocol):
    """One thing a change does. A frozen dataclass whose fields `canonical` understands."""

    def describe(self) -> str:
        """Say what it does, in words that an operator would use."""
        ...

    def inverse(self) -> Step | None:
        """Answer the step that takes it back, or None if there is nothing to take back."""
        ...


@dataclass(frozen=True, slots=True)
class Notice:
    """A warning as a value: a stable code, words, and what it is about."""

    code: str
    message: str
    subject: str = ""
    context: tuple[str, ...] = ()

    def with_context(self, *words: str) -> Notice:
        """Answer it with what a layer above knows of where it came up: the innermost comes first.

        Each layer that passes a notice on says its part in this way; none changes the message.
        """
        return replace(self, context=(*self.context, *words))


@dataclass(frozen=True, slots=True)
class Plan:
    """What a change will do, in order.

    `etag` is the resource's before, `etag_after` when all steps are done. `result` is the domain's
    model of what will be there then; the service turns it into its answer. `bindings` is what a
    destroy token holds fast beside the steps, such as a disk's serial number and `diskseq`.
    """

    steps: tuple[Step, ...] = ()
    etag: str = ""
    etag_after: str = ""
    notices: tuple[Notice, ...] = ()
    result: Any = None
    bindings: Mapping[str, Any] = field(default_factory=dict)
    _hash: str = field(default="", init=False, repr=False, compare=False)

    @property
    def hash(self) -> str:
        """SHA-256 over the steps, in hex. Equal steps have equal hashes, on whichever host.

        A step that depends on the clock says by `hashed` what of it is hashed: else a plan that was
        shown would not be the one that is made a second later.
        """
        if not self._hash:
            # Steps never change, and a hundred namespaces have so many that it takes 10 ms.
            value = fingerprint([[type(s).__name__, getattr(s, "hashed", s)] for s in self.steps])
            object.__setattr__(self, "_hash", value)
        return self._hash


def canonical(value: Any) -> Any:
    """Turn frozen values into what JSON can say, the same way every time."""
    kind: Any = type(value)
    if kind in _PLAIN:
        return value
    names = _field_names(kind)
    if names is not None:
        return {name: canonical(getattr(value, name)) for name in names}
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, (*_ADDRESSES, PurePath)):
        return str(value)
    if isinstance(value, dict):
        return {str(k): canonical(v) for k, v in sorted(value.items())}
    if isinstance(value, (set, frozenset)):
        return sorted(canonical(v) for v in value)
    if isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
        return [canonical(v) for v in value]
    if isinstance(value, bytes):
        return value.hex()
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    raise TypeError(f"no canonical form for {kind.__name__}")


@lru_cache(maxsize=256)
def _field_names(kind: type) -> tuple[str, ...] | None:
    """Name the fields of a dataclass; None for another class."""
    return tuple(f.name for f in fields(kind)) if is_dataclass(kind) else None


def fingerprint(value: Any) -> str:
    """SHA-256 of the canonical form, in hex. The source of every etag and plan hash."""
    text = json.dumps(canonical(value), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
