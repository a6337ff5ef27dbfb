"""Run the benchmarks, print their table, write build/bench.json.

    build/venv/bin/python tests/bench/run.py [--only=NAME] [--long]

Nothing is judged by its time: a missed target is shown, and the status is 0. It is 1 when a
benchmark could not be run; what the others found is reported all the same.
"""

from __future__ import annotations

import argparse
import importlib
import signal
import sys
import time
import traceback
from pathlib import Path

import daemon
import rounds
from report import Row, as_json, as_table

NAMES = (
    "command",
    "namespaces",
    "unary",
    "activation",
    "fanout",
    "fleet",
    "fleet_size",
    "memory",
    "connections",
    "packet_log",
    "collect",
    "firewall_rules",
    "firewall_reload",
    "tracing",
    "chains",
    "ssl_scan",
    "ssl_inventory",
    "storage_copy",
    "storage_list",
)
REPORT = Path(__file__).parents[2] / "build/bench.json"


def main() -> int:
    """Run what the command line names; answers the exit status."""
    parser = argparse.ArgumentParser(description="Benchmarks beside their peers, in one run.")
    parser.add_argument("--only", choices=NAMES, metavar="NAME", help=", ".join(NAMES))
    parser.add_argument(
        "--long",
        action="store_true",
        help="packet logs: a minute, three times; firewall_reload: 100 replaces; "
        "tracing: a minute; ssl_scan: testssl.sh too, and sslyze for the many; "
        "storage_copy: 1.5 GB; fleet: three times; fleet_size: 10,000 hosts",
    )
    asked = parser.parse_args()
    only, rounds.LONG = asked.only, asked.long
    daemon.require_root()
    # Like an interrupt: what a benchmark has made is cleaned up on the way out.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    rows: list[Row] = []
    failed = [name for name in NAMES if only in (None, name) and not run(name, rows)]
    sys.stdout.write(as_table(rows))
    REPORT.parent.mkdir(exist_ok=True)
    REPORT.write_text(as_json(rows))
    if failed:
        sys.stderr.write(f"could not be run: {', '.join(failed)}\n")
    return 1 if failed else 0


def run(name: str, rows: list[Row]) -> bool:
    """Add the rows of one benchmark; answers whether it could be run."""
    start = time.monotonic()
    sys.stderr.write(f"{name} ... ")
    sys.stderr.flush()
    try:
        rows += importlib.import_module(name).rows()
    except Exception:  # noqa: BLE001 - one that cannot run must not hide what the others found
        sys.stderr.write(f"failed\n{traceback.format_exc()}")
        return False
    sys.stderr.write(f"{time.monotonic() - start:.0f} s\n")
    return True


if __name__ == "__main__":
    sys.exit(main())
