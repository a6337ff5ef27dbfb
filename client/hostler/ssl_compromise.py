"""What keys that others may know touch on a fleet, read from the hosts' own inventories."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from hostler.api.ssl.v1 import certificate_pb2, deployment_pb2, endpoint_pb2, library_pb2
from hostler.channel import rpc
from hostler.core.ssl.by_hand import Deployed
from hostler.core.ssl.compromise import Found, Inventory, Key, Use
from hostler.core.ssl.flaws import Door, Exposed, Flaw, User, exposed
from hostler.core.ssl.place import place_words
from hostler.results import HostResult

if TYPE_CHECKING:
    from hostler.session import Session

_CERTIFICATES = rpc(certificate_pb2, "CertificateService", "ListCertificates")
_KEYS = rpc(certificate_pb2, "CertificateService", "ListKeys")
_ENDPOINTS = rpc(endpoint_pb2, "EndpointService", "ListEndpoints")
_DEPLOYMENTS = rpc(deployment_pb2, "DeploymentService", "ListDeployments")
_LIBRARIES = rpc(library_pb2, "LibraryService", "ListLibraryUsers")


async def look(session: Session) -> tuple[Any, Any, Any]:
    """Ask a host for its certificates, its keys and what it serves. Raises CallFailed."""
    return (
        await session.list_all(_CERTIFICATES, certificate_pb2.ListCertificatesRequest()),
        await session.list_all(_KEYS, certificate_pb2.ListKeysRequest()),
        await session.list_all(_ENDPOINTS, endpoint_pb2.ListEndpointsRequest(handshake=True)),
    )


async def look_deployed(session: Session) -> tuple[Any, Any]:
    """Ask a host as `look` does, and for its deployments. Raises CallFailed."""
    found = await look(session)
    return found, await session.call(_DEPLOYMENTS, deployment_pb2.ListDeploymentsRequest())


async def look_libraries(session: Session, flaw: Flaw) -> tuple[Any, Any]:
    """Ask a host as `look` does, and for who runs a library before its fix. Raises CallFailed."""
    request = library_pb2.ListLibraryUsersRequest(
        library=flaw.library, fixed_in=flaw.fixed_in, static_copies=True
    )
    return await look(session), await session.list_all(_LIBRARIES, request)


def first_of(results: Sequence[HostResult[tuple[Any, Any]]]) -> list[HostResult[Any]]:
    """What `look` answered, of results that have more."""
    return [HostResult(each.host, each.result and each.result[0], each.error) for each in results]


def deployed_of(results: Sequence[HostResult[tuple[Any, Any]]]) -> tuple[Deployed, ...]:
    """The deployments of hosts, from what `look_deployed` answered."""
    return tuple(
        Deployed(
            result.host,
            status.deployment.name,
            status.installed.fingerprint_sha256,
            status.installed.key.spki_sha256,
            status.deployment.HasField("acme"),
            status.revocable,
        )
        for result in results
        if result.result is not None
        for status in result.result[1].deployments
    )


def exposed_of(
    flaw: Flaw, results: Sequence[HostResult[tuple[Any, Any]]], inventory: Inventory
) -> Exposed:
    """Which keys a flaw exposes, from what `look_libraries` answered."""
    users: list[User] = []
    doors: list[Door] = []
    for result in results:
        if result.result is None:
            continue
        (_, _, endpoints), libraries = result.result
        for each in libraries.users:
            versions = tuple(dict.fromkeys(library.version for library in each.libraries))
            users.append(
                User(result.host, each.pid, each.comm, each.unit, each.container, versions)
            )
        for each in endpoints.endpoints:
            leaves = tuple(dict.fromkeys((*each.served[:1], *each.configured[:1])))
            doors.append(Door(result.host, each.pid, each.comm, each.unit, each.server, leaves))
    return exposed(flaw, users, doors, inventory.certificates)


def inventory_of(results: Sequence[HostResult[Any]]) -> Inventory:
    """Put the answers of hosts together; those that did not answer are named with the reason."""
    certificates: list[Found] = []
    keys: list[Key] = []
    unread: list[tuple[str, str]] = []
    silent: dict[str, str] = {}
    for result in results:
        if result.error is not None or result.result is None:
            silent[result.host] = str(result.error)
            continue
        listed, of_keys, endpoints = result.result
        served = list(endpoints.endpoints)
        for each in (*listed.certificates, *endpoints.served_certificates):
            certificates.append(_found(result.host, each, served))
        for key in of_keys.keys:
            paths = tuple(place_words(place) for place in key.places)
            if key.HasField("key"):
                keys.append(Key(result.host, key.key.spki_sha256, paths))
            else:
                unread += [(result.host, path) for path in paths]
        for file in (*listed.unreadable, *of_keys.unreadable):
            unread.append((result.host, file.path))
    return Inventory(tuple(certificates), tuple(keys), silent, tuple(dict.fromkeys(sorted(unread))))


def _found(host: str, each: Any, endpoints: Sequence[Any]) -> Found:
    serving = [e for e in endpoints if each.fingerprint_sha256 in list(e.served)[:1]]
    uses = [
        Use(host, use.server, tuple(use.listeners), tuple(use.names))
        for use in each.uses
        # A chain or a root that a server names besides is nothing that it would serve as its own.
        if each.key_places or not each.authority
    ]
    known = {listener for use in uses for listener in use.listeners}
    uses += [
        Use(host, e.server or e.comm or "a process", (e.listener,), (e.name,) if e.name else ())
        for e in serving
        if e.listener not in known
    ]
    return Found(
        host=host,
        fingerprint=each.fingerprint_sha256,
        spki=each.key.spki_sha256,
        serial=each.serial,
        issuer=each.issuer,
        names=tuple(name.value for name in each.names),
        not_before=_moment(each.not_before),
        not_after=_moment(each.not_after),
        key_here=bool(each.key_places),
        uses=tuple(dict.fromkeys(uses)),
        authority=each.authority,
        forward_secret=_forward_secret(e.negotiated for e in serving),
    )


def _forward_secret(negotiated: Iterable[str]) -> bool | None:
    """False if a client of today gets no forward secrecy; what others get is not known."""
    for words in negotiated:
        if words and "TLSv1.3" not in words and "DHE" not in words:
            return False
    return None


def _moment(timestamp: Any) -> datetime:
    return datetime.fromtimestamp(timestamp.seconds, UTC)
