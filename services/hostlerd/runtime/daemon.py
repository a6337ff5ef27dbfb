"""A daemon: the domain's services behind relay, TLS and gate, from systemd's start to idle exit."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
from google.protobuf.descriptor import ServiceDescriptor

from hostler.api.common.v1 import (
    approval_pb2,
    approval_pb2_grpc,
    audit_pb2,
    audit_pb2_grpc,
    bundle_pb2,
    bundle_pb2_grpc,
    confirm_pb2,
    confirm_pb2_grpc,
    host_pb2,
    host_pb2_grpc,
    job_pb2,
    job_pb2_grpc,
)
from hostlerd.runtime import access, call, config, events, log
from hostlerd.runtime.approval_service import ApprovalService
from hostlerd.runtime.audit import AuditLog
from hostlerd.runtime.audit_service import AuditService
from hostlerd.runtime.authz import Authorizer
from hostlerd.runtime.bundle import BundleStore
from hostlerd.runtime.common_services import BundleService, HostService
from hostlerd.runtime.confirm_service import ConfirmService
from hostlerd.runtime.domain import BUNDLE, Domain, Runtime, Service
from hostlerd.runtime.gate import Gate, GateBounds
from hostlerd.runtime.idle import until_idle
from hostlerd.runtime.job_accept import Jobs
from hostlerd.runtime.job_service import JobService
from hostlerd.runtime.jobs import JobStore
from hostlerd.runtime.pending_door import Door
from hostlerd.runtime.pushing import BundleKernel
from hostlerd.runtime.record import Recorder
from hostlerd.runtime.relay import Limits, Relay
from hostlerd.runtime.sockets import ListenerKind, inherited
from hostlerd.runtime.tls import ServerIdentity, TlsUnusable
from hostlerd.runtime.upkeep import Keeper

_log = log.get_log("runtime.daemon")

# gRPC refuses what is so many times larger than the gate takes, with less to say; it bounds memory.
_GRPC_TIMES_LARGER = 2
_UNREAD_BYTES = 256 << 10
_CHANNEL_AGE_S = 300
_GRACE_S = 10.0
_BUNDLE_LOOK_S = 1.0
_CERTIFICATE_LOOK_S = 5.0


class Daemon:
    """All parts of a running daemon, put together."""

    def __init__(self, runtime: Runtime, domain: Domain) -> None:
        paths, bounds = runtime.paths, runtime.configuration.bounds
        self._runtime = runtime
        self._tidy = domain.tidy
        self._keeper = Keeper(runtime, domain.due, domain.upkeep)
        self._identity = _identity(paths.pki)
        self._targets = {
            ListenerKind.TCP: str(paths.run / "tls.sock"),
            ListenerKind.LOCAL: str(paths.run / "local.sock"),
        }
        limits = Limits(
            connections=bounds.connections,
            per_peer=bounds.connections_per_peer,
            addresses=runtime.configuration.management_addresses,
        )
        # Without a certificate there is no TLS to speak; root's own door stays open, and who knocks
        # by TCP waits with systemd until a later start finds the certificate put right.
        listeners = [s for s in inherited() if self._identity or s.kind is ListenerKind.LOCAL]
        self._relay = Relay(listeners, self._targets, limits, log.get_log("runtime.relay"))
        self._audit = AuditLog.of(paths, runtime.configuration, tend=True)
        services = [s.descriptor for s in domain.services] + _common_descriptors()
        methods = access.table(services)
        self._authorizer = Authorizer(runtime.domain, methods.values())
        self._bundles = BundleStore(
            paths.configuration / "bundle.json",
            paths.state / "bundle.json",
            paths.pki / "ca.pem",
            self._authorizer,
        )
        self._roots = b""
        if self._identity is not None:
            self._authorizer.trust(_roots_of(self._identity))
        runtime.guard.judge_by(self._authorizer)
        self._methods = methods
        self._jobs = JobStore(paths.state, paths.run)
        self._gate = Gate(
            methods,
            self._relay,
            self._authorizer,
            Recorder(self._audit),
            GateBounds(int(bounds.request_bytes), bounds.read_s, int(bounds.calls)),
            runtime.guard,
            Jobs(self._jobs, runtime.guard, domain.services, runtime.blocking),
            runtime,
        )
        self._server = self._make_server(domain, bounds)
        self._terminate = asyncio.Event()

    def _make_server(self, domain: Domain, bounds: config.Bounds) -> grpc.aio.Server:
        most_bytes = _GRPC_TIMES_LARGER * int(bounds.request_bytes)
        server = grpc.aio.server(
            interceptors=(self._gate,),
            # The gate counts by identity and says whose limit it is; this bounds what it counts.
            maximum_concurrent_rpcs=2 * int(bounds.calls),
            options=[
                ("grpc.so_reuseport", 0),
                ("grpc.max_receive_message_length", most_bytes),
                # As gRPC finds out how fast a link is, it lets ever more come in for each call,
                # read or not: gigabytes of memory for whoever sends much and ends nothing. A
                # message that is waited for may come in as a whole at any time.
                ("grpc.http2.bdp_probe", 0),
                ("grpc.http2.lookahead_bytes", _UNREAD_BYTES),
                ("grpc.max_connection_age_ms", self._channel_age_ms()),
                ("grpc.server_handshake_timeout_ms", 10_000),
                # Clients ping every 30 s, so that both ends notice a peer that has vanished.
                ("grpc.http2.min_recv_ping_interval_without_data_ms", 20_000),
            ],
        )
        for service in (*domain.services, *self._common_services(domain)):
            service.add(service.servicer, server)
        _add_third_party(server, [s.descriptor.full_name for s in domain.services])
        return server

    def _channel_age_ms(self) -> int:
        """A channel lives at most as long as idling takes: only then can the daemon ever idle."""
        return int(min(self._runtime.configuration.idle_s, _CHANNEL_AGE_S) * 1000)

    def _common_services(self, domain: Domain) -> tuple[Service, ...]:
        runtime = self._runtime
        bundles = runtime.changes(BundleKernel(self._bundles), BUNDLE)
        host = HostService(
            runtime.domain,
            domain.probes,
            domain.neighbours,
            self._bundles,
            self._authorizer,
            self._identity,
            runtime.blocking,
            lambda: call.current().caller.identity,
            self._audit,
        )
        audit = AuditService(self._audit, runtime.blocking)
        jobs = JobService(self._jobs, self._authorizer, self._methods, runtime.blocking)
        approvals = ApprovalService(runtime.guard, self._methods, runtime.blocking)
        door = Door(runtime.pending, runtime.reconcile)
        confirm = ConfirmService(runtime.pending, door, runtime.guard, runtime.blocking)
        bundle = BundleService(self._bundles, self._authorizer, bundles)
        return (
            _service(host_pb2, host_pb2_grpc, "HostService", host),
            _service(audit_pb2, audit_pb2_grpc, "AuditService", audit),
            _service(job_pb2, job_pb2_grpc, "JobService", jobs),
            _service(approval_pb2, approval_pb2_grpc, "ApprovalService", approvals),
            _service(confirm_pb2, confirm_pb2_grpc, "ConfirmService", confirm),
            _service(bundle_pb2, bundle_pb2_grpc, "BundleService", bundle),
        )

    async def start(self) -> None:
        """Serve on the private sockets, then let the relay accept on systemd's."""
        from systemd import daemon

        for path in self._targets.values():
            Path(path).unlink(missing_ok=True)
        self._bundles.refresh()
        # Before anybody can call: the first one sees no change that is half done.
        self._runtime.recover(self._audit, self._tidy)
        if self._identity is not None:
            tls = self._identity.credentials()
            self._server.add_secure_port(f"unix:{self._targets[ListenerKind.TCP]}", tls)
        self._server.add_insecure_port(f"unix:{self._targets[ListenerKind.LOCAL]}")
        await self._server.start()
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._terminate.set)
        self._audit.append(durable=False, kind="start", pid=os.getpid())
        self._relay.start()
        daemon.notify("READY=1")
        _log.info("ready", event=events.READY, domain=self._runtime.domain, pid=os.getpid())

    async def run(self) -> str:
        """Serve until idle or told to end; answers which."""
        watches = [
            asyncio.create_task(self._watch_bundles()),
            asyncio.create_task(self._keeper.run(self._audit)),
        ]
        if self._identity is None:
            watches.append(asyncio.create_task(self._watch_certificate()))
        try:
            why: str = await until_idle(
                self._relay,
                self._runtime.configuration.idle_s,
                self._terminate,
                busy=lambda: self._gate.busy or self._keeper.waits,
            )
            return why
        finally:
            for watch in watches:
                watch.cancel()

    async def _watch_certificate(self) -> None:
        """End as soon as there is a certificate to serve with: the next daemon serves all callers.

        Else who calls through the local socket all the time would keep the others out.
        """
        pki = self._runtime.paths.pki
        while not await self._runtime.blocking(_is_usable, pki):
            await asyncio.sleep(_CERTIFICATE_LOOK_S)
        _log.info("there is a certificate now: a new daemon takes over", path=pki)
        self._terminate.set()

    async def _watch_bundles(self) -> None:
        while True:
            await asyncio.sleep(_BUNDLE_LOOK_S)
            await self._runtime.blocking(self._look)

    def _look(self) -> None:
        self._bundles.refresh()
        if self._identity is not None:
            self._identity.refresh()
            roots, self._roots = self._roots, self._identity.roots
            if roots != self._roots:
                self._authorizer.changed()

    async def stop(self, why: str) -> None:
        """End: what is being changed is finished first, the sockets stay with systemd."""
        from systemd import daemon

        daemon.notify("STOPPING=1")
        if why == "terminated":
            # Who comes again now waits with systemd for the next daemon.
            self._relay.stop()
            self._gate.end_streams()
            await self._relay.drain(_GRACE_S)
        await self._gate.settle()
        if why == "terminated":
            await self._server.stop(0)
        self._audit.close()
        _log.info("exit", event=events.EXIT, why=why, domain=self._runtime.domain, pid=os.getpid())


def _service(messages: Any, stubs: Any, name: str, servicer: Any) -> Service:
    """Name a service by the modules that were generated for it."""
    add = getattr(stubs, f"add_{name}Servicer_to_server")
    return Service(messages.DESCRIPTOR.services_by_name[name], add, servicer)


def _identity(pki: Path) -> ServerIdentity | None:
    try:
        return ServerIdentity(pki)
    except TlsUnusable as e:
        _log.error("no TLS: only local callers are served", problem=e)
        return None


def _roots_of(identity: ServerIdentity) -> Callable[[], bytes]:
    return lambda: identity.roots


def _is_usable(pki: Path) -> bool:
    try:
        ServerIdentity(pki)
    except TlsUnusable:
        return False
    return True


def _common_descriptors() -> list[ServiceDescriptor]:
    from grpc_health.v1 import health_pb2
    from grpc_reflection.v1alpha import reflection_pb2

    return [
        host_pb2.DESCRIPTOR.services_by_name["HostService"],
        audit_pb2.DESCRIPTOR.services_by_name["AuditService"],
        bundle_pb2.DESCRIPTOR.services_by_name["BundleService"],
        job_pb2.DESCRIPTOR.services_by_name["JobService"],
        approval_pb2.DESCRIPTOR.services_by_name["ApprovalService"],
        confirm_pb2.DESCRIPTOR.services_by_name["ConfirmService"],
        health_pb2.DESCRIPTOR.services_by_name["Health"],
        reflection_pb2.DESCRIPTOR.services_by_name["ServerReflection"],
    ]


def _add_third_party(server: grpc.aio.Server, names: Sequence[str]) -> None:
    """Serve health and reflection for these services and the common ones."""
    from grpc_health.v1 import health_pb2_grpc
    from grpc_reflection.v1alpha import reflection

    from hostlerd.runtime.health import HealthService

    known = [*names, *(d.full_name for d in _common_descriptors())]
    health_pb2_grpc.add_HealthServicer_to_server(HealthService(known), server)
    reflection.enable_server_reflection(known, server)


async def serve(runtime: Runtime, domain: Domain) -> None:
    """Run a daemon from its first connection to its end."""
    daemon = Daemon(runtime, domain)
    await daemon.start()
    why = await daemon.run()
    await daemon.stop(why)
