"""The ways to show an ACME server that a name is ours."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from hostlerd.ssl.errors import AcmeFailed
from hostlerd.ssl.kernel.acme import Solver
from hostlerd.ssl.kernel.installer_client import Installer
from hostlerd.ssl.model.deployment import AcmeSource

HOOK_S = 300
RESPONDER = Path("/run/hostler-acme")
_TOKEN = re.compile(r"[A-Za-z0-9_-]{16,256}")
_WORDS_MOST = 1000


class Webroot:
    """http-01 by a file that a web server hands out; the installer puts it there."""

    kind = "http-01"

    def __init__(self, installer: Installer, webroot: str) -> None:
        self._installer = installer
        self._webroot = webroot

    def present(self, name: str, token: str, value: str) -> None:
        """Have the file be there."""
        self._installer.publish(self._webroot, token, value)

    def withdraw(self, name: str, token: str, value: str) -> None:
        """Take it away."""
        self._installer.withdraw(self._webroot, token)


class Responder:
    """http-01 by Hostler's own responder, which hands out what lies in a folder of the daemon's."""

    kind = "http-01"

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def present(self, name: str, token: str, value: str) -> None:
        """Have the answer be there."""
        if not _TOKEN.fullmatch(token):
            raise AcmeFailed("the ACME server's token is none")
        path = self._folder / token
        path.write_text(value)
        path.chmod(0o644)

    def withdraw(self, name: str, token: str, value: str) -> None:
        """Take it away."""
        (self._folder / token).unlink(missing_ok=True)


class Hook:
    """dns-01 by a program: `HOOK present|withdraw NAME RECORD VALUE`, which is to wait for DNS."""

    kind = "dns-01"

    def __init__(self, program: Path) -> None:
        self._program = program

    def present(self, name: str, token: str, value: str) -> None:
        """Have the record be there."""
        self._run("present", name, value)

    def withdraw(self, name: str, token: str, value: str) -> None:
        """Take it away."""
        self._run("withdraw", name, value)

    def _run(self, verb: str, name: str, value: str) -> None:
        bare = name.removeprefix("*.")
        try:
            done = subprocess.run(
                [str(self._program), verb, bare, f"_acme-challenge.{bare}", value],
                env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"},
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                timeout=HOOK_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise AcmeFailed(f"{self._program} {verb}: not done after {HOOK_S} s") from None
        except OSError as e:
            raise AcmeFailed(f"{self._program} {verb}: {e.strerror}") from e
        if done.returncode:
            words = done.stderr[-_WORDS_MOST:].decode(errors="replace").strip()
            raise AcmeFailed(f"{self._program} {verb}: {words or done.returncode}")


def choose(source: AcmeSource, installer: Installer, hooks: Path, responder: Path) -> Solver:
    """Answer the way that a deployment's source names."""
    if source.dns_hook:
        return Hook(hooks / source.dns_hook)
    if source.webroot:
        return Webroot(installer, source.webroot)
    return Responder(responder)
