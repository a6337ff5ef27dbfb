"""The guests of a run: one boot for all tests, clones for each, nothing left afterwards."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import pytest
from vm_image import image, install_tools
from vm_suite import Suite

_said: list[str] = []


def say(line: str) -> None:
    """Note what took how long; shown at the end of the run, and with -s at once."""
    _said.append(line)
    print(line)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show the times of the guests."""
    if _said:
        terminalreporter.section("guests")
        for line in _said:
            terminalreporter.write_line(line)


@pytest.fixture(scope="session")
def suite() -> Iterator[Suite]:
    """The saved guest that all others are clones of."""
    if os.geteuid() != 0:
        pytest.skip("the guests' disk is made as root")
    start = time.monotonic()
    install_tools(say)
    made = image(say)
    say(f"image ready in {time.monotonic() - start:.1f} s")
    one = Suite(made, say)
    try:
        one.prepare()
        yield one
    finally:
        one.close()


@pytest.fixture
def guests(suite: Suite, request: pytest.FixtureRequest) -> Iterator[Suite]:
    """Guests to take; they end with the test, and a failed one shows their journals."""
    failed = request.session.testsfailed
    start = time.monotonic()
    try:
        yield suite
        if request.session.testsfailed > failed:
            suite.show_journals()
    finally:
        suite.release()
        say(f"{request.node.name}: {time.monotonic() - start:.1f} s")
