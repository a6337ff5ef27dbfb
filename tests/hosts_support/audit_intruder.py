"""What an intruder with root can do to a log, done on a real host by a program of its own.

It shares no code with Hostler: the format is written down in the docstring of the log.
"""

from __future__ import annotations

import json
from typing import Any

from hostler.lab.host import Host

_PROGRAM = """
import hashlib, json, sys

def digest(record):
    plain = {k: v for k, v in record.items() if k != "hash"}
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()

how, path, at = sys.argv[1], sys.argv[2], int(sys.argv[3])
lines = open(path, "rb").read().splitlines(keepends=True)
place = next(i for i, line in enumerate(lines) if json.loads(line)["seq"] == at)
if how == "edit":
    lines[place] = lines[place].replace(b"user/admin", b"user/xdmin")
elif how == "remove":
    del lines[place]
elif how == "swap":
    lines[place], lines[place + 1] = lines[place + 1], lines[place]
elif how == "cut":
    del lines[place:]
elif how == "rewrite":
    records = [json.loads(line) for line in lines]
    previous, seq = "0" * 64, 0
    made = []
    for record in records:
        if record["seq"] == at:
            continue
        seq += 1
        record["seq"], record["previous"] = seq, previous
        record["hash"] = previous = digest(record)
        made.append(json.dumps(record, separators=(",", ":")).encode() + b"\\n")
    lines = made
open(path, "wb").write(b"".join(lines))
"""


def tamper(host: Host, domain: str, how: str, at: int) -> None:
    """Edit, remove, swap, cut or rewrite the log at a record."""
    path = f"/var/log/hostler/{domain}/audit.jsonl"
    host.run(["python3", "-c", _PROGRAM, how, path, str(at)])


def read(host: Host, domain: str) -> list[dict[str, Any]]:
    """The records of a host's log, as cat has them."""
    text = host.run(["cat", f"/var/log/hostler/{domain}/audit.jsonl"]).stdout
    return [json.loads(line) for line in text.splitlines()]
