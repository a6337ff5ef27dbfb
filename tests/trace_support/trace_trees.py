"""Generated filters, as trees and as text, and generated batches for them to filter."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_address
from typing import Any

from hypothesis import strategies as st
from trace_rows import START_NS, Call, File, Process, batch

from hostler.core.trace.events import FileType, Flag
from hostler.core.trace.field import Field, Kind
from hostler.core.trace.fields import all_fields, find
from hostler.core.trace.filter_parse import OPERATORS

TEXTS = [
    "",
    "a",
    "sshd",
    "SSHD",
    "bash",
    "sh",
    "/etc/passwd",
    "/etc",
    "/var/log/a b",
    'x"y\\z',
    "é",
]
TEXTS += ["read", "open", "ENOENT", "SUCCESS", "file", "host", "<", "O_RDONLY", "lib*", "[ab]*"]
NUMBERS = [0, 1, 2, 3, 7, 80, 443, 700, 4000, 65535, 1000, 5_000_000, START_NS, START_NS + 5_000]
ADDRESSES = ["10.0.0.1", "10.0.0.0", "10.1.2.3", "::1", "fe80::7", "::ffff:10.1.2.3"]
NETWORKS = ["10.0.0.0/8", "10.0.0.0/31", "0.0.0.0/0", "::/0", "fe80::/10", "127.0.0.0/8"]


def packed(address: str) -> bytes:
    return ip_address(address).packed


PROCESSES = st.recursive(
    st.none(),
    lambda parents: st.builds(
        Process,
        pid=st.sampled_from([1, 7, 700, 701]),
        name=st.sampled_from(["sshd", "bash", "sh", "cat", "systemd"]),
        parent=parents,
        ppid=st.sampled_from([0, 1, 700]),
        exe=st.sampled_from(["", "/usr/bin/cat"]),
        cmdline=st.sampled_from([(), ("/bin/sh",), ("sshd", "-D", "a b")]),
        environ=st.sampled_from([(), ("HOME=/root",)]),
        cwd=st.sampled_from(["", "/", "/etc"]),
        uid=st.sampled_from([0, 1000, 0xFFFFFFFF]),
        gid=st.sampled_from([0, 1000]),
        loginuid=st.sampled_from([1000, 0xFFFFFFFF]),
        user=st.sampled_from(["", "root"]),
        sid=st.sampled_from([0, 1, 700]),
        tty=st.sampled_from([0, 34816]),
        start_ns=st.sampled_from([0, START_NS - 5_000_000, START_NS + 10**12]),
        cgroup=st.sampled_from(["", "/system.slice/ssh.service"]),
        container=st.sampled_from(["", "web1"]),
    ),
    max_leaves=3,
)
ENDS = st.tuples(
    st.sampled_from([b"", *map(packed, ADDRESSES[:3])]), st.sampled_from([0, 80, 4000])
)
ENDS_6 = st.tuples(st.sampled_from([b"", *map(packed, ADDRESSES[3:])]), st.sampled_from([0, 443]))
FILES = st.one_of(
    st.none(),
    st.builds(
        File,
        type=st.sampled_from(list(FileType)[1:]),
        name=st.sampled_from(["", "/etc/passwd", "/etc", "/dev/log", "pipe:[7]"]),
        device=st.sampled_from([0, 8 << 20 | 300]),
        inode=st.sampled_from([0, 7]),
    ),
    st.builds(
        File,
        type=st.just(FileType.IPV4),
        name=st.just("10.0.0.1:4000->10.0.0.0:80"),
        protocol=st.sampled_from([0, 6, 17, 1, 255]),
        is_server=st.booleans(),
        local=ENDS,
        remote=ENDS,
    ),
    st.builds(
        File, type=st.just(FileType.IPV6), is_server=st.booleans(), local=ENDS_6, remote=ENDS_6
    ),
)
NAMES = ["read", "write", "open", "openat", "creat", "close", "connect", "accept4", "mmap", "fcntl"]
NAMES += ["sendto", "poll", "nanosleep", "exit_group", "kill", "rename", "pread64", "getpid"]
CALLS = st.builds(
    Call,
    name=st.sampled_from(NAMES),
    args=st.tuples(
        *[st.sampled_from([0, 1, 3, 0o101, 0o755, 80, 0xFFFFFFFF, (1 << 64) - 100])] * 6
    ),
    result=st.sampled_from([0, 1, 3, 80, -2, -13, -512, -5000, 1 << 46]),
    process=PROCESSES,
    file=FILES,
    fd=st.sampled_from([-1, 0, 3]),
    path=st.sampled_from(["", "/etc/passwd", "/var/log/a b"]),
    path2=st.sampled_from(["", "/etc"]),
    data=st.sampled_from([b"", b"<38>sshd: hello\n", b"<999>no", b"x\0y"]),
    tid=st.sampled_from([1, 700]),
    cpu=st.sampled_from([0, 1]),
    after_ns=st.sampled_from([0, 5_000, 10**9]),
    latency_ns=st.sampled_from([0, 1, 5_000_000]),
    flags=st.sampled_from([Flag(0), Flag.IS_32_BIT, Flag.UNFINISHED, Flag.ENTRY_LOST]),
)
BATCHES = st.lists(CALLS, max_size=6).map(batch)

MORE = ["evt.arg.flags", "evt.arg.name", "evt.rawarg.fd", "evt.rawarg.count", "evt.rawarg.res"]
MORE += ["evt.type.is.open", "evt.abspath.src", "proc.apid[2]", "proc.aname[1]", "evt.arg.res"]
FIELDS = [*all_fields().values(), *map(find, MORE), find(f"evt.around[{START_NS}]")]


def quote(text: str) -> str:
    told = text.replace("\\", "\\\\").replace('"', '\\"').replace("'", "\\'")
    return f'"{told}"'


def written(value: Any, kind: Kind) -> str:
    if kind in (Kind.TEXT, Kind.BYTES):
        return quote(value)
    return {True: "true", False: "false"}[value] if kind is Kind.BOOL else str(value)


@st.composite
def operands(draw: Callable[..., Any], field: Field) -> Any:
    if field.kind is Kind.BOOL:
        return draw(st.booleans())
    if field.kind is Kind.ADDRESS:
        return draw(st.sampled_from([*ADDRESSES, *NETWORKS]))
    if field.kind in (Kind.TEXT, Kind.BYTES):
        possible = [t for t in TEXTS if field.objection is None or field.objection(t) is None]
        return draw(st.sampled_from(possible or ["unknown"]))
    if field.kind is Kind.INTEGER:
        return draw(st.sampled_from([*NUMBERS, -1, -2, (1 << 64) - 1, -(1 << 63)]))
    most = {Kind.PORT: 65535, Kind.NEARNESS: 10**12}.get(field.kind, 1 << 64)
    return draw(st.sampled_from([n for n in NUMBERS if n <= most]))


@st.composite
def a_test(draw: Callable[..., Any]) -> Any:
    field = draw(st.sampled_from(FIELDS))
    operator = draw(st.sampled_from(OPERATORS[field.kind]))
    count = {"exists": 0}.get(operator, 1)
    if operator in ("in", "pmatch"):
        count = draw(st.integers(1, 3))
    free = field.objection is None or operator not in ("=", "!=", "in")
    chosen = [
        draw(operands(field) if not free or field.kind is not Kind.TEXT else st.sampled_from(TEXTS))
        for _ in range(count)
    ]
    return ("test", field, operator, chosen)


TREES = st.recursive(
    a_test(),
    lambda inner: st.one_of(
        st.tuples(st.just("not"), inner),
        st.tuples(st.sampled_from(["and", "or"]), st.lists(inner, min_size=2, max_size=3)),
    ),
    max_leaves=5,
)


def shown(tree: Any) -> str:
    if tree[0] == "not":
        return f"not ({shown(tree[1])})"
    if tree[0] in ("and", "or"):
        return f" {tree[0]} ".join(f"({shown(term)})" for term in tree[1])
    _, field, operator, chosen = tree
    values = [written(value, field.kind) for value in chosen]
    if operator in ("in", "pmatch"):
        return f"{field.name} {operator} ({', '.join(values)})"
    return f"{field.name} {operator} {''.join(values)}".strip()
