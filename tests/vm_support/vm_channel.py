"""The near end of a guest's agent: requests of several threads, answered side by side."""

from __future__ import annotations

import base64
import itertools
import json
import socket
import struct
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from vm_errors import GuestError
from vm_qmp import connected

Answer = dict[str, Any]
SEND_TIMEOUT_S = 60


class Channel:
    """Talks with the agent of one guest by QEMU's socket for its virtio-serial port.

    `greeted` has the guest's boot id once the agent has started; with a guest that was resumed it
    had started long before, and says nothing more.
    """

    def __init__(self, path: Path) -> None:
        self._socket = connected(path)
        # A guest that hangs reads nothing; what is written to it must not wait for ever.
        bound = struct.pack("ll", SEND_TIMEOUT_S, 0)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, bound)
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        self._waiting: dict[int, Future[Answer]] = {}
        self._ended = False
        self.greeted: Future[str] = Future()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def close(self) -> None:
        """Let go of the guest; what waits for an answer fails."""
        self._socket.shutdown(socket.SHUT_RDWR)
        self._reader.join()
        self._socket.close()

    def run(self, argv: Sequence[str], stdin: bytes, timeout_s: float) -> Future[Answer]:
        """Have the agent run a command."""
        data = base64.b64encode(stdin).decode()
        return self._ask({"argv": list(argv), "stdin": data, "timeout_s": timeout_s})

    def reseed(self, seed: bytes) -> Future[Answer]:
        """Have the guest draw other random numbers than any guest before it."""
        return self._ask({"seed": base64.b64encode(seed).decode()})

    def _ask(self, request: dict[str, Any]) -> Future[Answer]:
        future: Future[Answer] = Future()
        with self._lock:
            if self._ended:
                raise GuestError("the guest is off")
            number = next(self._numbers)
            self._waiting[number] = future
            try:
                self._socket.sendall(json.dumps({"id": number, **request}).encode() + b"\n")
            except OSError as e:
                raise GuestError(f"the guest takes no request: {e.strerror}") from e
        return future

    def _read(self) -> None:
        lines = self._socket.makefile("rb")
        try:
            for line in lines:
                self._take(json.loads(line))
        except OSError:
            pass  # QEMU is gone, as it is at its end.
        with self._lock:
            self._ended = True
            waiting: list[Future[Any]] = [self.greeted, *self._waiting.values()]
            for future in waiting:
                if not future.done():
                    future.set_exception(GuestError("the guest went off"))
            self._waiting.clear()

    def _take(self, answer: Answer) -> None:
        if "hello" in answer:
            self.greeted.set_result(answer["hello"])
            return
        with self._lock:
            future = self._waiting.pop(answer["id"], None)
        if future is not None:
            future.set_result(answer)
