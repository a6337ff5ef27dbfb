"""libbpf: open, load and attach an object, and reach its maps. Each call raises OSError.

Source: bpf/libbpf.h and bpf/bpf.h of libbpf 1.
"""

from __future__ import annotations

import ctypes
import mmap
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, Self

_POINTER = ctypes.c_void_p
_INT = ctypes.c_int
_UINT = ctypes.c_uint32
_TEXT = ctypes.c_char_p
_FUNCTIONS: dict[str, tuple[Any, ...]] = {
    "bpf_object__open_file": (_POINTER, _TEXT, _POINTER),
    "bpf_object__load": (_INT, _POINTER),
    "bpf_object__close": (None, _POINTER),
    "bpf_object__find_program_by_name": (_POINTER, _POINTER, _TEXT),
    "bpf_object__find_map_by_name": (_POINTER, _POINTER, _TEXT),
    "bpf_program__attach": (_POINTER, _POINTER),
    "bpf_link__fd": (_INT, _POINTER),
    "bpf_link__destroy": (_INT, _POINTER),
    "bpf_map__fd": (_INT, _POINTER),
    "bpf_map__set_max_entries": (_INT, _POINTER, _UINT),
    "bpf_map__value_size": (_UINT, _POINTER),
    "bpf_map_update_elem": (_INT, _INT, _POINTER, _POINTER, ctypes.c_uint64),
    "bpf_map_delete_elem": (_INT, _INT, _POINTER),
    "bpf_map_get_next_key": (_INT, _INT, _POINTER, _POINTER),
    "bpf_iter_create": (_INT, _INT),
}


@cache
def _library() -> ctypes.CDLL:
    library = ctypes.CDLL("libbpf.so.1", use_errno=True)
    # It would write the verifier's whole log to stderr; errno says what failed.
    library.libbpf_set_print(None)
    for name, (result, *arguments) in _FUNCTIONS.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


def _call(name: str, *arguments: Any) -> Any:
    """Call; a negative number or a NULL pointer is a failure."""
    answer = getattr(_library(), name)(*arguments)
    if answer is None or (isinstance(answer, int) and answer < 0):
        number = -answer if answer else ctypes.get_errno()
        raise OSError(number, os.strerror(number), name)
    return answer


class Object:
    """A BPF object: closed with `close`, which detaches its programs and frees its maps."""

    def __init__(self, path: Path) -> None:
        self._handle = _call("bpf_object__open_file", os.fsencode(path), None)
        self._links: list[int] = []

    def set_max_entries(self, name: str, count: int) -> None:
        """Set the size of a map, in bytes for a ring buffer; before `load`."""
        _call("bpf_map__set_max_entries", self._map(name), count)

    def load(self) -> None:
        """Load programs and maps into the kernel. Raises OSError where it refuses them."""
        _call("bpf_object__load", self._handle)

    def attach(self, name: str) -> int:
        """Attach a program where its section says; answers the fd of the link."""
        program = _call("bpf_object__find_program_by_name", self._handle, name.encode())
        link = _call("bpf_program__attach", program)
        self._links.append(link)
        return int(_call("bpf_link__fd", link))

    def map_fd(self, name: str) -> int:
        """The fd of a map, which belongs to the object."""
        return int(_call("bpf_map__fd", self._map(name)))

    def memory(self, name: str) -> mmap.mmap:
        """The memory of a map of global variables, shared with the programs."""
        size = int(_call("bpf_map__value_size", self._map(name)))
        pages = -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
        return mmap.mmap(self.map_fd(name), pages, mmap.MAP_SHARED)

    def detach(self) -> None:
        """Detach all programs; the maps stay."""
        while self._links:
            _library().bpf_link__destroy(self._links.pop())

    def close(self) -> None:
        """Detach, unload, free. A second call does nothing."""
        self.detach()
        if self._handle:
            _library().bpf_object__close(self._handle)
            self._handle = None

    def _map(self, name: str) -> int:
        return int(_call("bpf_object__find_map_by_name", self._handle, name.encode()))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def update(map_fd: int, key: bytes, value: bytes) -> None:
    """Set the value of a key in a map."""
    _call("bpf_map_update_elem", map_fd, key, value, 0)


def delete(map_fd: int, key: bytes) -> None:
    """Take a key out of a map; one that is not there is no error."""
    with suppress(FileNotFoundError):
        _call("bpf_map_delete_elem", map_fd, key)


def keys(map_fd: int, size_bytes: int) -> Iterator[bytes]:
    """The keys of a map."""
    key: Any = None
    after = ctypes.create_string_buffer(size_bytes)
    next_key: Callable[..., int] = _library().bpf_map_get_next_key
    while next_key(map_fd, key, after) == 0:
        key = after.raw
        yield key


def iterate(link_fd: int) -> bytes:
    """What an attached iterator writes."""
    with os.fdopen(_call("bpf_iter_create", link_fd), "rb") as lines:
        return lines.read()
