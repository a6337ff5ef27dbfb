"""Records sent off the host: real receivers on sockets, that come, go and say no."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import pytest

from hostlerd.runtime.audit import AuditLog
from hostlerd.runtime.audit_ship import ReceiverInvalid, receiver
from hostlerd.runtime.audit_syslog import Source, message
from hostlerd.runtime.config import AuditBounds

# RFC 5424, 6: header, structured data, text.
SYSLOG = re.compile(
    rb"<(?P<pri>\d{1,3})>1 (?P<time>\S+) (?P<host>\S+) (?P<app>\S+) - (?P<id>\S{1,32}) "
    rb'\[hostler@32473(?P<data>( [a-z_]+="([^"\\\]]|\\["\\\]])*")*)\] (?P<text>.*)',
    re.DOTALL,
)


class TcpReceiver:
    """A syslog server that understands octet counting, and keeps what it gets."""

    def __init__(self, port=0):
        self.socket = socket.create_server(("127.0.0.1", port))
        self.port = self.socket.getsockname()[1]
        self.got = []
        self.connections = []
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        while True:
            try:
                connection, _ = self.socket.accept()
            except OSError:
                return
            self.connections.append(connection)
            threading.Thread(target=self._read, args=[connection], daemon=True).start()

    def _read(self, connection):
        stream = connection.makefile("rb")
        try:
            while size := b"".join(iter(lambda: stream.read(1).strip(), b"")):
                self.got.append(stream.read(int(size)))
        except (OSError, ValueError):
            return

    def close(self):
        self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()
        for connection in self.connections:
            # As a machine that is gone: what is under way is answered with a reset.
            linger = b"\1\0\0\0\0\0\0\0"
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            connection.shutdown(socket.SHUT_RDWR)
            connection.close()


def seqs(messages):
    return [int(re.search(rb' seq="(\d+)"', each)[1]) for each in messages]


def wait_for(condition, timeout_s=15):
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError("not in time")


@pytest.fixture
def place(tmp_path):
    (tmp_path / "log").mkdir()
    (tmp_path / "state").mkdir()
    started = []

    class Place:
        log_path = tmp_path / "log/audit.jsonl"

        def write(self, count, **more):
            log = AuditLog(self.log_path, AuditBounds(file_bytes=20_000), tmp_path)
            for n in range(count):
                log.write(kind="outcome", n=n, identity='a"]\\', status="OK", **more)
            log.close()

        def ship(self, url):
            (tmp_path / "hostler.toml").write_text(f'[audit]\nship = "{url}"\n')
            env = {
                "PATH": os.environ["PATH"],
                "CONFIGURATION_DIRECTORY": str(tmp_path),
                "STATE_DIRECTORY": str(tmp_path / "state"),
                "HOSTLER_LOGS": str(tmp_path / "log"),
            }
            argv = [sys.executable, "-m", "hostlerd.runtime.audit_ship", "netns"]
            process = subprocess.Popen(argv, env=env, stderr=subprocess.PIPE, text=True)
            started.append(process)
            return process

        @property
        def cursor(self):
            try:
                return json.loads((tmp_path / "state/cursor.json").read_text())["seq"]
            except FileNotFoundError:
                return 0

    yield Place()
    for process in started:
        process.kill()
        process.communicate()


def test_every_record_arrives_over_rotations_and_a_receiver_that_was_down(place):
    server = TcpReceiver()
    place.write(200)
    process = place.ship(f"syslog+tcp://127.0.0.1:{server.port}")
    wait_for(lambda: place.cursor >= 200 and len(server.got) >= 200)
    server.close()
    place.write(150)
    time.sleep(1.5)
    assert process.poll() is None
    again = TcpReceiver(server.port)
    wait_for(lambda: place.cursor >= 350)
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 0 and "wait for their receiver" in process.stderr.read()
    # A new process goes on where the last one ended, also after kill -9.
    other = place.ship(f"syslog+tcp://127.0.0.1:{server.port}")
    place.write(100)
    wait_for(lambda: place.cursor >= 450)
    other.kill()
    place.write(50)
    place.ship(f"syslog+tcp://127.0.0.1:{server.port}")
    wait_for(lambda: place.cursor >= 500)
    wait_for(lambda: len(set(seqs(server.got + again.got))) >= 500)
    last = place.cursor
    assert set(seqs(server.got + again.got)) == set(range(1, last + 1))
    # At least once; twice only what was under way when somebody went.
    assert len(server.got + again.got) <= last + 2 * 200
    again.close()
    parts = SYSLOG.fullmatch(server.got[10])
    assert parts and int(parts["pri"]) == 13 * 8 + 5 and parts["app"] == b"hostler-netns"
    line = place.log_path.parent.glob("audit*")
    assert json.loads(parts["text"])["seq"] == 11 and list(line)
    assert rb'identity="a\"\]\\"' in parts["data"]


def test_what_a_server_never_read_is_sent_again(place):
    """It accepts, has its kernel acknowledge what comes, and ends without having read it."""
    place.write(30)
    with socket.create_server(("127.0.0.1", 0)) as rude:
        port = rude.getsockname()[1]
        process = place.ship(f"syslog+tcp://127.0.0.1:{port}")
        connection, _ = rude.accept()
        time.sleep(1)
        # With bytes unread, a close is a reset.
        connection.close()
    time.sleep(0.3)
    server = TcpReceiver(port)
    wait_for(lambda: set(seqs(server.got)) == set(range(1, 31)))
    assert process.poll() is None
    server.close()


def test_datagrams_over_udp_and_a_local_socket(place, tmp_path):
    place.write(20)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.bind(("127.0.0.1", 0))
        udp.settimeout(10)
        process = place.ship(f"syslog+udp://127.0.0.1:{udp.getsockname()[1]}")
        assert seqs([udp.recv(1 << 17) for _ in range(20)]) == list(range(1, 21))
        wait_for(lambda: place.cursor == 20)
        process.kill()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as local:
        local.bind(str(tmp_path / "dev-log"))
        local.settimeout(10)
        place.ship(f"syslog+unix://{tmp_path}/dev-log")
        place.write(3, request="x" * 100_000)
        got = [local.recv(1 << 20) for _ in range(3)]
    assert seqs(got) == [21, 22, 23] and all(len(each) < 61_000 for each in got)
    assert b"too long for a datagram" in got[0] and b'hash="' in got[0]


class Collector(BaseHTTPRequestHandler):
    """Takes OTLP logs; the answers are told by the test."""

    answers: ClassVar[list[tuple[int, bytes]]] = []
    got: ClassVar[list[dict]] = []

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        status, told = type(self).answers.pop(0) if type(self).answers else (200, b"{}")
        if status == 200 and b"rejected" not in told:
            assert self.path == "/v1/logs" and self.headers["Content-Type"] == "application/json"
            type(self).got.append(json.loads(body))
        self.send_response(status)
        self.send_header("Content-Length", str(len(told)))
        self.end_headers()
        self.wfile.write(told)

    def log_message(self, *args):
        pass


def test_a_collector_that_says_no_gets_the_records_again(place):
    Collector.got = []
    rejected = json.dumps({"partialSuccess": {"rejectedLogRecords": "3"}}).encode()
    Collector.answers = [(503, b"busy"), (200, rejected)]
    server = ThreadingHTTPServer(("127.0.0.1", 0), Collector)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    place.write(30, reason="")
    place.ship(f"otlp+http://127.0.0.1:{server.server_port}")
    wait_for(lambda: place.cursor == 30)
    server.shutdown()
    (export,) = Collector.got
    (resource,) = export["resourceLogs"]
    told = {a["key"]: a["value"]["stringValue"] for a in resource["resource"]["attributes"]}
    assert told == {"service.name": "hostler-netns", "host.name": socket.gethostname()}
    records = resource["scopeLogs"][0]["logRecords"]
    numbers = [
        int(a["value"]["intValue"])
        for record in records
        for a in record["attributes"]
        if a["key"] == "hostler.seq"
    ]
    assert numbers == list(range(1, 31))
    line = json.loads(records[7]["body"]["stringValue"])
    assert line["seq"] == 8 and abs(int(records[7]["timeUnixNano"]) / 1e9 - time.time()) < 60


@pytest.mark.parametrize(
    "url", ["", "syslog://h", "syslog+tcp://", "syslog+tcp://h", "file:///x", "syslog+tcp://h:x"]
)
def test_what_is_no_receiver_ends_at_once_and_says_so(place, url):
    process = place.ship(url)
    _, told = process.communicate(timeout=10)
    assert process.returncode == 78 and "audit.ship" in told
    if url:
        with pytest.raises(ReceiverInvalid):
            receiver(url, Source("h", "netns"))


def test_a_log_that_was_cut_is_told_and_sent_again(place):
    server = TcpReceiver()
    place.write(50)
    process = place.ship(f"syslog+tcp://127.0.0.1:{server.port}")
    wait_for(lambda: place.cursor == 50)
    process.kill()
    lines = place.log_path.read_bytes().splitlines(keepends=True)
    place.log_path.write_bytes(b"".join(lines[:20]))
    server.got.clear()
    again = place.ship(f"syslog+tcp://127.0.0.1:{server.port}")
    wait_for(lambda: len(server.got) >= 20)
    again.terminate()
    assert "ends before what was sent" in again.communicate(timeout=10)[1]
    server.close()


def test_a_refusal_is_a_warning():
    record = {"seq": 1, "kind": "refusal", "status": "PERMISSION_DENIED", "hash": "x"}
    assert message(record, b"{}\n", Source("h 1\n", "netns")).startswith(
        b"<108>1 - h1 hostler-netns"
    )
