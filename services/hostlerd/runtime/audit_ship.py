"""Sends the records of a domain's audit log off the host: a process of its own, `hostlerd-ship`.

It may read the log and reach the network, and nothing else; the daemons may do the opposite. Every
record is sent at least once: the cursor moves when the other side has it, and survives a boot.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import threading
import time
from collections import deque
from pathlib import Path
from typing import Protocol
from urllib.parse import SplitResult, urlsplit

from hostler.core.audit import Record, parse
from hostlerd.runtime import config
from hostlerd.runtime.audit_files import backwards
from hostlerd.runtime.audit_otlp import Otlp
from hostlerd.runtime.audit_syslog import Source, Syslog
from hostlerd.runtime.audit_tail import Tail
from hostlerd.runtime.log import get_log

log = get_log("runtime.ship")

_LOOK_S = 0.5
_TOGETHER = 200
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 1.0, 30.0
_SCHEMES = (
    "syslog+tcp://HOST:PORT, syslog+udp://HOST:PORT, syslog+unix:///PATH, otlp+http://HOST:PORT"
)


class Receiver(Protocol):
    """Where records are sent to."""

    def send(self, records: list[tuple[Record, bytes]]) -> None:
        """Send records; returns when they are there. Raises OSError."""
        ...

    @property
    def settle_s(self) -> float:
        """How long what was sent has to rest before it counts as received."""
        ...

    def check(self) -> None:
        """Raise OSError if the receiver has gone since."""
        ...

    def close(self) -> None:
        """Give the connection up."""
        ...


class ReceiverInvalid(Exception):
    """`audit.ship` names nothing that records can be sent to."""


def receiver(text: str, source: Source) -> Receiver:
    """Answer the receiver that a URL names. Raises ReceiverInvalid."""
    try:
        url = urlsplit(text)
        port = url.port
    except ValueError as e:
        raise ReceiverInvalid(f"audit.ship: {e}") from e
    if url.scheme in ("syslog+tcp", "syslog+udp") and url.hostname and port:
        return Syslog(url, source)
    if url.scheme == "syslog+unix" and url.path:
        return Syslog(url, source)
    if url.scheme == "otlp+http" and url.hostname:
        return Otlp(url, source)
    raise ReceiverInvalid(f"audit.ship: {text!r} is none of {_SCHEMES}")


class Cursor:
    """The last record that was sent, kept in a file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            told = json.loads(path.read_text())
            self.seq, self.head = int(told["seq"]), str(told["head"])
        except FileNotFoundError:
            self.seq, self.head = 0, ""
        except (ValueError, KeyError, TypeError) as e:
            # At least once: what was sent before is sent again.
            log.warning("cursor not readable, beginning anew", path=path, problem=e)
            self.seq, self.head = 0, ""

    def move(self, record: Record) -> None:
        """Remember a record as sent. Raises OSError."""
        self.seq, self.head = record["seq"], record["hash"]
        fresh = self._path.with_suffix(".new")
        with fresh.open("w") as stream:
            json.dump({"seq": self.seq, "head": self.head}, stream)
            stream.flush()
            os.fsync(stream.fileno())
        fresh.rename(self._path)


class Shipper:
    """Follows a log and sends what is new, for as long as it takes."""

    def __init__(self, path: Path, cursor: Cursor, to: Receiver, stop: threading.Event) -> None:
        self._path = path
        self._cursor = cursor
        self._to = to
        self._stop = stop
        self._tail = Tail(path, cursor.seq)
        self._sent: deque[tuple[float, Record]] = deque()
        self._seq = cursor.seq
        self._pause_s = 0.0

    def run(self) -> None:
        """Send until told to stop."""
        self._compare()
        while not self._stop.is_set():
            try:
                self._turn()
            except OSError as e:
                self._back(e)
        self._tail.close()
        self._to.close()

    def _compare(self) -> None:
        """Tell if the log is not the one that was sent from: it ends before the cursor."""
        end = next((r for line in backwards(self._path) if (r := parse(line))), None)
        if end is not None and end["seq"] < self._cursor.seq:
            log.error("the log ends before what was sent", end=end["seq"], sent=self._cursor.seq)
            self._cursor.seq = self._seq = 0
            self._tail = Tail(self._path, 0)

    def _turn(self) -> None:
        """Send what is new, if anything, and move the cursor. Raises OSError."""
        new = self._new()
        if new:
            self._to.send(new)
            self._seq = new[-1][0]["seq"]
            self._sent.append((time.monotonic(), new[-1][0]))
            if self._pause_s:
                log.info("the receiver takes records again", seq=self._seq)
                self._pause_s = 0.0
        self._to.check()
        self._settle()
        if not new:
            self._stop.wait(_LOOK_S)

    def _new(self) -> list[tuple[Record, bytes]]:
        found = []
        for line in self._tail.lines(_TOGETHER):
            record = parse(line)
            if record is not None and record["seq"] > self._seq:
                found.append((record, line))
        return found

    def _settle(self) -> None:
        """Move the cursor to what was sent long enough ago on a connection that still stands."""
        last: Record | None = None
        while self._sent and time.monotonic() - self._sent[0][0] >= self._to.settle_s:
            last = self._sent.popleft()[1]
        if last is not None:
            self._cursor.move(last)

    def _back(self, error: OSError) -> None:
        """Go back to the cursor: what was under way may not have been read by anybody."""
        self._to.close()
        self._tail.close()
        self._tail, self._seq = Tail(self._path, self._cursor.seq), self._cursor.seq
        self._sent.clear()
        if not self._pause_s:
            log.warning("records wait for their receiver", error=error.strerror or repr(error))
        self._pause_s = min(_LONGEST_PAUSE_S, 2 * self._pause_s or _FIRST_PAUSE_S)
        self._stop.wait(self._pause_s)


def main() -> None:
    """Ship the log of the domain that the first argument names, until SIGTERM."""
    domain = sys.argv[1]
    paths = config.Paths.of(domain)
    # The folder is the domain's, and this process is not: systemd does not name it.
    folder = Path(os.environ.get("HOSTLER_LOGS", f"/var/log/hostler/{domain}"))
    try:
        configuration = config.read(paths.configuration / "hostler.toml", domain)
        if not configuration.audit.ship:
            log.error("nothing to do: audit.ship is not set")
            sys.exit(78)
        source = Source(socket.gethostname(), domain)
        to = receiver(configuration.audit.ship, source)
    except (config.ConfigurationInvalid, ReceiverInvalid) as e:
        log.error("configuration not usable", problem=e)
        sys.exit(78)
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    log.info("shipping", domain=domain, to=_without_user(urlsplit(configuration.audit.ship)))
    Shipper(folder / "audit.jsonl", Cursor(paths.state / "cursor.json"), to, stop).run()


def _without_user(url: SplitResult) -> str:
    return f"{url.scheme}://{url.netloc.rpartition('@')[2]}{url.path}"


if __name__ == "__main__":
    main()
