"""The gRPC edge of deployments."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import grpc.aio

from hostler.api.common.v1 import change_pb2
from hostler.api.ssl.v1 import deployment_pb2 as pb
from hostlerd.runtime.changes import Changes, Done
from hostlerd.runtime.domain import Runtime
from hostlerd.runtime.steps import Plan
from hostlerd.ssl.kernel import pem
from hostlerd.ssl.kernel.deployments import Deployments
from hostlerd.ssl.model.deployment import Brought, Known, Listener, check, check_name
from hostlerd.ssl.model.deployment_steps import InstallTogether
from hostlerd.ssl.plan import deployment as plan
from hostlerd.ssl.service.deployment_convert import from_message, served, status

Context = grpc.aio.ServicerContext[Any, Any]


class DeploymentService:
    """Serves hostler.api.ssl.v1.DeploymentService."""

    def __init__(self, runtime: Runtime, kernel: Deployments, changes: Changes) -> None:
        self.runtime = runtime
        self.kernel = kernel
        self.changes = changes

    async def ListDeployments(
        self, request: pb.ListDeploymentsRequest, context: Context
    ) -> pb.ListDeploymentsResponse:
        """Answer the deployments with what is in place, and what is served if that is asked for."""
        answer: pb.ListDeploymentsResponse = await self.runtime.blocking(
            self._list, request.name, request.handshake
        )
        return answer

    async def ApplyDeployment(
        self, request: pb.ApplyDeploymentRequest, context: Context
    ) -> pb.ApplyDeploymentResponse:
        """Declare a deployment, or change one."""

        def make_plan() -> Plan:
            want = from_message(request.deployment)
            check(want)
            self.kernel.installer.check(want)
            return plan.apply(want, self.kernel.records.load())

        done = await self._carry_out(request.change, make_plan)
        return pb.ApplyDeploymentResponse(change=done.change)

    async def DeleteDeployment(
        self, request: pb.DeleteDeploymentRequest, context: Context
    ) -> pb.DeleteDeploymentResponse:
        """Forget a deployment; its files stay."""

        def make_plan() -> Plan:
            check_name(request.name)
            found = self.kernel.records.load().get(request.name)
            known = {request.name: self.kernel.look(found)} if found else {}
            return plan.delete(request.name, known)

        done = await self._carry_out(request.change, make_plan)
        return pb.DeleteDeploymentResponse(change=done.change)

    async def CreateSigningRequest(
        self, request: pb.CreateSigningRequestRequest, context: Context
    ) -> pb.CreateSigningRequestResponse:
        """Make a key that waits, and answer the request for it."""

        def make_plan() -> Plan:
            known = self.kernel.records.load()
            return plan.make_key(plan.get(request.name, known))

        done = await self._carry_out(request.change, make_plan)
        csr = "" if request.change.validate_only else self.kernel.last_request(request.name)
        return pb.CreateSigningRequestResponse(csr_pem=csr, change=done.change)

    async def InstallCertificate(
        self, request: pb.InstallCertificateRequest, context: Context
    ) -> pb.InstallCertificateResponse:
        """Install a certificate whose key is on the host, and see it served."""

        def make_plan() -> Plan:
            return self._plan_install(request.name, request.pem, pem.read(request.pem))

        done = await self._carry_out(request.change, make_plan)
        return pb.InstallCertificateResponse(
            served=self._served(done, request.name), change=done.change
        )

    async def InstallCertificates(
        self, request: pb.InstallCertificatesRequest, context: Context
    ) -> pb.InstallCertificatesResponse:
        """Install certificates of several deployments, and see them served."""

        def make_plan() -> Plan:
            for each in request.installs:
                check_name(each.name, "installs.name")
            plan.check_together([each.name for each in request.installs])
            return plan.install_together([self._plan_one(each) for each in request.installs])

        done = await self._carry_out(request.change, make_plan)
        names = [
            each.deployment.name
            for step in done.plan.steps
            if isinstance(step, InstallTogether)
            for each in step.installs
        ]
        return pb.InstallCertificatesResponse(served=self._served(done, *names), change=done.change)

    async def RenewDeployment(
        self, request: pb.RenewDeploymentRequest, context: Context
    ) -> pb.RenewDeploymentResponse:
        """Get a new certificate and install it."""

        def make_plan() -> Plan:
            known = self.kernel.known(request.name)
            how = plan.Renewal(request.force, request.new_key, request.obtain_only)
            return plan.renew(known, how, datetime.now(UTC))

        done = await self._carry_out(request.change, make_plan)
        installed = () if request.obtain_only else (request.name,)
        return pb.RenewDeploymentResponse(served=self._served(done, *installed), change=done.change)

    async def RevokeDeployedCertificate(
        self, request: pb.RevokeDeployedCertificateRequest, context: Context
    ) -> pb.RevokeDeployedCertificateResponse:
        """Have the ACME server revoke a certificate."""

        def make_plan() -> Plan:
            known = self.kernel.known(request.name)
            made = plan.revoke(known, request.fingerprint_sha256, request.reason)
            for step in made.steps:
                self.kernel.issued(known.deployment, getattr(step, "fingerprint_sha256", ""))
            return made

        done = await self._carry_out(request.change, make_plan)
        return pb.RevokeDeployedCertificateResponse(change=done.change)

    async def _carry_out(
        self, options: change_pb2.ChangeOptions, make_plan: Callable[[], Plan]
    ) -> Done:
        return await self.changes.carry_out(options, make_plan)

    def _plan_one(self, one: pb.BroughtCertificate) -> Plan:
        """Plan one of several installations; without PEM, of what was issued last."""
        text = one.pem or self.kernel.obtained(one.name)
        return self._plan_install(one.name, one.pem, pem.read(text, f"installs[{one.name}].pem"))

    def _plan_install(self, name: str, text: str, brought: Sequence[Brought]) -> Plan:
        """Plan an installation; what is served counts only if the certificate is in place."""
        known = self.kernel.known(name)
        if any(leaf in brought for leaf in known.placed.brought[:1]):
            known = self.kernel.known(name, handshake=True)
        return plan.install(known, text, brought)

    def _served(self, done: Done, *names: str) -> list[pb.ServedCertificate]:
        """What was served when a change had installed certificates of these deployments."""
        listeners: tuple[Listener, ...] = self.kernel.last_served(*names) if done.plan.steps else ()
        return served(listeners)

    def _list(self, name: str, handshake: bool) -> pb.ListDeploymentsResponse:
        found = self.kernel.records.load()
        if name:
            found = {name: plan.get(name, found)}
        known: list[Known] = [
            self.kernel.look(one, handshake=handshake) for _, one in sorted(found.items())
        ]
        overdue_s, now = self.kernel.settings.overdue_s, datetime.now(UTC)
        return pb.ListDeploymentsResponse(deployments=[status(k, overdue_s, now) for k in known])
