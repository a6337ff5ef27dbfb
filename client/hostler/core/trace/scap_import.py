"""`.scap` files of sysdig as events, also compressed ones.

Calls are made of their enter and exit events, and processes and open files are followed as the
events change them, in bounded memory. Events that are no system calls, or of a release that is not
known, are left out and counted in `skipped`. A file that ends in the middle of a block is torn:
what is before is read.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterator
from functools import cache
from itertools import accumulate
from pathlib import Path
from types import TracebackType
from typing import Self

from hostler.core.trace.columns import Cursor
from hostler.core.trace.events import Events, Flag
from hostler.core.trace.scap_batch import Batch
from hostler.core.trace.scap_layout import (
    BLOCK,
    BLOCK_END,
    EXITS,
    GENERIC_ENTER,
    HOST_BYTES,
    MACHINE,
    PROCESS_EXIT,
    SECTION,
    SECTION_MAGIC,
    ScapCall,
    clone_flags_back,
    fcntl_command_back,
    open_flags_back,
    scap_calls,
)
from hostler.core.trace.scap_lists import (
    FILE_LISTS,
    PROCESS_VERSIONS,
    USER_LISTS,
    File,
    read_files,
    read_processes,
    read_users,
)
from hostler.core.trace.scap_state import Call, State
from hostler.core.trace.scap_stream import ScapStream
from hostler.core.trace.schema import CaptureInvalid
from hostler.core.trace.syscalls import all_syscalls, name_of

MAX_BLOCK = 16 * 1024 * 1024
_MAX_TEXT = 64 * 1024
_MAX_PARAMETERS = 64
_MAX_PENDING = 64 * 1024

_U16, _U32, _U64 = struct.Struct("<H"), struct.Struct("<I"), struct.Struct("<Q")
_SECTION = struct.Struct("<IHH")
_EVENT = struct.Struct("<QQIH")
# Types of event blocks: has the number of parameters, has flags, has long parameters.
_EVENT_BLOCKS = {
    0x204: (False, False, False),
    0x208: (False, True, False),
    0x216: (True, False, False),
    0x217: (True, True, False),
    0x221: (True, False, True),
    0x222: (True, True, True),
}
# The order in which `process` stands for fourteen parameters.
_SAID = (
    *("exe", "args", "tid", "pid", "ppid", "cwd", "fdlimit", "major", "minor", "size", "resident"),
    *("swap", "name", "cgroups"),
)
_BACK = {"open": open_flags_back, "clone": clone_flags_back, "fcntl": fcntl_command_back}
_KEPT_TEXTS = frozenset(
    ("path", "path2", "opened", "data", "tuple", "addr", "remote", "env", "dev")
)
_KEPT_NUMBERS = frozenset(("uid", "gid", "tty", "loginuid", "vpid"))


class ScapReader:
    """A `.scap` file from its start. Iterate once. Raises CaptureInvalid, OSError.

    After it has been read, `skipped` has how many events of which type were left out, and
    `is_torn` and `torn_bytes` whether the file ended early.
    """

    def __init__(self, path: Path) -> None:
        self.host = ""
        self.skipped: Counter[int] = Counter()
        self.is_torn = False
        self.torn_bytes = 0
        self._state = State()
        self._pending: dict[int, Call] = {}
        self._made = Batch()
        self._stream = ScapStream(path)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._stream.close()

    def __iter__(self) -> Iterator[Events]:
        is_first = True
        while (found := self._next_block()) is not None:
            kind, body, place = found
            if is_first and kind != SECTION:
                raise CaptureInvalid("not a .scap file: it begins with something else", place)
            is_first = False
            self._take(kind, Cursor(body, place))
            if self._made.is_full:
                yield self._made.take()
        if is_first:
            raise CaptureInvalid("not a .scap file: it ends within its first block", "byte 0")
        for call in list(self._pending.values()):
            self._finish(call, Flag.UNFINISHED)
        if self._made.count:
            yield self._made.take()

    def _next_block(self) -> tuple[int, bytes, str] | None:
        start = self._stream.offset
        place = f"block at byte {start}"
        head = self._stream.read(BLOCK.size)
        if len(head) < BLOCK.size:
            self._end(len(head))
            return None
        kind, length = BLOCK.unpack(head)
        if not start and kind != SECTION:
            raise CaptureInvalid("not a .scap file: it begins with something else", place)
        if not BLOCK.size + BLOCK_END.size <= length <= MAX_BLOCK:
            raise CaptureInvalid(f"a length of {length} bytes", place)
        rest = self._stream.read(length - BLOCK.size)
        if len(rest) < length - BLOCK.size:
            self._end(len(head) + len(rest))
            return None
        body, end = rest[: -BLOCK_END.size], rest[-BLOCK_END.size :]
        if BLOCK_END.unpack(end) != (length,):
            raise CaptureInvalid("damaged: its lengths differ", place)
        return kind, body, place

    def _end(self, left: int) -> None:
        self.torn_bytes = left
        self.is_torn = bool(left) or self._stream.is_torn

    def _take(self, kind: int, cursor: Cursor) -> None:
        if kind in _EVENT_BLOCKS:
            self._event(cursor, *_EVENT_BLOCKS[kind])
        elif kind == SECTION:
            _check_section(cursor)
        elif kind == MACHINE:
            cursor.take(20)
            name = bytes(cursor.take(HOST_BYTES)).split(b"\0", 1)[0]
            self.host = name.decode(errors="replace")
        elif kind in PROCESS_VERSIONS:
            for tid, process in read_processes(cursor, kind):
                self._state.add_thread(tid, process)
        elif kind in USER_LISTS:
            for what, number, user in read_users(cursor, kind):
                self._made.know(what, number, user)
        elif kind in FILE_LISTS:
            tid, files = read_files(cursor, kind)
            pid = self._state.process(tid).pid
            for fd, file in files:
                self._state.add_file(pid, fd, file)

    def _event(self, cursor: Cursor, has_count: bool, has_flags: bool, is_large: bool) -> None:
        (cpu,) = cursor.unpack(_U16)
        if has_flags:
            cursor.unpack(_U32)
        time_ns, tid, length, kind = cursor.unpack(_EVENT)
        head = _EVENT.size + (_U32.size if has_count else 0)
        count = cursor.unpack(_U32)[0] if has_count else None
        if length < head:
            raise CaptureInvalid(f"an event of {length} bytes", cursor.place)
        body = Cursor(bytes(cursor.take(length - head)), cursor.place)
        made = _parameters(body, count, "I" if is_large else "H")
        tid &= 0xFFFF_FFFF
        if kind == PROCESS_EXIT:
            self._process_exit(tid)
        elif kind in _entered():
            self._enter(kind, cpu, tid, time_ns, made)
        elif kind in _left():
            self._leave(kind, cpu, tid, time_ns, made)
        else:
            self.skipped[kind] += 1

    def _enter(self, kind: int, cpu: int, tid: int, time_ns: int, made: list[bytes]) -> None:
        before = self._pending.pop(tid, None)
        if before is not None:
            self._finish(before, Flag.UNFINISHED)
        if len(self._pending) >= _MAX_PENDING:
            raise CaptureInvalid(f"more than {_MAX_PENDING} calls at a time", f"time {time_ns}")
        if kind == GENERIC_ENTER:
            name, number = _generic(made)
            call = Call(name, number, tid, time_ns, cpu)
        else:
            known = _entered()[kind]
            call = Call(known.name, all_syscalls()[known.name].number or 0, tid, time_ns, cpu)
            _fill(call, known.enter, made)
        self._pending[tid] = call

    def _leave(self, kind: int, cpu: int, tid: int, time_ns: int, made: list[bytes]) -> None:
        known = _left()[kind]
        call = self._pending.pop(tid, None)
        begun = scap_calls().get(call.name) if call else None
        if call and (begun.exit_type if begun else 1) == kind:
            if kind != 1:
                _fill(call, known.exit, made)
            call.latency_ns = max(time_ns - call.time_ns, 0)
            call.cpu = cpu
            self._finish(call, Flag(0))
            return
        if call:
            self._finish(call, Flag.UNFINISHED)
        name, number = _generic(made) if kind == 1 else (known.name, None)
        if number is None:
            number = all_syscalls()[name].number or 0
        alone = Call(name, number, tid, time_ns, cpu)
        if kind != 1:
            _fill(alone, known.exit, made)
        self._finish(alone, Flag.ENTRY_LOST)

    def _process_exit(self, tid: int) -> None:
        call = self._pending.pop(tid, None)
        if call is None or call.name not in EXITS:
            self.skipped[PROCESS_EXIT] += 1
        if call is not None:
            self._finish(call, Flag.UNFINISHED)
        self._state.end_thread(tid)

    def _finish(self, call: Call, flags: Flag) -> None:
        call.flags = flags
        if flags & Flag.UNFINISHED:
            self._made.add(call, self._state.process(call.tid), -1, File())
        else:
            self._made.add(call, *self._state.finish(call))


def _check_section(cursor: Cursor) -> None:
    magic, major, minor = cursor.unpack(_SECTION)
    if magic != SECTION_MAGIC:
        raise CaptureInvalid("of a machine with another byte order", cursor.place)
    if major != 1:
        raise CaptureInvalid(f"version {major}.{minor} is not known", cursor.place)


def _parameters(cursor: Cursor, count: int | None, letter: str) -> list[bytes]:
    """The parameters of an event. Old files do not say how many: as many as fill it exactly."""
    if count is None:
        count = _count(cursor)
    if count > _MAX_PARAMETERS:
        raise CaptureInvalid(f"{count} parameters", cursor.place)
    lengths = cursor.unpack(struct.Struct(f"<{count}{letter}"))
    joined = bytes(cursor.take(sum(lengths)))
    starts = accumulate(lengths, initial=0)
    return [joined[start : start + length] for start, length in zip(starts, lengths, strict=False)]


def _count(cursor: Cursor) -> int:
    data = cursor.rest()
    for count in range(min(len(data) // 2, _MAX_PARAMETERS), -1, -1):
        if sum(struct.unpack_from(f"<{count}H", data)) + 2 * count == len(data):
            return count
    raise CaptureInvalid("no number of parameters fits its length", cursor.place)


def _generic(made: list[bytes]) -> tuple[str, int]:
    """The call of a generic event: by the kernel's number if it has that, or by sysdig's."""
    if len(made) > 1:
        number = int.from_bytes(made[1][:2], "little")
        return name_of(number), number
    code = int.from_bytes(made[0][:2], "little") if made else 0
    for call in scap_calls().values():
        if call.code == code:
            return call.name, all_syscalls()[call.name].number or 0
    return name_of(0xFFFF), 0xFFFF


def _fill(call: Call, words: tuple[str, ...], made: list[bytes]) -> None:
    """Take what the parameters say; those that are not there say nothing, nor do any after."""
    names = [word for each in words for word in (_SAID if each == "process" else (each,))]
    is_telling = "process" in words
    for name, value in zip(names, made, strict=False):
        word, _, argument = name.partition(":")
        if argument:
            number = int.from_bytes(value[:8], "little", signed=word in ("fd", "i32"))
            back = _BACK.get(word)
            call.arguments[int(argument)] = (back(number) if back else number) & (1 << 64) - 1
        elif name == "res":
            call.result = int.from_bytes(value[:8], "little", signed=True)
        elif name == "res32":
            call.result = int.from_bytes(value[:4], "little")
        elif name in _KEPT_TEXTS:
            is_string = name in ("path", "path2", "opened")
            call.texts[name] = (value.split(b"\0", 1)[0] if is_string else value)[:_MAX_TEXT]
        elif name in _KEPT_NUMBERS or (is_telling and name in _SAID):
            call.said[name] = value
    if is_telling and not set(_SAID) <= set(call.said):
        call.said.clear()


@cache
def _entered() -> dict[int, ScapCall]:
    """The calls by the type of their enter event; the oldest of those that share one."""
    return {call.enter_type: call for call in reversed(list(scap_calls().values()))}


@cache
def _left() -> dict[int, ScapCall]:
    """The calls by the type of their exit event."""
    return {call.exit_type: call for call in reversed(list(scap_calls().values()))}
