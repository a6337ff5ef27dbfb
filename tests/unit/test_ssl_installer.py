"""The installer's door and clock: hostile requests, windows, and listeners that hold callers up."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostlerd.privileged.refused import Refused
from hostlerd.ssl.installer import configuration, grammar, prober, window

FILE = {"path": "/etc/ssl/h/key.pem", "owner": "root", "group": "root", "mode": 0o600}
SERVER = {
    "kind": "nginx",
    "unit": "nginx.service",
    "listeners": ["127.0.0.1:443", "[::1]:443"],
    "starttls": "",
}
GOOD: dict[str, Any] = {
    "name": "web",
    "subject_names": ["a.test", "*.a.test", "192.0.2.1", "2001:db8::1"],
    "key": FILE,
    "full_chain": {**FILE, "path": "/etc/ssl/h/full.pem", "mode": 0o644},
    "servers": [SERVER],
    "key_kind": "ec256",
}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)


def faults(**changes: Any) -> set[str]:
    asked = {"op": "make_key", "deployment": {**GOOD, **changes}}
    try:
        grammar.check_request(asked)
    except Refused as e:
        return {field for field, _ in e.faults}
    return set()


def test_a_good_request_passes():
    assert faults() == set()
    assert faults(servers=[{**SERVER, "window": _window("23:30", 3600, "Europe/Berlin")}]) == set()


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"name": "../../etc"}, "name"),
        ({"name": "a\n"}, "name"),
        ({"subject_names": ["a b"]}, "subject_names[0]"),
        ({"subject_names": ["a.*.test"]}, "subject_names[0]"),
        ({"subject_names": []}, "subject_names"),
        ({"key": {**FILE, "path": "relative"}}, "key.path"),
        ({"key": {**FILE, "path": "/etc/ssl/../shadow"}}, "key.path"),
        ({"key": {**FILE, "path": "/etc//ssl"}}, "key.path"),
        ({"key": {**FILE, "mode": 0o644}}, "key.mode"),
        ({"key": {**FILE, "mode": 0o660}}, "key.mode"),
        ({"key": {**FILE, "mode": 0o4600}}, "key.mode"),
        ({"key": {**FILE, "mode": True}}, "key.mode"),
        ({"key": {**FILE, "owner": "root; id"}}, "key.owner"),
        ({"key": {**FILE, "surplus": 1}}, "key.surplus"),
        ({"full_chain": {**FILE, "mode": 0o755}}, "full_chain.mode"),
        ({"servers": [{**SERVER, "kind": "iis"}]}, "servers[0].kind"),
        ({"servers": [{**SERVER, "unit": "--root=/.service"}]}, "servers[0].unit"),
        ({"servers": [{**SERVER, "unit": "a b.service"}]}, "servers[0].unit"),
        ({"servers": [{**SERVER, "unit": "ssh.socket"}]}, "servers[0].unit"),
        ({"servers": [{**SERVER, "listeners": ["localhost:1"]}]}, "servers[0].listeners[0]"),
        ({"servers": [{**SERVER, "listeners": ["1.2.3.4:99999"]}]}, "servers[0].listeners[0]"),
        ({"servers": [{**SERVER, "starttls": "x"}]}, "servers[0].starttls"),
        ({"key_kind": "rsa512"}, "key_kind"),
        ({"full_chain": FILE}, "items"),
    ],
)
def test_what_is_not_of_the_grammar_is_named(changes, field):
    found = faults(**changes)
    assert f"deployment.{field}" in found or field in found, found


@given(JSON, st.sampled_from(sorted(GOOD)))
def test_whatever_is_sent_is_refused_or_of_the_grammar(value, key):
    for asked in (value, {"op": "install", "items": value}, {"op": "status", "deployment": value}):
        with suppress(Refused):
            grammar.check_request(asked)
    faults(**{key: value})


def _window(start: str, duration_s: int, zone: str = "UTC") -> dict[str, Any]:
    return {"start": start, "duration_s": duration_s, "time_zone": zone}


@pytest.mark.parametrize(
    ("told", "now", "opens"),
    [
        # Over midnight, by the clock of Berlin: 23:00 there is 22:00 UTC in winter.
        (("23:00", 7200, "Europe/Berlin"), "2026-01-10T22:00", None),
        (("23:00", 7200, "Europe/Berlin"), "2026-01-10T23:59", None),
        (("23:00", 7200, "Europe/Berlin"), "2026-01-11T00:00", "2026-01-11T22:00"),
        # In summer it is 21:00 UTC.
        (("23:00", 7200, "Europe/Berlin"), "2026-07-10T20:59", "2026-07-10T21:00"),
        (("23:00", 7200, "Europe/Berlin"), "2026-07-10T21:00", None),
        # The hour that does not exist: it begins when it is over.
        (("02:30", 3600, "Europe/Berlin"), "2026-03-29T00:00", "2026-03-29T01:30"),
        # A whole day is always open.
        (("00:00", 86400, "UTC"), "2026-03-29T13:00", None),
    ],
)
def test_when_a_window_opens(told, now, opens):
    moment = datetime.fromisoformat(now).replace(tzinfo=UTC)
    wanted = datetime.fromisoformat(opens).replace(tzinfo=UTC) if opens else None
    assert window.opens(_window(*told), moment) == wanted
    assert window.opens(None, moment) is None


@given(
    st.datetimes(datetime(2025, 1, 1), datetime(2030, 1, 1)),
    st.integers(0, 23),
    st.integers(60, 86400),
    st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe"]),
)
def test_a_window_is_open_when_it_says_that_it_opens(now, hour, duration_s, zone):
    told = _window(f"{hour:02}:00", duration_s, zone)
    opens = window.opens(told, now.replace(tzinfo=UTC))
    if opens is not None:
        assert now.replace(tzinfo=UTC) < opens <= now.replace(tzinfo=UTC) + timedelta(days=1.2)
        assert window.opens(told, opens) is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[ssl", "hostler.toml"),
        ('ssl = "x"', "must be a table"),
        ('[ssl]\ninstall_directories = ["/"]', "not /"),
        ('[ssl]\ninstall_directories = ["etc"]', "must be absolute"),
        ('[ssl]\nservers."x" = {kind = "nginx"}', "named by a unit"),
        ('[ssl]\nservers."x.service" = {kind = "sh"}', "kind must be one of"),
        ('[ssl]\nservers."x.service" = {kind = "nginx", argv = "x"}', "argv is not known"),
        ("[ssl]\nserved_within_s = 0", "from 1 to 600"),
    ],
)
def test_a_configuration_that_cannot_be_used_is_refused_by_key(tmp_path: Path, text, words):
    path = tmp_path / "hostler.toml"
    path.write_text(text)
    with pytest.raises(Refused, match=words):
        configuration.read(path)
    assert configuration.read(tmp_path / "none").install_directories == ()


def test_a_listener_that_drips_or_is_silent_holds_nobody_up():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        over = threading.Event()

        def drip() -> None:
            with suppress(OSError):
                peer, _ = listener.accept()
                while not over.wait(0.05):
                    peer.sendall(b"2")

        thread = threading.Thread(target=drip)
        thread.start()
        target = {"address": "127.0.0.1", "port": listener.getsockname()[1], "sni": ""}
        begun = time.monotonic()
        found = prober.look({**target, "starttls": "smtp"}, 1.0)
        # Each byte comes in time, all of them would take minutes: MAX_LINE at twenty a second.
        assert found["problem"] and time.monotonic() - begun < 100
        over.set()
        thread.join()
