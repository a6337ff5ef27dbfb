"""The lines that strace(1) writes, taken apart. Pure, and safe on lines from anyone.

They are of `strace -f -X raw -yy --absolute-timestamps=unix,ns --syscall-times=ns`, such as
`411 1795761792.696935123 openat(-100</root>, "a", 0) = 3</root/a> <0.000012345>`.
"""

from __future__ import annotations

import errno
import re
from dataclasses import dataclass

LINE_BYTES_MOST = 1 << 20
_ARGUMENTS_MOST = 64

_HEAD = re.compile(rb"(\d{1,10}) +(\d{1,12})\.(\d{9}) (.*)", re.DOTALL)
_CALL = re.compile(rb"([a-z_][a-z0-9_]{0,47})\((.*)", re.DOTALL)
_RESUMED = re.compile(rb"<\.\.\. ([a-z_][a-z0-9_]{0,47}) resumed>(.*)", re.DOTALL)
_UNFINISHED = b" <unfinished ...>"
_TIME = re.compile(rb" <(\d{1,9})\.(\d{9})>$")
_RESULT = re.compile(rb"(0x[0-9a-f]{1,16}|-?\d{1,20}|\?)(.*)", re.DOTALL)
_ERROR = re.compile(rb" (E[A-Z0-9_]{1,30})")
_NUMBER = re.compile(rb"(?:[a-z_]{1,32}=)?(-?(?:0x[0-9a-f]{1,16}|\d{1,20}))(<.*)?", re.DOTALL)
_STRING = re.compile(rb'"((?:[^"\\]|\\.)*)"(\.\.\.)?', re.DOTALL)
_ESCAPE = re.compile(rb"\\(x[0-9a-f]{2}|[0-7]{1,3}|.)", re.DOTALL)
_ESCAPES = {b"n": b"\n", b"t": b"\t", b"r": b"\r", b"v": b"\v", b"f": b"\f"}
_SOCKET = re.compile(rb"<[A-Za-z0-9-]{1,20}:\[")
_PAIRS = {b"("[0]: b")"[0], b"["[0]: b"]"[0], b"{"[0]: b"}"[0]}
_QUOTE, _COMMA, _CLOSE, _BACKSLASH, _LESS, _MORE = b'",)\\<>'
# What never leaves the kernel has no name in errno(3).
_RESTARTS = {"ERESTARTSYS": 512, "ERESTARTNOINTR": 513, "ERESTARTNOHAND": 514}
_RESTARTS |= {"ENOIOCTLCMD": 515, "ERESTART_RESTARTBLOCK": 516}


@dataclass(frozen=True, slots=True)
class Told:
    """A line: of a call that is whole, begun (`result` is not there yet) or resumed.

    `arguments` are as they stand, `result` with what follows it. `latency_ns` is 0 if not told.
    """

    tid: int
    time_ns: int
    name: str
    arguments: tuple[bytes, ...] = ()
    result: bytes = b""
    latency_ns: int = 0
    is_begun: bool = False
    is_resumed: bool = False


@dataclass(frozen=True, slots=True)
class Note:
    """A line that is of no call, such as of a signal, or of an exit: `+++ exited with 0 +++`."""

    tid: int
    time_ns: int
    text: bytes


def parse(line: bytes) -> Told | Note | None:
    """Take a line apart; None if it is none of strace's."""
    head = _HEAD.fullmatch(line)
    if head is None:
        return None
    tid, time_ns, rest = int(head[1]), int(head[2]) * 1_000_000_000 + int(head[3]), head[4]
    if time_ns >> 63:
        return None
    if rest.startswith((b"+++", b"---", b"strace: ")):
        return Note(tid, time_ns, rest)
    resumed = _RESUMED.fullmatch(rest)
    call = resumed or _CALL.fullmatch(rest)
    if call is None:
        return None
    name, after = call[1].decode(), call[2]
    if after.endswith(_UNFINISHED):
        begun, _ = _arguments(after.removesuffix(_UNFINISHED))
        return Told(tid, time_ns, name, begun, is_begun=True, is_resumed=bool(resumed))
    arguments, end = _arguments(after)
    ended = after[end:].lstrip()
    if not ended.startswith(b"= "):
        return None
    took = _TIME.search(ended)
    latency_ns = int(took[1]) * 1_000_000_000 + int(took[2]) if took else 0
    result = ended[2 : took.start() if took else None]
    return Told(tid, time_ns, name, arguments, result, latency_ns, is_resumed=bool(resumed))


def _arguments(text: bytes) -> tuple[tuple[bytes, ...], int]:
    """The arguments up to the bracket that closes them, and where that is passed."""
    found: list[bytes] = []
    begin = place = 0
    waiting: list[int] = []
    while place < len(text):
        char = text[place]
        if char == _QUOTE:
            place = _after_string(text, place)
            continue
        if char == _LESS and place and _is_decoration(text, place):
            place = _after_decoration(text, place)
            continue
        if waiting and char == waiting[-1]:
            waiting.pop()
        elif char in _PAIRS:
            waiting.append(_PAIRS[char])
        elif not waiting and char in (_COMMA, _CLOSE):
            _add(found, text[begin:place])
            begin = place + 1
            if char == _CLOSE:
                return tuple(found), begin
        place += 1
    _add(found, text[begin:])
    return tuple(found), len(text)


def _add(found: list[bytes], argument: bytes) -> None:
    argument = argument.strip()
    if argument and len(found) < _ARGUMENTS_MOST:
        found.append(argument)


def _after_string(text: bytes, place: int) -> int:
    string = _STRING.match(text, place)
    return string.end() if string else len(text)


def _is_decoration(text: bytes, place: int) -> bool:
    # What an fd is called follows its number; a shift in a structure has a space before it.
    return chr(text[place - 1]).isdigit()


def _after_decoration(text: bytes, place: int) -> int:
    """Names have no bracket of this kind in them: strace escapes it; sockets have `->`."""
    if _SOCKET.match(text, place):
        end = text.find(b"]>", place)
        return end + 2 if end >= 0 else len(text)
    depth = 0
    for at in range(place, len(text)):
        depth += (text[at] == _LESS) - (text[at] == _MORE)
        if not depth:
            return at + 1
    return len(text)


def number_of(argument: bytes) -> int | None:
    """The number that an argument is, None if it is none; NULL is 0."""
    if argument == b"NULL":
        return 0
    found = _NUMBER.fullmatch(argument)
    if found is None:
        return None
    digits = found[1]
    is_octal = len(digits) > 1 and digits.startswith(b"0") and not digits.startswith(b"0x")
    try:
        return int(digits, 8 if is_octal else 0)
    except ValueError:
        return None


def decoration_of(argument: bytes) -> bytes:
    """What an argument or a result calls its fd, such as `/root/a`; empty if it does not."""
    found = _NUMBER.match(argument)
    if found is None or not found[2]:
        return b""
    end = _after_decoration(argument, found.start(2))
    return argument[found.start(2) + 1 : end - 1]


def result_of(text: bytes) -> int | None:
    """What the kernel answered: -errno on failure; None if the call did not return."""
    found = _RESULT.match(text)
    if found is None:
        return None
    value, rest = found[1], found[2]
    error = _ERROR.match(rest)
    if error is not None:
        name = error[1].decode()
        number = _RESTARTS.get(name) or getattr(errno, name, 0)
        return -number if number else -1
    if value == b"?":
        return None
    result = int(value, 0)
    return result - (1 << 64) if result >> 63 > 0 else result


def strings_of(argument: bytes) -> tuple[bytes, bool]:
    """The strings in an argument, joined, and whether one of them is cut off."""
    found = list(_STRING.finditer(argument))
    return b"".join(_unescaped(each[1]) for each in found), any(each[2] for each in found)


def string_of(argument: bytes) -> bytes | None:
    """The string that an argument is; None if it is none."""
    found = _STRING.fullmatch(argument)
    return _unescaped(found[1]) if found else None


def unescaped_name(decoration: bytes) -> bytes:
    """A path as it is: strace escapes what is not printable, and `<` and `>`."""
    return _unescaped(decoration)


def _unescaped(text: bytes) -> bytes:
    if b"\\" not in text:
        return text
    return _ESCAPE.sub(_escape, text)


def _escape(found: re.Match[bytes]) -> bytes:
    code = found[1]
    if code[:1] == b"x":
        return bytes([int(code[1:], 16)])
    if code[:1].isdigit():
        return bytes([int(code, 8) & 0xFF]) if code.translate(None, b"89") == code else code
    return _ESCAPES.get(code, code)
