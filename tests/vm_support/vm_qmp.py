"""The monitor of a QEMU process. Source: QEMU's QMP protocol specification and reference."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vm_errors import GuestError

TIMEOUT_S = 30.0


def connected(path: Path) -> socket.socket:
    """A connection to a socket of QEMU's. Raises FileNotFoundError, ConnectionRefusedError."""
    one = socket.socket(socket.AF_UNIX)
    try:
        one.connect(str(path))
    except OSError:
        one.close()
        raise
    return one


class Monitor:
    """Gives orders to one QEMU process by its monitor's socket."""

    def __init__(self, path: Path) -> None:
        self._socket = connected(path)
        self._socket.settimeout(TIMEOUT_S)
        self._lines = self._socket.makefile("rb")
        self._read()
        self.order("qmp_capabilities")

    def close(self) -> None:
        """Let go of the monitor; QEMU goes on."""
        self._lines.close()
        self._socket.close()

    def _read(self) -> dict[str, Any]:
        line = self._lines.readline()
        if not line:
            raise GuestError("QEMU has closed its monitor")
        message: dict[str, Any] = json.loads(line)
        return message

    def order(
        self, command: str, arguments: Mapping[str, Any] | None = None, fd: int | None = None
    ) -> Any:
        """Give one order, with an open file if it takes one; answer what it returns.

        Raises GuestError if QEMU refuses it.
        """
        text = json.dumps({"execute": command, "arguments": dict(arguments or {})}).encode() + b"\n"
        if fd is None:
            self._socket.sendall(text)
        else:
            socket.send_fds(self._socket, [text], [fd])
        while True:
            message = self._read()
            if "return" in message:
                return message["return"]
            if "error" in message:
                raise GuestError(f"QEMU refuses {command}: {message['error']['desc']}")

    def save(self, state: Path, timeout_s: float = 120) -> None:
        """Write the guest's memory and devices to a file; it stands still afterwards."""
        # The guest runs on until little is left to write; a stop before would skip its devices.
        parameters = {"max-bandwidth": 1 << 40, "downtime-limit": 10_000}
        self.order("migrate-set-parameters", parameters)
        with state.open("wb") as file:
            self.order("getfd", {"fdname": "state"}, file.fileno())
            self.order("migrate", {"uri": "fd:state"})
            end = time.monotonic() + timeout_s
            while (seen := self.order("query-migrate"))["status"] != "completed":
                if seen["status"] in ("failed", "cancelled") or time.monotonic() > end:
                    raise GuestError(f"QEMU did not save the guest: {seen}")
                time.sleep(0.05)

    def forwards(self) -> dict[int, int]:
        """The ports of this machine that lead to the guest's, by the guest's."""
        shown = self.order("human-monitor-command", {"command-line": "info usernet"})
        rows = [line.split() for line in shown.splitlines() if "HOST_FORWARD" in line]
        return {int(row[5]): int(row[3]) for row in rows}
