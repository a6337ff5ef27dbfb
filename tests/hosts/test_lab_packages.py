"""The installed packages on a real host: users, files, sockets, sandbox."""

from __future__ import annotations

import json
import re

import pytest

from hostler.lab.host import Host

pytestmark = [pytest.mark.hosts, pytest.mark.timeout(600)]
DAEMONS = ("netns", "storage", "firewall", "tracing", "ssl")


def test_sockets_wait_and_no_daemon_runs_for_that(h1: Host) -> None:
    listening = h1.run(["ss", "-Hltn"]).stdout + h1.run(["ss", "-Hlx"]).stdout
    ports = (":7441", ":7442", ":7443", ":7444", ":7445")
    for door in (*ports, *(f"/run/hostler/{name}.sock" for name in DAEMONS)):
        assert door in listening
    for domain in DAEMONS:
        shown = h1.run(["stat", "-c", "%a %G", f"/run/hostler/{domain}.sock"]).stdout
        assert shown == "660 hostler\n"
    shown = h1.run(["stat", "-c", "%a %U", "/run/hostler/launcher.sock"]).stdout
    assert shown == "600 hostler-netns\n"


def test_users_have_the_groups_they_need_and_no_shell(h1: Host) -> None:
    for domain in DAEMONS:
        entry = h1.run(["getent", "passwd", f"hostler-{domain}"]).stdout.strip().split(":")
        assert entry[-1] == "/usr/sbin/nologin"
        assert "hostler-tls" in h1.run(["id", "-nG", f"hostler-{domain}"]).stdout.split()


def test_key_is_readable_to_the_daemons_alone(h1: Host) -> None:
    shown = h1.run(["stat", "-c", "%a %U %G", "/etc/hostler/pki/host.key"]).stdout
    assert shown == "640 root hostler-tls\n"
    as_user = ["setpriv", "--init-groups", "--reset-env"]
    for user, status in (*((f"hostler-{name}", 0) for name in DAEMONS), ("www-data", 1)):
        argv = [*as_user, f"--reuid={user}", f"--regid={user}", "cat", "/etc/hostler/pki/host.key"]
        assert h1.run(argv, check=False).returncode == status


@pytest.mark.parametrize(
    ("domain", "most"),
    [("firewall", 2.5), ("netns", 4.0), ("tracing", 4.0), ("ssl", 2.5), ("storage", 4.0)],
)
def test_exposure_is_within_its_bound(h1: Host, domain: str, most: float) -> None:
    argv = ["systemd-analyze", "security", "--no-pager", f"hostler-{domain}.service"]
    found = re.search(r"exposure level for \S+: ([\d.]+)", h1.run(argv).stdout)
    assert found
    assert float(found[1]) <= most


def test_capabilities_are_those_of_the_domain(h1: Host) -> None:
    for domain, caps in (
        ("firewall", "cap_net_admin"),
        ("netns", "cap_net_admin cap_sys_admin"),
        ("tracing", "cap_bpf cap_dac_read_search cap_perfmon cap_sys_ptrace"),
        ("ssl", ""),
        ("storage", "cap_dac_read_search"),
    ):
        for name in ("AmbientCapabilities", "CapabilityBoundingSet"):
            argv = ["systemctl", "show", "--value", "-p", name, f"hostler-{domain}.service"]
            assert sorted(h1.run(argv).stdout.split()) == sorted(caps.split())


def sandboxed(host: Host, domain: str, program: str) -> list[object]:
    """Run a Python program under the very properties of a daemon's unit; answers its JSON."""
    unit = host.run(["systemctl", "cat", f"hostler-{domain}.service"]).stdout
    service = unit.split("[Service]", 1)[1]
    taken = re.findall(
        r"(?m)^((?!Type|NotifyAccess|ExecStart|Restart|TimeoutStop)\w+=.*)$", service
    )
    properties = [word for line in taken for word in ("-p", line)]
    done = host.run(
        [
            *("systemd-run", "--quiet", "--wait", "--pipe", "--collect"),
            *("-p", "Type=exec", *properties, "/usr/bin/python3", "-I", "-"),
        ],
        stdin=program,
    )
    answer: list[object] = json.loads(done.stdout)
    return answer


FIREWALL_PROBE = """
import json, os, socket, subprocess
def tried(f):
    try: return f() or "ok"
    except OSError as e: return os.strerror(e.errno)
def write(path, value):
    with open(path, "w") as f: f.write(value)
rules = '''table inet hostler_probe {
  chain post {
    type nat hook postrouting priority 100;
    ip saddr 10.0.0.0/8 masquerade
  }
}
'''
def nft(*before):
    argv = [*before, "/usr/sbin/nft", "-f", "-"]
    return subprocess.run(argv, input=rules, text=True, capture_output=True).stderr
def launcher():
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as door:
        door.connect("/run/hostler/launcher.sock")
print(json.dumps([
    tried(lambda: write("/proc/sys/net/ipv4/ip_forward", "0")),
    tried(lambda: write("/proc/sys/net/ipv6/conf/all/forwarding", "0")),
    tried(lambda: write("/proc/sys/kernel/panic", "0")),
    tried(lambda: write("/etc/probe", "")),
    nft("/usr/bin/unshare", "-Urn"),
    nft(),
    subprocess.run(["/usr/sbin/nft", "delete table inet hostler_probe"]).returncode,
    tried(lambda: socket.socket(socket.AF_INET).close()),
    tried(lambda: os.listdir("/var/lib/hostler/netns")),
    tried(launcher),
]))
"""


def test_firewall_sandbox_gives_what_the_domain_needs_and_no_more(h1: Host) -> None:
    h1.run(["install", "-d", "-m700", "-o", "hostler-netns", "/var/lib/hostler/netns"])
    assert sandboxed(h1, "firewall", FIREWALL_PROBE) == [
        "ok",
        "ok",
        "Read-only file system",
        "Read-only file system",
        "",
        "",
        0,
        "Address family not supported by protocol",
        "Permission denied",
        "Permission denied",
    ]


NETNS_PROBE = """
import ctypes, json, os, socket, threading
libc = ctypes.CDLL(None, use_errno=True)
def tried(f):
    try: return f() or "ok"
    except OSError as e: return os.strerror(e.errno)
def write(path, value):
    with open(path, "w") as f: f.write(value)
def inside():
    def work():
        handle = os.open("/run/netns/hostler-probe", os.O_RDONLY)
        if libc.setns(handle, 0x40000000): answer.append("setns " + os.strerror(ctypes.get_errno()))
        answer.append(tried(lambda: write("/proc/sys/net/ipv4/ip_unprivileged_port_start", "80")))
        answer.append(open("/proc/sys/net/ipv4/ip_unprivileged_port_start").read().strip())
    answer = []
    thread = threading.Thread(target=work); thread.start(); thread.join()
    return answer
def launcher():
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as door:
        door.connect("/run/hostler/launcher.sock")
print(json.dumps([
    inside(),
    tried(lambda: write("/proc/sys/kernel/panic", "0")),
    tried(lambda: socket.socket(socket.AF_INET).close()),
    tried(lambda: os.listdir("/var/lib/hostler/firewall")),
    tried(launcher),
    libc.mount(b"none", b"/mnt", b"tmpfs", 0, None),
]))
"""


def test_netns_sandbox_gives_what_the_domain_needs_and_no_more(h1: Host) -> None:
    h1.run(["install", "-d", "-m700", "-o", "hostler-firewall", "/var/lib/hostler/firewall"])
    h1.run(["ip", "netns", "add", "hostler-probe"])
    try:
        answer = sandboxed(h1, "netns", NETNS_PROBE)
    finally:
        h1.run(["ip", "netns", "delete", "hostler-probe"])
    assert answer == [
        ["ok", "80"],
        "Read-only file system",
        "Address family not supported by protocol",
        "Permission denied",
        "ok",
        -1,
    ]
    outside = h1.run(["cat", "/proc/sys/net/ipv4/ip_unprivileged_port_start"]).stdout.strip()
    assert outside == "1024"


def test_no_client_dependency_in_the_daemons_tree(h1: Host) -> None:
    tree = "/opt/hostler"
    found = h1.run(["find", tree, "-maxdepth", "3", "-mindepth", "3", "-printf", "%f\n"]).stdout
    names = set(found.split())
    assert {"hostlerd", "hostler", "grpc", "cedarpy", "systemd"} <= names
    assert not names & {"click", "rich", "tomlkit", "pip", "setuptools", "pytest"}
    ours = h1.run(["sh", "-c", "ls /opt/hostler/*/daemon/hostler"]).stdout.split()
    assert not set(ours) & {"cli", "lab", "pki.py", "aio.py"}


def test_files_are_roots_and_nobody_else_may_write(h1: Host) -> None:
    odd = ["find", "/opt/hostler", "/lib/systemd/system/", "-not", "-type", "l"]
    odd += ["(", "-perm", "/022", "-o", "-not", "-user", "root", ")"]
    assert h1.run(odd).stdout == ""


LAUNCHER_PROBE = """
import ctypes, json, os, socket, threading
libc = ctypes.CDLL(None, use_errno=True)
def fresh():
    def work():
        libc.unshare(0x40000000)
        fds.append(os.open("/proc/thread-self/ns/net", os.O_RDONLY))
    fds = []
    thread = threading.Thread(target=work); thread.start(); thread.join()
    return fds[0]
door = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
door.settimeout(30)
door.connect("/run/hostler/launcher.sock")
def ask(request, fds=()):
    socket.send_fds(door, [json.dumps(request).encode()], list(fds))
    whole = {}
    while not whole or whole.get("more"):
        whole.pop("more", None)
        for key, part in json.loads(door.recv(1 << 20)).items():
            whole[key] = whole.get(key, []) + part if isinstance(part, list) else part
    return whole
unit = {
    "namespace": "hostler-probe", "name": "sleeper", "argv": ["/bin/sleep", "600"],
    "user": "www-data", "private_tmp": True,
}
print(json.dumps([
    ask({"op": "attach", "names": ["hostler-probe"]}, [fresh()]),
    ask({"op": "start", "unit": unit}),
    ask({"op": "status", "namespace": "hostler-probe", "name": "sleeper"}),
    ask({"op": "tasks"}),
]))
"""


def test_launcher_mounts_for_the_whole_host_and_starts_units(h1: Host) -> None:
    unit = "hostler-run-hostler-probe.sleeper.service"
    before = h1.run(["readlink", "/proc/self/ns/net"]).stdout
    try:
        attached, started, status, tasks = sandboxed(h1, "netns", LAUNCHER_PROBE)
        assert attached == {"ok": True}
        assert isinstance(started, dict)
        assert started["ok"], started
        assert isinstance(status, dict)
        assert status["ok"] and status["units"], status
        assert isinstance(tasks, dict)
        assert tasks["tasks"], tasks
        # Seen from PID 1's mount namespace, not from that of the caller.
        assert "hostler-probe" in h1.run(["ip", "netns", "list"]).stdout
        pid = h1.run(["systemctl", "show", "--value", "-p", "MainPID", unit]).stdout.strip()
        assert h1.run(["ps", "-o", "user=,args=", "-p", pid]).stdout.split() == [
            *("www-data", "/bin/sleep", "600")
        ]
        inside = h1.run(["ip", "netns", "exec", "hostler-probe", "readlink", "/proc/self/ns/net"])
        assert h1.run(["readlink", f"/proc/{pid}/ns/net"]).stdout == inside.stdout != before
        mine = h1.run(["systemctl", "show", "--value", "-p", "MainPID", "hostler-launcher"]).stdout
        mounts = [h1.run(["readlink", f"/proc/{p.strip()}/ns/mnt"]).stdout for p in ("1", mine)]
        assert mounts[0] == mounts[1]
    finally:
        h1.run(["systemctl", "stop", unit], check=False)
        h1.run(["ip", "netns", "delete", "hostler-probe"], check=False)
