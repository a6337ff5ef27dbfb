"""What nft's expressions are of a packet, in three values: True, False, and None for not known.

Source: libnftables-json(5). What a packet has not (an IPv4 address of an IPv6 packet) ends its rule
without a match, whatever the comparison; what we do not know is Unknown and says why.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from ipaddress import ip_address, ip_network
from typing import Any

from hostlerd.firewall.plan import explain_words as words
from hostlerd.firewall.plan.explain_flow import READERS, Flow, Missing, Sets, Unknown


def value(expression: Any, flow: Flow, sets: Sets) -> Any:
    """Answer the value of the left side of a match. Raises Missing."""
    if isinstance(expression, int):
        return expression
    if not isinstance(expression, dict) or len(expression) != 1:
        return Unknown(f"the expression {expression} is not understood")
    ((kind, given),) = expression.items()
    if kind in ("&", "|", "^", "<<", ">>"):
        return _computed(kind, given, flow, sets)
    if kind == "concat":
        return tuple(value(each, flow, sets) for each in given)
    if kind == "map":
        return mapped(given, flow, sets)
    evaluate = READERS.get(kind)
    if evaluate is None:
        return Unknown(f"nft's {kind} is not understood")
    return evaluate(given, flow)


def matches(given: Mapping[str, Any], flow: Flow, sets: Sets) -> bool | Unknown:
    """Answer whether a match holds. Raises Missing."""
    left, right, op = given["left"], given["right"], given["op"]
    have = value(left, flow, sets)
    name = _name(left)
    if isinstance(have, Unknown):
        return have
    if op == "in":
        bits = _number(right, name)
        if bits is None or not isinstance(have, int):
            return Unknown(f"{right} is not understood")
        return bool(have & bits)
    if op in ("==", "!="):
        same = _among(right, have, name, flow, sets)
        return same if isinstance(same, Unknown) else same == (op == "==")
    return _ordered(op, have, _number(right, name))


def _ordered(op: str, have: Any, wanted: int | None) -> bool | Unknown:
    compare: Mapping[str, Callable[[int, int], bool]] = {
        "<": lambda a, b: a < b,
        ">": lambda a, b: a > b,
        "<=": lambda a, b: a <= b,
        ">=": lambda a, b: a >= b,
    }
    if op not in compare or wanted is None or not isinstance(have, int):
        return Unknown(f"the comparison {op} is not understood")
    return compare[op](have, wanted)


def candidates(given: Mapping[str, Any], flow: Flow, sets: Sets) -> tuple[list[Any], str]:
    """Answer what a map may answer for the packet, and why it is not one; Raises Missing.

    With a reason, nothing is a candidate too.
    """
    if not isinstance(given, Mapping) or not {"key", "data"} <= given.keys():
        return [], "a map is not understood"
    have = value(given["key"], flow, sets)
    name = _name(given["key"])
    pairs = _elements(given["data"], sets)
    if isinstance(pairs, Unknown):
        return [], pairs.why
    if isinstance(given["data"], str) and given["data"] in flow.changed_sets:
        return [each[1] for each in pairs], "an earlier rule changes the map"
    maybe: list[Any] = []
    why = ""
    for key, target in pairs:
        held = _leaf(_bare(key), have, name)
        if held is True:
            return [target], ""
        if isinstance(held, Unknown):
            maybe.append(target)
            why = held.why
    return maybe, why


def mapped(given: Mapping[str, Any], flow: Flow, sets: Sets) -> Any:
    """Answer what a map answers, as nft writes it. Raises Missing."""
    found, why = candidates(given, flow, sets)
    if why:
        return Unknown(why)
    if not found:
        raise Missing
    return found[0]


def _elements(data: Any, sets: Sets) -> Any:
    if isinstance(data, str):
        named = sets.get(data)
        return Unknown(f"the set {data} is not there") if named is None else named
    return data.get("set", []) if isinstance(data, dict) else Unknown("a set is not understood")


def _bare(element: Any) -> Any:
    """Answer an element without its comment, timeout and counter."""
    if isinstance(element, dict) and "elem" in element:
        return element["elem"]["val"]
    return element


def _among(right: Any, have: Any, name: Any, flow: Flow, sets: Sets) -> bool | Unknown:
    named = isinstance(right, str) and right.startswith("@")
    if not named and not (isinstance(right, dict) and "set" in right):
        return _leaf(right, have, name)
    elements = _elements(right, sets)
    if isinstance(elements, Unknown):
        return elements
    if named and right in flow.changed_sets:
        return Unknown("an earlier rule changes the set")
    return _any(_leaf(_bare(each), have, name) for each in elements)


def _any(answers: Iterable[bool | Unknown]) -> bool | Unknown:
    unknown: Unknown | None = None
    for each in answers:
        if each is True:
            return True
        if isinstance(each, Unknown):
            unknown = each
    return unknown or False


def _all(answers: Iterable[bool | Unknown]) -> bool | Unknown:
    unknown: Unknown | None = None
    for each in answers:
        if each is False:
            return False
        if isinstance(each, Unknown):
            unknown = each
    return unknown or True


def _leaf(right: Any, have: Any, name: Any) -> bool | Unknown:
    """Answer whether a value is an element: a number, a word, a prefix, a range, or several."""
    if isinstance(have, tuple):
        parts = right.get("concat") if isinstance(right, dict) else None
        if parts is None or len(parts) != len(have):
            return Unknown("a concatenation is not understood")
        return _all(_leaf(r, h, n) for r, h, n in zip(parts, have, name, strict=True))
    if isinstance(have, Unknown):
        return have
    if isinstance(have, str):
        return _same_link(right, have)
    if right == "*":
        return True
    if isinstance(right, dict) and "prefix" in right:
        inside = _prefix(right["prefix"], have, name)
        return Unknown("a prefix is not understood") if inside is None else inside
    if isinstance(right, dict) and "range" in right:
        first, last = (_number(each, name) for each in right["range"])
        if first is None or last is None:
            return Unknown("a range is not understood")
        return bool(first <= have <= last)
    wanted = _number(right, name)
    return Unknown(f"{right} is not understood") if wanted is None else bool(have == wanted)


def _prefix(given: Mapping[str, Any], have: int, name: Any) -> bool | None:
    start = _number(given["addr"], name)
    if start is None or not isinstance(given["addr"], str):
        return None
    network = ip_network(f"{given['addr']}/{given['len']}", strict=False)
    shift = network.max_prefixlen - network.prefixlen
    return have >> shift == start >> shift


def _same_link(right: Any, have: str) -> bool | Unknown:
    if not isinstance(right, str):
        return Unknown("a name of a link is not understood")
    if right.endswith("\\*"):
        return have == right[:-2] + "*"
    return have.startswith(right[:-1]) if right.endswith("*") else have == right


def _name(expression: Any) -> Any:
    """Answer what says how words for a value are read: "ip saddr", "ct state"."""
    if not isinstance(expression, dict):
        return ""
    ((kind, given),) = expression.items()
    if kind == "concat":
        return tuple(_name(each) for each in given)
    if kind in ("&", "|", "^", "<<", ">>"):
        return _name(given[0])
    if kind == "payload":
        return f"{given.get('protocol', 'raw')} {given.get('field', '')}"
    if kind in ("meta", "ct"):
        return f"{kind} {given['key']}"
    return f"fib {given['result']}" if kind == "fib" else kind


_WORDS: Mapping[str, Mapping[str, int]] = {
    "meta l4proto": words.PROTOCOLS,
    "ip protocol": words.PROTOCOLS,
    "ip6 nexthdr": words.PROTOCOLS,
    "icmp type": words.ICMP_TYPES,
    "icmpv6 type": words.ICMPV6_TYPES,
    "icmp code": words.ICMP_CODES,
    "ct state": words.STATES,
    "ct status": words.STATUS,
    "ct direction": words.DIRECTIONS,
    "fib type": words.FIB_TYPES,
    "tcp flags": words.TCP_FLAGS,
    "meta nfproto": words.NFPROTOS,
    "meta protocol": words.ETHER_TYPES,
    "ether type": words.ETHER_TYPES,
}


def _number(right: Any, name: Any) -> int | None:
    """Answer the number of nft's word for a value; None if we do not know it."""
    if isinstance(right, bool | int):
        return int(right)
    if isinstance(right, list) or (isinstance(right, dict) and "|" in right):
        parts = [_number(each, name) for each in (right["|"] if isinstance(right, dict) else right)]
        total = 0
        for part in parts:
            if part is None:
                return None
            total |= part
        return total
    if not isinstance(right, str):
        return None
    known = _WORDS.get(str(name), {}).get(right)
    if known is not None:
        return known
    if str(name).endswith(("saddr", "daddr")):
        return _address_number(right)
    if name == "meta time":
        return _time(right)
    try:
        return int(right, 0)
    except ValueError:
        return None


def _address_number(text: str) -> int | None:
    try:
        return int(ip_address(text))
    except ValueError:
        return None


def _time(text: str) -> int | None:
    # nft writes the time of the host's own zone.
    try:
        return int(datetime.fromisoformat(text).timestamp())
    except ValueError:
        return None


def _computed(kind: str, given: Sequence[Any], flow: Flow, sets: Sets) -> Any:
    name = _name(given[0])
    total = value(given[0], flow, sets)
    for each in given[1:]:
        other = _number(each, name)
        if other is None:
            other = value(each, flow, sets)
        if isinstance(total, Unknown):
            return total
        if not isinstance(total, int) or not isinstance(other, int) or other < 0:
            return other if isinstance(other, Unknown) else Unknown("it computes with words")
        total = _OPERATIONS[kind](total, other)
    return total


_OPERATIONS: Mapping[str, Callable[[int, int], int]] = {
    "&": lambda a, b: a & b,
    "|": lambda a, b: a | b,
    "^": lambda a, b: a ^ b,
    "<<": lambda a, b: (a << min(b, 32)) & 0xFFFFFFFF,
    ">>": lambda a, b: a >> min(b, 128),
}
