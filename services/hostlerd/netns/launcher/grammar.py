"""The closed grammar of requests: every key and every value that the launcher understands.

A key that is not listed, a value of another type or out of its bounds: the request is refused, with
all its faults at once.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Mapping
from typing import Any

from hostlerd.privileged.grammar import (
    ACCOUNT,
    Check,
    array,
    encodable,
    flag,
    one_of,
    record,
    text,
    whole,
)
from hostlerd.privileged.refused import Fault, Refused

NAME = re.compile(r"[a-z][a-z0-9-]{0,31}")
OPTIONAL_ACCOUNT = re.compile(f"({ACCOUNT.pattern})?")
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,255}")
HOSTNAME = re.compile(r"([A-Za-z0-9][A-Za-z0-9.-]{0,63})?")
DEVICE = re.compile(r"/dev/[A-Za-z0-9][A-Za-z0-9._/-]{0,250}")
DIRECTORY = re.compile(r"/[^\0\n]{0,4094}")
ARGUMENT = re.compile(r"[^\0]*")

MAX_ARGV = 1024
MAX_ARGV_BYTES = 128 * 1024
MAX_ENVIRONMENT_BYTES = 64 * 1024
MAX_HANDLES = 250
MAX_UNITS = 10_000
DAY_MS = 24 * 3600 * 1000


def environment(value: Any, path: str, faults: list[Fault]) -> None:
    """Variables by name; the faults never quote a value."""
    if not isinstance(value, dict):
        faults.append((path, "must be an object"))
        return
    size = 0
    for name, its in value.items():
        if not VARIABLE.fullmatch(name):
            faults.append((f"{path}[{name[:64]!r}]", "is not a name of a variable"))
        elif not isinstance(its, str) or not encodable(its) or "\0" in its:
            faults.append((f"{path}[{name!r}]", "must be UTF-8 without NUL"))
        else:
            size += len(name) + len(its.encode()) + 2
    if size > MAX_ENVIRONMENT_BYTES:
        faults.append((path, f"must have at most {MAX_ENVIRONMENT_BYTES} bytes in all"))


DEVICE_LIMIT = record(
    {
        "device": text(DEVICE),
        "read_bytes_per_second": whole(1, 2**62),
        "write_bytes_per_second": whole(1, 2**62),
    },
    required=("device",),
)
LIMITS = record(
    {
        "memory_max_bytes": whole(1 << 20, 2**62),
        "cpu_max_millicpus": whole(10, 10_000_000),
        "tasks_max": whole(1, 4_194_304),
        "io_weight": whole(1, 10_000),
        "devices": array(DEVICE_LIMIT, 0, 64),
    }
)
UNIT = record(
    {
        "namespace": text(NAME),
        "name": text(NAME),
        "argv": array(text(ARGUMENT, MAX_ARGV_BYTES), 1, MAX_ARGV, MAX_ARGV_BYTES),
        "user": text(ACCOUNT),
        "group": text(OPTIONAL_ACCOUNT),
        "supplementary_groups": array(text(ACCOUNT), 0, 64),
        "working_directory": text(DIRECTORY),
        "environment": environment,
        "private_tmp": flag,
        "private_uts": flag,
        "private_ipc": flag,
        "private_pid": flag,
        "hostname": text(HOSTNAME),
        "limits": LIMITS,
        "restart": one_of("never", "on-failure", "always"),
        "restart_delay_ms": whole(0, DAY_MS),
        "stop_timeout_ms": whole(0, DAY_MS),
        "remove_namespace": flag,
    },
    required=("namespace", "name", "argv"),
)
DEFAULTS: Mapping[str, Any] = {
    "user": "root",
    "group": "",
    "supplementary_groups": [],
    "working_directory": "/",
    "environment": {},
    "private_tmp": False,
    "private_uts": False,
    "private_ipc": False,
    "private_pid": False,
    "hostname": "",
    "limits": {},
    "restart": "never",
    "restart_delay_ms": 1000,
    "stop_timeout_ms": 10_000,
    "remove_namespace": False,
}
HANDLES = array(text(NAME), 1, MAX_HANDLES)
PAIR = {"namespace": text(NAME), "name": text(NAME)}
REQUESTS: Mapping[str, Check] = {
    op: record({"op": one_of(op), **keys}, required=tuple(need.split()))
    for op, keys, need in (
        ("attach", {"names": HANDLES}, "names"),
        ("detach", {"names": HANDLES}, "names"),
        ("evict", {"namespace": text(NAME)}, "namespace"),
        ("start", {"unit": UNIT}, "unit"),
        ("run", {"unit": UNIT}, "unit"),
        ("stop", PAIR, "namespace name"),
        (
            "signal",
            {**PAIR, "signal": one_of(*(s.name for s in signal.Signals))},
            "namespace name signal",
        ),
        ("status", PAIR, ""),
        (
            "tasks",
            {"with_argv": flag, "net": whole(1, 2**63 - 1), "except_net": whole(1, 2**63 - 1)},
            "",
        ),
    )
}


def check_request(request: Any) -> dict[str, Any]:
    """Answer the request if it is in the grammar; else raise Refused with all its faults."""
    op = request.get("op") if isinstance(request, dict) else None
    if not isinstance(op, str) or op not in REQUESTS:
        raise Refused("MALFORMED", "unknown operation", [("op", "is not known")])
    faults: list[Fault] = []
    REQUESTS[op](request, "", faults)
    names = request.get("names")
    if not faults and names is not None and len(set(names)) < len(names):
        faults.append(("names", "must differ from each other"))
    if faults:
        raise Refused("MALFORMED", "the request is not in the grammar", faults)
    return {**request, "unit": {**DEFAULTS, **request["unit"]}} if "unit" in request else request


def check_names(namespace: str, name: str) -> None:
    """Refuse names that are not in the grammar; what is made of them becomes a path."""
    if not NAME.fullmatch(namespace) or not NAME.fullmatch(name):
        raise Refused("MALFORMED", "not a namespace and a name")
