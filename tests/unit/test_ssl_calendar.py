"""The calendar of a fleet's certificates, as a browser has it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from browser import CHROMIUM, HOSTILE, Numbers, opened

from hostler.api.ssl.v1 import certificate_pb2 as pb
from hostler.cli.ssl_inventory import holders_of
from hostler.results import HostError, HostResult
from hostler.ssl_calendar import entries_of, page

pytestmark = pytest.mark.timeout(300)
NOW = datetime(2026, 11, 27, 12, 0, tzinfo=UTC)


def result(host: str, *ends: tuple[str, datetime]) -> HostResult[Any]:
    answer = pb.ListCertificatesResponse()
    for subject, when in ends:
        one = answer.certificates.add(subject=subject)
        one.not_after.FromDatetime(when)
        one.names.add(kind="dns", value="www.example.net")
        one.places.add(path="/etc/ssl/x.pem")
        one.findings.add(code="EXPIRES_SOON", severity=pb.SEVERITY_WARNING)
    return HostResult(host, answer)


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
def test_the_page_in_a_browser_has_every_certificate_on_its_day(tmp_path: Path) -> None:
    soon, later = NOW + timedelta(days=10), NOW + timedelta(days=200)
    results = [
        result("h1", ("CN=a", soon), (f"CN={HOSTILE}", later)),
        result("h2", ("CN=b", soon), ("CN=gone", NOW - timedelta(days=3))),
    ]
    html = tmp_path / "expiry.html"
    html.write_text(page(entries_of(results), [("h3", "UNAVAILABLE: gone")], NOW))
    dom = opened(html, tmp_path / "profile")
    shown = Numbers(dom)
    days = {key: n for (of, key), n in shown.found.items() if of == "day"}
    assert days == {f"{soon:%Y-%m-%d}": 2, f"{later:%Y-%m-%d}": 1, "2026-11-24": 1}
    left = {key: n for (of, key), n in shown.found.items() if of == "certificate"}
    assert left == {"h1 CN=a": 10, f"h1 CN={HOSTILE}": 200, "h2 CN=b": 10, "h2 CN=gone": -3}
    assert shown.found["all", ""] == 4
    assert "h3: UNAVAILABLE: gone" in dom
    # Words of hosts are words: nothing of them runs, nothing is fetched.
    assert "<title>Certificates: 4</title>" in dom
    assert (shown.handlers, "script" in shown.tags, shown.sources) == ([], False, [])


def test_ends_outside_of_any_calendar_are_listed() -> None:
    answer = pb.ListCertificatesResponse()
    answer.certificates.add(subject="CN=ever").not_after.seconds = 253_402_300_799
    text = page(entries_of([HostResult("h1", answer)]), [], NOW)
    assert "9999-12-31" in text


def test_hosts_that_share_a_key_are_known_by_its_hash() -> None:
    results: list[HostResult[Any]] = []
    for host, hashes in (("h1", ["aa", "bb"]), ("h2", ["bb"])):
        answer = pb.ListKeysResponse()
        for each in hashes:
            answer.keys.add().key.spki_sha256 = each
        results.append(HostResult(host, answer))
    results.append(HostResult("h3", error=HostError("UNAVAILABLE", "X", "gone")))
    assert holders_of(results) == {"aa": ["h1"], "bb": ["h1", "h2"]}
