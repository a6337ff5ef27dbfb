"""Captures on this machine: read whichever format they have, written as they come from hosts."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from hostler.config import HostlerError
from hostler.core.trace.capture import MAGIC, CaptureHeader
from hostler.core.trace.capture_reader import CaptureReader
from hostler.core.trace.capture_writer import CaptureWriter, Rotation
from hostler.core.trace.events import Events
from hostler.core.trace.merge import Merged, merge
from hostler.core.trace.scap_import import ScapReader
from hostler.core.trace.schema import CaptureInvalid
from hostler.traces import Started


class CaptureUnreadable(HostlerError):
    """A capture cannot be read, or is not whole; the message says where."""

    exit_code = 1


class Captures:
    """Some captures, opened together; `hosts` are their names, `problems` what they lack."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._open = ExitStack()
        self.hosts: list[str] = []
        self.problems: list[str] = []
        self._paths = list(paths)
        self._readers: list[Any] = []
        self._offsets_ns: list[int] = []
        try:
            for path in paths:
                self._add(path)
        except (OSError, CaptureInvalid) as e:
            self._open.close()
            raise CaptureUnreadable(f"{path}: {_words(e)}") from e

    def _add(self, path: Path) -> None:
        with path.open("rb") as file:
            is_native = file.read(len(MAGIC)) == MAGIC
        if is_native:
            native = self._open.enter_context(CaptureReader(path))
            self.hosts.append(native.header.host or path.name)
            self._offsets_ns.append(native.header.clock_offset_ns)
            self._readers.append(native)
            if native.is_torn:
                self._note_torn(path, native)
        else:
            self._readers.append(self._open.enter_context(ScapReader(path)))
            self.hosts.append(path.name)
            self._offsets_ns.append(0)

    def merged(self) -> Iterator[Merged]:
        """All events in the order in which they ended. Raises CaptureUnreadable."""
        sources = [self._read(i) for i in range(len(self._readers))]
        yield from merge(sources, self._offsets_ns)

    def _read(self, index: int) -> Iterator[Events]:
        reader = self._readers[index]
        try:
            yield from reader
        except (OSError, CaptureInvalid) as e:
            raise CaptureUnreadable(f"{self._paths[index]}: {_words(e)}") from e
        if isinstance(reader, ScapReader):
            if reader.is_torn:
                self._note_torn(self._paths[index], reader)
            if reader.skipped:
                words = f"{reader.skipped.total()} events that are no system calls are left out"
                self.problems.append(f"{self._paths[index]}: {words}")

    def _note_torn(self, path: Path, reader: CaptureReader | ScapReader) -> None:
        words = f"not completed: {reader.torn_bytes} bytes at its end are left out"
        self.problems.append(f"{path}: {words}")

    def close(self) -> None:
        """Close all."""
        self._open.close()


def _words(error: Exception) -> str:
    return (error.strerror or str(error)) if isinstance(error, OSError) else str(error)


class Recording:
    """Writes what hosts tell: one capture for each, FILE, or FILE with the host's name in it."""

    def __init__(
        self, path: Path, hosts: Sequence[str], filter_text: str, rotation: Rotation | None
    ) -> None:
        self._paths = {
            host: path if len(hosts) == 1 else path.with_name(f"{path.stem}.{host}{path.suffix}")
            for host in hosts
        }
        self._filter_text = filter_text
        self._rotation = rotation
        self._writers: dict[str, CaptureWriter] = {}

    def begin(self, host: str, started: Started) -> None:
        """Make a host's file. Raises HostlerError."""
        header = CaptureHeader(
            host=host,
            boot_id=started.boot_id,
            start_ns=time.time_ns(),
            filter_text=self._filter_text,
        )
        path = self._paths[host]
        try:
            self._writers[host] = CaptureWriter(path, header, rotation=self._rotation)
        except OSError as e:
            raise CaptureUnreadable(f"{path}: {_words(e)}") from e

    def write(self, host: str, events: Events) -> None:
        """Write a batch of a host. Raises HostlerError."""
        try:
            self._writers[host].write(events)
        except OSError as e:
            raise CaptureUnreadable(f"{self._paths[host]}: {_words(e)}") from e

    def close(self) -> None:
        """Complete all files."""
        for writer in self._writers.values():
            writer.close()
