"""The filter language of the packet log, such as `dport == 22 and action == "drop"`. Pure.

A filter is tests joined by `and`, `or`, `not` and parentheses. A test is a field, an operator and
a value, or after `in` or `not in` a list of values in parentheses:

    rule action in out physin physout   text                       == != in
    src dst                             addresses, networks        == != in
    sport dport length mark             numbers, ranges as 80-90   == != < <= > >= in
    proto                               names or numbers           == != in
    state                               established related new invalid untracked   == != in
    flags                               as syn,ack       == != in, >= has these, <= no others
    mac                                 the sender's               == != in

Texts may be quoted and must be if they have blanks or commas. What a packet has not (ports of ICMP,
addresses of ARP) is equal to nothing, less than nothing and in nothing: only `!=` and `not` hold.

`compile_filter` answers a function of a record. Records have their values under the names that
PacketRecord has in packet_log.proto, in the same types; how they are read is the caller's to say.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from ipaddress import IPv4Network, IPv6Network
from typing import Any

from hostler.core.packet_words import (
    RECORD_NAMES,
    AllOf,
    FilterInvalid,
    Node,
    Not,
    Span,
    Test,
    Value,
    parse,
)

__all__ = ["FilterInvalid", "Matches", "Read", "by_attribute", "by_key", "compile_filter"]

Read = Callable[[str], Callable[[Any], Any]]
Matches = Callable[[Any], bool]

_ORDERED = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}
# Protocols that have ports: TCP, UDP, DCCP, SCTP, UDP-Lite.
_WITH_PORTS = frozenset({6, 17, 33, 132, 136})
_TCP = 6


def by_key(name: str) -> Callable[[Any], Any]:
    """Read records that are mappings."""
    return operator.itemgetter(name)


def by_attribute(name: str) -> Callable[[Any], Any]:
    """Read records that are objects, such as a PacketRecord."""
    return operator.attrgetter(name)


def compile_filter(text: str, read: Read = by_key) -> Matches:
    """Answer what says of a record whether it passes; an empty text lets all pass.

    `read` is asked once for each field. Raises FilterInvalid.
    """
    if not text.strip():
        return lambda record: True
    return _compiled(parse(text), read)


def _compiled(node: Node, read: Read) -> Matches:
    if isinstance(node, Test):
        return _compiled_test(node, read)
    if isinstance(node, Not):
        term = _compiled(node.term, read)
        return lambda record: not term(record)
    terms = tuple(_compiled(t, read) for t in node.terms)
    # With two, the common case, a loop would cost more than the tests.
    if len(terms) == 2:
        one, two = terms
        if isinstance(node, AllOf):
            return lambda record: one(record) and two(record)
        return lambda record: one(record) or two(record)
    if isinstance(node, AllOf):
        return lambda record: all(term(record) for term in terms)
    return lambda record: any(term(record) for term in terms)


def _compiled_test(test: Test, read: Read) -> Matches:
    get = read(RECORD_NAMES[test.field])
    if test.field in ("src", "dst"):
        return _in_networks(get, test.values)
    if test.field == "flags":
        return _of(read, frozenset({_TCP}), _flags_test(get, test))
    if test.comparison != "in":
        holds = _ordered(get, _ORDERED[test.comparison], test.values[0])
    elif test.values and isinstance(test.values[0], Span):
        holds = _in_spans(get, test.values)
    else:
        holds = _in_set(get, frozenset(test.values))
    if test.field in ("sport", "dport"):
        return _of(read, _WITH_PORTS, holds)
    if test.field == "proto":
        source = read(RECORD_NAMES["src"])
        return lambda record: len(source(record)) > 0 and holds(record)
    return holds


def _of(read: Read, protocols: frozenset[int], holds: Matches) -> Matches:
    protocol = read(RECORD_NAMES["proto"])
    return lambda record: holds(record) and protocol(record) in protocols


def _in_set(get: Callable[[Any], Any], values: frozenset[Value]) -> Matches:
    return lambda record: get(record) in values


def _ordered(get: Callable[[Any], Any], compare: Callable[..., bool], bound: Value) -> Matches:
    return lambda record: compare(get(record), bound)


def _in_spans(get: Callable[[Any], Any], values: Sequence[Value]) -> Matches:
    spans = [v for v in values if isinstance(v, Span)]
    single = frozenset(s.first for s in spans if s.first == s.last)
    wide = tuple((s.first, s.last) for s in spans if s.first != s.last)
    if not wide:
        return lambda record: get(record) in single

    def holds(record: Any) -> bool:
        value = get(record)
        return value in single or any(first <= value <= last for first, last in wide)

    return holds


def _in_networks(get: Callable[[Any], Any], values: Sequence[Value]) -> Matches:
    networks = [v for v in values if isinstance(v, IPv4Network | IPv6Network)]
    single = frozenset(n.network_address.packed for n in networks if n.num_addresses == 1)
    wide = tuple(
        (n.max_prefixlen // 8, int(n.netmask), int(n.network_address))
        for n in networks
        if n.num_addresses != 1
    )
    if not wide:
        return lambda record: get(record) in single

    def holds(record: Any) -> bool:
        packed = get(record)
        if packed in single:
            return True
        size, number = len(packed), int.from_bytes(packed, "big")
        return any(size == s and number & mask == base for s, mask, base in wide)

    return holds


def _flags_test(get: Callable[[Any], Any], test: Test) -> Matches:
    wanted = frozenset(test.values)
    if test.comparison == "in":
        return lambda record: get(record) in wanted
    asked = test.values[0]
    if not isinstance(asked, int):
        raise TypeError("flags are compared as a number")
    if test.comparison == ">=":
        return lambda record: get(record) & asked == asked
    return lambda record: get(record) & ~asked == 0
