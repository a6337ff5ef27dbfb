"""Lines of strace(1) become calls: begun and resumed ones are joined, and processes followed."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from dataclasses import dataclass

from hostler.core.trace.events import Flag
from hostler.core.trace.syscalls import Syscall, all_syscalls
from hostlerd.tracing.kernel.capture.calls import DATA, MAKE_FD
from hostlerd.tracing.kernel.strace import text
from hostlerd.tracing.kernel.strace.naming import NOTHING, File, file_of
from hostlerd.tracing.kernel.strace.processes import Process, Processes, makes_process
from hostlerd.tracing.kernel.strace.text import Note, Told

_MASK = (1 << 64) - 1
_BEGUN_MOST = 1 << 14
_NUMBERED = "syscall_0x"
_FLAGS = b"flags="
_CLONE_ARGUMENTS = (b"child_stack", b"parent_tid", b"child_tidptr", b"tls")
_PR_SET_NAME = 15
_KEEP = (0xFFFFFFFF, -1, _MASK)
# Which argument is the effective id from then on.
_SETS_UID = {"setuid": 0, "setreuid": 1, "setresuid": 1}
_SETS_GID = {"setgid": 0, "setregid": 1, "setresgid": 1}


@dataclass(frozen=True, slots=True)
class Call:
    """A call as events have it."""

    time_ns: int
    latency_ns: int
    flags: int
    syscall: int
    result: int
    arguments: tuple[int, ...]
    tid: int
    process: Process
    file: File
    fd: int
    path: bytes
    path2: bytes
    data: bytes


class Calls:
    """Takes lines, answers calls as they end. `data_bytes` is how much of their data is kept."""

    def __init__(self, processes: Processes, data_bytes: int) -> None:
        self._processes = processes
        self._data_bytes = data_bytes
        self._begun: dict[int, Told] = {}
        self._of_32_bits: set[int] = set()
        self.not_understood = 0

    def take(self, lines: Iterator[bytes]) -> Iterator[Call]:
        """The calls that these lines end."""
        for line in lines:
            told = text.parse(line)
            if isinstance(told, Note):
                self._note(told)
            elif told is None:
                self.not_understood += 1
            elif (whole := self._joined(told)) is not None:
                yield self._call(*whole)

    def _note(self, note: Note) -> None:
        if note.text.startswith((b"+++ exited", b"+++ killed", b"+++ superseded")):
            self._processes.ended(note.tid)
            self._begun.pop(note.tid, None)
            self._of_32_bits.discard(note.tid)
        elif b"runs in 32 bit mode" in note.text:
            self._of_32_bits.add(note.tid)
        elif b"runs in 64 bit mode" in note.text:
            self._of_32_bits.discard(note.tid)

    def _joined(self, told: Told) -> tuple[Told, bool] | None:
        """A call that has ended, and whether its beginning was seen."""
        before = self._begun.pop(told.tid, None) if told.is_resumed else None
        if told.is_begun:
            if len(self._begun) < _BEGUN_MOST:
                self._begun[told.tid] = told
            return None
        if not told.is_resumed:
            return told, True
        if before is None or before.name != told.name:
            return told, False
        arguments = (*before.arguments, *told.arguments)
        whole = Told(told.tid, before.time_ns, told.name, arguments, told.result, told.latency_ns)
        return whole, True

    def _call(self, told: Told, has_entry: bool) -> Call:
        is_32 = told.tid in self._of_32_bits
        entry = all_syscalls().get(told.name)
        result = text.result_of(told.result)
        flags = Flag.IS_32_BIT if is_32 else Flag(0)
        if result is None:
            flags |= Flag.UNFINISHED
        if not has_entry:
            flags |= Flag.ENTRY_LOST
        if not self._processes.knows(told.tid):
            self._adopt(told)
        process = self._processes.of(told.tid)
        paths = self._paths(told, entry, process)
        fd, file = _fd(told, entry, result)
        self._follow(told, result, paths)
        data = b""
        if told.name in DATA and result is not None and result > 0:
            data, is_cut = _data(told, self._data_bytes)
            flags |= Flag.DATA_CUT if is_cut and data else Flag(0)
            flags |= Flag(0) if data else Flag.DATA_WITHHELD
        numbers = _numbers(told)
        return Call(
            time_ns=told.time_ns,
            latency_ns=0 if result is None else told.latency_ns,
            flags=int(flags),
            syscall=_number(told.name, entry, is_32),
            result=result or 0,
            arguments=tuple(n & _MASK for n in (*numbers, *(0,) * (6 - len(numbers)))),
            tid=told.tid,
            process=self._processes.of(told.tid),
            file=file,
            fd=fd,
            path=paths[0],
            path2=paths[1],
            data=data,
        )

    def _adopt(self, told: Told) -> None:
        """A child may speak before the call that has made it is over."""
        for begun in self._begun.values():
            if makes_process(begun.name):
                flags = _clone_flags(begun.arguments)
                self._processes.made(begun.tid, told.tid, told.time_ns, flags)
                return

    def _paths(self, told: Told, entry: Syscall | None, process: Process) -> tuple[bytes, bytes]:
        found = [b"", b""]
        for nth in range(2):
            at = entry.index_of("path", nth) if entry else None
            path = (
                text.string_of(told.arguments[at])
                if at is not None and at < len(told.arguments)
                else None
            )
            if path is None:
                continue
            base = entry.index_of("dirfd", nth) if entry else None
            folder = process.cwd
            if base is not None and base < len(told.arguments):
                folder = file_of(text.decoration_of(told.arguments[base])).name or folder
            if folder.startswith(b"/"):
                path = posixpath.join(folder, path) if path else folder
            found[nth] = path
        return found[0], found[1]

    def _follow(self, told: Told, result: int | None, paths: tuple[bytes, bytes]) -> None:
        """What of processes a call has changed."""
        name, arguments, tid = told.name, told.arguments, told.tid
        if result is None or result < 0:
            return
        if makes_process(name) and result > 0:
            self._processes.made(tid, result, told.time_ns, _clone_flags(arguments))
        elif name in ("execve", "execveat"):
            self._processes.ran(tid, paths[0])
        elif name == "chdir":
            self._processes.change(tid, cwd=posixpath.normpath(paths[0]))
        elif name == "fchdir" and arguments:
            self._processes.change(tid, cwd=file_of(text.decoration_of(arguments[0])).name)
        elif name == "prctl" and len(arguments) > 1:
            if text.number_of(arguments[0]) == _PR_SET_NAME:
                self._processes.change(tid, comm=text.string_of(arguments[1]) or b"")
        for table, field in ((_SETS_UID, "uid"), (_SETS_GID, "gid")):
            at = table.get(name, len(arguments))
            number = text.number_of(arguments[at]) if at < len(arguments) else None
            if number is not None and number not in _KEEP:
                self._processes.change(tid, **{field: number & 0xFFFFFFFF})


def _number(name: str, entry: Syscall | None, is_32: bool) -> int:
    number = (entry.number_32 if is_32 else entry.number) if entry else None
    if number is None and name.startswith(_NUMBERED):
        number = int(name.removeprefix(_NUMBERED), 16)
    # A call that strace knows and this table does not.
    return (0xFFFF if number is None else number) & 0xFFFF


def _fd(told: Told, entry: Syscall | None, result: int | None) -> tuple[int, File]:
    if told.name in MAKE_FD:
        if result is None or result < 0:
            return -1, NOTHING
        return result & 0x7FFFFFFF, file_of(text.decoration_of(told.result))
    at = entry.index_of("fd") if entry else None
    number = (
        text.number_of(told.arguments[at]) if at is not None and at < len(told.arguments) else None
    )
    if at is None or number is None or not -(1 << 31) <= number < 1 << 31:
        return -1, NOTHING
    return number, file_of(text.decoration_of(told.arguments[at]))


def _data(told: Told, most: int) -> tuple[bytes, bool]:
    if not most or len(told.arguments) < 2:
        return b"", False
    data, is_cut = text.strings_of(told.arguments[1])
    return data[:most], is_cut or len(data) > most


def _numbers(told: Told) -> list[int]:
    if told.name == "clone":
        # strace names its arguments, and has an order of its own for them.
        named = dict(each.partition(b"=")[::2] for each in told.arguments)
        words = (named.get(name, b"") for name in _CLONE_ARGUMENTS)
        return [_clone_flags(told.arguments), *(text.number_of(word) or 0 for word in words)]
    return [text.number_of(argument) or 0 for argument in told.arguments[:6]]


def _clone_flags(arguments: tuple[bytes, ...]) -> int:
    """The flags of clone(2) or clone3(2), such as `flags=0x1200000|17`."""
    for argument in arguments:
        begin = argument.find(_FLAGS)
        if begin >= 0:
            words = argument[begin + len(_FLAGS) :].split(b",")[0].rstrip(b"}").split(b"|")
            flags = 0
            for word in words:
                flags |= text.number_of(word) or 0
            return flags
    return 0
