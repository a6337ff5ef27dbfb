"""Hosts get new certificates before the old ones end: by ssh, and seen at each of their doors."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING

from hostler.config import Context, HostlerError
from hostler.core.certificates import CertificateUnreadable, describe
from hostler.doctor.door import served_fingerprint
from hostler.doors import doors_of
from hostler.enrolment.certify import Certifying
from hostler.enrolment.errors import EnrolmentError
from hostler.enrolment.there import AGAIN, Say, There

if TYPE_CHECKING:
    from hostler.core.certificates import Certificate
    from hostler.enrolment.seen import Seen
    from hostler.enrolment.ssh import Ssh
    from hostler.fleet import Host

AT_ONCE = 8


class Fate(StrEnum):
    """What became of a certificate, or is about to."""

    GOOD = "good"
    DUE = "due"
    RENEWED = "renewed"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Renewal:
    """What became of a host's or user's certificate, until when it holds, and what went wrong."""

    name: str
    fate: Fate
    until: datetime | None = None
    problem: str = ""


class Renewing:
    """The hosts of a fleet, whose certificates are renewed from two thirds of their lives on.

    With `force` at once, however long they have.
    """

    def __init__(
        self,
        certifying: Certifying,
        context: Context,
        open_ssh: Callable[[str], Ssh],
        say: Say,
        *,
        force: bool = False,
    ) -> None:
        self._certifying = certifying
        self._context, self._open_ssh = context, open_ssh
        self._say, self._force = say, force

    async def look(self, hosts: Sequence[Host]) -> list[Renewal]:
        """Tell of each host whether it is due. Changes nothing."""
        return await self._each(hosts, self._look)

    async def renew(self, hosts: Sequence[Host]) -> list[Renewal]:
        """Renew what is due. One host goes first: if that fails, no other one is touched.

        A host whose doors do not all show the new certificate takes up the one before.
        """
        first, rest = hosts[:1], hosts[1:]
        done = await self._each(first, self._renew)
        while rest and done[-1].fate is Fate.GOOD:
            first, rest = rest[:1], rest[1:]
            done += await self._each(first, self._renew)
        if done and done[-1].fate is Fate.FAILED and rest:
            words = f"not begun: {done[-1].name} had failed"
            return [*done, *(Renewal(host.name, Fate.FAILED, problem=words) for host in rest)]
        return [*done, *await self._each(rest, self._renew)]

    async def _each(
        self, hosts: Sequence[Host], work: Callable[[Host], Awaitable[Renewal]]
    ) -> list[Renewal]:
        turn = asyncio.Semaphore(AT_ONCE)

        async def one(host: Host) -> Renewal:
            async with turn:
                try:
                    return await work(host)
                except (HostlerError, CertificateUnreadable, OSError, ValueError) as e:
                    words = (str(e) or type(e).__name__).splitlines()[0]
                    return Renewal(host.name, Fate.FAILED, problem=words)

        return list(await asyncio.gather(*(one(host) for host in hosts)))

    async def _look(self, host: Host) -> Renewal:
        _, certificate = await self._seen(self._there(host))
        fate = Fate.DUE if self._is_due(certificate) else Fate.GOOD
        return Renewal(host.name, fate, certificate.not_after)

    async def _renew(self, host: Host) -> Renewal:
        there = self._there(host)
        seen, certificate = await self._seen(there)
        if not self._is_due(certificate):
            # One that was cut off after the new one was in place still has the one before.
            await self._prove(there, host, certificate.fingerprint)
            return Renewal(host.name, Fate.GOOD, certificate.not_after)
        self._say(f"{host.name}: renew, {certificate.not_after:%Y-%m-%d} is its end")
        new = describe(await self._certifying.certify(there, seen))
        await self._prove(there, host, new.fingerprint)
        return Renewal(host.name, Fate.RENEWED, new.not_after)

    async def _prove(self, there: There, host: Host, fingerprint: str) -> None:
        """See a certificate at every door, on new connections; else have the host go back."""
        doors = doors_of(host)
        shown = await asyncio.gather(
            *(served_fingerprint(self._context, host, domain) for domain in doors),
            return_exceptions=True,
        )
        problems = list(_problems(doors, shown, fingerprint))
        if not problems:
            await there.join({"do": "keep"})
            return
        went_back = (await there.join({"do": "go back"})).get("changed")
        after = "; it has the one before again" if went_back else ""
        raise EnrolmentError("NOT_SERVED", f"{host.name}: {problems[0]}{after}", AGAIN)

    async def _seen(self, there: There) -> tuple[Seen, Certificate]:
        seen = await there.look()
        if seen.certificate is None or seen.certificate.name != there.name:
            told = seen.certificate.name if seen.certificate else "no host of Hostler's"
            words = f"ssh leads from {there.name} to {told}"
            raise EnrolmentError("ANOTHER_HOST", words, "correct its address in the fleet file")
        return seen, seen.certificate

    def _is_due(self, certificate: Certificate) -> bool:
        return self._force or certificate.renew_time <= datetime.now(UTC)

    def _there(self, host: Host) -> There:
        return There(host.name, self._open_ssh(host.address))


def _problems(
    doors: Iterable[str], shown: Iterable[str | BaseException], fingerprint: str
) -> Iterable[str]:
    """What speaks against a certificate's being served, door by door."""
    for domain, found in zip(doors, shown, strict=True):
        if isinstance(found, BaseException):
            yield f"its {domain} door does not answer: {found or type(found).__name__}"
        elif found != fingerprint:
            yield f"its {domain} door shows another certificate than the one in place"
