"""The life of processes in namespaces as a user of the command line sees it, on a real host."""

from __future__ import annotations

import secrets
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hosts_client import (
    CREATE,
    DELETE,
    HOSTLER,
    START,
    answers,
    ask,
    cli,
    create_request,
    delete_request,
    environment,
)
from hosts_witness import eventually, links, names_of_netns, untouched

from hostler.api.netns.v1 import process_pb2
from hostler.lab.host import Host
from hostler.lab.lab import Lab

pytestmark = [pytest.mark.hosts, pytest.mark.timeout(300)]

LINK = {"veth": {"host_addresses": ["10.98.0.1/30"]}, "addresses": ["10.98.0.2/30"]}


@pytest.fixture
def ns(lab: Lab, h1: Host) -> Iterator[str]:
    """A namespace whose resolver is the host's end of its link, and nothing is left of it."""
    # The journal keeps what processes of the same name wrote before.
    name = f"life{secrets.token_hex(2)}"
    with untouched(h1):
        more = {"interfaces": [{**LINK, "default_route": True}]}
        ask(lab, CREATE, create_request(name, **more, dns={"servers": ["10.98.0.1"]}))
        try:
            yield name
        finally:
            ask(lab, DELETE, delete_request(name))


def pgrep(host: Host, command: str) -> str:
    return str(host.run(["pgrep", "-fx", command], check=False).stdout.strip())


def test_an_interactive_run(lab: Lab, ns: str) -> None:
    run = ["-H", "h1", "netns", "run", ns, "--"]
    assert cli(lab, *run, "tr", "a-z", "A-Z", stdin="hello\nworld\n").stdout == "HELLO\nWORLD\n"
    ended = cli(lab, *run, "sh", "-c", "cat >&2; exit 7", status=7, stdin="to stderr")
    assert (ended.stdout, ended.stderr) == ("", "to stderr")
    assert cli(lab, *run, "sh", "-c", "kill -TERM $$", status=143).stdout == ""
    much = "".join(f"{i}\n" for i in range(200_000))
    assert cli(lab, *run, "cat", stdin=much).stdout == much


def test_signals_are_passed_on(lab: Lab, h1: Host, ns: str) -> None:
    script = "trap 'echo interrupted; exit 9' INT; echo up; while :; do sleep 0.05; done"
    argv = [HOSTLER, "-H", "h1", "netns", "run", ns, "--", "sh", "-c", script]
    with subprocess.Popen(
        argv,
        env=environment(lab),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "up\n"
        child.send_signal(signal.SIGINT)
        assert child.communicate(timeout=20)[0] == "interrupted\n"
        assert child.returncode == 9


@pytest.mark.parametrize("options", [(), ("--private-pid", "--private-tmp", "--user", "nobody")])
def test_a_killed_client_takes_its_run_along(
    lab: Lab, h1: Host, ns: str, options: tuple[str, ...]
) -> None:
    script = "sleep 4711 & echo up; wait"
    argv = [HOSTLER, "-H", "h1", "netns", "run", ns, *options, "--", "sh", "-c", script]
    with subprocess.Popen(
        argv, env=environment(lab), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "up\n"
        assert pgrep(h1, "sleep 4711")
        child.kill()
    assert eventually(lambda: not pgrep(h1, "sleep 4711"), timeout_s=8)
    listed = ["systemctl", "list-units", "--all", "--plain", "--no-legend", "hostler-run-*"]
    assert eventually(lambda: not h1.run(listed).stdout.strip())


def test_user_and_groups(lab: Lab, h1: Host, ns: str) -> None:
    process = process_pb2.Process(
        namespace=ns,
        name="groups",
        argv=["sh", "-c", "id -un; id -gn; id -Gn; pwd; sleep 60"],
        user="www-data",
        group="games",
        supplementary_groups=["audio", "44"],
        working_directory="/var",
    )
    ask(lab, START, process_pb2.StartProcessRequest(process=process))
    logs = ["-H", "h1", "netns", "logs", ns, "groups"]
    assert eventually(lambda: "/var" in cli(lab, *logs).stdout)
    lines = [line.split(" ", 1)[1] for line in cli(lab, *logs).stdout.splitlines()]
    assert lines[:2] == ["www-data", "games"]
    assert sorted(lines[2].split()) == ["audio", "games", "video"]
    pid = answers(lab, "-H", "h1", "netns", "processes", ns)["h1"]["result"]["processes"][0]
    status = h1.run(
        ["grep", "-E", "^(Uid|Gid|Groups|NoNewPrivs)", f"/proc/{pid['main_pid']}/status"]
    )
    assert "Uid:\t33\t33\t33\t33" in status.stdout
    assert "Groups:\t5" not in status.stdout
    told = h1.run(["getent", "group", "audio", "video", "games"]).stdout
    ids = {line.split(":")[2] for line in told.splitlines()}
    groups = next(x for x in status.stdout.splitlines() if x.startswith("Groups:"))
    assert set(groups.split()[1:]) <= ids


def test_setup_goes_with_the_processes_unless_it_was_to_stay(lab: Lab, h1: Host) -> None:
    with untouched(h1):
        for name, goes in (("passing", True), ("staying", False)):
            ask(lab, CREATE, create_request(name, remove_with_processes=goes))
        before = links(h1)
        go = f"/run/go-{secrets.token_hex(4)}"
        script = f"while [ ! -e {go} ]; do sleep 0.1; done & sleep 0.3"
        try:
            for name in ("passing", "staying"):
                args = ["-H", "h1", "--yes", "netns", "start", name, "job", "--"]
                cli(lab, *args, "sh", "-c", script)
            for name in ("passing", "staying"):
                unit = f"hostler-run-{name}.job.service"
                main = ["systemctl", "show", "--value", "--property", "MainPID", unit]
                assert eventually(lambda main=main: h1.run(main).stdout.strip() == "0")
            assert names_of_netns(h1) == {"passing", "staying"}
            h1.run(["touch", go])
            assert eventually(lambda: names_of_netns(h1) == {"staying"})
            listed = answers(lab, "-H", "h1", "netns", "list")["h1"]["result"]["namespaces"]
            assert [space["name"] for space in listed] == ["staying"]
            assert links(h1) == before
        finally:
            h1.run(["rm", "-f", go])
            for name in ("passing", "staying"):
                ask(lab, DELETE, delete_request(name))


def test_restart_and_logs(lab: Lab, h1: Host, ns: str) -> None:
    args = ["-H", "h1", "--yes", "netns", "start", ns, "again", "--restart", "always", "--"]
    cli(lab, *args, "sh", "-c", "echo begun; sleep 0.2")
    logs = ["-H", "h1", "netns", "logs", ns, "again"]
    assert eventually(lambda: cli(lab, *logs).stdout.count("begun") >= 3)
    journal = ["journalctl", "-o", "cat", "-u", f"hostler-run-{ns}.again.service"]
    assert h1.run(journal).stdout.count("begun") >= 3
    cli(lab, "-H", "h1", "--yes", "netns", "stop", ns, "again")
    count = h1.run(journal).stdout.count("begun")
    time.sleep(2)
    assert h1.run(journal).stdout.count("begun") == count


def test_the_environment_is_nobody_elses_to_see(lab: Lab, h1: Host, ns: str) -> None:
    secret = f"s3cret{secrets.token_hex(8)}"
    options = ["--env", f"TOKEN={secret}", "--user", "www-data"]
    start = ["-H", "h1", "--yes", "netns", "start", ns, "quiet", *options, "--"]
    cli(lab, *start, "sh", "-c", 'test "$TOKEN" && echo has-it; exec sleep 4712')
    logs = ["-H", "h1", "netns", "logs", ns, "quiet"]
    assert eventually(lambda: "has-it" in cli(lab, *logs).stdout)
    assert pgrep(h1, "sleep 4712")
    unit = f"hostler-run-{ns}.quiet.service"
    nobody = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"]
    for look in (
        ["ps", "-eo", "args"],
        [*nobody, "ps", "axeww"],
        ["systemctl", "show", unit],
        ["systemctl", "cat", unit],
        ["journalctl", "--no-pager", "-o", "export"],
        ["cat", "/var/log/hostler/netns/audit.jsonl"],
        [*nobody, "grep", "-ras", secret, "/run", "/etc", "/var/lib"],
    ):
        assert secret not in h1.run(look, check=False).stdout, look
    for command in ("processes", "ps", "audit"):
        argv = ["audit", "list"] if command == "audit" else ["netns", command, ns]
        assert secret not in cli(lab, "-H", "h1", "-o", "json", *argv, status=None).stdout
    readable = h1.run(
        ["grep", "-rlas", secret, "/run", "/var/lib/hostler", "/var/log"], check=False
    )
    for path in readable.stdout.split():
        mode = h1.run(["stat", "-c", "%a %U", path]).stdout.split()
        assert mode[0] == "600", (path, mode)


@contextmanager
def watched(host: Host, link: str) -> Iterator[subprocess.Popen[str]]:
    """See the DNS packets of a link."""
    argv = ["tcpdump", "-lnn", "--immediate-mode", "-i", link, "port", "53"]
    child = host.popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        assert child.stderr is not None
        for line in child.stderr:
            if "listening on" in line:
                break
        yield child
    finally:
        host.run(["pkill", "-x", "tcpdump"], check=False)
        child.wait(10)


def test_names_do_not_leak_through_the_hosts_resolver(lab: Lab, h1: Host, ns: str) -> None:
    """systemd-resolved runs on the host, and nsswitch.conf there asks it first."""
    h1.run(["systemctl", "start", "systemd-resolved.service"])
    assert h1.run(["systemctl", "is-active", "systemd-resolved"]).stdout.strip() == "active"
    assert "resolve" in h1.run(["grep", "^hosts:", "/etc/nsswitch.conf"]).stdout
    name = f"leak-{secrets.token_hex(4)}.test"
    veth = next(iter(links(h1) - {"lo", "host0"}))
    trace = ["strace", "-f", "-s", "200", "-e", "trace=connect,sendto,sendmmsg,openat"]
    command = [*trace, "getent", "ahostsv4", name]
    with watched(h1, "lo") as lo, watched(h1, "host0") as out, watched(h1, veth) as own:
        done = cli(lab, "-H", "h1", "netns", "run", ns, "--", "timeout", "8", *command, status=None)
        time.sleep(0.3)
    lines = done.stderr
    assert 'inet_addr("10.98.0.1")' in lines
    assert "/run/systemd/resolve" not in lines
    assert "127.0.0.53" not in lines
    assert "nss_resolve" not in lines
    assert "dbus" not in lines
    assert lo.stdout is not None
    assert out.stdout is not None
    assert own.stdout is not None
    assert name not in lo.stdout.read()
    assert name not in out.stdout.read()
    assert name in own.stdout.read()
    files = cli(lab, "-H", "h1", "netns", "run", ns, "--", "cat", "/etc/nsswitch.conf").stdout
    hosts = next(line for line in files.splitlines() if line.startswith("hosts:"))
    assert "resolve" not in hosts
    seen = h1.run(["journalctl", "-o", "cat", "-u", "systemd-resolved"]).stdout
    assert name not in seen


def test_a_namespace_without_resolvers_resolves_nothing(lab: Lab, h1: Host) -> None:
    with untouched(h1):
        ask(lab, CREATE, create_request("mute"))
        try:
            run = ["-H", "h1", "netns", "run", "mute", "--"]
            files = cli(lab, *run, "cat", "/etc/resolv.conf").stdout
            assert "nameserver" not in files
            start = time.monotonic()
            cli(lab, *run, "getent", "ahostsv4", "anything.test", status=2)
            assert time.monotonic() - start < 5
            # The hosts file is still asked.
            assert "localhost" in cli(lab, *run, "getent", "hosts", "127.0.0.1").stdout
        finally:
            ask(lab, DELETE, delete_request("mute"))


def test_tasks_of_others_are_told_by_namespace_and_limits(lab: Lab, h1: Host, ns: str) -> None:
    limits = ["--memory", "64M", "--tasks", "20", "--cpu", "0.5"]
    start = ["-H", "h1", "--yes", "netns", "start", ns, "bound", *limits, "--", "sleep", "4713"]
    cli(lab, *start)
    tasks = answers(lab, "-H", "h1", "netns", "ps", ns)["h1"]["result"]["tasks"]
    (task,) = [t for t in tasks if t["comm"] == "sleep"]
    pid = task["pid_outside"]
    for kind, inode in task["namespaces"].items():
        told = h1.run(["readlink", f"/proc/{pid}/ns/{kind}"]).stdout.strip()
        assert told == f"{kind}:[{inode}]"
    assert set(task["namespaces"]) == {"net", "pid", "mnt", "uts", "ipc", "user", "cgroup"}
    assert h1.run(["cat", f"/proc/{pid}/cgroup"]).stdout.strip().endswith(task["cgroup"])
    shown = h1.run(["systemctl", "show", f"hostler-run-{ns}.bound.service"]).stdout.splitlines()
    assert {"MemoryMax=67108864", "TasksMax=20", "CPUQuotaPerSecUSec=500ms"} <= set(shown)
    assert h1.run(["ip", "netns", "pids", ns]).stdout.split() == [str(pid)]
