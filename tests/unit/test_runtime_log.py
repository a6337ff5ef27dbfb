"""Logs: what is let through, by whom it is said, and that a line stays a line."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from hostlerd.runtime import log


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Thresholds as at start, and standard error instead of the journal."""
    monkeypatch.delenv("JOURNAL_STREAM", raising=False)
    monkeypatch.setattr(log, "_in_force", log.Thresholds())
    log._threshold.cache_clear()
    yield
    log._threshold.cache_clear()


def said(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().err.splitlines()


def speak(category: str) -> None:
    own = log.get_log(category)
    own.debug("d1")
    own.debug("d3", verbosity=3)
    own.info("i")
    own.warning("w")
    own.error("e")


@pytest.mark.parametrize(
    ("table", "heard"),
    [
        ({}, "iwe"),
        ({"level": "error"}, "e"),
        ({"level": "debug"}, "d1 i w e"),
        ({"level": "debug", "verbosity": 3}, "d1 d3 i w e"),
        ({"level": "debug", "verbosity": 0}, "iwe"),
        ({"verbosity": 9}, "iwe"),
        ({"categories": {"netns": {"level": "debug"}}}, "d1 i w e"),
        ({"categories": {"netns.kernel": {"level": "error"}, "netns": {"level": "debug"}}}, "e"),
        ({"categories": {"netn": {"level": "debug"}, "netns.kernels": {"level": "debug"}}}, "iwe"),
        ({"level": "debug", "categories": {"netns": {"verbosity": 3}}}, "d1 d3 i w e"),
    ],
)
def test_what_is_let_through(
    capsys: pytest.CaptureFixture[str], table: dict[str, object], heard: str
) -> None:
    log.use(log.parse(table))
    speak("netns.kernel")
    words = heard.split() if " " in heard else list(heard)
    assert [line.rpartition(" ")[2] for line in said(capsys)] == words


def test_debug_all_is_the_one_big_switch(capsys: pytest.CaptureFixture[str]) -> None:
    log.debug_all()
    log.use(log.parse({"level": "error"}))
    log.get_log("runtime.relay").debug("x", verbosity=9)
    assert said(capsys) == ["<7>runtime.relay: x"]


@pytest.mark.parametrize(
    ("table", "named"),
    [
        ({"level": "loud"}, "log.level"),
        ({"verbosity": 10}, "log.verbosity"),
        ({"verbosity": True}, "log.verbosity"),
        ({"levle": "info"}, "log.levle"),
        ({"categories": []}, "log.categories"),
        ({"categories": {"a": 1}}, "log.categories.'a'"),
        ({"categories": {"a": {"level": 1}}}, "log.categories.'a'.level"),
    ],
)
def test_faults_are_named(table: dict[str, object], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        log.parse(table)


def test_a_line_stays_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    log.get_log("a").info("m", name="x\n<0>kernel: forged\x1b[2J\x9b")
    (line,) = said(capsys)
    assert line == "<6>a: m [name=x\\x0a<0>kernel: forged\\x1b[2J\\x9b]"


def test_what_is_long_is_cut(capsys: pytest.CaptureFixture[str]) -> None:
    log.get_log("a").info("m", data="x" * 10_000)
    (line,) = said(capsys)
    assert len(line) < 1100
