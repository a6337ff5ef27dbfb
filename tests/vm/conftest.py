"""The guests of a run: one boot for all tests, clones for each, nothing left afterwards."""

from __future__ import annotations

import os
import time
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from _pytest.runner import runtestprotocol
from vm_image import image, install_tools
from vm_suite import Suite

_said: list[str] = []
_locked_up: list[str] = []
FAILED = pytest.StashKey[bool]()


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


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Note on a test that it failed, for what its guests have to say then."""
    report = yield
    item.stash[FAILED] = item.stash.get(FAILED, False) or report.failed
    return report


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> bool:
    """Run a test whose guest's kernel has locked up once more, one test of a run and no other.

    A processor that QEMU emulates stops for good once in some hundred clones, in the middle of
    whatever it does; the kernel's own watchdog says so, and nothing of Hostler had a part in it. A
    test that brings it about does so the second time too, and fails.
    """
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    may_again = not _locked_up
    reports = runtestprotocol(item, log=False, nextitem=nextitem)
    if may_again and _locked_up and any(report.failed for report in reports):
        say(f"{item.name}: the kernel of {_locked_up[0]} locked up: once more")
        for report in reports:
            say(f"{report.when}: {report.longreprtext}\n{report.capstdout}")
        item.stash[FAILED] = False
        item._initrequest()  # type: ignore[attr-defined] # the fixtures of the first are spent
        reports = runtestprotocol(item, log=False, nextitem=nextitem)
    for report in reports:
        item.ihook.pytest_runtest_logreport(report=report)
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True


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
def guests(
    suite: Suite,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Suite]:
    """Guests to take; they end with the test, and a failed one shows their journals."""
    start = time.monotonic()
    # The client keeps where audit logs ended: that of an earlier test's vm1 was another log.
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "client"))
    try:
        yield suite
        if request.node.stash.get(FAILED, False):
            suite.show_journals()
            _locked_up.extend(suite.locked_up())
    finally:
        suite.release()
        say(f"{request.node.name}: {time.monotonic() - start:.1f} s")
