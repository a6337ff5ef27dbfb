"""The filter language of the packet log: it means what a plain reading says, no text breaks it."""

from __future__ import annotations

import operator
from ipaddress import ip_address, ip_network
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostler.core import packet_words as words
from hostler.core.packet_filter import FilterInvalid, by_attribute, compile_filter
from hostler.core.packet_words import MOST_CHARACTERS, MOST_DEPTH, RECORD_NAMES, parse

BASE = {
    "rule": "base/ssh",
    "action": "drop",
    "in_ifname": "eth0",
    "out_ifname": "",
    "physin_ifname": "p2",
    "physout_ifname": "",
    "source": bytes([10, 0, 0, 5]),
    "destination": bytes([192, 0, 2, 1]),
    "source_port": 40000,
    "destination_port": 22,
    "protocol_number": 6,
    "length_bytes": 60,
    "tcp_flags": 2,
    "connection_state": 3,
    "mark": 16,
    "source_mac": bytes.fromhex("02000000000a"),
}
V6 = {"source": ip_address("2001:db8::5").packed, "destination": ip_address("fe80::1").packed}
PING = {"protocol_number": 1, "source_port": 0, "destination_port": 8, "tcp_flags": 0}
ARP = {**PING, "protocol_number": 0, "source": b"", "destination": b""}


@pytest.mark.parametrize(
    ("text", "changed", "passes"),
    [
        ("", {}, True),
        ('dport == 22 and action == "drop"', {}, True),
        ("dport == 22 and action == accept", {}, False),
        ("dport != 22", {}, False),
        ("dport in 20-25", {}, True),
        ("dport in (80, 443, 20-25)", {}, True),
        ("dport not in [80, 443]", {}, True),
        ("sport >= 40000 and sport < 40001", {}, True),
        ("sport <= 39999 or sport > 40000", {}, False),
        ("in == eth0", {}, True),
        ("in in (eth1, 'eth0')", {}, True),
        ("not in in eth1", {}, True),
        ("out == ''", {}, True),
        ("physin == p2 and not physout == p2", {}, True),
        ("src in 10.0.0.0/8", {}, True),
        ("src in 10.0.0.0/8", V6, False),
        ("src in (2001:db8::/32, 10.9.0.0/16)", V6, True),
        ("src == 2001:db8:0::5 and dst == fe80::1", V6, True),
        ("src in 0.0.0.0/0", V6, False),
        ("src in ::/0", {}, False),
        ("dst == 192.0.2.1", {}, True),
        ("proto == tcp and proto in (TCP, 17)", {}, True),
        ("proto == icmp", PING, True),
        ("flags == syn", {}, True),
        ("flags == syn", {"tcp_flags": 18}, False),
        ("flags >= syn", {"tcp_flags": 18}, True),
        ("flags <= 'syn,ack'", {"tcp_flags": 18}, True),
        ("flags <= 'syn,ack'", {"tcp_flags": 4}, False),
        ("flags in (rst, 'syn,ack')", {"tcp_flags": 18}, True),
        ("state == new", {}, True),
        ("state in (established, related)", {}, False),
        ("mark == 0x10 and length in 40-60", {}, True),
        ("mac == 02:00:00:00:00:0A", {}, True),
        ("rule in (base/http, base/ssh)", {}, True),
        # What a packet has not is nothing, not 0.
        ("dport == 8", PING, False),
        ("dport < 1024", PING, False),
        ("dport != 8", PING, True),
        ("flags <= syn", PING, False),
        ("proto == 0", ARP, False),
        ("src in (0.0.0.0/0, ::/0)", ARP, False),
        # `and` binds closer than `or`, `not` closer than both.
        ("dport == 22 or dport == 23 and action == accept", {}, True),
        ("(dport == 22 or dport == 23) and action == accept", {}, False),
        ("not action == drop or dport == 22", {}, True),
        ("not (action == drop or dport == 22)", {}, False),
        ("dport == 1 or dport == 2 or dport == 22", {}, True),
        ("dport > 1 and dport > 2 and dport > 22", {}, False),
        (r'rule == "a \"b\" \\c"', {"rule": r'a "b" \c'}, True),
    ],
)
def test_what_filters_say(text: str, changed: dict[str, Any], passes: bool) -> None:
    record = {**BASE, **changed}
    assert compile_filter(text)(record) is passes
    assert compile_filter(text, by_attribute)(SimpleNamespace(**record)) is passes


@pytest.mark.parametrize(
    ("text", "position", "says"),
    [
        ("dport", 6, "the end is no operator"),
        ("dport = 22", 7, "equal is =="),
        ("port == 22", 1, "'port' is no field; fields are rule"),
        ("dport == 22 action == drop", 13, "joined by"),
        ("dport == ssh", 10, "no number"),
        ("dport == 65536", 10, "more than 65535"),
        ("dport in 30-20", 10, "upside down"),
        ("dport == 20-30", 10, "say `in`"),
        ("dport in (1, 2", 15, "where ) is due"),
        ("dport in ()", 11, "where a value of dport is due"),
        ("(dport == 1", 12, "where ) is due"),
        ("dport == 1)", 11, "too much"),
        ("src == 10.0.0.0/8", 8, "say `in`"),
        ("src in 10.0.0.1/8", 8, "no network by its first one"),
        ("src < 10.0.0.1", 5, "src knows no <"),
        ("action > drop", 8, "action knows no >"),
        ("flags > syn", 7, "flags knows no >"),
        ("flags == sin", 10, "none of fin"),
        ("state == old", 10, "none of established"),
        ("proto == tpc", 10, "no protocol"),
        ("proto == 256", 10, "more than 255"),
        ("mac == 1:2", 8, "no hardware address"),
        ("dport not 3", 11, "followed by `in`"),
        ('action == "drop', 11, "not closed"),
        ("action == and", 11, "a value of action"),
        ("dport == 22 and", 16, "the end is no field"),
        ("dport == 22 ; drop", 13, "means nothing"),
        ("dport == ٣", 10, "means nothing"),
        (f"dport in ({'1, ' * 2000}1)", MOST_CHARACTERS + 1, "longer"),
        ("(" * 40 + "dport == 1" + ")" * 40, MOST_DEPTH + 2, "nested"),
        ("not " * 40 + "dport == 1", 4 * MOST_DEPTH + 5, "nested"),
    ],
)
def test_what_is_wrong_is_named_with_its_place(text: str, position: int, says: str) -> None:
    with pytest.raises(FilterInvalid, match=r"^at character \d+: ") as refused:
        compile_filter(text)
    assert refused.value.position == position
    assert says in str(refused.value)


# Filters made up at random, and how a plain reading judges them.
ADDRESSES = ["10.0.0.5", "10.0.0.6", "192.0.2.1", "2001:db8::5", "fe80::1"]
NETWORKS = ["10.0.0.0/8", "10.0.0.4/31", "2001:db8::/32", "::/0", "0.0.0.0/0", "fe80::1/128"]
ORDER = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}
few = st.integers(0, 30)
records = st.fixed_dictionaries(
    {
        "rule": st.sampled_from(["a/b", "a/c"]),
        "source": st.sampled_from(ADDRESSES).map(lambda a: ip_address(a).packed) | st.just(b""),
        "protocol_number": st.sampled_from([1, 6, 17]),
        "destination_port": few,
        "tcp_flags": st.integers(0, 255),
        "connection_state": st.integers(0, 5),
    }
)


def says_number(record: dict[str, Any], compare: Any) -> bool:
    return record["protocol_number"] != 1 and compare(record["destination_port"])


def numbers() -> st.SearchStrategy[Any]:
    ordered = st.tuples(st.sampled_from(sorted(ORDER)), few).map(
        lambda t: (f"dport {t[0]} {t[1]}", lambda r: says_number(r, lambda p: ORDER[t[0]](p, t[1])))
    )
    spans = st.lists(st.tuples(few, few).map(sorted), min_size=1, max_size=3).map(
        lambda ss: (
            f"dport in ({', '.join(f'{a}-{b}' for a, b in ss)})",
            lambda r: says_number(r, lambda p: any(a <= p <= b for a, b in ss)),
        )
    )
    return ordered | spans


def networks() -> st.SearchStrategy[Any]:
    def holds(record: dict[str, Any], listed: list[str]) -> bool:
        packed = record["source"]
        return bool(packed) and any(ip_address(packed) in ip_network(n) for n in listed)

    return st.lists(st.sampled_from(NETWORKS + ADDRESSES), min_size=1, max_size=4).map(
        lambda ns: (f"src in [{','.join(ns)}]", lambda r: holds(r, ns))
    )


leaves = (
    numbers()
    | networks()
    | st.sampled_from(["a/b", "a/c"]).map(lambda v: (f"rule == '{v}'", lambda r: r["rule"] == v))
    | st.sampled_from(sorted(words.STATES)).map(
        lambda v: (f"state != {v}", lambda r: r["connection_state"] != words.STATES[v])
    )
    | st.sampled_from(sorted(words.FLAGS)).map(
        lambda v: (
            f"flags >= {v}",
            lambda r: r["protocol_number"] == 6 and bool(r["tcp_flags"] & words.FLAGS[v]),
        )
    )
)
filters = st.recursive(
    leaves,
    lambda inner: (
        inner.map(lambda f: (f"not ({f[0]})", lambda r: not f[1](r)))
        | st.lists(inner, min_size=1, max_size=4).map(
            lambda fs: (" and ".join(f"({f[0]})" for f in fs), lambda r: all(f[1](r) for f in fs))
        )
        | st.lists(inner, min_size=1, max_size=4).map(
            lambda fs: ("\nor ".join(f"({f[0]})" for f in fs), lambda r: any(f[1](r) for f in fs))
        )
    ),
    max_leaves=12,
)


@given(filters, st.lists(records, min_size=1, max_size=8))
def test_a_filter_is_what_a_plain_reading_says(made: Any, given_records: Any) -> None:
    text, holds = made
    passes = compile_filter(text)
    assert [passes(r) for r in given_records] == [holds(r) for r in given_records]


pieces = st.sampled_from(
    [*RECORD_NAMES, *"()[],", "==", "!=", "<", ">=", "in", "not", "and", "or", "22", "1-5", "syn",
     "10.0.0.0/8", "fe80::%1", "'x'", '"', "\\", "0x", "-", "\x00", "²", "\n", "new", "tcp"]
)  # fmt: skip


@given(st.text(max_size=60) | st.lists(pieces, max_size=40).map(" ".join))
def test_no_text_does_worse_than_being_refused(text: str) -> None:
    try:
        passes = compile_filter(text)
    except FilterInvalid as e:
        assert 1 <= e.position <= len(text) + 1
    else:
        assert passes(BASE) in (True, False)


def test_all_that_is_long_is_read_without_running_out() -> None:
    text = " or ".join(["dport==1"] * 340)
    assert len(text) <= MOST_CHARACTERS
    assert len(parse(text).terms) == 340  # type: ignore[union-attr]
    nested = "(" * MOST_DEPTH + "dport == 22" + ")" * MOST_DEPTH
    assert compile_filter(nested)(BASE)
