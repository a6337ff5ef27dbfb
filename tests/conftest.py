"""What holds for all tests: in CI a skip is a failure, unless skips.toml permits it.

And signals are what a terminal would give: a job in the background of a shell is born with some of
them ignored, and would pass that on to every program that a test starts.
"""

from __future__ import annotations

import os
import signal
import tomllib
from collections.abc import Generator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

SKIPS = Path(__file__).with_name("skips.toml")
for number in (signal.SIGHUP, signal.SIGQUIT):
    signal.signal(number, signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)
IN_CI = os.environ.get("CI", "").lower() in {"1", "true"}


def is_permitted(nodeid: str, listed: list[dict[str, str]]) -> bool:
    """Whether an entry of skips.toml names the test and says why."""
    return any(entry["reason"].strip() and fnmatchcase(nodeid, entry["test"]) for entry in listed)


def refuse_skip(report: pytest.TestReport | pytest.CollectReport) -> None:
    """Turn a skip that is not listed into a failure; an expected failure is no skip."""
    if not IN_CI or not report.skipped or hasattr(report, "wasxfail"):
        return
    listed = tomllib.loads(SKIPS.read_text()).get("skip", [])
    if not is_permitted(report.nodeid, listed):
        why = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"{report.nodeid}: {why}: not permitted by {SKIPS.name}"


class ByPlace(LoadScopeScheduling):  # type: ignore[misc] # the plugin's hooks have no types
    """Shares a run between workers, by what tests have in common.

    One worker has the tests of this machine's kernel, in order, for they look at what is there
    before and after, and hold mounts and devices for a while; one has the lab and its hosts. The
    others keep to themselves, file by file.
    """

    def _split_scope(self, nodeid: str) -> str:
        if nodeid.startswith("tests/hosts/"):
            return "hosts"
        if nodeid.startswith("tests/kernel/") and not nodeid.startswith("tests/kernel/test_ssl_"):
            return "machine"
        return nodeid.partition("::")[0]


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByPlace:
    """Answer who says which worker runs which test."""
    return ByPlace(config, log)


class SaysAtOnce:
    """Names each test that fails when it fails: a run that is stopped has no summary."""

    def __init__(self, reporter: pytest.TerminalReporter) -> None:
        self._reporter = reporter

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Write a line for a failure: which test, in what, how it ended."""
        if report.failed:
            crash = getattr(report.longrepr, "reprcrash", None)
            last = (crash.message if crash else report.longreprtext).partition("\n")[0][:300]
            self._reporter.write_line(f"\nFAILED {report.nodeid} ({report.when}): {last}")


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    """Have failures told at once, by the process that has the terminal."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if reporter is not None and not hasattr(config, "workerinput"):
        config.pluginmanager.register(SaysAtOnce(reporter))


@pytest.fixture(autouse=True, scope="session")
def records_of_their_own(tmp_path_factory: pytest.TempPathFactory) -> Generator[None]:
    """Record what tests change, here and in processes they start, apart from what people do."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        for name in ("HOSTLER_RUNS_URL", "LINES", "COLUMNS"):  # A worker is born with a size.
            patch.delenv(name, raising=False)
        yield


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Look at each report of a test."""
    report = yield
    refuse_skip(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Look at each report of a file, which may be skipped as a whole."""
    report = yield
    refuse_skip(report)
    return report
