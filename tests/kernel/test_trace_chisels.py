"""Chisels on what the kernel told of real programs, beside sysdig's on the same calls."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scap_world import SYSDIG, chisel_rows, write_scap
from traced import names, trace

from hostler.core.trace.chisel_registry import find
from hostler.core.trace.chisel_results import Lines, Row, Table
from hostler.core.trace.events import Events
from hostler.core.trace.scap_layout import scap_calls

pytestmark = pytest.mark.kernel

SCRIPT = """
ls /etc >/dev/null
for i in 1 2 3; do
    dd if=/dev/zero of="$0/out" bs=4k count=50 2>/dev/null
    md5sum "$0/out" >/dev/null
done
cat /nonexistent 2>/dev/null
/usr/bin/python3 -c "
import os, socket, threading
def serve():
    connection, _ = server.accept()
    connection.recv(1000)
    connection.sendall(b'HTTP/1.1 200 OK\\r\\nContent-Length: 5\\r\\n\\r\\nhello')
    connection.close()
server = socket.create_server(('127.0.0.1', 0))
thread = threading.Thread(target=serve)
thread.start()
client = socket.create_connection(server.getsockname())
client.sendall(b'GET /shop HTTP/1.1\\r\\nHost: web\\r\\n\\r\\n')
client.recv(1000)
thread.join()
os.setgid(33)
os.setuid(33)
"
true
"""


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory) -> tuple[Events, Path, Path]:
    place = tmp_path_factory.mktemp("chisels")
    argv = ["/bin/sh", "-c", SCRIPT, str(place)]
    events = trace(argv, payload_bytes=1024, cmdlines=True)
    return events, write_scap(place / "a.scap", events), place


def ours(name: str, events: Events, **given: str) -> Table | Lines:
    running = find(name).start(given)
    running.take(events, "here")
    result = running.result()
    assert isinstance(result, Table | Lines)
    return result


def whole(events: Events) -> Events:
    """The calls whose result a file of sysdig keeps."""
    known = {name for name, call in scap_calls().items() if not call.is_generic}
    return events.select(np.array([name in known for name in names(events)]))


def resolved(rows: Iterable[Row | list[Any]]) -> Counter[tuple[str, ...]]:
    """Sums by key; sysdig calls a file by the name that it was opened by, the kernel by its own."""
    sums: Counter[tuple[str, ...]] = Counter()
    for *key, value in rows:
        words = (str(cell) for cell in key)
        sums[tuple(os.path.realpath(w) if w.startswith("/") else w for w in words)] += int(value)
    return sums


ALIKE = [
    *((f"topprocs_{what}", {}) for what in ("file", "net", "errors")),
    *((f"topfiles_{what}", {}) for what in ("bytes", "time", "errors")),
    *((name, {}) for name in ("topconns", "topports_server")),
    *(("fdbytes_by", {"key": key}) for key in ("proc.name", "fd.type", "proc.pid")),
    *(("fdtime_by", {"key": key}) for key in ("proc.name", "thread.tid")),
]


@pytest.mark.skipif(SYSDIG is None, reason="sysdig is not installed")
@pytest.mark.parametrize(("name", "given"), ALIKE)
def test_a_real_trace_gives_the_tables_of_sysdig(
    traced: tuple[Events, Path, Path], name: str, given: dict[str, str]
) -> None:
    events, path, _ = traced
    mine = resolved(ours(name, whole(events), **given, top="0").rows)
    theirs = resolved(chisel_rows(path, name, *given.values()))
    assert theirs and set(theirs) <= set(mine)
    if len(theirs) < min(len(mine), 10):
        pytest.fail(f"sysdig has {len(theirs)} rows of {len(mine)}")
    # Of a file that it knows by two names, sysdig may show the larger part alone.
    assert all(theirs[key] <= mine[key] for key in theirs)
    assert sum(theirs[key] == mine[key] for key in theirs) >= len(theirs) - 1


def test_a_real_trace_tells_what_its_programs_did(traced: tuple[Events, Path, Path]) -> None:
    events, _, place = traced
    rows = ours("fdbytes_by", events, key="fd.name", top="0").rows
    # dd writes it three times, md5sum reads it three times.
    assert dict(rows)[str(place / "out")] == 2 * 3 * 50 * 4096
    (request,) = ours("httptop", events).rows
    # The client's end and the server's.
    assert request[:4] == ("GET", "web/shop", 2, 10)
    timeline = ours("privileges", events).rows
    changes = [(row[1], row[3], row[5]) for row in timeline if row[5]]
    assert changes == [("python3", "setgid", "gid 0 → 33"), ("python3", "setuid", "uid 0 → 33")]
    ended = [row[2] for row in ours("proc_exec_time", events).rows]
    assert Counter(ended)["dd"] == 3 and ended[-1] == "sh"
    (_, process, *counts) = next(
        r for r in ours("dirs", events, path=str(place)).rows if r[1] == "dd"
    )
    assert process == "dd" and counts[1] == 3 and counts[4] == 3 * 50 * 4096
