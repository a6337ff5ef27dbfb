"""A reader of a test: the real process, at a socket of its own."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from hostlerd.ssl.errors import ReaderUnavailable
from hostlerd.ssl.kernel.reading import Reader

# Nobody starts it again when it has been idle, as systemd does.
_PROGRAM = """
import sys
from hostlerd.ssl.reader import __main__, server
server.serve.__defaults__ = (*server.serve.__defaults__[:-1], 600.0)
__main__.main(sys.argv[1:])
"""


@contextmanager
def reader(folder: Path, folders: Sequence[Path] = ()) -> Iterator[Reader]:
    """A reader that answers, looks through those folders, and ends with the test."""
    path, toml = folder / "reader.sock", folder / "hostler.toml"
    toml.write_text(f"[ssl]\nfolders = {json.dumps([str(each) for each in folders])}\n")
    argv = [sys.executable, "-c", _PROGRAM, "--listen", str(path), str(toml)]
    process = subprocess.Popen(argv)
    try:
        until = time.monotonic() + 60
        while not path.exists():
            if process.poll() is not None or time.monotonic() > until:
                raise ReaderUnavailable("the reader does not start")
            time.sleep(0.05)
        yield Reader(path)
    finally:
        process.kill()
        process.wait()
