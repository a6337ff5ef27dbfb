"""What a timer starts: it has a run begun at the door of `backup`, and waits for its end.

It has no power of its own. Its unit fails if the run fails, so that systemd tells of it too.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from pathlib import Path
from typing import Any

DOOR = Path("/run/hostler/storage-backup.sock")
_ANSWER_BYTES_MOST = 1 << 20
_ANSWER_S = 120.0
_LOOK_S = 2.0


def run(door: Path, name: str) -> int:
    """Have a backup run; answer the exit status."""
    begun = _ask(door, {"op": "BeginBackup", "name": name})
    while begun["ok"]:
        time.sleep(_LOOK_S)
        seen = _ask(door, {"op": "Look", "run": begun["run"]})
        if not seen["ok"] or seen["state"] == "failed":
            begun = seen if not seen["ok"] else {**seen, "ok": False}
        elif seen["state"] == "done":
            print(f"backup {name}: {json.dumps(seen['outcome'])}")
            return 0
    print(f"backup {name}: {begun['reason']}: {begun['message']}", file=sys.stderr)
    return 1


def _ask(door: Path, request: dict[str, Any]) -> dict[str, Any]:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(_ANSWER_S)
        connection.connect(os.fspath(door))
        connection.sendall(json.dumps(request).encode() + b"\n")
        with connection.makefile("rb") as lines:
            told: dict[str, Any] = json.loads(lines.readline(_ANSWER_BYTES_MOST))
    return told
