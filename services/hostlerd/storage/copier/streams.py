"""Streams: a tree that is read for another host, or written as it comes from one.

A frame is its length, four bytes, and a letter with what belongs to it. The first one asks: S for a
stream, W for one that is to be written; then come parts, or an X to give it up, and the answers: H,
what is there already, O, how it ended, R, a refusal.
"""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hostler.core.copying.parts import PART_BYTES_MOST, BadPart, Have, Part, decode, encode
from hostler.core.copying.receive import CutOff, receive
from hostler.core.copying.send import send
from hostlerd.privileged.grammar import Check, flag, record, text, whole
from hostlerd.privileged.lines import parse
from hostlerd.privileged.refused import Fault
from hostlerd.storage.copier.roots import declared, place_of
from hostlerd.storage.copier.work import refusing
from hostlerd.storage.model.copies import ORIGIN, Outcome
from hostlerd.storage.worker.refused import Refused

#: How long the other side may say nothing, or take nothing: as it reads a large file again.
SILENT_S = 3600.0
_LENGTH = struct.Struct(">I")
_MOST = (1 << 62) - 1
_READ_AT_ONCE = 1 << 18


class _Gone(Exception):
    """The other side has gone."""


class Frames:
    """Frames over a socket."""

    def __init__(self, peer: socket.socket) -> None:
        peer.settimeout(SILENT_S)
        self._peer = peer
        self._lines = peer.makefile("rb", buffering=_READ_AT_ONCE)

    def send(self, head: bytes, data: bytes | memoryview = b"") -> None:
        """Send one. Raises _Gone."""
        try:
            self._peer.sendall(_LENGTH.pack(len(head) + len(data)) + head)
            if data:
                self._peer.sendall(data)
        except OSError as e:
            raise _Gone from e

    def tell(self, letter: bytes, value: Any) -> None:
        """Send one that is JSON, if anybody is there."""
        with suppress(_Gone):
            self.send(letter + json.dumps(value).encode())

    def take(self) -> bytes:
        """Take one. Raises _Gone, also where the other side is silent for long; Refused."""
        try:
            head = self._lines.read(_LENGTH.size)
            if len(head) < _LENGTH.size:
                raise _Gone
            (length,) = _LENGTH.unpack(head)
            if not 0 < length <= PART_BYTES_MOST:
                raise Refused("MALFORMED", "a frame is empty or too long")
            text: bytes = self._lines.read(length)
        except OSError as e:
            raise _Gone from e
        if len(text) < length:
            raise _Gone
        return text


def serve(peer: socket.socket, folder: Path, path: Check) -> None:
    """Answer one stream."""
    frames = Frames(peer)
    try:
        asked = frames.take()
        if asked[:1] == b"S":
            fields = _fields(asked, {"source": path, "entries": _NUMBER, "offset": _NUMBER})
            _read(frames, declared(folder), **fields)
        elif asked[:1] == b"W":
            fields = _fields(asked, {"target": path, "origin": text(ORIGIN), "manifest": flag})
            frames.tell(b"O", asdict(_write(frames, declared(folder), **fields)))
        else:
            raise Refused("MALFORMED", "the stream asks for nothing that there is")
    except Refused as e:
        frames.tell(b"R", e.answer())
    except OSError as e:
        frames.tell(b"R", Refused.by_system(e).answer())
    except _Gone:
        return


_NUMBER = whole(0, _MOST)


def _fields(asked: bytes, checks: Mapping[str, Check]) -> dict[str, Any]:
    fields, faults = parse(asked[1:]), list[Fault]()
    record(checks, tuple(checks))(fields, "", faults)
    if faults:
        told = "; ".join(f"{where}: {what}" for where, what in faults[:5])
        raise Refused("INVALID", told, faults[:100])
    found: dict[str, Any] = fields
    return found


def _read(frames: Frames, roots: tuple[str, ...], source: str, entries: int, offset: int) -> None:
    def emit(part: Part) -> None:
        frames.send(*encode(part))

    with refusing(), place_of(roots, source) as place:
        send(place, Have(entries, offset), emit)


def _write(
    frames: Frames, roots: tuple[str, ...], target: str, origin: str, manifest: bool
) -> Outcome:
    mark = json.dumps({"stream_of": origin, "manifest": manifest}).encode()
    with refusing(), place_of(roots, target) as place:
        try:
            copied = receive(place, mark, _parts_after(frames), with_manifest=manifest)
        except CutOff:
            words = f"the stream ended before its end; there is no {target}, and what came is kept"
            raise Refused("COPY_CUT_OFF", words, path=target) from None
    return Outcome(**asdict(copied))


def _parts_after(frames: Frames) -> Callable[[Have], Iterator[Part]]:
    def begun(have: Have) -> Iterator[Part]:
        frames.tell(b"H", asdict(have))
        with suppress(_Gone):
            while True:
                yield _part(frames.take())

    return begun


def _part(text: bytes) -> Part:
    if text == b"X":
        raise Refused("COPY_MALFORMED", "it is given up: what came to the daemon is no stream")
    try:
        return decode(text)
    except BadPart as e:
        raise Refused("COPY_MALFORMED", str(e)) from e
