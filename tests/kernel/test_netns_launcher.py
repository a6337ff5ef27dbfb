"""The launcher as a program: its door, handles, tasks, and the way into a process."""

from __future__ import annotations

import json
import os
import pwd
import queue
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from hostlerd.netns.errors import LauncherRefused, LauncherUnavailable, NamespaceNotFound
from hostlerd.netns.kernel.launcher_client import Launcher
from hostlerd.netns.launcher import store
from hostlerd.netns.launcher.grammar import DEFAULTS
from hostlerd.runtime.errors import InvalidRequest

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
]
MAIN = Path(store.__file__).with_name("__main__.py")
PYTHON = "/usr/bin/python3"


def tool(*argv: str) -> str:
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout


@pytest.fixture
def name() -> Iterator[str]:
    """A name for namespaces that nobody else has; what is left of it goes."""
    one = f"t{secrets.token_hex(4)}"
    yield one
    for handle in Path("/run/netns").glob(f"{one}*"):
        subprocess.run(["ip", "netns", "delete", handle.name], check=False)
    for path in store.STORE.glob(f"{one}*"):
        path.unlink()


@pytest.fixture
def door(tmp_path: Path) -> Iterator[Path]:
    """A launcher at a socket of the test's own, started as the service starts it."""
    path = tmp_path / "launcher.sock"
    process = subprocess.Popen([PYTHON, "-I", "-S", str(MAIN), "--listen", str(path)])
    try:
        wait_until(path.is_socket)
        wait_until(lambda: path.stat().st_mode & 0o777 == 0o600)
        # The pid is what tests of descriptors look at.
        (tmp_path / "pid").write_text(str(process.pid))
        yield path
    finally:
        process.terminate()
        process.wait(10)


def wait_until(holds: Any, timeout_s: float = 10.0) -> None:
    deadline = time.monotonic() + timeout_s
    while True:
        with suppress(OSError):
            if holds():
                return
        assert time.monotonic() < deadline, "it did not come to be in time"
        time.sleep(0.01)


@contextmanager
def sleeper(*options: str, environment: dict[str, str] | None = None) -> Iterator[int]:
    """A process in namespaces of its own, by unshare(1); answers the PID of the sleep itself."""
    process = subprocess.Popen(
        ["unshare", "--net", *options, "sleep", "60"], env={**os.environ, **(environment or {})}
    )
    try:
        forks = "--fork" in options

        def pid() -> int:
            if not forks:
                return process.pid
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
            return int(children or 0)

        wait_until(lambda: Path(f"/proc/{pid()}/comm").read_text() == "sleep\n")
        yield pid()
    finally:
        process.kill()
        process.wait()


@contextmanager
def network_namespace() -> Iterator[int]:
    """The descriptor of a new network namespace."""
    with sleeper() as pid:
        fd = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)
        try:
            yield fd
        finally:
            os.close(fd)


def raw(door: Path, data: bytes, fds: tuple[int, ...] = ()) -> bytes:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
        connection.settimeout(10)
        connection.connect(str(door))
        connection.setsockopt(socket.SOL_SOCKET, 32, 1 << 20)
        socket.send_fds(connection, [data], fds)
        return connection.recv(1 << 17)


def test_a_handle_is_what_iproute2_understands_and_goes_again(door: Path, name: str) -> None:
    launcher = Launcher(door)
    with network_namespace() as fd:
        launcher.attach_many([(name, fd)])
        inode = os.fstat(fd).st_ino
    assert name in tool("ip", "netns", "list").split()
    links = json.loads(tool("ip", "-json", "-netns", name, "link"))
    assert [link["ifname"] for link in links] == ["lo"]
    assert Path(f"/run/netns/{name}").stat().st_ino == inode
    launcher.detach(name)
    launcher.detach(name)
    assert name not in tool("ip", "netns", "list").split()
    assert not Path(f"/run/netns/{name}").exists()


def test_all_handles_of_a_request_or_none(door: Path, name: str) -> None:
    with network_namespace() as fd, Path("/etc/passwd").open() as file:
        taken = f"{name}-b"
        Launcher(door).attach_many([(taken, fd)])
        for bad in ([(f"{name}-a", fd), (taken, fd)], [(name, fd), (f"{name}-c", file.fileno())]):
            with pytest.raises(LauncherRefused):
                Launcher(door).attach_many(bad)
        assert [p.name for p in Path("/run/netns").glob(f"{name}*")] == [taken]


def test_what_is_no_network_namespace_gets_no_handle(door: Path, name: str) -> None:
    for path in ("/proc/self/ns/mnt", "/proc/self/ns/user", "/dev/null", "/proc/self/status", "/"):
        fd = os.open(path, os.O_RDONLY)
        with pytest.raises(LauncherRefused) as caught:
            Launcher(door).attach_many([(name, fd)])
        os.close(fd)
        assert caught.value.metadata["launcher_reason"] == "NOT_A_NAMESPACE"
    assert not Path(f"/run/netns/{name}").exists()


def test_hundreds_of_handles_take_several_requests(door: Path, name: str) -> None:
    with network_namespace() as fd:
        names = [f"{name}-{i}" for i in range(300)]
        Launcher(door).attach_many([(n, fd) for n in names])
        try:
            assert set(names) <= set(tool("ip", "netns", "list").replace("\n", " ").split())
        finally:
            Launcher(door).detach_many(names)
    assert not list(Path("/run/netns").glob(f"{name}*"))


@pytest.mark.parametrize(
    "data",
    [b"{", b"[]", b'"x"', b"\xff\xfe", b"[" * 5000, b'{"op":"tasks","x":1}', b'{"op": "tasks"'],
)
def test_rubbish_is_refused_and_the_door_stays_open(door: Path, data: bytes) -> None:
    answer = json.loads(raw(door, data))
    assert (answer["ok"], answer["reason"]) == (False, "MALFORMED")
    assert Launcher(door).tasks(net=1) == ([], False)


def test_a_request_that_is_too_large_is_refused(door: Path) -> None:
    assert json.loads(raw(door, b" " * (385 * 1024)))["reason"] == "MALFORMED"
    with pytest.raises(InvalidRequest):
        Launcher(door).start({"namespace": "a", "name": "b", "argv": ["x" * (400 * 1024)]})


def test_no_descriptor_stays_behind_whatever_is_sent(door: Path) -> None:
    pid = (door.parent / "pid").read_text()

    def held() -> int:
        return len(list(Path(f"/proc/{pid}/fd").iterdir()))

    before = held()
    unit = {"namespace": "nowhere", "name": "x", "argv": ["true"]}
    with Path("/dev/null").open() as file:
        fds = (file.fileno(),) * 3
        for request in ({"op": "tasks"}, {"op": "run", "unit": unit}, {"op": "nonsense"}):
            for _ in range(5):
                assert json.loads(raw(door, json.dumps(request).encode(), fds))["ok"] is False
        raw(door, b'{"op":"tasks","net":1}')
    wait_until(lambda: held() <= before)


def test_a_peer_of_another_user_is_turned_away(door: Path) -> None:
    door.chmod(0o666)
    for parent in door.parents[:-2]:
        parent.chmod(parent.stat().st_mode | 0o011)
    program = (
        "import socket,sys; s=socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET);"
        f"s.connect({str(door)!r}); s.settimeout(5)\n"
        'try: s.send(b\'{"op":"tasks"}\'); print(len(s.recv(1<<17)))\n'
        "except (BrokenPipeError, ConnectionResetError): print(0)"
    )
    nobody = pwd.getpwnam("nobody").pw_uid
    argv = [PYTHON, "-I", "-c", program]
    done = subprocess.run(argv, user=nobody, capture_output=True, text=True, check=True)
    assert done.stdout == "0\n"
    assert int(subprocess.run(argv, capture_output=True, text=True, check=True).stdout) > 0


def test_many_callers_at_once(door: Path) -> None:
    results: list[int] = []

    def ask() -> None:
        for _ in range(5):
            results.append(len(Launcher(door).tasks(net=1)[0]))

    threads = [threading.Thread(target=ask) for _ in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [0] * 200


def test_it_ends_when_idle_and_serves_until_then(tmp_path: Path) -> None:
    path = tmp_path / "l.sock"
    program = (
        f"import sys; sys.argv=[{str(MAIN)!r}]; import runpy; m=runpy.run_path({str(MAIN)!r});"
        "m['load_own_folders'](); import launcher.server as s;"
        f"from pathlib import Path; s.serve(s.listening_socket(Path({str(path)!r})), idle_s=0.5)"
    )
    process = subprocess.Popen([PYTHON, "-I", "-c", program])
    try:
        wait_until(path.is_socket)
        for _ in range(4):
            time.sleep(0.3)
            assert Launcher(path).tasks(net=1) == ([], False)
        assert process.wait(10) == 0
    finally:
        process.kill()
        process.wait()
    with pytest.raises(LauncherUnavailable):
        Launcher(path).tasks()


def test_nothing_but_its_own_folders_and_the_standard_library_is_imported() -> None:
    program = (
        f"import runpy,sys; m=runpy.run_path({str(MAIN)!r}); m['load_own_folders']();"
        "import launcher.server, launcher.enter; print('\\n'.join(sys.modules))"
    )
    modules = set(tool(PYTHON, "-I", "-S", "-c", program).split())
    top = {m.partition(".")[0] for m in modules}
    own = {"__main__", "launcher", "hostlerd", "sitecustomize"}
    assert top - set(sys.stdlib_module_names) <= own
    hostlerd = {m for m in modules if m.startswith("hostlerd.")}
    assert all(m.startswith("hostlerd.privileged") for m in hostlerd)


def test_tasks_tell_pids_inside_and_outside_and_the_container(door: Path) -> None:
    options = ("--pid", "--uts", "--ipc", "--fork", "--kill-child", "--mount-proc")
    with sleeper(*options, environment={"container": "podman"}) as pid:
        inode = Path(f"/proc/{pid}/ns/net").stat().st_ino
        (outer, task), truncated = Launcher(door).tasks(net=inode, with_argv=True)
        assert not truncated
        assert (outer["comm"], outer["pid_inside"]) == ("unshare", outer["pid"])
        assert (task["pid"], task["pid_inside"], task["ppid"]) == (pid, 1, outer["pid"])
        assert task["argv"] == ["sleep", "60"]
        assert (task["uid"], task["gid"], task["engine"]) == (0, 0, "podman")
        for kind, seen in task["namespaces"].items():
            told = tool("readlink", f"/proc/{pid}/ns/{kind}").strip()
            assert told == f"{kind}:[{seen}]"
        assert set(task["namespaces"]) == {"net", "pid", "mnt", "uts", "ipc", "user", "cgroup"}
        assert Launcher(door).tasks(net=inode)[0][1]["argv"] == []
        assert Launcher(door).tasks_in(inode) == (outer["pid"], pid)


def test_tasks_of_all_namespaces_but_the_hosts(door: Path) -> None:
    host = Path("/proc/self/ns/net").stat().st_ino
    with sleeper() as pid:
        others, _ = Launcher(door).tasks(except_net=host)
        every, _ = Launcher(door).tasks()
    assert pid in {t["pid"] for t in others}
    assert os.getpid() not in {t["pid"] for t in others}
    assert {pid, os.getpid()} <= {t["pid"] for t in every}
    told = set(tool("ps", "-eo", "pid=").split())
    missing = told - {str(t["pid"]) for t in every}
    # Processes come and go meanwhile: ps itself, for one.
    assert len(missing) < 20


def test_a_thread_in_another_network_namespace_is_listed(door: Path) -> None:
    program = (
        "import ctypes,threading,time\n"
        "def go(): ctypes.CDLL(None).unshare(0x40000000); print(flush=True); time.sleep(60)\n"
        "threading.Thread(target=go).start()"
    )
    process = subprocess.Popen([PYTHON, "-I", "-c", program], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        process.stdout.readline()
        threads = {int(t.name) for t in Path(f"/proc/{process.pid}/task").iterdir()}
        (thread,) = threads - {process.pid}
        inode = Path(f"/proc/{process.pid}/task/{thread}/ns/net").stat().st_ino
        assert Launcher(door).tasks_in(inode) == (thread,)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_a_start_that_cannot_be_leaves_nothing(door: Path, name: str) -> None:
    unit = {"namespace": name, "name": "x", "argv": ["true"], "environment": {"A": "secret"}}
    with pytest.raises(NamespaceNotFound):
        Launcher(door).start(unit)
    assert not list(store.STORE.glob(f"{name}*"))
    with network_namespace() as fd:
        Launcher(door).attach_many([(name, fd)])
    wrong = {
        "user": "no-such-user",
        "group": "no-such-group",
        "supplementary_groups": ["nor-this"],
        "working_directory": "/nowhere",
        "argv": ["no-such-command"],
        "limits": {"devices": [{"device": "/dev/null", "read_bytes_per_second": 1}]},
    }
    with pytest.raises(InvalidRequest) as caught:
        Launcher(door).start({**unit, **wrong})
    assert {v.field for v in caught.value.violations} == {
        "process.user",
        "process.group",
        "process.supplementary_groups[0]",
        "process.working_directory",
        "process.argv[0]",
        "process.limits.devices[0].device",
    }
    assert not list(store.STORE.glob(f"{name}*"))


class Notified:
    """What a process tells systemd, heard on a socket of the test's own."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(path))
        path.chmod(0o777)
        self.heard: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._hear, daemon=True).start()

    def _hear(self) -> None:
        while True:
            data, fds, _, _ = socket.recv_fds(self.socket, 4096, 4)
            # Closing it is how systemd says that it has read what came before.
            for fd in fds:
                os.close(fd)
            if data != b"BARRIER=1":
                self.heard.put(data.decode())

    def next(self) -> str:
        return self.heard.get(timeout=10)


class Entered:
    """A process that came in by `enter`, outside of systemd."""

    def __init__(self, unit: dict[str, Any], tmp_path: Path) -> None:
        store.save({**DEFAULTS, **unit})
        tmp_path.chmod(0o755)
        self.notified = Notified(tmp_path / f"n{secrets.token_hex(3)}")
        self.process = subprocess.Popen(
            [PYTHON, "-I", "-S", str(MAIN), "enter", unit["namespace"], unit["name"]],
            env={"NOTIFY_SOCKET": self.notified.socket.getsockname(), "LD_LIBRARY_PATH": "/x"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def said(self) -> str:
        return self.notified.next()

    def output(self) -> str:
        out, _ = self.process.communicate(timeout=20)
        return out


SHOW = (
    "import json,os,socket,signal\n"
    "s = dict(l.split(':', 1) for l in open('/proc/self/status') if ':' in l)\n"
    "print(json.dumps({'uid': os.getresuid(), 'gid': os.getresgid(), 'groups': os.getgroups(),"
    "'bounding': s['CapBnd'].strip(), 'effective': s['CapEff'].strip(), 'ppid': os.getppid(),"
    "'ignored': s['SigIgn'].strip(), 'blocked': s['SigBlk'].strip(), 'pid': os.getpid(),"
    "'env': dict(os.environ), 'cwd': os.getcwd(), 'host': socket.gethostname(),"
    "'fds': os.listdir('/proc/self/fd'), 'pids': [p for p in os.listdir('/proc') if p.isdigit()]}))"
)


@pytest.fixture
def unit(name: str) -> dict[str, Any]:
    return {"namespace": name, "name": "p", "argv": [PYTHON, "-I", "-S", "-c", SHOW]}


@pytest.mark.parametrize("private_pid", [False, True])
def test_what_a_process_finds_itself_to_be(
    unit: dict[str, Any], private_pid: bool, tmp_path: Path
) -> None:
    daemon = pwd.getpwnam("daemon")
    odd = "a $HOME %n \\ \" ' \n ü"
    entered = Entered(
        {
            **unit,
            "user": "daemon",
            "supplementary_groups": ["adm", "4242"],
            "working_directory": "/usr",
            "environment": {"ODD": odd, "SHELL": "/bin/x", "LD_PRELOAD": ""},
            "private_pid": private_pid,
            "private_uts": True,
            "hostname": "inside.example",
        },
        tmp_path,
    )
    assert entered.said() == "STATUS=running"
    seen = json.loads(entered.output())
    assert entered.process.returncode == 0
    assert seen["uid"] == [daemon.pw_uid] * 3
    assert seen["gid"] == [daemon.pw_gid] * 3
    assert {4, 4242, daemon.pw_gid} <= set(seen["groups"])
    assert 0 not in seen["groups"]
    assert seen["effective"] == "0" * 16
    assert int(seen["bounding"], 16) & ~0xA00435FB == 0
    # Python itself ignores SIGPIPE and SIGXFSZ; what whoever started us ignored, we pass on.
    ours = Path("/proc/self/status").read_text().split("SigIgn:")[1].split()[0]
    assert int(seen["ignored"], 16) & ~0x1001000 & ~int(ours, 16) == 0
    assert int(seen["blocked"], 16) == 0
    assert (seen["cwd"], seen["host"]) == ("/usr", "inside.example")
    assert socket.gethostname() != "inside.example"
    assert seen["env"]["ODD"] == odd
    assert set(seen["env"]) <= {
        *("ODD", "SHELL", "LD_PRELOAD", "PATH", "HOME", "USER", "LOGNAME", "LC_CTYPE"),
    }
    assert (seen["env"]["SHELL"], seen["env"]["USER"]) == ("/bin/x", "daemon")
    # Standard ones and the one that lists them.
    assert len(seen["fds"]) == 4
    if private_pid:
        assert (seen["pid"], seen["ppid"], sorted(seen["pids"])) == (2, 1, ["1", "2"])


def test_root_keeps_its_own_network_and_not_the_hosts_kernel(
    unit: dict[str, Any], tmp_path: Path
) -> None:
    seen = json.loads(Entered(unit, tmp_path).output())
    assert int(seen["effective"], 16) & ~0xA00435FB == 0
    assert int(seen["effective"], 16) & 1 << 12
    for number in (16, 17, 19, 21, 25):
        assert not int(seen["bounding"], 16) & 1 << number


@pytest.mark.parametrize("private_pid", [False, True])
@pytest.mark.parametrize(
    ("more", "status", "words"),
    [
        ({"argv": ["/etc"]}, 226, "the unit cannot run on this host"),
        ({"user": "daemon", "working_directory": "/root"}, 200, "Permission denied"),
        ({"argv": ["{bad}"]}, 203, "Exec format error"),
    ],
)
def test_a_failure_is_told_in_words_and_by_systemds_status(
    unit: dict[str, Any],
    private_pid: bool,
    more: dict[str, Any],
    status: int,
    words: str,
    tmp_path: Path,
) -> None:
    bad = tmp_path / "bad"
    bad.write_text("no program")
    bad.chmod(0o755)
    more = {k: [w.format(bad=bad) for w in v] if k == "argv" else v for k, v in more.items()}
    entered = Entered({**unit, **more, "private_pid": private_pid}, tmp_path)
    said = entered.said()
    assert said.startswith("STATUS=")
    assert words in said
    entered.output()
    assert entered.process.returncode == status


@pytest.mark.parametrize("private_pid", [False, True])
@pytest.mark.parametrize(
    ("script", "returncode"),
    [
        ("exit 7", 7),
        ("kill -TERM $$", -signal.SIGTERM),
        ("kill -SEGV $$", -signal.SIGSEGV),
        ("kill -KILL $$", -signal.SIGKILL),
    ],
)
def test_the_end_is_the_processs_own(
    unit: dict[str, Any], private_pid: bool, script: str, returncode: int, tmp_path: Path
) -> None:
    more = {"argv": ["sh", "-c", script], "private_pid": private_pid}
    entered = Entered({**unit, **more}, tmp_path)
    entered.output()
    assert entered.process.returncode == returncode


def test_children_are_waited_for_in_a_pid_namespace(unit: dict[str, Any], tmp_path: Path) -> None:
    script = "(sleep 0.5; echo late) & echo early; exit 3"
    entered = Entered({**unit, "argv": ["sh", "-c", script], "private_pid": True}, tmp_path)
    assert entered.output() == "early\nlate\n"
    assert entered.process.returncode == 3


def test_sigterm_to_all_ends_the_process_in_a_pid_namespace(
    unit: dict[str, Any], tmp_path: Path
) -> None:
    """As systemd does at a stop: waiter and init stay until the process has ended by it."""
    script = "trap 'sleep 0.3; echo graceful; exit 5' TERM; echo up; while :; do sleep 0.1; done"
    entered = Entered({**unit, "argv": ["sh", "-c", script], "private_pid": True}, tmp_path)
    assert entered.said() == "STATUS=running"
    assert entered.process.stdout is not None
    assert entered.process.stdout.readline() == "up\n"
    top = entered.process.pid
    (init,) = map(int, Path(f"/proc/{top}/task/{top}/children").read_text().split())
    (shell,) = map(int, Path(f"/proc/{init}/task/{init}/children").read_text().split())
    for pid in (top, init, shell):
        os.kill(pid, signal.SIGTERM)
    assert "graceful" in entered.output()
    assert entered.process.returncode == 5


def test_nothing_survives_the_waiter(unit: dict[str, Any], tmp_path: Path) -> None:
    entered = Entered({**unit, "argv": ["sleep", "60"], "private_pid": True}, tmp_path)
    assert entered.said() == "STATUS=running"
    top = entered.process.pid
    (init,) = map(int, Path(f"/proc/{top}/task/{top}/children").read_text().split())
    (inside,) = map(int, Path(f"/proc/{init}/task/{init}/children").read_text().split())
    os.kill(top, signal.SIGKILL)
    entered.output()
    wait_until(lambda: not Path(f"/proc/{inside}").exists())


def test_the_store_keeps_secrets_to_root_and_drops_them(name: str) -> None:
    unit = {**DEFAULTS, "namespace": name, "name": "p", "argv": ["x"], "environment": {"A": "s"}}
    store.save(unit)
    path = store.STORE / f"{name}.p.json"
    assert path.stat().st_mode & 0o777 == 0o600
    assert store.STORE.stat().st_mode & 0o777 == 0o700
    assert store.load(name, "p") == unit
    store.set_live(name, "p")
    store.save_end(name, "p", {"result": "success"})
    assert (name, "p") in store.known()
    store.drop_unit(name, "p")
    assert (store.load(name, "p"), store.is_live(name, "p")) == (None, False)
    assert store.load_end(name, "p") == {"result": "success"}
    store.forget(name, "p")
    assert (name, "p") not in store.known()


def test_what_others_started_in_a_namespace_is_ended(door: Path, name: str) -> None:
    """One ends by SIGTERM, one ignores it; a process beside the namespace lives on."""
    tool("ip", "netns", "add", name)
    inside = ["ip", "netns", "exec", name]
    deaf = [*inside, sys.executable, "-c", "import signal,time;signal.signal(15,1);time.sleep(60)"]
    beside = subprocess.Popen(["sleep", "60"])
    strangers = [subprocess.Popen([*inside, "sleep", "60"]), subprocess.Popen(deaf)]
    try:
        wait_until(lambda: len(tool("ip", "netns", "pids", name).split()) == 2)
        time.sleep(0.3)
        Launcher(door).evict(name)
        assert [p.wait(5) for p in strangers] == [-signal.SIGTERM, -signal.SIGKILL]
        assert tool("ip", "netns", "pids", name) == "" and beside.poll() is None
        Launcher(door).evict(name)
    finally:
        for process in (beside, *strangers):
            process.kill()
            process.wait()


def test_the_hosts_own_namespace_is_never_emptied(door: Path, name: str) -> None:
    with Path("/proc/self/ns/net").open() as own:
        Launcher(door).attach_many([(name, own.fileno())])
        with pytest.raises(LauncherRefused, match="own network namespace"):
            Launcher(door).evict(name)
        Launcher(door).detach(name)
