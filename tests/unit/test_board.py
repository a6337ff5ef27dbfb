"""The state of a fleet at a glance: how hosts are judged, and the page that shows them."""

from __future__ import annotations

import http.client
import json
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from browser import CHROMIUM, HOSTILE
from click.testing import CliRunner
from driven import driven
from hypothesis import given
from hypothesis import strategies as st

from hostler.board import otlp, web
from hostler.board.metrics import families_of, text_of
from hostler.board.status import (
    Dropping,
    Ending,
    HostStatus,
    Level,
    Waiting,
    Work,
    summary,
    worst_first,
)
from hostler.board.web import Shown, served
from hostler.cli.main import cli

PEERS = Path(__file__).resolve().parents[2] / "build" / "peers" / "bin"
NOW = 1_800_000_000
DAY_S = 86400
WELL = HostStatus(
    host="h1", address="10.0.0.1", asked_unix_s=NOW, answered_unix_s=NOW,
    doors={"netns": "", "firewall": ""}, version="0.1.0",
    jobs=(), drift=(), health=(), ending=(), drops=(),
)  # fmt: skip
DOWN = replace(WELL, host="h2", doors=dict.fromkeys(WELL.doors, "UNAVAILABLE UNREACHABLE: gone"))
WAITING = Waiting("g", "spiffe://t/user/a", 41.0, ("firewall ApplyRulesets",))


@pytest.mark.parametrize(
    ("changed", "level"),
    [
        ({}, Level.WELL),
        ({"drops": (Dropping("base/x", 9),)}, Level.WELL),
        ({"waiting": WAITING}, Level.ATTENTION),
        ({"problems": ("bundle: old",)}, Level.ATTENTION),
        ({"health": ("sda is old",)}, Level.ATTENTION),
        ({"ending": (Ending("CN=a", "/x", NOW + 1),)}, Level.ATTENTION),
        ({"ending": (Ending("CN=a", "/x", NOW),)}, Level.BAD),
        ({"drift": ("a rule is gone",)}, Level.BAD),
        ({"health": ("md0 is degraded",), "health_is_bad": True}, Level.BAD),
        ({"doors": {"netns": "", "firewall": "UNAVAILABLE: gone"}}, Level.BAD),
        ({"doors": {"netns": "x", "firewall": "y"}, "drift": ("z",)}, Level.DOWN),
        ({"jobs": None, "drift": None, "ending": None, "drops": None}, Level.WELL),
    ],
)
def test_levels(changed: dict[str, Any], level: Level) -> None:
    assert replace(WELL, **changed).level is level


@given(st.integers(-4000, 4000), st.integers(0, DAY_S - 1))
def test_days_left_are_whole_and_negative_once_it_has_ended(days: int, more_s: int) -> None:
    ending = Ending("CN=a", "/x", NOW + days * DAY_S + more_s)
    assert WELL.days_left(ending) == days


def test_the_fleet_in_words() -> None:
    assert summary([]) == "0 hosts: none"
    assert summary([HostStatus("h1")]) == "1 host: 1 not asked yet"
    three = [WELL, DOWN, replace(WELL, host="h3", waiting=WAITING)]
    assert summary(three) == "3 hosts: 1 down, 1 attention, 1 well"
    assert [each.host for each in worst_first(three)] == ["h2", "h3", "h1"]


PARSE = """
import json, sys
from prometheus_client.parser import text_string_to_metric_families as families
print(json.dumps([[f.name, f.type, s.name, s.labels, s.value]
                  for f in families(sys.stdin.read()) for s in f.samples]))
"""


def test_prometheus_reads_every_word_as_it_is() -> None:
    """Read by Prometheus' own client."""
    hostile = HOSTILE + "\\\n{}"
    one = replace(
        WELL, waiting=WAITING, drops=(Dropping(hostile, 2**53),),
        ending=(Ending(hostile, "/x", NOW + 9),) * 2,
    )  # fmt: skip
    done = subprocess.run(
        [str(PEERS / "python"), "-c", PARSE],
        input=text_of([one, DOWN, HostStatus("h9")]),
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    samples = json.loads(done.stdout)
    told = {(name, *sorted(labels.values())): value for _, _, name, labels, value in samples}
    assert len(told) == len(samples), "a sample is told twice"
    assert told["hostler_rule_lost_packets_total", *sorted(("h1", hostile))] == 2**53
    assert told["hostler_certificate_end_timestamp_seconds", *sorted(("h1", hostile, "/x"))] == (
        NOW + 9
    )
    assert told["hostler_pending_remaining_seconds", "h1"] == 41
    assert told["hostler_door_up", "firewall", "h2"] == 0
    assert told["hostler_host_level", "down", "h2"] == 1
    # Of a host that does not answer nobody knows more; of one that was not asked, nothing.
    down = replace(DOWN, jobs=None, drift=None, health=None, ending=None, drops=None)
    assert "hostler_drift" not in text_of([down]) and "hostler_problems" not in text_of([down])
    assert not any("h9" in labels.values() for _, _, _, labels, _ in samples)
    assert {kind for _, kind, name, _, _ in samples if name.endswith("_total")} == {"counter"}


@pytest.fixture
def shown() -> Shown:
    one = Shown()
    one.show([WELL, DOWN])
    return one


@pytest.fixture
def url(shown: Shown) -> Iterator[str]:
    with served("127.0.0.1", 0, shown) as url:
        yield url


def asked(url: str, path: str = "", method: str = "GET", **headers: str) -> tuple[int, str, Any]:
    where = urlsplit(url)
    connection = http.client.HTTPConnection("127.0.0.1", where.port or 0, timeout=10)
    try:
        connection.request(method, path or where.path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read().decode(), answer.headers
    finally:
        connection.close()


def test_the_page_is_for_whoever_knows_its_path_by_a_name_of_this_machine(url: str) -> None:
    path, port = urlsplit(url).path, urlsplit(url).port
    assert [asked(url, path + name)[0] for name in ("", "page.js", "page.css", "status.json")] == [
        *(200, 200, 200, 200)
    ]
    for wrong in ("/", "/x/", f"{path}../web.py", f"{path}x", path[:-2] + "/", f"/%2e{path}"):
        assert asked(url, wrong)[0] == 404, wrong
    # A page of another site whose name leads here (DNS rebinding).
    for name in ("evil.example", f"evil.example:{port}", "", "127.0.0.1", f"127.0.0.1:{port}."):
        assert asked(url, Host=name)[0] == 421, name
    assert asked(url, Host=f"localhost:{port}")[0] == 200
    for method in ("POST", "PUT", "DELETE", "OPTIONS"):
        assert asked(url, method=method)[0] == 501


def test_nothing_comes_from_elsewhere_and_nothing_is_kept(url: str) -> None:
    _, text, headers = asked(url)
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert "unsafe" not in headers["Content-Security-Policy"]
    assert headers["Cache-Control"] == "no-store" and headers["Referrer-Policy"] == "no-referrer"
    assert "http" not in text.replace("http-equiv", "")


def test_only_loopback_is_listened_on() -> None:
    for address in ("0.0.0.0", "::", "192.0.2.1", "name"):  # noqa: S104 - refused
        with pytest.raises(ValueError), served(address, 0, Shown()):
            pass


def test_so_many_watch_and_no_more_and_the_end_lets_them_go(
    shown: Shown, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web, "MOST_WATCHERS", 2)
    first: list[str] = []
    ready = threading.Barrier(3)

    def watch(url: str) -> None:
        where = urlsplit(url)
        connection = http.client.HTTPConnection("127.0.0.1", where.port or 0, timeout=30)
        connection.request("GET", f"{where.path}events")
        answer = connection.getresponse()
        first.append(answer.readline().decode())
        ready.wait(20)
        answer.read()
        connection.close()

    with served("127.0.0.1", 0, shown) as url:
        watchers = [threading.Thread(target=watch, args=(url,)) for _ in range(2)]
        for one in watchers:
            one.start()
        ready.wait(20)
        assert asked(url, f"{urlsplit(url).path}events")[0] == 503
    for one in watchers:
        one.join(20)
        assert not one.is_alive()
    assert [json.loads(line.removeprefix("data: "))["summary"] for line in first] == [
        "2 hosts: 1 down, 1 well"
    ] * 2


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
def test_the_page_in_a_browser_by_keys_alone(shown: Shown, url: str, tmp_path: Path) -> None:
    busy = replace(
        WELL, host="h3", waiting=WAITING,
        jobs=(Work("jobs/1", "storage CheckArray", HOSTILE, 1, 4, "bytes"),),
        drift=(HOSTILE,), ending=(Ending(f"CN={HOSTILE}", "/x", NOW + 3 * DAY_S),),
        drops=(Dropping("base/ssh", 1234),),
    )  # fmt: skip
    shown.show([WELL, DOWN, busy])
    with driven(url, tmp_path / "profile") as page:
        page.eventually("document.querySelectorAll('tr[data-host]').length === 3")
        hosts = "[...document.querySelectorAll('tr[data-host]')].map(r => r.dataset.host).join()"
        assert page.value(hosts) == "h2,h3,h1"
        text = page.text()
        for words in ("1 down, 1 bad, 1 well", "0 of 2", "taken back in 41 s", "25 %", "1234"):
            assert words in text, text
        # What a screen reader is told: each thing by its name, states by words.
        told = page.told()
        for wanted in (
            ("heading", "Hostler"), ("columnheader", "Pending"), ("rowheader", "h2"),
            ("searchbox", "Host"), ("checkbox", "only what is not well"), ("button", "h3"),
            ("table", "Hosts, the worst first. The button of a host opens what lies behind its "
                      "figures."),
        ):  # fmt: skip
            assert any(role == wanted[0] and wanted[1] in name for role, name in told), told
        # By keys: to the button of h3, which opens; new figures leave the focus where it is.
        active = "document.activeElement.textContent"
        for _ in range(8):
            page.press("Tab")
            if page.value(active) == "h3":
                break
        assert page.value(active) == "h3"
        page.press("Enter", "\r")
        page.eventually("document.getElementById('details-h3') !== null")
        details = page.value("document.getElementById('details-h3').textContent")
        assert HOSTILE in details and "3 days left" in details
        assert page.value("document.activeElement.getAttribute('aria-expanded')") == "true"
        shown.show([WELL, DOWN, replace(busy, waiting=None)])
        page.eventually("!document.body.innerText.includes('taken back in')")
        assert page.value(active) == "h3"
        assert page.value("document.getElementById('details-h3') !== null")
        # Words of hosts are words.
        assert page.value("document.title") == "Hostler"
        assert page.value("document.images.length") == 0
        page.value("document.getElementById('only').click()")
        assert page.value(hosts) == "h2,h3"
        page.screenshot(tmp_path / "page.png")
        assert (tmp_path / "page.png").stat().st_size > 10_000
        shown.end()
        page.eventually("document.body.innerText.includes('not live')")


OTLP = """
import json, sys
from google.protobuf.json_format import Parse
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest as Request)
(resource,) = Parse(sys.stdin.buffer.read(), Request()).resource_metrics
(scope,) = resource.scope_metrics
print(json.dumps([
    [m.name, m.WhichOneof("data"), m.sum.is_monotonic, m.sum.aggregation_temporality,
     p.time_unix_nano, {a.key: a.value.string_value for a in p.attributes}, p.as_double]
    for m in scope.metrics for p in (m.gauge or m.sum).data_points or m.sum.data_points]))
"""


def test_opentelemetry_reads_the_same_as_prometheus() -> None:
    """Read by OpenTelemetry's own messages, which refuse what they do not know."""
    hostile = HOSTILE + "\\\n{}"
    drops = (Dropping(hostile, 2**53),)
    families = list(families_of([replace(WELL, waiting=WAITING, drops=drops), DOWN]))
    done = subprocess.run(
        [str(PEERS / "python"), "-c", OTLP],
        input=otlp.request(families, NOW * 10**9),
        capture_output=True, check=True, timeout=60,
    )  # fmt: skip
    told = json.loads(done.stdout)
    assert [(name, labels, value) for name, *_, labels, value in told] == [
        (one.name, dict(labels), value) for one in families for labels, value in one.samples
    ]
    assert {moment for *_, moment, _, _ in told} == {NOW * 10**9}
    kinds = {name: (kind, monotonic, way) for name, kind, monotonic, way, *_ in told}
    assert kinds.pop("hostler_rule_lost_packets_total") == ("sum", True, 2)
    assert set(kinds.values()) == {("gauge", False, 0)}


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        ((200, b"{}"), ""),
        ((200, b'{"partialSuccess": {}}'), ""),
        ((200, b'{"partialSuccess": {"rejectedDataPoints": "3", "errorMessage": "old"}}'), "3"),
        ((503, b"busy"), "answers 503"),
        ((307, b""), "answers 307"),
        ((200, b""), ""),
    ],
)
def test_a_collector_that_does_not_take_all_is_told(answer: tuple[int, bytes], told: str) -> None:
    got: list[tuple[str, str | None, bytes]] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            got.append((self.path, self.headers["Content-Type"], body))
            self.send_response(answer[0])
            self.send_header("Content-Length", str(len(answer[1])))
            self.end_headers()
            self.wfile.write(answer[1])

        def log_message(self, *args: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Collector) as server:
        threading.Thread(target=server.handle_request).start()
        place = otlp.collector(f"http://127.0.0.1:{server.server_port}")
        with pytest.raises(otlp.ExportFailed, match=told) if told else nullcontext():
            otlp.export(b"{}", place)
    assert got == [("/v1/metrics", "application/json", b"{}")]


def test_nobody_there_and_what_is_no_url() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(otlp.ExportFailed, match="refused"):
        otlp.export(b"{}", otlp.collector(f"http://127.0.0.1:{port}/v1/metrics"))
    for url in (
        "",
        "127.0.0.1:4318",
        "ftp://h",
        "http://",
        "http://u:p@h",
        "http://h:x",
        "http://h?a",
    ):
        with pytest.raises(ValueError):
            otlp.collector(url)
    argv = ["-H", "all", "metrics", "--otlp", "http://h?a"]
    done = CliRunner().invoke(cli, argv)
    assert done.exit_code == 2 and "--otlp" in done.output
