"""Whether strace would serve on this host, found out by having it trace a process of our own."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

from hostlerd.tracing.kernel.strace import privileges
from hostlerd.tracing.model.capture import STRACE

# Once it has read a line it says where it goes.
_TRACED = ("/bin/sh", "-c", "read line; cd /")
_SAID = b'chdir("/")'
_OPTIONS = ("-qq", "-e", "trace=chdir", "-o", "/dev/stdout")
_MOST_S = 5.0
_LOOK_S = 0.02
_WORDS_BYTES = 1000


def why_not() -> str:
    """Why strace cannot serve, in words; empty if it can."""
    try:
        privileges.check()
        with subprocess.Popen(_TRACED, stdin=subprocess.PIPE, env={}, cwd="/") as traced:
            try:
                return _trace(traced)
            finally:
                traced.kill()
    except OSError as e:
        return f"{e.filename or STRACE}: {e.strerror or e}"


def _trace(traced: subprocess.Popen[bytes]) -> str:
    with subprocess.Popen(
        [STRACE, *_OPTIONS, "-p", str(traced.pid)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={},
        cwd="/",
    ) as strace:
        try:
            if _is_attached(strace, traced.pid):
                traced.communicate(b"\n", timeout=_MOST_S)
            said, words = strace.communicate(timeout=_MOST_S)
        except subprocess.TimeoutExpired:
            return f"{STRACE} does not come to an end"
        finally:
            strace.kill()
    if strace.returncode:
        lines = words[:_WORDS_BYTES].decode(errors="replace").strip().splitlines()
        return lines[0] if lines else f"{STRACE}: exit status {strace.returncode}"
    return "" if _SAID in said else "process_vm_readv: it cannot read what processes say"


def _is_attached(strace: subprocess.Popen[bytes], pid: int) -> bool:
    give_up = time.monotonic() + _MOST_S
    wanted = b"\nTracerPid:\t%d\n" % strace.pid
    while strace.poll() is None and time.monotonic() < give_up:
        if wanted in Path(f"/proc/{pid}/status").read_bytes():
            return True
        time.sleep(_LOOK_S)
    return False
