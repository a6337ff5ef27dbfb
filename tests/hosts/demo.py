"""The main job on three real hosts, checked from outside: what `make demo` runs.

Every check asks a witness that is not Hostler: curl, ip, nft, findmnt, a DNS server and a socket
of our own on the machine. The lab stays up afterwards, for trying things by hand.
"""

from __future__ import annotations

import json
import os
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from hostler.lab.host import Host
from hostler.lab.lab import Lab, default_folder

HOSTLER = str(Path(sys.executable).parent / "hostler")
PUBLISHED, INSIDE = 8080, 8000
COMMAND = ["isolate", "web", "--publish", f"{PUBLISHED}:{INSIDE}", "--private-tmp"]
COMMAND += ["--user", "www-data"]
SERVER = ["python3", "-m", "http.server", str(INSIDE)]
LISTING = "Directory listing for /"


class CheckFailed(Exception):
    """What was seen is not what was promised."""


@dataclass
class Row:
    """What one host showed: the name of each check, and what was seen."""

    host: str
    seen: dict[str, str] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Outside:
    """What stands outside the hosts: an address, a web server and a DNS server on the bridge."""

    address: str
    web_port: int
    dns_queries: list[tuple[str, str]]


def hostler(lab: Lab, *args: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run the command as a user would."""
    env = {**os.environ, "HOSTLER_CONFIG": str(lab.config)}
    done = subprocess.run(
        [HOSTLER, *args], env=env, capture_output=True, text=True, timeout=120, check=False
    )
    if check and done.returncode != 0:
        raise CheckFailed(f"hostler {' '.join(args)}: {done.returncode}: {done.stderr}")
    return done


def results(lab: Lab, *args: str) -> dict[str, dict]:
    """Run the command with -o json and answer the results by host."""
    done = hostler(lab, "-o", "json", *args, check=False)
    answers = {a["host"]: a for a in json.loads(done.stdout)}
    for name, answer in answers.items():
        if not answer["ok"]:
            raise CheckFailed(f"{name}: {answer['error']}")
    return {name: answer["result"] for name, answer in answers.items()}


def expect(condition: object, message: str) -> None:
    """Raise CheckFailed with the message unless the condition holds."""
    if not condition:
        raise CheckFailed(message)


@contextmanager
def outside(address: str) -> Iterator[Outside]:
    """Serve HTTP and DNS on the machine's own address of the bridge."""
    web = ThreadingHTTPServer((address, 0), _Greeting)
    dns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    dns.bind((address, 53))
    queries: list[tuple[str, str]] = []
    threading.Thread(target=web.serve_forever, daemon=True).start()
    threading.Thread(target=_answer_dns, args=(dns, queries), daemon=True).start()
    try:
        yield Outside(address, web.server_address[1], queries)
    finally:
        web.shutdown()
        web.server_close()
        dns.close()


class _Greeting(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = f"hello {self.client_address[0]}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


def _answer_dns(dns: socket.socket, queries: list[tuple[str, str]]) -> None:
    """Answer every A query with 192.0.2.53 and every other with nothing; see RFC 1035."""
    while True:
        try:
            data, (source, *_rest) = dns.recvfrom(512)
        except OSError:
            return
        labels, at = [], 12
        while data[at]:
            labels.append(data[at + 1 : at + 1 + data[at]].decode())
            at += data[at] + 1
        kind = struct.unpack_from("!H", data, at + 1)[0]
        queries.append((source, ".".join(labels)))
        answers = 1 if kind == 1 else 0
        header = data[:2] + struct.pack("!5H", 0x8580, 1, answers, 0, 0)
        record = b"\xc0\x0c" + struct.pack("!HHIH", 1, 1, 5, 4) + bytes([192, 0, 2, 53])
        dns.sendto(header + data[12 : at + 5] + record * answers, (source, *_rest))


def fetch(url: str) -> str:
    """Fetch from the machine with curl."""
    argv = ["/usr/bin/curl", "-sS", "--max-time", "5", url]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=10, check=False)
    return done.stdout + done.stderr


def fetch_on(host: Host, url: str) -> str:
    """Fetch on a host with curl."""
    done = host.run(["/usr/bin/curl", "-sS", "--max-time", "5", url], check=False)
    return str(done.stdout) + str(done.stderr)


def inside(lab: Lab, host: Host, *argv: str, options: tuple[str, ...] = ()) -> str:
    """Run a command inside the namespace of a host; answer its output."""
    done = hostler(lab, "-H", host.name, "netns", "run", "web", *options, "--", *argv, check=False)
    return done.stdout + done.stderr


def check_fetches(lab: Lab, host: Host, other: Host, _: Outside) -> str:
    """The published port answers from everywhere. (python's http.server listens on IPv4 alone.)"""
    url = f"http://{host.ipv4}:{PUBLISHED}/"
    expect(LISTING in fetch(url), f"from the machine: {fetch(url)}")
    expect(LISTING in fetch_on(other, url), f"from {other.name}: {fetch_on(other, url)}")
    expect(LISTING in fetch_on(host, url), f"from the host: {fetch_on(host, url)}")
    seen = inside(lab, host, "curl", "-sS", "--max-time", "5", url)
    expect(LISTING in seen, f"from inside: {seen}")
    return "machine, other host, host, inside"


def check_outbound(lab: Lab, host: Host, _: Host, world: Outside) -> str:
    """Inside reaches outside, under the host's address."""
    url = f"http://{world.address}:{world.web_port}/"
    seen = inside(lab, host, "curl", "-sS", "--max-time", "5", url)
    expect(seen == f"hello {host.ipv4}", f"outbound: {seen}")
    return f"as {host.ipv4}"


def check_dns(lab: Lab, host: Host, _: Host, world: Outside) -> str:
    """A name is asked of the namespace's own server, and the query leaves by the namespace."""
    name = f"probe-{host.name}.demo.test"
    link = namespace_of(lab, host)["interfaces"][0]["veth"]["host_ifname"]
    argv = ["/usr/bin/tcpdump", "-lnn", "-i", link, "-c", "1", "udp", "dst", "port", "53"]
    watching = host.popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    for line in watching.stderr:
        if "listening on" in line:
            break
    try:
        found = inside(lab, host, "getent", "ahostsv4", name)
        expect("192.0.2.53" in found, f"{name}: {found!r}")
        wire = watching.communicate(timeout=10)[0]
    finally:
        watching.kill()
    expect(name in wire and f"> {world.address}.53" in wire, f"on the wire: {wire!r}")
    expect((host.ipv4, name) in world.dns_queries, f"the server saw {world.dns_queries}")
    return f"by {link} to {world.address}"


def check_closed(lab: Lab, host: Host, _: Host, __: Outside) -> str:
    """Nothing else of the namespace can be reached through the host."""
    address = namespace_of(lab, host)["interfaces"][0]["addresses"][0].split("/")[0]
    route = ["/usr/sbin/ip", "route", "add", f"{address}/32", "via", host.ipv4]
    subprocess.run(route, check=True, timeout=10)
    try:
        for port in (INSIDE, 22):
            try:
                socket.create_connection((address, port), timeout=1.5).close()
            except OSError:
                continue
            raise CheckFailed(f"{address}:{port} can be reached from outside")
    finally:
        subprocess.run([*route[:2], "del", *route[3:]], check=True, timeout=10)
    return f"{address} not reachable"


def check_tmp(lab: Lab, host: Host, _: Host, __: Outside) -> str:
    """The process has a /tmp of its own, mounted noexec, nosuid and nodev."""
    pid = str(process_of(lab, host)["main_pid"])
    enter = ["/usr/bin/nsenter", "--target", pid, "--mount", "--"]
    found = host.run([*enter, "/usr/bin/findmnt", "-J", "/tmp"]).stdout
    mount = json.loads(found)["filesystems"][0]
    options = set(mount["options"].split(","))
    expect({"noexec", "nosuid", "nodev"} <= options, f"/tmp is mounted {mount['options']}")
    host.run(["/usr/bin/touch", "/tmp/outside"])
    listed = host.run([*enter, "/usr/bin/ls", "/tmp"]).stdout
    expect("outside" not in listed, f"the host's /tmp is seen: {listed}")
    host.run([*enter, "/usr/bin/cp", "/usr/bin/true", "/tmp/true"])
    ran = host.run([*enter, "/tmp/true"], check=False)
    expect(ran.returncode != 0, "a program in /tmp could be run")
    return "own, noexec,nosuid,nodev"


def check_pids(lab: Lab, host: Host, _: Host, __: Outside) -> str:
    """Tasks are listed with their PID inside and outside, and the kernel agrees."""
    tasks = results(lab, "-H", host.name, "netns", "ps", "web")[host.name]["tasks"]
    web = [t for t in tasks if t["comm"].startswith("python3")]
    expect(len(web) == 1, f"tasks: {tasks}")
    outside_pid, inside_pid = web[0]["pid_outside"], web[0]["pid_inside"]
    status = host.run(["/usr/bin/grep", "-E", "^(NSpid|Uid)", f"/proc/{outside_pid}/status"])
    ids = status.stdout.split("NSpid:")[1].split("\n")[0].split()
    # The host itself is a container: its own PID namespace is the last but those below it.
    expect(ids[-1] == str(inside_pid), f"NSpid says {ids}, we say {inside_pid}")
    www = host.run(["/usr/bin/id", "-u", "www-data"]).stdout.strip()
    expect(f"Uid:\t{www}\t" in status.stdout, f"not www-data: {status.stdout}")
    return f"{outside_pid} outside, {inside_pid} inside"


def namespace_of(lab: Lab, host: Host) -> dict:
    """Ask for the namespace."""
    return results(lab, "-H", host.name, "netns", "get", "web")[host.name]["namespace"]


def process_of(lab: Lab, host: Host) -> dict:
    """Ask for the process."""
    return results(lab, "-H", host.name, "netns", "processes", "web")[host.name]["processes"][0]


Check = Callable[[Lab, Host, Host, Outside], str]
CHECKS: dict[str, Check] = {
    "fetched from": check_fetches,
    "outbound": check_outbound,
    "DNS": check_dns,
    "closed": check_closed,
    "/tmp": check_tmp,
    "PIDs": check_pids,
}


def isolate(lab: Lab, world: Outside) -> None:
    """Run the one command, and wait until its servers listen."""
    args = ["-H", "all", "--yes", *COMMAND, "--dns", world.address, "--", *SERVER]
    print(f"$ hostler {' '.join(args)}", flush=True)
    print(hostler(lab, *args).stdout, flush=True)
    for host in lab.hosts:
        for _ in range(50):
            if LISTING in fetch(f"http://{host.ipv4}:{PUBLISHED}/"):
                break
            time.sleep(0.1)


def check_all(lab: Lab, world: Outside) -> list[Row]:
    """Run every check on every host."""
    hosts = lab.hosts
    rows = []
    for index, host in enumerate(hosts):
        row = Row(host.name)
        other = hosts[(index + 1) % len(hosts)]
        for name, check in CHECKS.items():
            try:
                row.seen[name] = check(lab, host, other, world)
            except (CheckFailed, subprocess.SubprocessError, KeyError, IndexError) as e:
                row.seen[name] = "FAILED"
                row.failed.append(f"{host.name}: {name}: {e!r}")
        rows.append(row)
    return rows


def table(rows: list[Row]) -> str:
    """Answer the rows as a table, a host a line, wrapped by check."""
    from rich.console import Console
    from rich.table import Table

    shown = Table("host", *CHECKS, title="hostler isolate web, on real hosts")
    for row in rows:
        shown.add_row(row.host, *(row.seen[name] for name in CHECKS))
    console = Console(width=150, record=True, file=Path(os.devnull).open("w"))
    console.print(shown)
    return console.export_text()


def main() -> int:
    """Bring up the lab, do the main job, check it, show it. Status 0 if all checks hold."""
    lab = Lab(default_folder(), say=lambda line: print(line, flush=True))
    lab.up(3)
    with outside(lab.bridge.ipv4(1)) as world:
        isolate(lab, world)
        rows = check_all(lab, world)
    print(table(rows))
    for row in rows:
        for line in row.failed:
            print(line, file=sys.stderr)
    print(f"The lab stays up: . {lab.env_file}; then try `hostler -H all netns list`.")
    print("`hostler -H all --yes isolate web --remove` undoes it, `hostler lab down` removes all.")
    return 1 if any(row.failed for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
