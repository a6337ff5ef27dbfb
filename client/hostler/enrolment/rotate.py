"""Carries out the steps of a rotation of the CA at hosts: by ssh, and seen at each of the doors.

Nothing is remembered of hosts: each time they are looked at, and what is missing is done.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from cryptography import x509

from hostler.api.common.v1 import host_pb2
from hostler.channel import rpc
from hostler.config import Context, HostlerError
from hostler.core import trust
from hostler.core.certificates import CertificateUnreadable, load_certificates
from hostler.doctor.door import served_certificate
from hostler.doors import doors_of
from hostler.enrolment.certify import Certifying
from hostler.enrolment.errors import EnrolmentError
from hostler.enrolment.rotation_plan import Place, Step, missing
from hostler.enrolment.there import AGAIN, Say, There
from hostler.results import CallFailed

if TYPE_CHECKING:
    from hostler.aio import Client
    from hostler.ca_rotation import Pair
    from hostler.enrolment.seen import Seen
    from hostler.enrolment.ssh import Ssh
    from hostler.fleet import Host
    from hostler.pki import Authority

AT_ONCE = 8
_GET_HOST = rpc(host_pb2, "HostService", "GetHost")


class Rotating:
    """The hosts of a fleet, between two CAs."""

    def __init__(
        self,
        authority: Authority,
        pair: Pair,
        context: Context,
        client: Client,
        open_ssh: Callable[[str], Ssh],
        say: Say,
    ) -> None:
        self._certifying, self._pair = Certifying(authority, pair.new_pem), pair
        self._context, self._client, self._open_ssh = context, client, open_ssh
        self._say = say
        self._known = trust.changed(pair.old_pem, pair.new_pem, ())

    async def look(self, hosts: Sequence[Host]) -> list[Place]:
        """See all hosts, by ssh and at their doors. Changes nothing."""
        turn = asyncio.Semaphore(AT_ONCE)

        async def one(host: Host) -> Place:
            async with turn:
                return await self._place(host)

        return list(await asyncio.gather(*(one(host) for host in hosts)))

    async def carry_out(
        self, step: Step, hosts: Sequence[Host], places: Sequence[Place]
    ) -> Mapping[str, str]:
        """Do a step where it is missing; answers why it failed, by host.

        One host goes first, and if it fails no other is touched. One that was not seen is left out.
        """
        failed: dict[str, str] = {}
        todo: list[Host] = []
        for host, place in zip(hosts, places, strict=True):
            if place.problem:
                failed[host.name] = place.problem
            elif self._lacks(step, place) or step is Step.REISSUE:
                todo.append(host)
        turn = asyncio.Semaphore(AT_ONCE)

        async def one(host: Host) -> None:
            async with turn:
                try:
                    await self._do(step, host)
                except (HostlerError, OSError) as e:
                    failed[host.name] = str(e)

        for first in todo[:1]:
            await one(first)
            if first.name in failed:
                return failed | dict.fromkeys((host.name for host in todo[1:]), "not begun")
        await asyncio.gather(*(one(host) for host in todo[1:]))
        return failed

    def _lacks(self, step: Step, place: Place) -> str:
        return missing(step, place, self._pair.old, self._pair.new)

    async def _place(self, host: Host) -> Place:
        try:
            seen = await self._there(host).look()
            return await self._seen(host, seen)
        except (HostlerError, CertificateUnreadable, ValueError) as e:
            return Place(host.name, problem=str(e).splitlines()[0])

    async def _seen(self, host: Host, seen: Seen) -> Place:
        """What ssh and the doors show of a host. Raises EnrolmentError, CertificateUnreadable."""
        if seen.certificate is None or seen.certificate.name != host.name:
            told = seen.certificate.name if seen.certificate else "no host of Hostler's"
            advice = "correct its address in the fleet file"
            raise EnrolmentError("ANOTHER_HOST", f"ssh leads from {host.name} to {told}", advice)
        trusted = [frozenset(trust.fingerprints(seen.ca_pem))]
        issuers = {trust.issuer_of(load_certificates(seen.certificate_pem)[0], self._known)}
        doors = await asyncio.gather(*(self._door(host, domain) for domain in doors_of(host)))
        for authorities, shown in doors:
            trusted.append(authorities)
            issuers.add(trust.issuer_of(x509.load_der_x509_certificate(shown), self._known))
        everywhere = frozenset.intersection(*trusted)
        return Place(host.name, everywhere, frozenset.union(*trusted), frozenset(issuers))

    async def _door(self, host: Host, domain: str) -> tuple[frozenset[str], bytes]:
        """Whom a door trusts, and what it shows, each on a connection of its own."""
        try:
            shown = await served_certificate(self._context, host, domain)
            async with self._client.session(host) as session:
                said = await session.call(_GET_HOST.at(domain), host_pb2.GetHostRequest())
        except (CallFailed, OSError) as e:
            advice = f"hostler -H {host.name} doctor"
            words = f"the {domain} door of {host.name}: {e or type(e).__name__}"
            raise EnrolmentError("DOOR_SILENT", words, advice) from e
        if not said.host.authorities:
            words = f"the {domain} door of {host.name} does not tell whom it trusts"
            raise EnrolmentError(
                "OLD_VERSION", words, f"install these packages: enroll {host.name}"
            )
        return frozenset(said.host.authorities), shown

    async def _do(self, step: Step, host: Host) -> None:
        there = self._there(host)
        seen = await there.look()
        if step is not Step.REISSUE:
            self._say(f"{host.name}: {step}")
            added = self._pair.new_pem if step is Step.TRUST else b""
            await self._trust(there, added, () if step is Step.TRUST else (self._pair.old,))
            await self._confirm(step, host)
            return
        if self._lacks(step, await self._place(host)):
            self._say(f"{host.name}: {step}")
            await self._trust(there, self._pair.new_pem, ())
            await self._certifying.certify(there, seen)
            try:
                await self._confirm(step, host)
            except EnrolmentError:
                await there.join({"do": "go back"})
                raise
        await there.join({"do": "keep"})

    async def _trust(self, there: There, added: bytes, removed: Sequence[str]) -> None:
        await there.join(
            {
                "do": "trust",
                "name": there.name,
                "add": added.decode(),
                "remove": list(removed),
                "bundle": self._certifying.bundle(),
            }
        )

    async def _confirm(self, step: Step, host: Host) -> None:
        """See at each door that a step is done. Raises EnrolmentError if it is not."""
        lacking = self._lacks(step, await self._place(host))
        if lacking:
            words = f"{host.name} was told, and {lacking}"
            raise EnrolmentError("NOT_CONFIRMED", words, AGAIN)

    def _there(self, host: Host) -> There:
        return There(host.name, self._open_ssh(host.address))
