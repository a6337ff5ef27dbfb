"""The socket: who may ask, and one request a line."""

from __future__ import annotations

import socket
from pathlib import Path

from hostlerd.privileged import door
from hostlerd.privileged.lines import answer_lines
from hostlerd.privileged.orphans import Turns
from hostlerd.storage.worker import btrfs_work, burn_in, mount
from hostlerd.storage.worker.carry import carry_out
from hostlerd.storage.worker.operations import OPERATIONS
from hostlerd.storage.worker.saved import Store
from hostlerd.storage.worker.units import Units

DAEMON_USER = "hostler-storage"
PROGRAM = "storage-worker"
MAX_REQUEST_BYTES = 1 << 20
MAX_CONNECTIONS = 32
IDLE_S = 30.0
SEND_TIMEOUT_S = 30.0


def serve(listen: Path | None, state: Path, idle_s: float, units: Units) -> None:
    """Serve until nobody has asked for a while."""
    store, turns = Store(state / "saved", units.lasting), Turns()
    table = {**OPERATIONS, **mount.operations(units)}

    def answer(peer: socket.socket) -> None:
        answer_lines(
            peer,
            lambda asked: carry_out(asked, table, store, lambda: turns.taken(peer)),
            MAX_REQUEST_BYTES,
            IDLE_S,
            SEND_TIMEOUT_S,
        )

    store.sweep()
    listener = door.listening_socket(PROGRAM, listen)
    allowed = door.ROOT | door.uid_of(DAEMON_USER)
    while True:
        door.serve(listener, answer, allowed, MAX_CONNECTIONS, idle_s)
        # It would end with the program, which nobody may have asked for hours.
        if not btrfs_work.is_running() and not burn_in.is_running():
            return
