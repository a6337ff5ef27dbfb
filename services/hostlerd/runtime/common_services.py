"""Services that every daemon serves beside its own: host and bundle."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Protocol

from google.protobuf.timestamp_pb2 import Timestamp

from hostler.api.common.v1 import (
    bundle_pb2,
    bundle_pb2_grpc,
    host_pb2,
    host_pb2_grpc,
)
from hostler.core.bundle import Bundle
from hostlerd.runtime import host
from hostlerd.runtime.audit import AuditLog
from hostlerd.runtime.authz import Authorizer
from hostlerd.runtime.bundle import BundleStore
from hostlerd.runtime.changes import Blocking, Changes
from hostlerd.runtime.errors import Code, DomainError
from hostlerd.runtime.pushing import PushBundle
from hostlerd.runtime.steps import Plan

_START = time.time()
_Known = tuple[host.HostFacts, tuple[host.Capability, ...]]


class BundleNotFound(DomainError):
    """There is no bundle in force."""

    code, reason = Code.NOT_FOUND, "BUNDLE_NOT_FOUND"


class Certificate(Protocol):
    """The host's certificate, as far as HostService shows it."""

    @property
    def certificate_expire_time(self) -> datetime:
        """When it ends."""
        ...

    @property
    def authorities(self) -> Sequence[str]:
        """SHA-256, in hex, of the CAs whose callers are taken."""
        ...


class HostService(host_pb2_grpc.HostServiceServicer):  # type: ignore[misc]
    """Answers what this host is and what the daemon can do on it."""

    def __init__(
        self,
        domain: str,
        probes: Sequence[host.Probe],
        neighbours: host.Neighbourhood,
        bundles: BundleStore,
        authorizer: Authorizer,
        certificate: Certificate | None,
        blocking: Blocking,
        caller: Callable[[], str],
        audit: AuditLog,
    ) -> None:
        self._domain = domain
        self._audit = audit
        self._probes = probes
        self._neighbours = neighbours
        self._bundles = bundles
        self._authorizer = authorizer
        self._certificate = certificate
        self._blocking = blocking
        self._caller = caller
        self._looking: asyncio.Future[_Known] | None = None

    async def GetHost(self, request: host_pb2.GetHostRequest, context: Any) -> Any:
        """Get the host. Facts and capabilities are looked up once in the life of the daemon."""
        facts, capabilities = await self._known()
        neighbours = await self._blocking(self._look_around)
        bundle = self._authorizer.bundle
        certificate = self._certificate
        return host_pb2.GetHostResponse(
            host=host_pb2.Host(
                domain=self._domain,
                version=host.daemon_version(),
                hostname=facts.hostname,
                kernel_release=facts.kernel_release,
                os_name=facts.os_name,
                boot_id=facts.boot_id,
                now=_timestamp(datetime.now(UTC)),
                start_time=_timestamp(datetime.fromtimestamp(_START, UTC)),
                capabilities=[
                    host_pb2.Capability(name=c.name, available=c.available, reason=c.reason)
                    for c in capabilities
                ],
                bundle_version=bundle.version if bundle else 0,
                bundle_problem=self._bundles.problem,
                certificate_expire_time=(
                    _timestamp(certificate.certificate_expire_time) if certificate else None
                ),
                caller=self._caller(),
                audit_problem=self._audit.problem,
                neighbours=neighbours,
                authorities=certificate.authorities if certificate else (),
            )
        )

    async def _known(self) -> _Known:
        """Answer what is known of the host; all who ask before it is, wait for one look."""
        looking = self._looking
        if looking is None or (looking.done() and (looking.cancelled() or looking.exception())):
            looking = self._looking = asyncio.ensure_future(self._blocking(self._look))
        # A caller who leaves must not take the answer from the others.
        return await asyncio.shield(looking)

    def _look(self) -> _Known:
        return host.facts(), host.probe(self._probes)

    def _look_around(self) -> list[host_pb2.Neighbour]:
        return [
            host_pb2.Neighbour(
                code=each.code,
                name=each.name,
                message=each.message,
                advice=each.advice,
                conflict=each.conflict,
            )
            for each in self._neighbours()
        ]


class BundleService(bundle_pb2_grpc.BundleServiceServicer):  # type: ignore[misc]
    """Shows the bundle in force and takes newer ones."""

    def __init__(self, store: BundleStore, authorizer: Authorizer, changes: Changes) -> None:
        self._store = store
        self._authorizer = authorizer
        self._changes = changes

    async def GetBundle(self, request: bundle_pb2.GetBundleRequest, context: Any) -> Any:
        """Get the bundle in force."""
        bundle = self._authorizer.bundle
        if bundle is None:
            raise BundleNotFound("this host has no valid bundle")
        return bundle_pb2.GetBundleResponse(bundle=_bundle(bundle))

    async def PushBundle(self, request: bundle_pb2.PushBundleRequest, context: Any) -> Any:
        """Take a newer bundle."""
        data = request.signed_bundle

        def make_plan() -> Plan:
            wanted, current = self._store.check(data), self._authorizer.bundle
            before = current.sha256 if current else ""
            if wanted.sha256 == before:
                return Plan(etag=before, etag_after=before, result=wanted)
            previous = self._store.pushed()
            step = PushBundle(data, wanted.version, previous, current.version if current else 0)
            return Plan((step,), before, wanted.sha256, result=wanted)

        done = await self._changes.carry_out(request.change, make_plan)
        return bundle_pb2.PushBundleResponse(bundle=_bundle(done.plan.result), change=done.change)


def _bundle(bundle: Bundle) -> bundle_pb2.Bundle:
    shown = bundle_pb2.Bundle(
        version=bundle.version,
        sha256=bundle.sha256,
        members={
            identity: bundle_pb2.GroupList(groups=sorted(groups))
            for identity, groups in bundle.members.items()
        },
        policy_ids=[policy.id for policy in bundle.policies],
        revoked_serials=sorted(bundle.revoked),
    )
    shown.create_time.FromDatetime(bundle.created)
    return shown


def _timestamp(moment: datetime) -> Timestamp:
    stamp = Timestamp()
    stamp.FromDatetime(moment)
    return stamp
