"""Whether a host that was enrolled answers as itself, at each of its doors, by mTLS."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

from hostler.doctor.door import check_door, served_fingerprint
from hostler.doctor.finding import Finding, Level
from hostler.enrolment.errors import EnrolmentError

if TYPE_CHECKING:
    from hostler.aio import Client
    from hostler.config import Context
    from hostler.core.certificates import Certificate
    from hostler.fleet import Host

# What decides whether a door is one of this fleet; the rest is told, and the doctor's.
_DECIDING = ("name", "port", "tls", "answer", "certificate", "bundle", "clock")


async def check_doors(
    client: Client,
    context: Context,
    host: Host,
    domains: Sequence[str],
    certificate: Certificate,
    bundle_version: int,
) -> list[Finding]:
    """Ask each door who it is, and whether it takes us; answers what else it has to tell.

    Raises EnrolmentError where one does not answer, or as another than the certificate's.
    """

    async def one(domain: str) -> list[Finding]:
        found = await check_door(client, context, host, domain, bundle_version)
        for each in found:
            if each.level is Level.FAILED and each.check in _DECIDING:
                words = f"the {domain} door of {host.name}: {each.message}"
                raise EnrolmentError(each.code, words, each.advice)
        served = await served_fingerprint(context, host, domain)
        if served != certificate.fingerprint:
            raise EnrolmentError(
                "ANOTHER_HOST",
                f"at {host.address} the {domain} door has another certificate of {host.name} than "
                "the host that was reached by ssh",
                "are there two hosts with one address, or a forwarded port?",
            )
        return found

    told = await asyncio.gather(*(one(domain) for domain in domains))
    unwell = (Level.WARNING, Level.FAILED)
    return [finding for each in told for finding in each if finding.level in unwell]
