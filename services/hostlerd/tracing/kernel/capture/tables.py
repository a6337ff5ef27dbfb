"""The tables that events point into, filled from what the tracer tells: a row for each id."""

from __future__ import annotations

import posixpath
import struct
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from hostler.core.trace import events as trace
from hostlerd.tracing.kernel.bpf import layout
from hostlerd.tracing.kernel.capture import naming
from hostlerd.tracing.kernel.capture.kin import Accounts, Kin
from hostlerd.tracing.kernel.capture.rows import Rows
from hostlerd.tracing.model.cgroup import container_of, unit_of

_COPIED = ("pid", "ppid", "vpid", "uid", "gid", "loginuid", "sid", "tty")
_FILE_COPIED = ("is_server", "local_port", "remote_port", "device", "inode")

_PATH = struct.Struct("<IBBHI")  # as layout.PATH has it: numpy takes ten times as long for one


class Tables:
    """The processes, files and texts of a trace.

    Texts that the tracer tells keep their ids; those made here (names, folders) have rows of
    their own. `boot_ns` is when the host booted, since 1970.
    """

    def __init__(self, boot_ns: int) -> None:
        self._boot_ns = boot_ns
        self._processes = Rows(trace.PROCESS)
        self._files = Rows(trace.FILE)
        self._texts = trace.Texts()
        self._text_ids = Rows("<u4")
        # Texts that have not been put into their rows: one by one, that takes most of the time.
        self._new_texts: dict[int, int] = {}
        self._folders: dict[int, bytes] = {}
        self._kin = Kin(boot_ns, self._texts.add, self._told_of)
        self._id_of_pid: dict[int, int] = {}
        self._accounts = Accounts()
        self._take = {
            layout.KIND_PROCESS: self._take_process,
            layout.KIND_FILE: self._take_file,
            layout.KIND_PATH: self._take_path,
            layout.KIND_CGROUP: self._take_cgroup,
            layout.KIND_DATA: self._take_data,
        }

    def take(self, records: Iterable[bytes]) -> None:
        """Take what the tracer told, in its order."""
        for record in records:
            self._take[record[4]](record)
        self._text_ids.put(self._new_texts)
        self._new_texts.clear()

    def events(self, columns: dict[str, trace.Column], lost: int) -> trace.Events:
        """A batch; where the columns point to something, they have the tracer's ids for it."""
        columns["process"] = self._processes.rows(columns["process"])
        columns["file"] = self._files.rows(columns["file"])
        texts = self._text_ids.table()
        for name in ("path", "path2", "data"):
            columns[name] = texts[self._text_ids.rows(columns[name])]
        return trace.Events(
            columns, self._all_processes(), self._files.table(), self._texts.rows, lost
        ).compact()

    def _all_processes(self) -> npt.NDArray[np.void]:
        """The processes and their kin as one table; `parent` is a row of it then."""
        ours = self._processes.table()
        whole = np.concatenate([ours, self._kin.table()[1:]])
        parent = whole["parent"]
        whole["parent"] = np.where(parent == 0, 0, parent + np.uint32(len(ours) - 1))
        return whole

    def size(self) -> int:
        """How many rows the largest table has."""
        return max(len(self._texts.rows), len(self._files.table()), len(self._processes.table()))

    def forget(self, processes: int, files: int, texts: int) -> None:
        """Let go of what has a lower id, and of texts that nothing else needs."""
        for rows, below in (
            (self._processes, processes),
            (self._files, files),
            (self._text_ids, texts),
        ):
            rows.forget(below)
        self._folders.clear()
        old, self._texts = self._texts.rows, trace.Texts()
        self._id_of_pid = {pid: n for pid, n in self._id_of_pid.items() if n >= processes}
        parents = self._processes.table()["parent"]
        parents[:] = self._kin.keep(np.unique(parents), self._texts.add)[parents]
        for column in self._columns_of_texts():
            column[:] = [self._texts.add(old[row]) for row in column.tolist()]

    def _told_of(self, pid: int) -> Any:
        number = self._id_of_pid.get(pid)
        return None if number is None else self._processes[number].copy()

    def _columns_of_texts(self) -> Iterable[trace.Column]:
        yield self._text_ids.table()
        yield self._files.table()["name"]
        for name in trace.PROCESS_TEXTS:
            yield self._processes.table()[name]
            yield self._kin.table()[name]

    def _text(self, number: int) -> int:
        row = self._new_texts.get(number)
        return int(self._text_ids[number]) if row is None else row

    def _set_text(self, number: int, text: bytes) -> None:
        self._new_texts[number] = self._texts.add(text)

    def _file_name(self, number: int) -> int:
        return int(self._files[number]["name"])

    def _take_process(self, record: bytes) -> None:
        told = np.frombuffer(record, layout.PROCESS, 1)[0]
        row = self._processes[int(told["head"]["id"])]
        for name in _COPIED:
            row[name] = told[name]
        row["start_ns"] = int(told["start_boottime_ns"]) + self._boot_ns
        row["name"] = self._texts.add(bytes(told["comm"]).split(b"\0")[0])
        row["exe"] = self._file_name(int(told["exe"]))
        row["cwd"] = self._file_name(int(told["cwd"]))
        row["cgroup"] = self._text(int(told["cgroup"]))
        path = self._texts.rows[int(row["cgroup"])]
        row["cmdline"] = self._text(int(told["cmdline"]))
        row["environ"] = self._text(int(told["environ"]))
        row["unit"] = self._texts.add(unit_of(path))
        row["container"] = self._texts.add(container_of(path))
        row["user"] = self._texts.add(self._accounts.user(int(row["uid"])))
        row["group"] = self._texts.add(self._accounts.group(int(row["gid"])))
        row["loginuser"] = self._texts.add(self._accounts.user(int(row["loginuid"])))
        row["parent"] = self._kin.parent_of(row)
        self._kin.learn(row)
        self._id_of_pid[int(row["pid"])] = int(told["head"]["id"])

    def _take_file(self, record: bytes) -> None:
        told = np.frombuffer(record, layout.FILE, 1)[0]
        text = record[layout.FILE.itemsize :][: int(told["head"]["bytes"])]
        kind, name = naming.of_file(told, text)
        row = dict.fromkeys(trace.FILE_COLUMNS, 0) | {"local_ip": b"", "remote_ip": b""}
        row |= {"type": kind, "name": self._texts.add(name)}
        row |= {each: told[each] for each in _FILE_COPIED}
        if kind in (trace.FileType.IPV4, trace.FileType.IPV6):
            row["protocol"] = int(told["protocol"]) & 0xFF
            row["local_ip"], row["remote_ip"] = bytes(told["local_ip"]), bytes(told["remote_ip"])
        self._files[int(told["head"]["id"])] = tuple(row.values())

    def _take_path(self, record: bytes) -> None:
        number, _, _, length, base = _PATH.unpack_from(record)
        path = record[_PATH.size : _PATH.size + length]
        folder = self._folders.get(base)
        if folder is None:
            folder = self._folders[base] = self._texts.rows[self._file_name(base)]
        if folder.startswith(b"/"):
            path = posixpath.join(folder, path) if path else folder
        self._set_text(number, path)

    def _take_cgroup(self, record: bytes) -> None:
        head = np.frombuffer(record, layout.HEAD, 1)[0]
        names = record[layout.HEAD.itemsize :][: int(head["bytes"])]
        self._set_text(int(head["id"]), naming.joined(names))

    def _take_data(self, record: bytes) -> None:
        head = np.frombuffer(record, layout.HEAD, 1)[0]
        self._set_text(int(head["id"]), record[layout.HEAD.itemsize :][: int(head["bytes"])])
