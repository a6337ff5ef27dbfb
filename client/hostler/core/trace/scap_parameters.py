"""The parameters of events as sysdig has them, made from ours. Pure.

`scap_calls.tsv` says by words which parameters an event has: `fd:0` is argument 0 as an fd, `res`
the result, and so on. Each word is a function here.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import cache
from typing import Any

from hostler.core.trace.events import COLUMNS, Events, FileType
from hostler.core.trace.scap_layout import (
    MAX_PARAMETER,
    MAX_TEXTS,
    clone_flags,
    fcntl_command,
    open_flags,
)
from hostler.core.trace.scap_tables import address, cgroups, endpoints, program_and_arguments

_FAMILIES: dict[int, int] = {FileType.UNIX: 1, FileType.IPV4: 2, FileType.IPV6: 10}
_INET_FAMILIES = (2, 10)
_NUMBERS = {
    "u8": struct.Struct("<B"),
    "u16": struct.Struct("<H"),
    "u32": struct.Struct("<I"),
    "u64": struct.Struct("<Q"),
}
_I32 = struct.Struct("<i")
_I64 = struct.Struct("<q")
_U32 = _NUMBERS["u32"]


class Rows:
    """A batch row by row, which a list of Python numbers does much faster than numpy."""

    def __init__(self, events: Events) -> None:
        self.columns: dict[str, list[Any]] = {name: events[name].tolist() for name in COLUMNS}
        self.arguments = [self.columns[f"arg{i}"] for i in range(6)]
        self.processes = events.processes
        self.files = events.files
        self.texts = events.texts

    def text(self, column: str, row: int) -> bytes:
        """A text of an event."""
        return self.texts[int(self.columns[column][row])]

    def process(self, row: int) -> Any:
        """The process of an event."""
        return self.processes[self.columns["process"][row]]

    def process_text(self, column: str, row: int) -> bytes:
        """A text of the process of an event."""
        return self.texts[int(self.process(row)[column])]

    def file(self, row: int) -> Any:
        """The file of an event."""
        return self.files[self.columns["file"][row]]


Parameters = Callable[[Rows, int], list[bytes]]
One = Callable[[Rows, int], bytes]


@cache
def parameters(words: tuple[str, ...]) -> Parameters:
    """What makes the parameters that the words name, for an event of a batch."""
    makers = [_maker(word) for word in words if word != "process"]
    if "process" not in words:
        return lambda rows, row: [make(rows, row) for make in makers]
    at = words.index("process")

    def with_process(rows: Rows, row: int) -> list[bytes]:
        made = [make(rows, row) for make in makers]
        return made[:at] + _process(rows, row) + made[at:]

    return with_process


def _maker(word: str) -> One:
    name, _, argument = word.partition(":")
    return _of_argument(name, int(argument)) if argument else _NAMED[word]


def _of_argument(name: str, argument: int) -> One:
    """What makes a parameter from a number that the call was given."""
    if name in _NUMBERS:
        form = _NUMBERS[name]
        mask = (1 << 8 * form.size) - 1
        return lambda rows, row: form.pack(rows.arguments[argument][row] & mask)
    if name == "fd":
        return lambda rows, row: _I64.pack(_signed(rows.arguments[argument][row]))
    if name == "i32":
        return lambda rows, row: _I32.pack(_signed(rows.arguments[argument][row]))
    convert, form = _CONVERTED[name]
    return lambda rows, row: form.pack(convert(rows.arguments[argument][row] & 0xFFFF_FFFF))


_CONVERTED: dict[str, tuple[Callable[[int], int], struct.Struct]] = {
    "open": (open_flags, _U32),
    "clone": (clone_flags, _U32),
    "fcntl": (fcntl_command, _NUMBERS["u8"]),
}


def _signed(value: int) -> int:
    value &= 0xFFFF_FFFF
    return value - (1 << 32) if value >> 31 else value


def _string(text: bytes) -> bytes:
    return text[:MAX_PARAMETER].split(b"\0", 1)[0] + b"\0"


def _constant(value: bytes) -> One:
    return lambda rows, row: value


def _process_number(column: str, form: struct.Struct) -> One:
    mask = (1 << 8 * form.size - (form in (_I32, _I64))) - 1
    return lambda rows, row: form.pack(int(rows.process(row)[column]) & mask)


def _result_size(rows: Rows, row: int) -> bytes:
    return _U32.pack(max(rows.columns["result"][row], 0) & 0xFFFF_FFFF)


def _login_uid(rows: Rows, row: int) -> bytes:
    return _I32.pack(_signed(int(rows.process(row)["loginuid"])))


def _device(rows: Rows, row: int) -> bytes:
    device = int(rows.file(row)["device"])
    major, minor = device >> 20, device & 0xF_FFFF
    # As stat(2) gives it: the lower byte of the minor number, the major one, the rest.
    return _U32.pack((minor & 0xFF | major << 8 | (minor & ~0xFF) << 12) & 0xFFFF_FFFF)


def _opened(rows: Rows, row: int) -> bytes:
    """What was opened: the file's own path, which need not be that by which it was asked for.

    sysdig names the fd by it, and takes it from the enter event.
    """
    name = rows.texts[int(rows.file(row)["name"])]
    is_path = rows.columns["result"][row] >= 0 and name.startswith(b"/")
    return _string(name) if is_path else _string(rows.text("path", row))


def _tuple(rows: Rows, row: int) -> bytes:
    """Both ends of a socket: family, client, server."""
    file = rows.file(row)
    family = _FAMILIES.get(int(file["type"]), 0)
    if family in _INET_FAMILIES:
        source, source_port, target, target_port = endpoints(file)
        ports = struct.pack("<H", source_port), struct.pack("<H", target_port)
        return bytes((family,)) + source + ports[0] + target + ports[1]
    if family:
        return bytes((family,)) + bytes(16) + _string(rows.texts[file["name"]][:MAX_TEXTS])
    return b""


def _end(side: str) -> One:
    """One end of a socket: family, address, port."""

    def make(rows: Rows, row: int) -> bytes:
        file = rows.file(row)
        family = _FAMILIES.get(int(file["type"]), 0)
        if family in _INET_FAMILIES:
            ip = address(file, f"{side}_ip")
            return bytes((family,)) + ip + struct.pack("<H", int(file[f"{side}_port"]))
        if family:
            return bytes((family,)) + _string(rows.texts[file["name"]][:MAX_TEXTS])
        return b""

    return make


def _process(rows: Rows, row: int) -> list[bytes]:
    """The fourteen parameters with which clone and execve say who the process is."""
    process = rows.process(row)
    exe = rows.process_text("exe", row)
    program, arguments = program_and_arguments(rows.process_text("cmdline", row), exe)
    return [
        _string(program),
        arguments,
        _I64.pack(rows.columns["tid"][row]),
        _I64.pack(int(process["pid"])),
        _I64.pack(int(process["ppid"])),
        _string(rows.process_text("cwd", row)),
        _I64.pack(1024),
        bytes(8),
        bytes(8),
        bytes(4),
        bytes(4),
        bytes(4),
        _string(rows.process_text("name", row)),
        cgroups(rows.process_text("cgroup", row)),
    ]


_NAMED: dict[str, One] = {
    "res": lambda rows, row: _I64.pack(rows.columns["result"][row]),
    "res32": _result_size,
    "size": _result_size,
    "path": lambda rows, row: _string(rows.text("path", row)),
    "path2": lambda rows, row: _string(rows.text("path2", row)),
    "opened": _opened,
    "data": lambda rows, row: rows.text("data", row)[:MAX_PARAMETER],
    "dev": _device,
    "tuple": _tuple,
    "addr": _end("local"),
    "remote": _end("remote"),
    "env": lambda rows, row: rows.process_text("environ", row)[:MAX_TEXTS],
    "uid": _process_number("uid", _U32),
    "gid": _process_number("gid", _U32),
    "tty": _process_number("tty", _I32),
    "sid": _process_number("sid", _I64),
    "vpid": _process_number("vpid", _I64),
    "loginuid": _login_uid,
    "tid": lambda rows, row: _I64.pack(rows.columns["tid"][row]),
    "empty": _constant(b""),
    "zero8": _constant(bytes(1)),
    "zero16": _constant(bytes(2)),
    "zero32": _constant(bytes(4)),
    "zero64": _constant(bytes(8)),
    "none64": _constant(b"\xff" * 8),
    "fdlist": _constant(bytes(2)),
}
