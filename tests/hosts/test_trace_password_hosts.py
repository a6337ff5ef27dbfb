"""A password that is typed into a login while the host is traced: where it is afterwards."""

from __future__ import annotations

import json
import secrets
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import zstandard
from hosts_client import HOSTLER, answers, cli, environment
from hosts_witness import eventually

from hostler.lab.host import Host
from hostler.lab.lab import Lab

pytestmark = [pytest.mark.hosts, pytest.mark.timeout(300)]

USER = "paula"
# Who types, who asks, and who looks at what was typed. What searches makes more calls than all.
FILTER = "proc.name in (typist, su, unix_chkpwd, id)"
# su(1) at a terminal, as whom it asks for the password.
LOGIN = """
import os, pty, sys
with open("/proc/self/comm", "w") as name:
    name.write("typist")
password = sys.stdin.buffer.readline()
pid, terminal = pty.fork()
if pid == 0:
    os.setgid(33)
    os.setuid(33)
    os.execv("/usr/bin/su", ["su", sys.argv[1], "-c", "id -un"])
said = b""
while b"assword:" not in said:
    said += os.read(terminal, 100)
os.write(terminal, password)
try:
    while piece := os.read(terminal, 100):
        said += piece
except OSError:
    pass
print(said.decode())
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""
# Every file that something on the host may have written, the journal as it reads, and what the
# processes of a unit have in their memory.
SEARCH = """
import json, os, subprocess, sys
asked = json.load(sys.stdin)
words = [bytes.fromhex(word) for word in asked["words"]]
found = []
def look(name, data):
    if any(word in data for word in words):
        found.append(name)
for root in ("/etc", "/home", "/root", "/run", "/srv", "/tmp", "/var", "/dev/shm"):
    for folder, _, files in os.walk(root):
        for path in (os.path.join(folder, name) for name in files):
            if os.path.isfile(path) and not os.path.islink(path):
                with open(path, "rb") as file:
                    look(path, file.read())
look("journal", subprocess.run(["journalctl", "-o", "export"], capture_output=True).stdout)
with open("/sys/fs/cgroup/system.slice/hostler-tracing.service/cgroup.procs") as file:
    pids = file.read().split()
for pid in pids:
    with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/mem", "rb", 0) as memory:
        for line in maps:
            place, access = line.split()[:2]
            begin, end = (int(word, 16) for word in place.split("-"))
            if not access.startswith("r"):
                continue
            try:
                memory.seek(begin)
                look(f"memory of {pid}", memory.read(end - begin))
            except OSError:
                pass
print(json.dumps({"found": sorted(set(found)), "processes": len(pids)}))
"""


class Secret:
    """A password that no file has: its words are what is searched for, its parts included."""

    def __init__(self) -> None:
        self.text = secrets.token_urlsafe(24)
        whole = self.text.encode()
        self.words = [whole, whole[:10], whole[-10:]]

    def is_in(self, data: bytes) -> bool:
        """Whether it or a part of it is there, compressed or not."""
        return any(word in part for part in (data, *_inflated(data)) for word in self.words)

    def on_host(self, host: Host) -> tuple[list[str], int]:
        """Where on a host it is; and how many processes the tracing daemon has."""
        asked = json.dumps({"words": [word.hex() for word in self.words]})
        argv = ["/usr/bin/python3", "-IS", "-c", SEARCH]
        told = json.loads(host.run(argv, stdin=asked, timeout_s=120).stdout)
        return told["found"], told["processes"]


def _inflated(data: bytes) -> Iterator[bytes]:
    """What is in the zstd frames of a file, wherever they lie."""
    at = data.find(zstandard.FRAME_HEADER)
    while at >= 0:
        yield zstandard.ZstdDecompressor().decompressobj().decompress(data[at:])
        at = data.find(zstandard.FRAME_HEADER, at + 1)


@pytest.fixture
def password(h1: Host) -> Iterator[Secret]:
    """The password of a user that is there for the test."""
    made = Secret()
    h1.run(["/usr/sbin/useradd", "--create-home", USER])
    try:
        h1.run(["/usr/sbin/chpasswd"], stdin=f"{USER}:{made.text}\n")
        yield made
    finally:
        h1.run(["/usr/sbin/userdel", "--remove", USER], check=False)


def log_in(host: Host, password: Secret) -> None:
    said = host.run(
        ["/usr/bin/python3", "-IS", "-c", LOGIN, USER], stdin=f"{password.text}\n"
    ).stdout
    assert USER in said.split(), said


def environment_of(lab: Lab, user: str) -> dict[str, str]:
    """That of one of the lab's users."""
    config = lab.config.with_name(f"password-{user}.toml")
    config.write_text(lab.config.read_text().replace("/users/admin.", f"/users/{user}."))
    return environment(lab) | {"HOSTLER_CONFIG": str(config)}


def as_operator(lab: Lab, *words: str) -> str:
    """Run a command for h1; answers what it says on standard error."""
    done = subprocess.run(
        [HOSTLER, "-H", "h1", *words],
        env=environment_of(lab, "operator"),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


def kept_files(host: Host) -> list[bytes]:
    """What a host keeps of traces."""
    root = Path(f"/proc/{host.leader()}/root/var/lib/hostler/tracing/captures")
    return [path.read_bytes() for path in root.rglob("*") if path.is_file()]


@contextmanager
def live(lab: Lab, user: str, *words: str) -> Iterator[subprocess.Popen[str]]:
    """A trace of logins on h1 with payloads, as far as the user may have them."""
    asked = ("--filter", FILTER, "--payload", "1024")
    argv = [HOSTLER, "-H", "h1", *words[:2], "trace", "live", *asked, *words[2:]]
    with subprocess.Popen(
        argv,
        env=environment_of(lab, user),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_for(lab: Lab, number: int) -> None:
    """Wait until so many traces run, and are watched."""

    def running() -> bool:
        traces = answers(lab, "-H", "h1", "trace", "list")["h1"]["result"]["traces"]
        return sum(t.get("engine") == "bpf" and not t.get("end_reason") for t in traces) == number

    eventually(running, 60)


def ended(processes: Sequence[subprocess.Popen[str]]) -> list[tuple[str, str]]:
    """End traces in good order; answers what each has said."""
    for process in processes:
        process.send_signal(signal.SIGINT)
    said = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0] * len(processes), said
    return said


def typed(text: str) -> list[dict[str, Any]]:
    """The reads by which su got what was typed."""
    events = [json.loads(line) for line in text.splitlines()]
    return [
        each
        for each in events
        if each["process"] == "su"
        and each["syscall"] == "read"
        and each.get("file", "").startswith("/dev/pts/")
    ]


def test_a_typed_password_is_nowhere_unless_payloads_are_allowed(
    lab: Lab, h1: Host, password: Secret, tmp_path: Path
) -> None:
    length = len(password.text) + 1
    secret, open_ = tmp_path / "operator.htrace", tmp_path / "admin.htrace"
    with ExitStack() as stack:
        shown = stack.enter_context(live(lab, "operator", "-o", "ndjson"))
        kept = stack.enter_context(live(lab, "operator", "-o", "table", "-w", str(secret)))
        keep = ("trace", "captures", "start", "typed", "--filter", FILTER, "--payload", "1024")
        assert "payloads are not allowed" in as_operator(lab, *keep)
        stack.callback(as_operator, lab, "trace", "stop", "typed")
        wait_for(lab, 3)
        log_in(h1, password)
        assert password.on_host(h1) == ([], 4)
        (out, err), (nothing, also) = ended([shown, kept])
    assert "payloads are not allowed" in err
    assert nothing == ""
    # The login was traced: how much was typed is told, and not what.
    (read,) = typed(out)
    assert (read["result"], read["flags"]) == (length, ["DATA_WITHHELD"])
    again = cli(lab, "-o", "ndjson", "trace", "read", str(secret)).stdout
    assert [each["result"] for each in typed(again)] == [length]
    for told in (out, err, also, again):
        assert not password.is_in(told.encode())
    assert not password.is_in(secret.read_bytes())
    queried = cli(lab, "-H", "h1", "-o", "ndjson", "trace", "captures", "query", "typed").stdout
    assert [each["result"] for each in typed(queried)] == [length]
    stored = kept_files(h1)
    assert any(len(data) > 1000 for data in stored)
    assert not any(password.is_in(data) for data in stored)
    cli(lab, "-H", "h1", "--yes", "trace", "captures", "delete", "typed")
    assert password.on_host(h1) == ([], 1)

    # Whoever may see payloads sees it, by the same means: in the trace, and nowhere else.
    with live(lab, "admin", "-o", "table", "-w", str(open_)) as process:
        wait_for(lab, 1)
        log_in(h1, password)
        places, processes = password.on_host(h1)
        ended([process])
    assert processes == 2
    assert places and all(place.startswith("memory of ") for place in places), places
    again = cli(lab, "-o", "ndjson", "trace", "read", str(open_)).stdout
    assert [each["data"] for each in typed(again)] == [f"{password.text}\n"]
    assert password.is_in(open_.read_bytes())


def test_what_is_written_to_a_file_or_the_journal_is_found(h1: Host, password: Secret) -> None:
    """Had anything written the password, the other test would have found it."""
    h1.run(["systemctl", "start", "hostler-tracing.service"])
    h1.put("/var/tmp/leak", password.text)
    h1.run(["/usr/bin/systemd-cat"], stdin=f"{password.text}\n")
    eventually(lambda: {"/var/tmp/leak", "journal"} <= set(password.on_host(h1)[0]), 60)
    h1.run(["/bin/rm", "/var/tmp/leak"])
