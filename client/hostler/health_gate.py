"""The health gate of a rollout: a command of the operator's machine that says whether to go on."""

from __future__ import annotations

import asyncio
import os
import shlex
import signal
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

DEFAULT_TIMEOUT_S = 60.0
HOSTS = "{hosts}"
_MOST_OUTPUT_BYTES = 64 * 1024
_TOLD_CHARACTERS = 400
# A variable may have 128 KiB, its name and the end included. Source: execve(2), MAX_ARG_STRLEN.
_MOST_ENVIRONMENT_BYTES = 128 * 1024 - 64


@dataclass(frozen=True, slots=True)
class Gate:
    """A command, started without a shell after each wave; it passes with exit status 0.

    Its environment has HOSTLER_RUN, HOSTLER_WAVE and HOSTLER_HOSTS, the names of the wave's hosts
    with spaces between them, unless they are longer than a variable may be. An argument that is
    "{hosts}" is replaced by those names, one argument each.
    """

    argv: tuple[str, ...]
    timeout_s: float = DEFAULT_TIMEOUT_S

    @classmethod
    def parse(cls, text: str, timeout_s: float = DEFAULT_TIMEOUT_S) -> Gate:
        """Split a command line as a shell would, which expands nothing. Raises ValueError."""
        argv = tuple(shlex.split(text))
        if not argv:
            raise ValueError("a command is needed")
        return cls(argv, timeout_s)

    async def check(
        self, run: str, wave: int, hosts: Sequence[str], longest_s: float | None = None
    ) -> str:
        """Run it; answer why it failed, or nothing if it passed.

        Ended with all that it started after its timeout, or after `longest_s` if that is less.
        """
        timeout_s = self.timeout_s if longest_s is None else min(self.timeout_s, longest_s)
        argv = [word for arg in self.argv for word in (hosts if arg == HOSTS else (arg,))]
        try:
            process = await asyncio.create_subprocess_exec(
                *argv,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                env=_environment(run, wave, hosts),
                start_new_session=True,
            )
        except OSError as error:
            return f"cannot start {self.argv[0]}: {error.strerror}"
        try:
            async with asyncio.timeout(max(0.0, timeout_s)):
                output, status = await _ended(process)
        except TimeoutError:
            await _kill(process)
            return f"no answer within {timeout_s:g} s"
        except asyncio.CancelledError:
            await _kill(process)
            raise
        return "" if status == 0 else _told(status, output)


def _environment(run: str, wave: int, hosts: Sequence[str]) -> dict[str, str]:
    names = " ".join(hosts)
    env = {**os.environ, "HOSTLER_RUN": run, "HOSTLER_WAVE": str(wave)}
    env.pop("HOSTLER_HOSTS", None)
    if len(names) <= _MOST_ENVIRONMENT_BYTES:
        env["HOSTLER_HOSTS"] = names
    return env


async def _ended(process: asyncio.subprocess.Process) -> tuple[bytes, int]:
    """Read to the end, of which the last 64 KiB are kept, and wait."""
    kept = b""
    if process.stdout is not None:
        while data := await process.stdout.read(_MOST_OUTPUT_BYTES):
            kept = (kept + data)[-_MOST_OUTPUT_BYTES:]
    return kept, await process.wait()


async def _kill(process: asyncio.subprocess.Process) -> None:
    """End the command's session, with what it left in the background."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    await process.wait()


def _told(status: int, output: bytes) -> str:
    how = f"exit status {status}" if status > 0 else f"ended by {signal.Signals(-status).name}"
    words = " ".join(output.decode(errors="replace").split())[-_TOLD_CHARACTERS:]
    return f"{how}: {words}" if words else how
