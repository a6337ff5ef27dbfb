"""The end of a host: its certificates revoked everywhere, its state gone, its entry removed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hostler.enrolment import scripts
from hostler.enrolment.enrol import INSTALL_S
from hostler.enrolment.errors import EnrolmentError
from hostler.fleet import Fleet, Host
from hostler.issued import Entry
from hostler.limits import Batches, Tolerance
from hostler.rollout import Rollout

if TYPE_CHECKING:
    from hostler.enrolment.ssh import Ssh
    from hostler.pki import Authority

# A revocation is to reach as many as it can, at once: no canary, and no host holds up another.
EVERYWHERE = Rollout(batches=Batches(("100%",)), tolerance=Tolerance(percent=100))


@dataclass(frozen=True, slots=True)
class Retirement:
    """What there is to do. `host` is None where it is not in the fleet any more."""

    name: str
    host: Host | None
    revoking: tuple[Entry, ...]
    others: tuple[Host, ...]

    def describe(self, *, purge: bool) -> Sequence[str]:
        """Each step, for people."""
        words = [
            f"revoke certificate {one.certificate.serial}, good until "
            f"{one.certificate.not_after:%Y-%m-%d %H:%M} UTC"
            for one in self.revoking
        ] or ["revoke nothing: no certificate of it counts any more"]
        if self.others:
            words.append(f"push the bundle that says so to {len(self.others)} other hosts")
        if purge:
            words.append("remove Hostler from the host by ssh: packages, key, state and logs")
        if self.host is not None:
            words.append(f"take {self.name} at {self.host.address} out of the fleet")
        return words


def plan(authority: Authority, fleet: Fleet, name: str) -> Retirement:
    """What retiring a host takes. Raises EnrolmentError if nobody knows of it, PkiError."""
    mine = [
        e for e in authority.list() if (e.certificate.kind, e.certificate.name) == ("host", name)
    ]
    host = next((one for one in fleet.hosts if one.name == name), None)
    if host is None and not mine:
        raise EnrolmentError(
            "NO_SUCH_HOST",
            f"{name!r} is not in the fleet, and no certificate was ever issued for it",
            "look for its name: hostler fleet list, hostler pki list",
        )
    revoking = tuple(e for e in mine if e.state not in ("revoked", "expired"))
    others = tuple(one for one in fleet.hosts if one.name != name and not one.is_local)
    return Retirement(name, host, revoking, others)


async def purge(name: str, ssh: Ssh) -> None:
    """Remove Hostler from a host, with its key and all that it kept. Raises EnrolmentError."""
    answer = await ssh.run(scripts.SHELL, scripts.PURGE.encode(), timeout_s=INSTALL_S)
    if answer.status != 0:
        raise EnrolmentError(
            "PURGE_FAILED",
            f"{name}: {answer.err[-1200:] or f'status {answer.status}'}",
            "its certificates are revoked; put right what apt says there, and give the same command"
            " again, or without --purge",
        )
