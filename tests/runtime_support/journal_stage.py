"""A stage for daemons that are killed: namespaces of its own, and sockets that stay.

The sockets are the test's, as they would be systemd's, so that nobody who calls is lost between two
daemons. What is on the stage is asked of ip(8), nft(8) and the files.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import grpc

from hostler.pki import Authority

CHECKOUT = Path(__file__).parents[2]
POINTS = Path(__file__).with_name("journal_points.py")
LAUNCHER = CHECKOUT / "services/hostlerd/netns/launcher/__main__.py"
NSENTER, UNSHARE = "/usr/bin/nsenter", "/usr/bin/unshare"
# Makes the stage, and then plays systemd's part for the launcher, which exits when it is idle.
_STAGE = """
import os, select, socket, subprocess, sys
for kind, where in (("tmpfs", "/run"), ("sysfs", "/sys")):
    subprocess.run(["/usr/bin/mount", "-t", kind, kind, where], check=True)
subprocess.run(["/usr/sbin/ip", "link", "set", "lo", "up"], check=True)
os.makedirs("/run/hostler")
sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
sock.bind("/run/hostler/launcher.sock")
sock.listen(512)
os.dup2(sock.fileno(), 3)
code = "import os, sys; os.environ['LISTEN_PID'] = str(os.getpid());"
code += "os.execv(sys.argv[1], sys.argv[1:])"
argv = ["/usr/bin/python3", "-I", "-S", "-c", code, "/usr/bin/python3", "-I", "-S", sys.argv[1]]
print("ready", flush=True)
while True:
    select.select([sock], [], [])
    subprocess.run(argv, pass_fds=[3], env={**os.environ, "LISTEN_FDS": "1"})
"""
# What comes and goes with every change, and what is not about the host.
# What nft lists is in the order in which things were made; what it lists now is compared anyway.
_OWN = {"journal", "requests", "lock", "bundle.json", "applied.list"}


class Stage:
    """Namespaces with a launcher in them, for as long as the process that made them is held."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        argv = [UNSHARE, "--net", "--mount", "--propagation", "private", sys.executable, "-c"]
        with (folder / "launcher.log").open("ab") as log:
            self._process = subprocess.Popen(
                [*argv, _STAGE, str(LAUNCHER)],
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
            )
        if not self._process.stdout or self._process.stdout.readline() != b"ready\n":
            raise RuntimeError("no stage")
        pid = self._process.pid
        self.enter = [NSENTER, f"--net=/proc/{pid}/ns/net", f"--mount=/proc/{pid}/ns/mnt"]

    def run_folder(self, domain: str) -> str:
        """The folder of a daemon that goes with a boot."""
        return f"/run/hostler-{domain}"

    def close(self) -> None:
        """End it; the namespaces and all in them go."""
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def tool(self, *argv: str, check: bool = True) -> str:
        """Run a tool on the stage."""
        done = subprocess.run([*self.enter, *argv], capture_output=True, text=True, timeout=60)
        if check and done.returncode:
            raise AssertionError(f"{argv}: {done.stderr}")
        return done.stdout

    def ip(self, *argv: str) -> Any:
        """Ask ip(8)."""
        return json.loads(self.tool("/usr/sbin/ip", "-json", *argv) or "[]")

    def network(self) -> dict[str, Any]:
        """Links, addresses and routes of the host and of every namespace, as ip(8) has them."""
        names = sorted(n["name"] for n in self.ip("netns"))
        return {name: self._inside(name) for name in ("", *names)}

    def _inside(self, name: str) -> dict[str, Any]:
        where = ("-n", name) if name else ()
        links = {
            link["ifname"]: {
                "mtu": link["mtu"],
                "group": link["group"],
                "up": "UP" in link["flags"],
                "addresses": sorted(
                    f"{a['local']}/{a['prefixlen']}"
                    for a in link["addr_info"]
                    if not a["local"].startswith("fe80")
                ),
            }
            for link in self.ip(*where, "addr")
        }
        routes = sorted(
            f"{r['dst']} via {r.get('gateway')} dev {r['dev']}"
            for family in ("-4", "-6")
            for r in self.ip(family, *where, "route")
            if not r["dst"].startswith("fe80")
        )
        return {"links": links, "routes": routes}

    def firewall(self) -> dict[str, Any]:
        """Our table as nft(8) lists it, without counts and handles, and the forwarding sysctls."""
        listed = json.loads(self.tool("/usr/sbin/nft", "-j", "list", "ruleset"))["nftables"]
        # In which order chains were made does not matter; that of the rules in each stays.
        table = sorted((_plain(e) for e in listed if "metainfo" not in e), key=_place)
        names = ("ipv4/ip_forward", "ipv6/conf/all/forwarding", "ipv4/conf/lo/forwarding")
        found = {n: self.tool("/usr/bin/cat", f"/proc/sys/net/{n}").strip() for n in names}
        return {"table": table, "sysctls": found}

    def files(self, *folders: str) -> dict[str, Any]:
        """What the domain's files say, times and the runtime's own left out."""
        found = {}
        listed = self.tool("/usr/bin/find", *folders, "-type", "f", check=False).split()
        for path in sorted(listed):
            if not _OWN & set(Path(path).parts) and not path.endswith(".sock"):
                found[path] = _content(self.tool("/usr/bin/cat", path))
        return found


class Killed(Exception):
    """The daemon was killed while it was asked."""


class Points:
    """The points that a program comes to, and what it is to do there; see journal_points.py."""

    def __init__(self, points: Path) -> None:
        self.points = points

    def arm(self, words: str) -> None:
        """Have the program do that at its points; empty words disarm it."""
        for name in ("arm", "seen", "reached", "go"):
            (self.points / name).unlink(missing_ok=True)
        if words:
            aside = self.points / "arm.new"
            # The words differ each time, so that the count begins anew.
            aside.write_text(f"{words} {time.monotonic_ns()}" if words != "count" else words)
            aside.rename(self.points / "arm")

    def seen(self) -> list[str]:
        """The points that were counted."""
        path = self.points / "seen"
        return path.read_text().splitlines() if path.exists() else []

    def is_reached(self) -> bool:
        """Whether it has come to the point at which it is to pause."""
        return (self.points / "reached").exists()

    def go(self) -> None:
        """Have it go on."""
        (self.points / "go").touch()


class Place(Points):
    """A daemon on the stage: its folders, its sockets, and its process while there is one."""

    def __init__(self, stage: Stage, domain: str, config: str = "idle_s = 300\n") -> None:
        self.stage, self.domain = stage, domain
        self.folder = stage.folder / domain
        self.run = stage.run_folder(domain)
        self.argv = [sys.executable, str(POINTS), domain]
        super().__init__(self.folder / "points")
        self.authority = self._install(config)
        self._sockets = [socket.socket(socket.AF_INET), socket.socket(socket.AF_UNIX)]
        self._sockets[0].bind(("127.0.0.1", 0))
        self._sockets[1].bind(str(self.folder / "local.sock"))
        for sock in self._sockets:
            sock.listen(512)
        self.port = self._sockets[0].getsockname()[1]
        self.process: subprocess.Popen[bytes] | None = None
        stage.tool("/usr/bin/mkdir", "-m", "700", "-p", self.run)

    def _install(self, config: str) -> Authority:
        authority = Authority.create(self.folder / "pki", "test.hostler")
        authority.issue_host("h1", dns_names=["h1"], ip_addresses=["127.0.0.1"])
        for user in ("alice", "bob"):
            authority.issue_user(user)
            authority.grant(user, "admins")
        etc = self.folder / "etc/pki"
        for folder in (etc, self.folder / "state", self.folder / "log", self.points):
            folder.mkdir(parents=True)
        shutil.copy(authority.folder / "ca.pem", etc)
        shutil.copy(authority.folder / "hosts/h1.pem", etc / "host.pem")
        shutil.copy(authority.folder / "hosts/h1.key", etc / "host.key")
        shutil.copy(authority.folder / "bundle.json", etc.parent / "bundle.json")
        (etc.parent / "hostler.toml").write_text(config)
        return authority

    def install_bundle(self) -> None:
        """Sign what the authority's policies say now, and put it where enrolment would."""
        self.authority.write_bundle()
        shutil.copy(self.authority.bundle_path, self.folder / "etc/bundle.json")

    def start(self) -> None:
        """Start the daemon on the sockets, unless it runs."""
        if self.lives():
            return
        fds = [sock.fileno() for sock in self._sockets]
        argv = with_fds(fds, [*self.stage.enter, *self.argv])
        env = {**self.environment(), "LISTEN_FDS": "2"}
        with (self.folder / "stderr").open("ab") as stderr:
            self.process = subprocess.Popen(
                argv, pass_fds=fds, env=env, stderr=stderr, start_new_session=True
            )

    def environment(self) -> dict[str, str]:
        """What systemd would tell each process of the domain."""
        return {
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "PYTHONPATH": f"{CHECKOUT}/services:{CHECKOUT}/client:{Path(__file__).parent}",
            "CONFIGURATION_DIRECTORY": str(self.folder / "etc"),
            "STATE_DIRECTORY": str(self.folder / "state"),
            "LOGS_DIRECTORY": str(self.folder / "log"),
            "RUNTIME_DIRECTORY": self.run,
            "JOURNAL_POINTS": str(self.points),
            "GRPC_ENABLE_FORK_SUPPORT": "0",
        }

    def lives(self) -> bool:
        """Whether the daemon runs."""
        return self.process is not None and self.process.poll() is None

    def kill(self) -> None:
        """Kill the daemon now, if it runs, and wait for what it has started to end."""
        if self.process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.wait()

    def wait(self) -> int:
        """Wait for the daemon's end, and that of its children: systemd waits for them, too."""
        process = self.process
        if process is None:
            return 0
        status = process.wait(60)
        eventually(lambda: not _is_group(process.pid))
        return status

    def close(self) -> None:
        """End the daemon and give up the sockets."""
        self.kill()
        for sock in self._sockets:
            sock.close()

    def channel(self, user: str = "") -> grpc.Channel:
        """A new channel: by the local socket as root, or by TLS as one of the users."""
        options = [
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.enable_retries", 0),
            ("grpc.enable_http_proxy", 0),
            ("grpc.ssl_target_name_override", "h1"),
        ]
        if not user:
            return grpc.insecure_channel(f"unix:{self.folder}/local.sock", options)
        pki = self.authority.folder
        credentials = grpc.ssl_channel_credentials(
            self.authority.ca_pem,
            (pki / f"users/{user}.key").read_bytes(),
            (pki / f"users/{user}.pem").read_bytes(),
        )
        return grpc.secure_channel(f"127.0.0.1:{self.port}", credentials, options)

    def audit(self) -> list[dict[str, Any]]:
        """The records of the audit log, as they lie on disk."""
        return [json.loads(line) for line in (self.folder / "log/audit.jsonl").open()]

    def journals(self) -> list[str]:
        """What is left of journals: those of changes that are neither over nor waiting."""
        folders = (str(self.folder / "state/journal"), f"{self.run}/journal")
        listed = self.stage.tool("/usr/bin/find", *folders, "-type", "f", check=False)
        return [name for name in listed.split() if not name.endswith(".kept")]


@contextmanager
def opened(folder: Path, *domains: str) -> Iterator[dict[str, Place]]:
    """A stage with the daemons of these domains."""
    stage = Stage(folder)
    places: dict[str, Place] = {}
    try:
        for domain in domains:
            (folder / domain).mkdir()
            places[domain] = Place(stage, domain)
        yield places
    finally:
        for place in places.values():
            place.close()
        stage.close()


def chain_is_whole(place: Place) -> None:
    """Each record has the hash of the one before it, and its own; worked out here."""
    head = "0" * 64
    for record in place.audit():
        plain = {key: value for key, value in record.items() if key != "hash"}
        text = json.dumps(plain, sort_keys=True, separators=(",", ":"))
        assert record["previous"] == head
        head = record["hash"]
        assert head == hashlib.sha256(text.encode()).hexdigest()


def eventually(look: Callable[[], Any], timeout_s: float = 30.0) -> Any:
    """Look again and again until what is seen is true; answer it."""
    end = time.monotonic() + timeout_s
    while not (seen := look()):
        if time.monotonic() > end:
            raise AssertionError(f"not within {timeout_s} s: {seen!r}")
        time.sleep(0.01)
    return seen


def with_fds(fds: list[int], argv: list[str]) -> list[str]:
    """Have a program find the descriptors at 3 and after; see sd_listen_fds(3)."""
    code = (
        "import os, sys\n"
        "fds = [os.dup(int(n)) for n in sys.argv[1].split(',')]\n"
        "high = [os.dup2(fd, 100 + n) for n, fd in enumerate(fds)]\n"
        "for n, fd in enumerate(high): os.dup2(fd, 3 + n)\n"
        "os.closerange(5, 200)\n"
        "os.execv(sys.argv[2], sys.argv[2:])\n"
    )
    return ["/usr/bin/python3", "-I", "-S", "-c", code, ",".join(map(str, fds)), *argv]


def _is_group(pid: int) -> bool:
    try:
        os.killpg(pid, 0)
    except ProcessLookupError:
        return False
    return True


def _plain(entry: dict[str, Any]) -> dict[str, Any]:
    ((kind, thing),) = entry.items()
    kept = {key: value for key, value in thing.items() if key != "handle"}
    if "expr" in kept:
        kept["expr"] = [part for part in kept["expr"] if "counter" not in part]
    return {kind: kept}


def _place(entry: Any) -> tuple[str, ...]:
    """Where an entry of nft's list belongs: a rule to its chain, and that to its table."""
    ((kind, told),) = entry.items()
    table = told.get("table", told.get("name"))
    return (told["family"], table, kind, told.get("chain", told.get("name", "")))


def _content(text: str) -> Any:
    try:
        told = json.loads(text)
    except ValueError:
        return text
    if isinstance(told, dict):
        # A record of what is made again has another time; the fingerprint is of handles, too, and
        # what is taken back has made generations of its own.
        ours = {"create_time", "fingerprint", "generation"}
        return {k: v for k, v in told.items() if k not in ours}
    return told
