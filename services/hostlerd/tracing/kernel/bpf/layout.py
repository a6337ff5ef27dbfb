"""The records of the tracer, as `records.h` has them."""

from __future__ import annotations

import numpy as np

CALLS = 1024
COUNTS = 1024
TEXT_BYTES = 2048
PATH_BYTES = 512
DATA_BYTES = 65535

PROCESSES, FILES, TEXTS = range(3)

KIND_PROCESS, KIND_FILE, KIND_PATH, KIND_CGROUP, KIND_DATA = range(1, 6)

WANTED, FD_IS_RESULT, FD_AT_ENTRY, NO_RETURN, IS_ACCEPT, MOVES_CWD = (1 << i for i in range(6))
DATA_BUFFER, DATA_IOVEC, DATA_MSGHDR = range(1, 4)
BY_TREE, BY_COMM, BY_CGROUP, FAILED_ONLY, CMDLINES, ENVIRONS = (1 << i for i in range(6))

CALL = np.dtype(
    [(name, "u1") for name in ("flags", "fd", "path", "path2", "dirfd", "dirfd2", "data", "pad")]
)
CONFIG = np.dtype(
    {
        "names": [
            *("is_on", "options", "pid_namespace", "net_namespace", "latency_ns", "seed"),
            *("payload_bytes", "excluded", "floor", "tree_version", "calls"),
        ],
        "formats": [
            *("<u4", "<u4", "<u4", "<u4", "<u8", "<u8"),
            *("<u4", ("<u4", 4), ("<u4", 3), "<u4", (CALL, CALLS)),
        ],
        "offsets": [0, 4, 8, 12, 16, 24, 32, 36, 52, 64, 72],
    }
)
COUNT = np.dtype(
    [
        *((name, "<u8") for name in ("seen", "lost", "names_lost", "data_lost", "entries_lost")),
        ("pad", "<u8", 3),
    ]
)
EVENT = np.dtype(
    [
        *(("header", "<u4"), ("page", "<u4"), ("entry_ns", "<u8"), ("latency_ns", "<u8")),
        *(("args", "<u8", 6), ("result", "<i8"), ("tid", "<u4"), ("fd", "<i4")),
        *(("syscall", "<u2"), ("cpu", "<u2"), ("flags", "<u2"), ("pad", "<u2")),
        *((name, "<u4") for name in ("process", "file", "path", "path2", "data", "pad2")),
    ]
)
HEAD = np.dtype([("id", "<u4"), ("kind", "u1"), ("is_cut", "u1"), ("bytes", "<u2")])
PROCESS = np.dtype(
    [
        ("head", HEAD),
        *((n, "<u4") for n in ("pid", "ppid", "vpid", "uid", "gid", "loginuid", "sid", "tty")),
        ("start_boottime_ns", "<u8"),
        *((n, "<u4") for n in ("exe", "cwd", "cgroup", "cmdline", "environ", "pad")),
        ("comm", "S16"),
    ]
)
FILE = np.dtype(
    [
        *(("head", HEAD), ("mode", "<u4"), ("device", "<u4"), ("rdev", "<u4"), ("magic", "<u4")),
        *(("inode", "<u8"), ("family", "<u2"), ("protocol", "<u2"), ("socket_type", "<u2")),
        *(("state", "u1"), ("is_server", "u1"), ("local_ip", "V16"), ("remote_ip", "V16")),
        *(("local_port", "<u2"), ("remote_port", ">u2"), ("is_deleted", "u1")),
        *(("is_peer_path", "u1"), ("pad", "V2")),
    ]
)
PATH = np.dtype([("head", HEAD), ("base", "<u4")])
