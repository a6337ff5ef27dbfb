"""Real servers in the foreground, each at ports and files of its own, and a client that polls."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import smtplib
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

PYTHON = "/usr/bin/python3"
PATIENCE_S = 90.0


def wait_until(holds: Callable[[], Any], timeout_s: float = PATIENCE_S) -> None:
    deadline = time.monotonic() + timeout_s
    while True:
        with suppress(OSError, ssl.SSLError):
            if holds():
                return
        assert time.monotonic() < deadline, "it did not come to be in time"
        time.sleep(0.05)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def served(port: int, name: str = "a.test", timeout_s: float = 20.0) -> str:
    """The SHA-256 of the leaf that a listener serves, by Python's ssl, not by Hostler."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with (
        socket.create_connection(("127.0.0.1", port), timeout_s) as connection,
        context.wrap_socket(connection, server_hostname=name) as tls,
    ):
        der = tls.getpeercert(True)
        assert der
        return hashlib.sha256(der).hexdigest()


@contextmanager
def running(argv: list[str | Path], port: int) -> Iterator[subprocess.Popen[bytes]]:
    """A server in the foreground, in a group of its own, listening."""
    process = subprocess.Popen(
        argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        wait_until(lambda: socket.create_connection(("127.0.0.1", port), 1).close() is None)
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGCONT)
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(20)


class Nginx:
    """An nginx whose configuration the test writes."""

    kind, unit, starttls = "nginx", "nginx-of-the-test.service", ""

    def __init__(self, place: Path, files: Path) -> None:
        self.place, self.port = place, free_port()
        self.configuration, self.pid_file = place / "nginx.conf", place / "nginx.pid"
        self.certificate, self.key = files / "full.pem", files / "key.pem"
        self.configure()

    def configure(self, extra: str = "") -> None:
        """Write the configuration."""
        temporary = "".join(
            f"{w}_temp_path {self.place}/{w};"
            for w in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        self.configuration.write_text(
            f"user root; worker_processes 1; daemon off; pid {self.pid_file};\n"
            f"error_log {self.place}/error.log notice; events {{}}\n"
            f"http {{ access_log off; {temporary} {extra}\n"
            f"server {{ listen 127.0.0.1:{self.port} ssl; server_name a.test;\n"
            f" ssl_certificate {self.certificate};\n"
            f" ssl_certificate_key {self.key}; return 204; }} }}\n"
        )

    def reload(self) -> None:
        """Have it read its configuration again."""
        os.kill(int(self.pid_file.read_text()), signal.SIGHUP)

    def argv(self) -> list[str | Path]:
        """How it is started."""
        return ["/usr/sbin/nginx", "-c", self.configuration]


class Haproxy:
    """A haproxy with workers, which reads everything again at SIGUSR2."""

    kind, unit, starttls = "haproxy", "haproxy-of-the-test.service", ""

    def __init__(self, place: Path, files: Path) -> None:
        self.place, self.port = place, free_port()
        self.configuration, self.pid_file = place / "haproxy.cfg", place / "haproxy.pid"
        self.configure(files)

    def configure(self, files: Path, extra: str = "") -> None:
        """Write the configuration."""
        self.configuration.write_text(
            "global\n master-worker\n stats socket "
            f"{self.place}/admin.sock mode 600 level admin expose-fd listeners\n{extra}\n"
            "defaults\n mode http\n timeout connect 5s\n timeout client 5s\n timeout server 5s\n"
            f"frontend f\n bind 127.0.0.1:{self.port} ssl crt {files}/bundle.pem\n"
            " http-request return status 204\n"
        )

    def argv(self) -> list[str | Path]:
        """How it is started."""
        return ["/usr/sbin/haproxy", "-Ws", "-f", self.configuration, "-p", self.pid_file]


class Apache:
    """An Apache whose workers end gracefully at SIGUSR1."""

    kind, unit, starttls = "apache", "apache-of-the-test.service", ""

    def __init__(self, place: Path, files: Path) -> None:
        self.place, self.port = place, free_port()
        self.configuration, self.pid_file = place / "apache.conf", place / "apache.pid"
        self.configure(files)

    def configure(self, files: Path, extra: str = "") -> None:
        """Write the configuration."""
        place, modules = self.place, "/usr/lib/apache2/modules"
        loaded = "".join(
            f"LoadModule {m}_module {modules}/mod_{m}.so\n"
            for m in ("mpm_event", "authz_core", "socache_shmcb", "ssl")
        )
        self.configuration.write_text(
            f"{loaded}ServerRoot {place}\nServerName a.test\nPidFile {self.pid_file}\n"
            f"DefaultRuntimeDir {place}\nErrorLog {place}/apache.log\n"
            f"Listen 127.0.0.1:{self.port}\n<VirtualHost *:{self.port}>\nSSLEngine on\n"
            f"SSLCertificateFile {files}/full.pem\nSSLCertificateKeyFile {files}/key.pem\n"
            f"</VirtualHost>\n{extra}\n"
        )

    def argv(self) -> list[str | Path]:
        """How it is started."""
        return ["/usr/sbin/apache2", "-f", self.configuration, "-D", "FOREGROUND"]


class Lighttpd:
    """A lighttpd, which begins anew by itself at SIGUSR1, with the sockets that it has."""

    kind, unit, starttls = "lighttpd", "lighttpd-of-the-test.service", ""

    def __init__(self, place: Path, files: Path) -> None:
        self.place, self.port = place, free_port()
        self.configuration, self.pid_file = place / "lighttpd.conf", place / "lighttpd.pid"
        self.configure(files)

    def configure(self, files: Path, extra: str = "") -> None:
        """Write the configuration."""
        place = self.place
        self.configuration.write_text(
            'server.modules = ("mod_openssl")\nserver.bind = "127.0.0.1"\n'
            f'server.document-root = "{place}"\nserver.port = {self.port}\n'
            f'server.pid-file = "{self.pid_file}"\nserver.errorlog = "{place}/lighttpd.log"\n'
            f'ssl.engine = "enable"\nssl.pemfile = "{files}/bundle.pem"\n'
            f'server.feature-flags = ("server.graceful-restart-bg" => "enable")\n{extra}\n'
        )

    def argv(self) -> list[str | Path]:
        """How it is started."""
        return ["/usr/sbin/lighttpd", "-D", "-f", self.configuration]


class Postfix:
    """A Postfix that receives; `place` is one that other users may read."""

    kind, unit, starttls = "postfix", "postfix-of-the-test.service", "smtp"

    def __init__(self, place: Path, files: Path) -> None:
        self.place, self.port = place, free_port()
        self.configuration, self.queue = place / "postfix", place / "queue"
        self.pid_file = self.queue / "pid" / "master.pid"
        for folder in (self.configuration, self.queue, place / "data"):
            folder.mkdir()
        shutil.chown(place / "data", "postfix")
        self.configure(files)

    def configure(self, files: Path, extra: str = "") -> None:
        """Write the configuration; `extra` goes where only the master reads it."""
        (self.configuration / "master.cf").write_text(
            f"127.0.0.1:{self.port} inet n - n - - smtpd\n"
            "tlsmgr unix - - n 1000? 1 tlsmgr\nanvil unix - - n - 1 anvil\n"
            "postlog unix-dgram n - n - 1 postlogd\nrewrite unix - - n - - trivial-rewrite\n"
            f"proxymap unix - - n - - proxymap\n{extra}\n"
        )
        (self.configuration / "main.cf").write_text(
            "compatibility_level = 3.6\ncommand_directory = /usr/sbin\n"
            f"queue_directory = {self.queue}\ndata_directory = {self.place}/data\n"
            "daemon_directory = /usr/lib/postfix/sbin\ninet_protocols = ipv4\n"
            f"maillog_file = {self.place}/postfix.log\nmaillog_file_prefixes = {self.place}\n"
            "myhostname = localhost\nmydestination =\ninet_interfaces = 127.0.0.1\n"
            "smtpd_tls_security_level = may\nsmtpd_peername_lookup = no\n"
            "smtpd_client_connection_rate_limit = 0\nsmtpd_client_connection_count_limit = 0\n"
            f"smtpd_tls_chain_files = {files}/bundle.pem\n"
        )

    def argv(self) -> list[str | Path]:
        """How it is started. Its master has a session of its own; `end` ends it."""
        return ["/usr/sbin/postfix", "-c", self.configuration, "start-fg"]


def served_by_mail(port: int) -> str:
    """As `served`, after STARTTLS, by Python's smtplib."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with smtplib.SMTP("127.0.0.1", port, "localhost", 20) as client:
        client.starttls(context=context)
        tls: Any = client.sock
        return hashlib.sha256(tls.getpeercert(True)).hexdigest()


class Poller:
    """A client that makes a handshake again and again: what it was served, what failed."""

    def __init__(self, port: int, look: Callable[[int], str] = served) -> None:
        self.seen: list[str] = []
        self.failures: list[str] = []
        self._port, self._look = port, look
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._poll)

    def _poll(self) -> None:
        while not self._over.wait(0.05):
            try:
                found = self._look(self._port)
                if self.seen[-1:] != [found]:
                    self.seen.append(found)
            except OSError as e:
                self.failures.append(repr(e))

    def __enter__(self) -> Poller:
        self._thread.start()
        wait_until(lambda: self.seen or self.failures)
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()


class Installer:
    """The installer as a program, at a socket, with a hostler.toml and a state of the test's."""

    def __init__(self, place: Path) -> None:
        self.socket, self.settings = place / "installer.sock", place / "hostler.toml"
        self.state, self.log = place / "installer-state", place / "installer.log"
        self.answers: list[str] = []
        self.process: subprocess.Popen[bytes] | None = None

    def configure(
        self, folder: Path, *servers: Any, served_within_s: int = 8, more: str = ""
    ) -> None:
        """Write hostler.toml."""
        tables = "".join(
            f'[ssl.servers."{s.unit}"]\nkind = "{s.kind}"\n'
            f'configuration = "{s.configuration}"\npid_file = "{s.pid_file}"\n'
            for s in servers
        )
        self.settings.write_text(
            f'[ssl]\ninstall_directories = ["{folder}"]\n'
            f"served_within_s = {served_within_s}\n{more}\n{tables}"
        )

    def start(self) -> None:
        """Start it, and wait for its door."""
        self.socket.unlink(missing_ok=True)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "hostlerd.ssl.installer", "--listen", self.socket),
                    *("--settings", self.settings, "--state", self.state),
                    # Nobody starts it again, as systemd does.
                    *("--idle", "600"),
                ],
                stdout=log,
                stderr=log,
            )
        wait_until(lambda: self.ask({"op": "reload_due"})["ok"])

    def kill(self) -> None:
        """Kill it where it stands."""
        assert self.process
        self.process.kill()
        self.process.wait()

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """Ask it, as the daemon does."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(PATIENCE_S * 2)
            connection.connect(str(self.socket))
            connection.sendall(json.dumps(request).encode() + b"\n")
            with connection.makefile("rb") as lines:
                line = lines.readline()
        self.answers.append(line.decode())
        answer: dict[str, Any] = json.loads(line)
        return answer

    def install(self, deployment: dict[str, Any], pem: str) -> dict[str, Any]:
        """Ask for an installation."""
        return self.ask({"op": "install", "items": [{"deployment": deployment, "pem": pem}]})
