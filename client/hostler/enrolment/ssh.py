"""The way to a host that has no door yet: the ssh(1) of this machine, with a list of arguments.

What runs on the host is one of the fixed commands of `scripts`; data goes to it by standard input
alone, never into its words. The key of the host must be known before: a new one is never taken.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterable, AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from hostler.enrolment.errors import EnrolmentError

SSH = "/usr/bin/ssh"
SUDO = "/usr/bin/sudo -n -- "
MAX_ANSWER_BYTES = 4 * 1024 * 1024
# The status that ssh itself ends with. Source: ssh(1).
_SSH_FAILED = 255
_PLACE = re.compile(r"[A-Za-z0-9_:][A-Za-z0-9._:%-]{0,252}", re.ASCII)
_USER = re.compile(r"[A-Za-z_][A-Za-z0-9._-]{0,63}", re.ASCII)
_OPTIONS = (
    *("BatchMode=yes", "StrictHostKeyChecking=yes", "UpdateHostKeys=no", "ConnectTimeout=10"),
    *("ServerAliveInterval=15", "ServerAliveCountMax=4", "ClearAllForwardings=yes"),
    *("PermitLocalCommand=no", "RequestTTY=no", "LogLevel=ERROR"),
)


@dataclass(frozen=True, slots=True)
class Answer:
    """How a command on a host ended."""

    status: int
    out: bytes
    err: str


@dataclass(frozen=True, slots=True)
class Ssh:
    """How a host is reached by ssh. `sudo` has commands run by root where `user` is another."""

    address: str
    user: str = "root"
    port: int | None = None
    identity: Path | None = None
    config: Path | None = None
    sudo: bool = False

    def argv(self, command: str) -> list[str]:
        """The arguments of ssh for one of the fixed commands. Raises EnrolmentError."""
        if not _PLACE.fullmatch(self.address) or not _USER.fullmatch(self.user):
            words = f"{self.user[:70]!r} at {self.address[:300]!r} cannot be given to ssh"
            raise EnrolmentError("BAD_ADDRESS", words, "give a name or an IP address, and a user")
        argv = [SSH, *(word for option in _OPTIONS for word in ("-o", option))]
        if self.config is not None:
            argv += ["-F", str(self.config)]
        if self.identity is not None:
            argv += ["-o", "IdentitiesOnly=yes", "-i", str(self.identity)]
        if self.port is not None:
            argv += ["-p", str(self.port)]
        return [*argv, "-l", self.user, "--", self.address, (SUDO if self.sudo else "") + command]

    async def run(
        self, command: str, stdin: bytes | AsyncIterable[bytes] = b"", *, timeout_s: float
    ) -> Answer:
        """Run a fixed command there; answers its status and at most 4 MiB of what it said.

        Raises EnrolmentError if ssh does not get there, or it takes longer.
        """
        process = await asyncio.create_subprocess_exec(
            *self.argv(command),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            async with asyncio.timeout(timeout_s):
                _, out, err = await asyncio.gather(
                    _feed(process.stdin, stdin), _bounded(process.stdout), _bounded(process.stderr)
                )
                status = await process.wait()
        except TimeoutError as e:
            raise EnrolmentError(
                "SSH_SILENT",
                f"{self.address}: not done within {timeout_s:g} s",
                "look at the host, then give the same command again: it goes on where it stopped",
            ) from e
        finally:
            if process.returncode is None:
                with suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
        words = err.decode(errors="replace").strip()[-2000:]
        if status == _SSH_FAILED:
            raise failure(self.address, words)
        return Answer(status, out, words)


def failure(address: str, words: str) -> EnrolmentError:
    """What ssh(1) says when it does not get there, as an error that says what to do."""
    last = words.splitlines()[-1] if words else "ssh ended without a word"
    if "IDENTIFICATION HAS CHANGED" in words or "identity has changed" in words.lower():
        return EnrolmentError(
            "HOST_KEY_CHANGED",
            f"{address} has another ssh host key than the one in your known_hosts",
            "find out why; if the host was made anew, ssh-keygen -R it and add its new key",
        )
    if "host key verification failed" in words.lower() or "host key is known" in words.lower():
        return EnrolmentError(
            "HOST_KEY_UNKNOWN",
            f"the ssh host key of {address} is not in your known_hosts",
            "compare the key with what the host itself says (ssh-keygen -lf "
            "/etc/ssh/ssh_host_ed25519_key.pub there), and take it with: ssh " + address,
        )
    if "permission denied" in words.lower() or "too many authentication" in words.lower():
        return EnrolmentError(
            "SSH_REFUSED",
            f"{address}: {last}",
            "have the host take your key (ssh-copy-id), or name another user or --identity",
        )
    return EnrolmentError(
        "SSH_UNREACHABLE",
        f"{address}: {last}",
        "ssh to it by hand; what works there works here, with the same options or -F FILE",
    )


async def _feed(writer: asyncio.StreamWriter | None, data: bytes | AsyncIterable[bytes]) -> None:
    """Write all of it and close. A reader that has gone tells why by its status."""
    if writer is None:
        return
    with suppress(ConnectionError):
        async for part in _parts(data):
            writer.write(part)
            await writer.drain()
    writer.close()
    with suppress(ConnectionError):
        await writer.wait_closed()


async def _parts(data: bytes | AsyncIterable[bytes]) -> AsyncIterator[bytes]:
    if isinstance(data, bytes):
        yield data
        return
    async for part in data:
        yield part


async def _bounded(reader: asyncio.StreamReader | None) -> bytes:
    """The first 4 MiB of a stream; the rest is read and dropped, so that its writer goes on."""
    kept = bytearray()
    while reader is not None and (part := await reader.read(1 << 16)):
        kept += part[: MAX_ANSWER_BYTES - len(kept)]
    return bytes(kept)
