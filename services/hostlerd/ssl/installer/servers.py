"""The servers by kind: how each checks its configuration and how it reads its files again."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from signal import Signals

from hostlerd.privileged.refused import Refused
from hostlerd.ssl.installer.configuration import Server

CHECK_S = 60
RELOAD_S = 90
MAX_WORDS = 2000
ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C", "HOME": "/root"}
SYSTEMCTL = "/usr/bin/systemctl"


@dataclass(frozen=True, slots=True)
class Kind:
    """`check` answers the argv of the syntax check for a configuration file, or none.

    `programs` are the names that its main process may have, `reload` the signal that makes it read
    its files again without giving up its sockets.
    """

    check: Callable[[str], list[str]]
    programs: tuple[str, ...]
    reload: Signals = signal.SIGHUP


def _nginx(configuration: str) -> list[str]:
    return ["/usr/sbin/nginx", "-t", "-q", *(["-c", configuration] if configuration else [])]


def _apache(configuration: str) -> list[str]:
    # apache2ctl brings the variables that Debian's own configuration is written with.
    if configuration:
        return ["/usr/sbin/apache2", "-t", "-f", configuration]
    return ["/usr/sbin/apache2ctl", "configtest"]


def _lighttpd(configuration: str) -> list[str]:
    return ["/usr/sbin/lighttpd", "-tt", "-f", configuration or "/etc/lighttpd/lighttpd.conf"]


def _haproxy(configuration: str) -> list[str]:
    # With -q it would not say what is wrong either.
    return ["/usr/sbin/haproxy", "-c", "-f", configuration or "/etc/haproxy/haproxy.cfg"]


def _postfix(configuration: str) -> list[str]:
    return ["/usr/sbin/postfix", *(["-c", configuration] if configuration else []), "check"]


def _dovecot(configuration: str) -> list[str]:
    return ["/usr/bin/doveconf", "-n", "-c", configuration or "/etc/dovecot/dovecot.conf"]


def _nothing(configuration: str) -> list[str]:
    # PostgreSQL has no check that root may run; it keeps the old certificate if the new is no good,
    # which the handshake then sees.
    return []


KINDS = {
    "nginx": Kind(_nginx, ("nginx",)),
    "apache": Kind(_apache, ("apache2",), signal.SIGUSR1),
    "lighttpd": Kind(_lighttpd, ("lighttpd",), signal.SIGUSR1),
    "haproxy": Kind(_haproxy, ("haproxy",), signal.SIGUSR2),
    "postfix": Kind(_postfix, ("master",)),
    "dovecot": Kind(_dovecot, ("dovecot",)),
    "postgresql": Kind(_nothing, ("postgres",)),
}


def check(server: Server) -> None:
    """Have a server's own program check its configuration. Raises Refused with its words."""
    argv = KINDS[server.kind].check(server.configuration)
    if argv:
        _run(argv, CHECK_S, "SYNTAX_CHECK_FAILED", f"{server.unit}: its own syntax check failed")


def reload(server: Server) -> None:
    """Have a server read its files again. Raises Refused."""
    if server.pid_file:
        _signal(server)
    else:
        _systemctl("reload", server)


def bring_back(server: Server, is_stubborn: bool) -> None:
    """Have a server read its old files, and start it if the new ones ended it. Raises Refused.

    Apache ends when it reloads a certificate whose key it has elsewhere, and its own check does not
    say so before. One that is stubborn has read nothing new. What a PID file names was started by
    somebody who is not known.
    """
    if not server.pid_file:
        _systemctl("start" if is_stubborn else "reload-or-restart", server)
    elif not is_stubborn:
        _signal(server)


def ended(server: Server) -> bool:
    """Answer whether a unit has ended; what a PID file names may be about to write another one."""
    if server.pid_file:
        return False
    argv = [SYSTEMCTL, "show", "--property=ActiveState", "--value", "--", server.unit]
    return _run(argv, CHECK_S, "NOT_SERVED", server.unit).strip() in (b"failed", b"inactive")


def _systemctl(verb: str, server: Server) -> None:
    argv = [SYSTEMCTL, "--no-ask-password", verb, "--", server.unit]
    _run(argv, RELOAD_S, "RELOAD_FAILED", f"{server.unit}: it did not reload")


def _run(argv: list[str], timeout_s: float, reason: str, words: str) -> bytes:
    try:
        done = subprocess.run(
            argv,
            env=ENVIRONMENT,
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise Refused(reason, f"{words}: not done after {timeout_s:g} s") from None
    except OSError as e:
        raise Refused(reason, f"{words}: {argv[0]}: {e.strerror}") from e
    if done.returncode:
        told = done.stdout[-MAX_WORDS:].decode(errors="replace").strip()
        raise Refused(reason, f"{words}: {told or f'exit status {done.returncode}'}")
    return done.stdout


def _signal(server: Server) -> None:
    """Signal the process that a PID file names, if it is the server's own program."""
    path = Path(server.pid_file)
    try:
        pid = int(path.read_text()[:32].split()[0])
        fd = os.pidfd_open(pid)
    except (OSError, ValueError, IndexError) as e:
        raise Refused("RELOAD_FAILED", f"{server.unit}: {path}: no process of it runs") from e
    try:
        program = Path(f"/proc/{pid}/comm").read_text().strip()
        if program not in KINDS[server.kind].programs:
            raise Refused("RELOAD_FAILED", f"{server.unit}: {path} names a process of {program}")
        signal.pidfd_send_signal(fd, KINDS[server.kind].reload)
    except OSError as e:
        raise Refused("RELOAD_FAILED", f"{server.unit}: {e.strerror}") from e
    finally:
        os.close(fd)
