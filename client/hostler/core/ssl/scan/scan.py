"""A scan of one endpoint, and of many: the checks, in their order, each on its own feet."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from hostler.core.ssl.scan import ciphers, words
from hostler.core.ssl.scan.checks import (
    alpn,
    ccs,
    certificates,
    compression,
    fallback,
    features,
    groups,
    heartbleed,
    http,
    names,
    renegotiation,
    resumption,
    robot,
    ssl2,
    suites,
)
from hostler.core.ssl.scan.ciphers import suite
from hostler.core.ssl.scan.clients import simulate_all
from hostler.core.ssl.scan.connect import Dialer, Endpoint, Limits
from hostler.core.ssl.scan.errors import ScanError
from hostler.core.ssl.scan.exchange import Together, ask
from hostler.core.ssl.scan.grade import grade
from hostler.core.ssl.scan.hello import Hello
from hostler.core.ssl.scan.report import Problem, Report
from hostler.core.ssl.scan.trust import judge, load_roots

T = TypeVar("T")
VERSIONS = (words.SSL3, words.TLS10, words.TLS11, words.TLS12, words.TLS13)
CHECKS = (
    *("groups", "certificates", "names", "alpn", "features", "fallback", "compression"),
    *("resumption", "renegotiation", "heartbleed", "ccs_injection", "robot", "http"),
)
"""What can be left out; versions and cipher suites never are."""
_MOST_CONNECTIONS = 64
_OLD = (words.TLS12, words.TLS11, words.TLS10)
_MANY_SUITES = 8
# Which error says most about an endpoint that has no TLS.
_TELLING = ("STARTTLS_REFUSED", "NOT_TLS", "MALFORMED", "TOO_MUCH", "TIMED_OUT", "UNREACHABLE")


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be found out. `names` are asked for beside the endpoint's own.

    Trusted are the machine's roots, and those of the files in `roots`.
    """

    checks: Sequence[str] = CHECKS
    names: Sequence[str] = ()
    roots: Sequence[Path] = ()
    limits: Limits = field(default_factory=Limits)


async def scan(
    endpoint: Endpoint, wanted: Wanted | None = None, shared: asyncio.Semaphore | None = None
) -> Report:
    """Scan one endpoint; what fails is told in the report. Raises ValueError for roots.

    Each connection of it takes one of those that are `shared` with other scans.
    """
    wanted = wanted or Wanted()
    report = Report(endpoint, started=time.time())
    start = time.monotonic()
    dialer = Dialer(endpoint, wanted.limits, shared)
    scanning = _Scan(dialer, wanted, report)
    try:
        await scanning.versions()
        if report.failure is None:
            await scanning.others()
            scanning.conclude()
    finally:
        await scanning.end()
    report.address = dialer.address
    report.connections = dialer.spent.connections
    report.bytes_read = dialer.spent.bytes_read
    report.duration_s = time.monotonic() - start
    return report


async def scan_all(
    endpoints: Iterable[Endpoint], wanted: Wanted | None = None, *, at_once: int = 50
) -> AsyncIterator[Report]:
    """Scan many, so many at once; reports come as they are done. Raises ValueError for roots."""
    left = iter(endpoints)
    # With more at a time this machine would be what keeps the peers waiting.
    shared = asyncio.Semaphore(_MOST_CONNECTIONS)
    running: set[asyncio.Task[Report]] = set()
    try:
        while True:
            while len(running) < at_once and (endpoint := next(left, None)) is not None:
                running.add(asyncio.create_task(scan(endpoint, wanted, shared)))
            if not running:
                return
            done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                yield task.result()
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


class _Scan:
    """One scan that goes on."""

    def __init__(self, dialer: Dialer, wanted: Wanted, report: Report) -> None:
        self.dialer = dialer
        self.wanted = wanted
        self.report = report
        self.problems: list[Problem] = []
        self.together = Together(len(VERSIONS))
        self._refused: set[int] = set()
        self._early: asyncio.Task[robot.Robot | None] | None = None

    async def versions(self) -> None:
        """Ask for each version; if none of them brings TLS about, that is all there is to say."""
        asked: list[Awaitable[Any]] = [
            self._try("SSLv2", ssl2.probe(self.dialer)),
            *(
                self._try(words.version_name(version), self._suites(version))
                for version in VERSIONS
            ),
        ]
        report = self.report
        report.ssl2, *found = await asyncio.gather(*asked)
        report.versions = tuple(each for each in found if each is not None)
        report.problems = tuple(self.problems)
        if report.supported() or (report.ssl2 is not None and report.ssl2.is_supported):
            return
        if self.problems:
            report.failure = min(self.problems, key=_telling)
        else:
            refused = sorted({each.refusal for each in report.versions} - {""})
            report.failure = Problem(
                "versions", "REFUSED", f"every version is refused: {', '.join(refused)}"
            )

    async def others(self) -> None:
        """All other checks, side by side as far as none needs another."""
        found, report = self.report.versions, self.report
        dialer = self.dialer
        checks: dict[str, Callable[[], Awaitable[Any]]] = {
            "groups": lambda: groups.probe(dialer, found),
            "certificates": lambda: certificates.probe(dialer, found),
            "names": lambda: names.probe(dialer, found, self._names()),
            "alpn": lambda: alpn.probe(dialer, found),
            "fallback": lambda: fallback.probe(dialer, found),
            "compression": lambda: compression.probe(dialer, found),
            "resumption": lambda: resumption.probe(dialer, found),
            "heartbleed": lambda: heartbleed.probe(dialer, found),
            "ccs_injection": lambda: ccs.probe(dialer, found),
            "robot": lambda: self._robot_of(found),
            "features": self._features,
        }
        # This may have to wait for a server that says nothing; one that talks to one client at a
        # time would keep the others waiting meanwhile.
        asks_http_last = "http" in self.wanted.checks and not self.together.serves_many
        if not asks_http_last:
            checks["http"] = lambda: http.probe(dialer, found)
        wanted = [name for name in checks if name in self.wanted.checks]
        answers = await asyncio.gather(*(self._try(name, checks[name]()) for name in wanted))
        for name, answer in zip(wanted, answers, strict=True):
            setattr(report, name, answer)
        if asks_http_last:
            report.http = await self._try("http", http.probe(dialer, found))
        if report.robot is not None and _is_half_known(report.robot):
            report.robot = await self._try("robot", robot.probe_unfinished(dialer, found))

    async def _suites(self, version: int) -> suites.Suites:
        found = await suites.probe(self.dialer, version, self._note, self.together)
        if not found.is_supported:
            self._refused.add(version)
        return found

    def _note(self, version: int, accepted: Sequence[int]) -> None:
        """Begin with what waits longest as soon as there is a suite for it.

        A server whose order has such suites last is asked for them when it has many others.
        """
        newest = next((each for each in _OLD if each not in self._refused), 0)
        if self._early is not None or version != newest or "robot" not in self.wanted.checks:
            return
        if self.together.serves_many and suite(accepted[-1]).kx == "RSA":
            self._early = asyncio.create_task(self._robot_early(version, accepted[-1:]))
        elif self.together.serves_many and len(accepted) == _MANY_SUITES:
            offered = [number for number in ciphers.pool(version) if suite(number).kx == "RSA"]
            self._early = asyncio.create_task(self._robot_early(version, offered))

    async def _robot_early(self, version: int, offered: Sequence[int]) -> robot.Robot | None:
        """What `_robot` answers; None if none of the suites is accepted."""
        found = suites.Suites(version, tuple(offered))
        if len(offered) > 1:
            hello = Hello(version, offered, name=self.dialer.endpoint.name)
            try:
                answer = (await ask(self.dialer, hello)).hello
            except ScanError:
                return None
            if answer is None or answer.suite not in offered or answer.version != version:
                return None
            found = suites.Suites(version, (answer.suite,))
        return await self._robot((found,))

    async def _robot_of(self, found: Sequence[suites.Suites]) -> robot.Robot | None:
        early = None if self._early is None else await self._early
        return early or await self._robot(found)

    async def _robot(self, found: Sequence[suites.Suites]) -> robot.Robot | None:
        """With whole flights, and at once with unfinished ones where nobody is kept waiting."""
        answer = await robot.probe(self.dialer, found)
        if answer is not None and _is_half_known(answer) and self.together.serves_many:
            return await robot.probe_unfinished(self.dialer, found)
        return answer

    async def end(self) -> None:
        """Leave nothing behind that goes on."""
        if self._early is not None:
            self._early.cancel()
            await asyncio.gather(self._early, return_exceptions=True)

    async def _features(self) -> features.Features | None:
        found = self.report.versions
        answer = await features.probe(self.dialer, found)
        if answer is not None and "renegotiation" in self.wanted.checks:
            self.report.renegotiation = await self._try(
                "renegotiation",
                renegotiation.probe(self.dialer, found, is_secure=answer.secure_renegotiation),
            )
        return answer

    def _names(self) -> Sequence[str]:
        own = self.dialer.endpoint.name
        return (*([own] if own else []), *self.wanted.names)

    async def _try(self, name: str, asking: Awaitable[T]) -> T | None:
        try:
            return await asking
        except ScanError as error:
            self.problems.append(Problem(name, error.code, str(error)))
            return None

    def conclude(self) -> None:
        """What follows from all of it without another connection."""
        report = self.report
        report.problems = tuple(self.problems)
        if report.certificates is not None:
            roots = load_roots(self.wanted.roots)
            report.trust = tuple(
                judge(served.chain, report.endpoint.name, roots) for served in report.certificates
            )
        report.clients = simulate_all(report)
        report.grade = grade(report)


def _is_half_known(answer: robot.Robot) -> bool:
    return answer.verdict == "sound" and not answer.without_finished


def _telling(problem: Problem) -> int:
    known = problem.code in _TELLING
    return _TELLING.index(problem.code) if known else len(_TELLING)
