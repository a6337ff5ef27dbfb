"""Steps as JSON and back, strictly: what a journal holds is typed again before it is carried out.

A registry knows the steps of one domain; the types of their fields decide how each is written. A
field that is unknown, missing or of another type is refused, so that a journal of a version that
means something else is never half understood.
"""

from __future__ import annotations

import base64
import binascii
import types
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from enum import Enum
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
    ip_address,
    ip_interface,
    ip_network,
)
from operator import attrgetter
from typing import Any, Union, get_args, get_origin, get_type_hints

from hostlerd.runtime.steps import Step

_STEP, _KIND = "step", "is"
_DEEPEST = 16
_SCALARS = (str, int, bool, float)
_ADDRESSES: tuple[tuple[frozenset[Any], Callable[[str], Any]], ...] = (
    (frozenset({IPv4Interface, IPv6Interface}), ip_interface),
    (frozenset({IPv4Address, IPv6Address}), ip_address),
    (frozenset({IPv4Network, IPv6Network}), ip_network),
)

Encode = Callable[[Any], Any] | None
"""How a value becomes JSON; None: it is JSON already."""
Decode = Callable[[Any], Any]
_Coder = tuple[Encode, Decode]
_Objects = tuple[Callable[[Any], dict[str, Any]], Decode]
"""How a dataclass is written and read."""


class CodecInvalid(Exception):
    """What was read is not a step of this registry; the message names the fault."""


class Registry:
    """Writes and reads the steps of one domain: `kinds` are their classes, inverses included.

    Raises TypeError for a class whose fields have no JSON form.
    """

    def __init__(self, kinds: Iterable[type]) -> None:
        self._coders: dict[Any, _Coder] = {}
        self._kinds = {kind.__name__: kind for kind in kinds}
        # A field may hold steps of kinds that come later.
        self._steps: dict[str, _Objects] = {}
        for name, kind in self._kinds.items():
            self._steps[name] = self._dataclass(kind, {_STEP: name})

    def encode(self, step: Step) -> dict[str, Any]:
        """Answer a step as JSON. Raises CodecInvalid for one of another kind."""
        name = type(step).__name__
        if self._kinds.get(name) is not type(step):
            raise CodecInvalid(f"{name} is no step of this domain")
        return self._steps[name][0](step)

    def decode(self, value: Any) -> Step:
        """Answer the step that `encode` answered this for. Raises CodecInvalid."""
        if not isinstance(value, dict):
            raise CodecInvalid("a step must be an object")
        coder = self._steps.get(str(value.get(_STEP)))
        if coder is None:
            raise CodecInvalid(f"there is no step {str(value.get(_STEP))[:64]!r}")
        step: Step = coder[1](value)
        return step

    def _coder(self, kind: Any, depth: int) -> _Coder:
        known = self._coders.get(kind)
        if known is None:
            if depth > _DEEPEST:
                raise TypeError(f"{kind} is nested too deeply")
            known = self._coders[kind] = self._new_coder(kind, depth)
        return known

    def _new_coder(self, kind: Any, depth: int) -> _Coder:
        if kind is Step:
            return self.encode, self.decode
        if get_origin(kind) in (Union, types.UnionType):
            return self._union(get_args(kind), depth)
        if get_origin(kind) is tuple:
            return self._tuple(get_args(kind), depth)
        if kind in _SCALARS:
            return None, _exactly(kind)
        if kind is bytes:
            return lambda value: base64.b64encode(value).decode(), _from_base64
        if isinstance(kind, type) and issubclass(kind, Enum):
            return attrgetter("name"), _member(kind)
        if is_dataclass(kind) and isinstance(kind, type):
            return self._dataclass(kind, {}, depth)
        return _addresses(frozenset({kind}))

    def _tuple(self, args: tuple[Any, ...], depth: int) -> _Coder:
        if len(args) == 2 and args[1] is Ellipsis:
            encode, decode = self._coder(args[0], depth + 1)
            if encode is None:
                return list, lambda value: tuple(map(decode, _list(value)))
            return (
                lambda value: [encode(v) for v in value],
                lambda value: tuple(decode(v) for v in _list(value)),
            )
        coders = [self._coder(arg, depth + 1) for arg in args]

        def encode_each(value: Any) -> Any:
            pairs = zip(coders, value, strict=True)
            return [v if encode is None else encode(v) for (encode, _), v in pairs]

        def decode_each(value: Any) -> Any:
            if len(_list(value)) != len(coders):
                raise CodecInvalid(f"must have {len(coders)} items")
            return tuple(decode(v) for (_, decode), v in zip(coders, value, strict=True))

        return encode_each, decode_each

    def _union(self, args: tuple[Any, ...], depth: int) -> _Coder:
        rest = tuple(a for a in args if a is not type(None))
        if len(rest) == 1:
            coder = self._coder(rest[0], depth + 1)
        elif all(is_dataclass(a) for a in rest):
            coder = self._either(rest, depth)
        else:
            coder = _addresses(frozenset(rest))
        return _optional(coder) if len(rest) < len(args) else coder

    def _either(self, kinds: tuple[Any, ...], depth: int) -> _Coder:
        """One of several dataclasses, told apart by name."""
        coders = {k.__name__: self._dataclass(k, {_KIND: k.__name__}, depth) for k in kinds}

        def encode(value: Any) -> Any:
            return coders[type(value).__name__][0](value)

        def decode(value: Any) -> Any:
            name = str(value.get(_KIND)) if isinstance(value, dict) else ""
            if name not in coders:
                raise CodecInvalid(f"must be one of {', '.join(coders)}")
            return coders[name][1](value)

        return encode, decode

    def _dataclass(self, kind: Any, mark: Mapping[str, str], depth: int = 0) -> _Objects:
        hints = get_type_hints(kind)
        known = [f for f in fields(kind) if f.init]
        coders = {f.name: self._coder(hints[f.name], depth + 1) for f in known}
        names = tuple(coders)
        needed = {f.name for f in known if f.default is MISSING and f.default_factory is MISSING}
        special = [(name, encode) for name, (encode, _) in coders.items() if encode is not None]

        def encode(value: Any) -> dict[str, Any]:
            coded = dict(mark)
            for name in names:
                coded[name] = getattr(value, name)
            for name, special_encode in special:
                coded[name] = special_encode(coded[name])
            return coded

        def decode(value: Any) -> Any:
            if not isinstance(value, dict):
                raise CodecInvalid(f"{kind.__name__} must be an object")
            given = value.keys() - mark.keys()
            if given - coders.keys() or needed - given:
                odd = sorted(given - coders.keys()) + sorted(needed - given)
                raise CodecInvalid(f"{kind.__name__} with or without {', '.join(odd)[:200]}")
            try:
                return kind(**{name: coders[name][1](value[name]) for name in given})
            except CodecInvalid as e:
                raise CodecInvalid(f"{kind.__name__}: {e}") from e

        return encode, decode


def _exactly(kind: type) -> Decode:
    def decode(value: Any) -> Any:
        # bool is an int to Python, and not to us.
        if type(value) is not kind:
            raise CodecInvalid(f"{str(value)[:64]!r} is no {kind.__name__}")
        return value

    return decode


def _member(kind: type[Enum]) -> Decode:
    def decode(value: Any) -> Any:
        if not isinstance(value, str) or value not in kind.__members__:
            raise CodecInvalid(f"{str(value)[:64]!r} is no {kind.__name__}")
        return kind[value]

    return decode


def _addresses(kinds: frozenset[Any]) -> _Coder:
    for known, parse in _ADDRESSES:
        if kinds <= known:
            return str, _address(kinds, parse)
    raise TypeError(f"no JSON form for {' | '.join(sorted(map(str, kinds)))}")


def _address(kinds: frozenset[Any], parse: Callable[[str], Any]) -> Decode:
    def decode(value: Any) -> Any:
        try:
            found = parse(value) if isinstance(value, str) else None
        except ValueError:
            found = None
        if type(found) not in kinds:
            raise CodecInvalid(f"{str(value)[:64]!r} is no address of that kind")
        return found

    return decode


def _optional(coder: _Coder) -> _Coder:
    encode, decode = coder
    return (
        None if encode is None else lambda value: None if value is None else encode(value),
        lambda value: None if value is None else decode(value),
    )


def _from_base64(value: Any) -> bytes:
    try:
        return base64.b64decode(_exactly(str)(value), validate=True)
    except binascii.Error as e:
        raise CodecInvalid("is not base64") from e


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise CodecInvalid(f"{str(value)[:64]!r} is no list")
    return value
