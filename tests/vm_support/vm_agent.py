"""Runs in a guest: executes commands for the tests outside. `vm_agent.py PORT`, stdlib only.

PORT is a virtio-serial port. Each line is one JSON object, bytes in it are base64. In:
`{"id", "argv", "stdin", "timeout_s"}` or `{"id", "seed"}`. Out: `{"id": 0, "hello": BOOT_ID}` at
the start, then for each request `{"id", "status", "stdout", "stderr"}`; status None: it did not
end in time and was killed with all that it started; `{"id", "error"}`: it could not be started.
Requests run side by side.
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", "HOME": "/root"}
# Take over what was mixed into the pool, now. Source: random(4), linux/random.h.
RNDRESEEDCRNG = 0x5207
_writing = threading.Lock()


def send(port: int, message: dict[str, Any]) -> None:
    """Write one line, whole: answers of several threads must not mix."""
    line = json.dumps(message).encode() + b"\n"
    with _writing:
        while line:
            line = line[os.write(port, line) :]


def execute(request: dict[str, Any]) -> dict[str, Any]:
    """Run a command in a session of its own and answer how it ended."""
    try:
        child = subprocess.Popen(
            request["argv"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=ENVIRONMENT,
            cwd="/",
            start_new_session=True,
        )
    except OSError as e:
        return {"error": f"{request['argv'][0]}: {e.strerror}"}
    status: int | None
    try:
        out, err = child.communicate(base64.b64decode(request["stdin"]), request["timeout_s"])
        status = child.returncode
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)
        # A grandchild in a session of its own may keep the pipes open; it does not keep us.
        with suppress(subprocess.TimeoutExpired):
            child.communicate(timeout=5)
        out, err, status = b"", b"", None
    answer = {"stdout": base64.b64encode(out).decode(), "stderr": base64.b64encode(err).decode()}
    return {"status": status, **answer}


def reseed(seed: bytes) -> dict[str, Any]:
    """Have the kernel draw random numbers that no other clone of this guest draws."""
    with Path("/dev/urandom").open("wb", buffering=0) as device:
        device.write(seed)
        fcntl.ioctl(device, RNDRESEEDCRNG)
    return {}


def serve(port: int, line: bytes) -> None:
    """Answer one request."""
    request = json.loads(line)
    if "seed" in request:
        answer = reseed(base64.b64decode(request["seed"]))
    else:
        answer = execute(request)
    send(port, {"id": request["id"], **answer})


def main() -> None:
    """Answer requests until the guest goes down."""
    port = os.open(sys.argv[1], os.O_RDWR)
    boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    send(port, {"id": 0, "hello": boot_id})
    pending = bytearray()
    while True:
        piece = os.read(port, 65536)
        if not piece:
            time.sleep(0.05)  # Nobody is at the other end, or nobody any more.
            pending.clear()
            continue
        pending += piece
        *lines, rest = pending.split(b"\n")
        pending = rest
        for line in lines:
            threading.Thread(target=serve, args=(port, bytes(line)), daemon=True).start()


main()
