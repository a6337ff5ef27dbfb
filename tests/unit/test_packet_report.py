"""Reports of packet logs: their numbers beside SQL's, as tables and as a page in a browser."""

from __future__ import annotations

import json
import re
import sqlite3
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from browser import CHROMIUM, HOSTILE, Numbers, opened
from click.testing import CliRunner
from client_packets import HOUR_NS, made_records
from packets_world import a_store, asked
from postgresql import cluster, programs

from hostler.api.firewall.v1 import packet_log_pb2
from hostler.cli.main import cli
from hostler.packet_html import page
from hostler.packet_report import MOST_HOURS, make_report
from hostler.packet_row import address, fields_of, line_of, moment, row_of
from hostler.packet_store import Gap, Portion, open_packets

# On a machine with other work to do.
pytestmark = pytest.mark.timeout(300)

HOURS = f"SELECT time / {HOUR_NS}, count(*) FROM packets GROUP BY 1"  # noqa: S608
TURNED = "a\u202egnp.exe\x1b[31m"


@pytest.fixture(scope="module")
def postgresql() -> Iterator[str]:
    if programs() is None:
        pytest.skip("no PostgreSQL server is installed")
    with cluster() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return a_store(request, tmp_path)


def filled(url: str, names: Mapping[str, str] | None = None) -> None:
    """Three hosts with 1000, 2000 and 3000 records, two of them with losses."""
    with open_packets(url) as store:
        for number in (1, 2, 3):
            position = store.position(f"h{number}", f"r{number}")
            records = made_records(1000 * number, number)
            for record in records:
                record.rule = (names or {}).get(record.rule, record.rule)
            rows = [row_of(position.id, record) for record in records]
            lost = Gap(10, 500, 100 * number, number, time.time_ns())
            # Of the second host all of it is taken back.
            back = Gap(500, 600, -200, -2, time.time_ns())
            gaps = [lost, back] if number == 2 else [lost]
            store.write([Portion(f"h{number}", position, len(rows), rows, gaps, unwanted=5)])


def report(url: str, *options: str, output: str = "json") -> Any:
    argv = ["-o", output, "firewall", "report", "--store", url, *options]
    answer = CliRunner().invoke(cli, argv)
    assert answer.exit_code == 0, answer.output
    return json.loads(answer.stdout) if output == "json" else answer.stdout


def counted(found: Any) -> dict[str, int]:
    return {each["name"]: each["records"] for each in found}


def test_numbers_are_those_of_sql(url: str) -> None:
    filled(url)
    told = report(url, "--top", "1000")
    group = "SELECT {0}, count(*) FROM packets GROUP BY {0}"
    for name, column in (("sources", "source"), ("destinations", "destination"),
                         ("actions", "action")):  # fmt: skip
        assert counted(told[name]) == dict(asked(url, group.format(column)))  # type: ignore[arg-type]
    ports = asked(
        url,
        "SELECT protocol_number, destination_port, count(*) FROM packets "
        "GROUP BY protocol_number, destination_port",
    )
    names = {6: "tcp", 17: "udp"}
    assert counted(told["ports"]) == {f"{names[n]}/{port}": count for n, port, count in ports}
    rules = asked(url, "SELECT rule, action, count(*) FROM packets GROUP BY rule, action")
    assert counted(told["rules"]) == {f"{rule} ({action})": n for rule, action, n in rules}
    assert counted(told["hosts"]) == {"h3": 3000, "h2": 2000, "h1": 1000}
    assert (told["records"], told["lost"], told["unwanted"]) == (6000, 400, 15)
    assert told["losses"] == [
        {"host": "h3", "lost": 300, "lost_at_socket": 3},
        {"host": "h1", "lost": 100, "lost_at_socket": 1},
    ]
    hours = asked(url, f"{HOURS} ORDER BY 1")
    assert [(each["hour"], each["records"]) for each in told["hours"]] == [
        (moment(hour * HOUR_NS), count) for hour, count in hours
    ]
    times = [row[0] for row in asked(url, "SELECT time FROM packets")]
    newer = sum(value >= time.time_ns() - 2 * HOUR_NS for value in times)
    assert abs(report(url, "--since", "2h")["records"] - newer) < 20


def test_a_filter_counts_like_sql(url: str) -> None:
    filled(url)
    # What holds for every record is counted here and by SQL: alike.
    there, here = report(url), report(url, "--where", "length >= 0")
    assert {**here, "where": ""} == there
    told = report(url, "--where", 'dport == 22 and action == "drop" and src in 192.0.2.0/24')
    rows = asked(
        url,
        "SELECT source, count(*) FROM packets WHERE destination_port = 22 AND action = 'drop' "
        "AND source LIKE '192.0.2.%' GROUP BY source",
    )
    assert told["records"] == sum(count for _, count in rows) > 0
    assert counted(told["sources"]).items() <= dict(rows).items()  # type: ignore[arg-type]
    empty = report(url, "--where", 'rule == "none/none"')
    assert (empty["records"], empty["sources"], empty["hours"]) == (0, [], [])
    answer = CliRunner().invoke(cli, ["firewall", "report", "--store", url, "--where", "dport =="])
    assert answer.exit_code == 2
    assert "at character" in answer.output


def test_losses_come_first_on_the_terminal(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/packets.sqlite"
    filled(url, {"web/ssh": TURNED})
    lines = report(url, output="table").splitlines()
    assert lines[0].startswith("h3: 300 records were lost, 3 of them at its socket")
    assert lines[1].startswith("h1: 100 records were lost")
    assert lines[2] == "6000 records"
    told = "\n".join(lines)
    assert "\x1b" not in told
    assert "\u202e" not in told
    assert "a\\u202egnp.exe\\x1b[31m (drop)" in told
    for word in ("Top talkers", "Destinations", "Ports", "Rules", "Records per hour"):
        assert word in told


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
def test_the_page_in_a_browser_shows_what_sql_counts(tmp_path: Path) -> None:
    path, html = tmp_path / "packets.sqlite", tmp_path / "report.html"
    filled(f"sqlite:///{path}", {"web/ssh": HOSTILE, "base/rest": TURNED})
    report(f"sqlite:///{path}", "--html", str(html))
    dom = opened(html, tmp_path / "profile")
    shown = Numbers(dom)
    with sqlite3.connect(path) as connection:

        def sql(query: str) -> Any:
            return connection.execute(query).fetchall()

        ((records,),) = sql("SELECT count(*) FROM packets")
        assert shown.found["records", ""] == records == 6000
        ((lost,),) = sql("SELECT sum(lost) FROM packet_gaps")
        assert shown.found["lost", ""] == lost == 400
        assert shown.found["lost-of-host", "h3"] == 300
        for name, column in (("sources", "source"), ("destinations", "destination")):
            most = sql(f"SELECT {column}, count(*) AS n FROM packets GROUP BY 1 "  # noqa: S608
                       "ORDER BY n DESC, 1 LIMIT 10")  # fmt: skip
            assert {key: n for (of, key), n in shown.found.items() if of == name} == dict(most)
        rules = sql("SELECT rule, action, count(*) FROM packets GROUP BY 1, 2")
        found = {key: n for (of, key), n in shown.found.items() if of == "rules"}
        assert sorted(found.values()) == sorted(n for _, _, n in rules)
        assert f"{HOSTILE} (drop)" in found
        hours = [(hour * HOUR_NS, count) for hour, count in sql(HOURS)]
        assert {int(key): n for (of, key), n in shown.found.items() if of == "hour"} == dict(hours)
    connection.close()
    assert "<title>Packet log: 6,000 records</title>" in dom
    assert not {"script", "img", "iframe", "object", "link", "base"} & set(shown.tags)
    assert (shown.handlers, shown.sources) == ([], [])
    # Each plot is named, described, and has a table beside it.
    assert shown.tags.count("desc") == dom.count('role="img"') == 7
    assert dom.count("<table>") == 8


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
def test_the_policy_of_the_page_stops_what_would_come_in(tmp_path: Path) -> None:
    """The witness that the page's own policy holds: a script put into it does not run."""
    with open_packets(f"sqlite:///{tmp_path}/packets.sqlite") as store:
        text = page(make_report(store))
    script = "<script>document.title='owned'</script>"
    html = tmp_path / "with.html"
    html.write_text(text.replace("</main>", f"{script}</main>"))
    assert "<title>owned" not in opened(html, tmp_path / "one")
    html.write_text(re.sub("<meta http-equiv[^>]*>", "", html.read_text()))
    assert "<title>owned" in opened(html, tmp_path / "two")


def test_clocks_that_are_wrong_make_no_endless_page(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/packets.sqlite"
    records = made_records(12_000, 4)
    for number, record in enumerate(records):
        record.time_unix_ns = number * 200 * HOUR_NS
    with open_packets(url) as store:
        position = store.position("h1", "r1")
        rows = [row_of(position.id, record) for record in records]
        store.write([Portion("h1", position, len(rows), rows)])
        made = make_report(store)
        assert made.records == 12_000
        assert len(made.hours) == MOST_HOURS
        assert len(page(made)) < 4_000_000


V6 = b"\x20\x01" + b"\0" * 13 + b"\1"


def test_records_as_rows_and_lines() -> None:
    record = packet_log_pb2.PacketRecord(
        seq=7, time_unix_ns=1_700_000_000_123_456_789, rule="web/\0ssh", action="drop",
        in_ifname="eth0", source=bytes([192, 0, 2, 1]), destination=V6,
        source_mac=b"\2\0\0\0\0\1", protocol_number=6, source_port=40000, destination_port=22,
        length_bytes=60, tcp_flags=18, connection_state=3, mark=2**32 - 1, ether_type=0x0800,
    )  # fmt: skip
    row = row_of(3, record)
    assert row[:5] == (3, 7, 1_700_000_000_123_456_789, "web/\ufffdssh", "drop")
    assert row[9:13] == ("02:00:00:00:00:01", "", "192.0.2.1", "2001::1")
    assert row[-2:] == (2**32 - 1, 0x0800)
    assert fields_of(record)["time"] == "2023-11-14T22:13:20.123456Z"
    line = line_of(record)
    assert "tcp  192.0.2.1:40000 > [2001::1]:22  60 bytes  SYN+ACK  new" in line
    assert address(b"") == ""
    assert address(b"\1\2\3") == "010203"
    assert moment(2**63 - 1).startswith("2262-")
    assert moment(-(2**63)).startswith("1677-")
