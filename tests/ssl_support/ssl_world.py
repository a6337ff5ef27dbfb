"""A host with an nginx, an installer, and the service of deployments as the daemon has it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from firewall_in_place import InPlace
from journal_backing import backed
from ssl_servers import Installer, Nginx

from hostler.api.ssl.v1 import deployment_pb2 as pb
from hostlerd.ssl.kernel.deployments import Deployments, Settings
from hostlerd.ssl.kernel.installer_client import Installer as Client
from hostlerd.ssl.service.deployment import DeploymentService


class World:
    """A host with an nginx, an installer and the daemon's service, as its process has them."""

    def __init__(self, place: Path) -> None:
        self.place, self.files, self.webroot = place, place / "ssl", place / "www"
        for folder in (self.files, self.webroot, place / "responder", place / "hooks"):
            folder.mkdir()
        self.nginx, self.installer = Nginx(place, self.files), Installer(place)
        self.installer.configure(
            self.files, self.nginx, more=f'webroots = ["{self.webroot}"]', served_within_s=20
        )
        self.installer.start()

    def serve(self, roots: Path | None = None) -> None:
        """Make the service."""
        settings = Settings(self.place / "hooks", roots, self.place / "responder")
        self.kernel = Deployments(self.place / "state", Client(self.installer.socket), settings)
        runtime: Any = InPlace()
        self.service = DeploymentService(
            runtime, self.kernel, backed(self.kernel, self.place, runtime.blocking)
        )

    def deployment(self, **more: Any) -> pb.Deployment:
        """Key and full chain, served by nginx."""
        return pb.Deployment(
            name="web",
            subject_names=["a.test"],
            key=pb.DeployedFile(path=str(self.files / "key.pem")),
            full_chain=pb.DeployedFile(path=str(self.files / "full.pem")),
            servers=[
                pb.DeployedServer(
                    kind="nginx",
                    unit=self.nginx.unit,
                    listeners=[f"127.0.0.1:{self.nginx.port}"],
                )
            ],
            **more,
        )

    async def ask(self, method: str, **fields: Any) -> Any:
        """Call a method."""
        request = getattr(pb, f"{method}Request")(**fields)
        context: Any = None
        return await getattr(self.service, method)(request, context)

    async def apply(self, deployment: pb.Deployment) -> pb.ApplyDeploymentResponse:
        """Declare it."""
        answer: pb.ApplyDeploymentResponse = await self.ask(
            "ApplyDeployment", deployment=deployment
        )
        return answer
