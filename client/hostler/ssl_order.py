"""What is to be done about keys that others may know, as it is recorded for a run.

The whole of it goes to every host of the run; each does its part.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from hostler.api.ssl.v1 import authority_pb2
from hostler.channel import rpc
from hostler.fanout import fan_out
from hostler.fleet import Host
from hostler.results import CallFailed, HostError
from hostler.ssl_compromise import inventory_of, look

if TYPE_CHECKING:
    from hostler.session import Session

_SERVICE = "CertificateAuthorityService"
_AUTHORITY = rpc(authority_pb2, _SERVICE, "GetAuthority")
_ISSUED = rpc(authority_pb2, _SERVICE, "ListIssuedCertificates")
# Hosts that are looked at again, at the same time, before something is revoked.
_WINDOW = 32


@dataclass(frozen=True, slots=True)
class Order:
    """Keys to replace, and how.

    `hosts` are all that were asked, whose places count before anything is revoked; `places`, the
    hosts of each certificate by fingerprint; `unseen`, the hosts that did not tell what they have.
    `acme` are the certificates of ACME servers that are to be revoked, by host and deployment.
    """

    keys: tuple[str, ...]
    hosts: tuple[Host, ...]
    authority: Host | None = None
    profile: str = ""
    revoke: bool = True
    places: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    unseen: tuple[str, ...] = ()
    acme: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """As a record has it; `from_dict` makes it again."""
        return {
            **asdict(self),
            "hosts": [host.to_record() for host in self.hosts],
            "authority": self.authority and self.authority.to_record(),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Order:
        """Make it again. Raises KeyError, TypeError."""
        authority = values["authority"]
        return cls(
            keys=tuple(values["keys"]),
            hosts=tuple(map(Host.from_record, values["hosts"])),
            authority=None if authority is None else Host.from_record(authority),
            profile=values["profile"],
            revoke=bool(values["revoke"]),
            places={name: tuple(hosts) for name, hosts in values["places"].items()},
            unseen=tuple(values["unseen"]),
            acme={host: dict(each) for host, each in values["acme"].items()},
        )


async def in_use(
    session: Session, order: Order, fingerprints: Sequence[str]
) -> Mapping[str, tuple[str, ...]]:
    """Look at all places once more: who still uses each certificate, or may, in words.

    A host that does not answer may use what it was seen to have, and anything if it never was.
    """

    async def one(host: Host) -> Any:
        async with session.beside(host) as doors:
            return await look(doors)

    results = await fan_out(order.hosts, lambda host: host.name, one, window=_WINDOW)
    inventory = inventory_of(results)
    found: dict[str, list[str]] = {each: [] for each in fingerprints}
    for certificate in inventory.certificates:
        for use in certificate.uses if certificate.fingerprint in found else ():
            at = f" at {', '.join(use.listeners)}" if use.listeners else ""
            found[certificate.fingerprint].append(f"{use.server} on {use.host}{at} uses it")
    for host, why in inventory.silent.items():
        for fingerprint, users in found.items():
            if host in order.unseen or host in order.places.get(fingerprint, ()):
                users.append(f"{host} does not answer: {why}")
    return {each: tuple(dict.fromkeys(users)) for each, users in found.items()}


async def ask_authority(
    session: Session, keys: Sequence[str], profile: str
) -> tuple[str, frozenset[str]]:
    """Answer the profile to issue by, and the fingerprints of what was issued for the keys.

    Raises CallFailed, also if no profile is given and it is not the only one for servers.
    """
    answer = await session.call(_AUTHORITY, authority_pb2.GetAuthorityRequest())
    fitting = [each.name for each in answer.authority.profiles if "server" in each.usages]
    if profile not in fitting and (profile or len(fitting) != 1):
        what = f"no profile {profile!r}" if profile else "not one profile"
        message = f"the authority has {what} for servers; it has: {', '.join(fitting) or 'none'}"
        raise CallFailed(HostError("INVALID_ARGUMENT", "PROFILE_NOT_FOUND", message))
    issued: set[str] = set()
    for key in keys:
        request = authority_pb2.ListIssuedCertificatesRequest(spki_sha256=key)
        listed = await session.list_all(_ISSUED, request)
        issued |= {each.certificate.fingerprint_sha256 for each in listed.issued}
    return profile or fitting[0], frozenset(issued)
